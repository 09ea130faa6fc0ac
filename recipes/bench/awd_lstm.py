"""One update of the AWD-LSTM: time, memory and share of the GEMM rate, against a plain reading of the released recipe.

    python recipes/bench/awd_lstm.py [--sizes paper] [--copies 1 10] [--rounds 5] [--device cpu] [--json FILE]

One measurement is one update: windows of 70 words in 20 streams, vocabulary 10,000, every dropout of the PTB recipe,
the state carried on, gradient clipping at 0.25 and a step of SGD. Sides, each in its own process:

    plain          plain_awd_lstm.py: M times the rows in one pass, weight noise shared by all rows, full logits
    plain, kept    the same, freed memory kept as seqba-train does: what is left is the model's and the loop's doing
    shared         seqba, all copies in one pass, weight noise shared: the same computation as plain's
    looped         seqba, one copy per pass, weight noise per copy
    stacked        seqba, all copies in one pass, weight noise per copy
    auto           seqba, as many copies per pass as memory suits, weight noise per copy

"of GEMM" is the rate of the operations that the model's products need (3 · 2 · Σ 4H(I + H) + D·V a word) over the best
rate of a single float32 product of the model's own shapes in the same run. "x plain" is the median over rounds of the
speed over plain's in the same round, "x looped" likewise, "memory" the peak of the process over plain's.

Reached on two AVX-512 cores of an AMD EPYC, nothing else running: 1.27x plain at M = 1 (0.79 of the GEMM rate) and
1.20x at M = 10 with noise per copy (0.83, with 0.27 of the memory); stacking gains no time on a CPU (0.98 to 1.02x
looped).
On a GPU (--device cuda) stacked copies are twice to five times as fast as looped ones: gpu_lstm.py.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from harness import Row, gemm_rates, median_ratio, parse_options, report, seconds, serve, take_turns
from plain_awd_lstm import PlainAWDLSTM, State, plain_loss
from torch import Tensor, nn
from workload import under_autocast

import seqba
from seqba.cli.command import run as run_command
from seqba.core import parse_plan
from seqba.models.awd_lstm import AWDLSTM
from seqba.models.config import AWDLSTMConfig
from seqba.nn import label_smoothed_cross_entropy
from seqba.nn.kernels.casts import shared_casts

STREAMS, LENGTH = 20, 70
LEARNING_RATE, CLIP_NORM = 30.0, 0.25
SIDES: dict[str, dict[str, Any]] = {
    "plain": {"model": "plain", "keep_memory": False},
    "plain, kept": {"model": "plain", "keep_memory": True},
    "shared": {"model": "seqba", "plan": "stacked", "shared": True, "keep_memory": True},
    "looped": {"model": "seqba", "plan": "looped", "shared": False, "keep_memory": True},
    "stacked": {"model": "seqba", "plan": "stacked", "shared": False, "keep_memory": True},
    "auto": {"model": "seqba", "plan": "auto", "shared": False, "keep_memory": True},
}


@dataclass(frozen=True)
class Size:
    """Layers of D → H → … → D, and the vocabulary."""

    layers: int
    embed_dim: int
    hidden_size: int
    vocabulary: int = 10_000

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(inputs, outputs) of every product of a word, but for the vocabulary's."""
        sizes = [self.embed_dim, *[self.hidden_size] * (self.layers - 1), self.embed_dim]
        return [(inputs, 4 * sizes[n + 1]) for n in range(self.layers) for inputs in (sizes[n], sizes[n + 1])]

    @property
    def flops(self) -> int:
        """Operations of a word's products, forward and backward."""
        return 3 * 2 * (sum(i * o for i, o in self.shapes) + self.embed_dim * self.vocabulary)


SIZES = {"paper": Size(3, 400, 1150), "small": Size(3, 200, 300), "tiny": Size(2, 8, 12, 50)}


def build_side(spec: Mapping[str, Any]) -> Callable[[int], Any]:
    """A child's measurement: seconds of update `number`, or the rates of single products."""
    torch.manual_seed(1)
    size, device = SIZES[spec["size"]], torch.device(spec["device"])
    if spec["model"] == "gemm":
        rows = STREAMS * LENGTH
        shapes = {*size.shapes, (size.embed_dim, size.vocabulary)}
        products = [(count, *shape) for count in (rows, spec["copies"] * rows) for shape in shapes]
        return lambda number: gemm_rates(products) if device.type == "cpu" else {}
    generator = torch.Generator().manual_seed(2)
    text = torch.randint(0, size.vocabulary, (STREAMS, LENGTH + 1), generator=generator).to(device)
    update = (plain_update if spec["model"] == "plain" else our_update)(size, spec, text)

    def timed(number: int) -> None:
        update(number)
        if device.type == "cuda":
            torch.cuda.synchronize()

    return lambda number: seconds(lambda: timed(number))


