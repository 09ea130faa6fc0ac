"""What the fused loss saves: peak memory of an update at base, vocabulary 32,000, four copies stacked.

    python recipes/bench/loss_memory.py [--size base] [--vocabulary 32000] [--copies 4] [--json FILE]

Two sides, one after the other, each in its own process: the same model, the same 4,096-token batch of Multi30k's
lengths, all copies in one pass, gradients and Adam's step:

    fused       label_smoothed_cross_entropy: logits exist a chunk at a time
    logits      F.cross_entropy of hidden @ weight.T: logits, their log-softmax and their gradient exist at once

"memory" is the peak of the process over that of "logits", "time" the second update's over that of "logits". The four
copies at base need 19 GB in the side without the fused loss: use fewer (--copies 1) on a smaller machine.

Reached on two AVX-512 cores: 9.8 GB against 19.3, 0.51 of the memory; the time of that run was disturbed by others.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from harness import Row, parse_options, report, seconds, serve, take_turns
from workload import SIZES, SMOOTHING, build_ours, fused_loss, training_batches

from seqba import merged_gradient
from seqba.cli.command import run as run_command
from seqba.data.dictionary import Dictionary
from seqba.data.pairs import PairBatch
from seqba.models.transformer import Transformer
from seqba.training.optimizers import build_optimizer
from seqba.training.options import OptimisationOptions


def plain_loss(model: torch.nn.Module, batch: PairBatch) -> tuple[torch.Tensor, float]:
    """The same loss as `fused_loss`, with the logits of all tokens. Torch smooths over V words, fairseq over V - 1."""
    assert isinstance(model, Transformer)
    target = batch.target[batch.target != Dictionary.pad]
    logits = torch.nn.functional.linear(model.features(batch.source, batch.previous), model.output_weight)
    words = logits.shape[1]
    smoothing = SMOOTHING * words / (words - 1)
    loss = torch.nn.functional.cross_entropy(logits, target, label_smoothing=smoothing, reduction="sum")
    return loss, float(len(target))


LOSSES = {"logits": plain_loss, "fused": fused_loss}


def build_side(spec: Mapping[str, Any]) -> Callable[[int], float]:
    """A child's measurement: seconds of an update."""
    torch.manual_seed(1)
    model = build_ours(SIZES[spec["size"]], vocabulary=spec["vocabulary"]).train()
    (batch,) = training_batches(1, max_tokens=spec["max_tokens"], vocabulary=spec["vocabulary"])
    optimizer = build_optimizer(model.parameters(), OptimisationOptions())
    loss_fn, copies = LOSSES[spec["loss"]], spec["copies"]

    def update(number: int) -> None:
        merged_gradient(model, batch, loss_fn, copies=copies, plan="stacked", update=number)
        optimizer.step()
        optimizer.zero_grad()

    return lambda number: seconds(lambda: update(number))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures both sides."""
    options = parse_options(__doc__, arguments, size="base", vocabulary=32_000, copies=4, max_tokens=4096)
    if options.side:
        serve(options.side, build_side)
        return 0
    if options.quick:
        options.size, options.vocabulary, options.copies, options.max_tokens = "tiny", 500, 2, 256
    spec = {name: getattr(options, name) for name in ("size", "vocabulary", "copies", "max_tokens", "threads")}
    times, peaks = {}, {}
    for loss in LOSSES:
        # Not in turns: together they need more memory than many a machine has.
        answers, peak = take_turns(__file__, {loss: {**spec, "loss": loss, "keep_memory": True}}, rounds=1)
        times[loss], peaks[loss] = answers[loss][0], peak[loss]
    rows: list[Row] = [
        {
            "loss": loss,
            "peak MB": peaks[loss],
            "memory": peaks[loss] / peaks["logits"],
            "s/update": times[loss],
            "time": times[loss] / times["logits"],
        }
        for loss in LOSSES
    ]
    report("Peak memory with and without the fused loss", rows, options)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