def our_update(
    size: Size, spec: Mapping[str, Any], text: Tensor, dtype: torch.dtype | None = None
) -> Callable[[int], None]:
    """An update as seqba's trainer makes it; under autocast in `dtype`, where that isn't None."""
    model = build_ours(size, weight_noise="shared" if spec["shared"] else "per-copy").to(text.device)
    step, carry, plan = descend(model), seqba.Carry(), parse_plan(spec["plan"])
    device = text.device.type

    def loss(model: nn.Module, rows: Tensor) -> tuple[Tensor, float]:
        assert isinstance(model, AWDLSTM)
        window = model.window(rows[:, :-1], carry.read())
        carry.write(window.state)
        target = rows[:, 1:].flatten()
        total, _ = label_smoothed_cross_entropy(
            window.hidden.flatten(0, 1), model.output_weight, target, bias=model.output_bias
        )
        changes = window.raw[:, 1:] - window.raw[:, :-1]
        total = total + 2 / size.embed_dim * window.hidden.square().sum()
        total = total + LENGTH / ((LENGTH - 1) * size.embed_dim) * changes.square().sum()
        return total, float(len(target))

    def update(number: int) -> None:
        with shared_casts():
            seqba.merged_gradient(
                model, text, under_autocast(loss, dtype, device), copies=spec["copies"], plan=plan, update=number
            )
        carry.commit()
        step()

    return update


def build_ours(size: Size, weight_noise: Literal["per-copy", "shared"] = "per-copy") -> AWDLSTM:
    """seqba's model of this size, with the dropouts of the PTB recipe."""
    config = AWDLSTMConfig(
        decoder_layers=size.layers,
        decoder_embed_dim=size.embed_dim,
        decoder_hidden_size=size.hidden_size,
        weight_noise=weight_noise,
    )
    return AWDLSTM(config, vocabulary=size.vocabulary)


def plain_update(size: Size, spec: Mapping[str, Any], text: Tensor) -> Callable[[int], None]:
    """An update as a plain loop makes it, on repeated rows."""
    model = PlainAWDLSTM(size.vocabulary, size.layers, size.embed_dim, size.hidden_size).to(text.device)
    step, rows = descend(model), text.repeat(spec["copies"], 1)
    state: State | None = None

    def update(number: int) -> None:
        nonlocal state
        loss, _, state = plain_loss(model, rows[:, :-1], rows[:, 1:], state)
        loss.backward()
        step()

    return update


def descend(model: nn.Module) -> Callable[[], None]:
    """Clipping, a step of SGD, and gradients gone."""
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, weight_decay=1.2e-6)

    def step() -> None:
        nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        optimizer.zero_grad()

    return step


def measure(name: str, copies: int, options: Any) -> tuple[list[Row], dict[str, float]]:
    """The rows of one size and number of copies, and the best rate of each single product."""
    common = {"size": name, "copies": copies, "threads": options.threads, "device": options.device}
    specs = {side: {**common, **SIDES[side]} for side in options.sides}
    answers, peaks = take_turns(__file__, {**specs, "gemm": {**common, "model": "gemm"}}, options.rounds)
    rates = {shape: max(round_[shape] for round_ in answers["gemm"]) for shape in answers["gemm"][0]}
    work = copies * STREAMS * LENGTH * SIZES[name].flops
    best = max(rates.values(), default=float("nan"))
    rows: list[Row] = [
        {
            "size": name,
            "copies": copies,
            "side": side,
            "s/update": statistics.median(answers[side]),
            "words/s": copies * STREAMS * LENGTH / statistics.median(answers[side]),
            "of GEMM": work / statistics.median(answers[side]) / best,
            "x plain": median_ratio(answers["plain"], answers[side]),
            "x looped": median_ratio(answers["looped"], answers[side]),
            "peak MB": peaks[side],
            "memory": peaks[side] / peaks["plain"],
        }
        for side in specs
    ]
    return rows, rates


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures each size with each number of copies."""
    options = parse_options(
        __doc__, arguments, sizes=["paper"], copies=[1, 10], rounds=5, device="cpu", sides=list(SIDES)
    )
    if options.side:
        serve(options.side, build_side)
        return 0
    if options.quick:
        options.sizes, options.copies, options.rounds = ["tiny"], [2], 1
    rows: list[Row] = []
    notes: dict[str, Any] = {}
    for name in options.sizes:
        for copies in options.copies:
            measured, rates = measure(name, copies, options)
            rows += measured
            if rates:
                shape = max(rates, key=lambda product: rates[product])
                notes[f"{name}, {copies} copies: best product {shape}, GFLOP/s"] = round(rates[shape] / 1e9, 1)
    report("One update of the AWD-LSTM", rows, options, **notes)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
