"""Losses of training in bfloat16 beside those in float32, over several seeds.

    python recipes/bench/bfloat16_losses.py [--models transformer lstm resnet8] [--updates 200] [--seeds 3]

Toy tasks that are learned in a few hundred updates. With two copies of every example and dropout: sentences of 4 to 12
words turned round by a Transformer (2+2 layers of 64), and a text of words that follow from the two before by an LSTM
of 360 units (large enough for the kernels of the paper's size). With one copy, as it draws no noise: stripes of five
widths in two directions by ResNet8. The figure of a run is its mean loss, nats a token or picture, over the last tenth
of its updates. "noise" is the standard deviation over the seeds in float32; "difference" is the mean over seeds of
bfloat16's loss minus float32's of the same seed, which has the same weights to begin with, batches and masks.

Expectation: the difference is within the noise.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from typing import Any

import images
import torch
from harness import Row, parse_options, report
from torch import Tensor, nn
from workload import Size, build_ours, fused_loss, shifted, under_autocast

import seqba
from seqba.cli.command import run as run_command
from seqba.data.dictionary import Dictionary
from seqba.data.pairs import PairBatch
from seqba.models.awd_lstm import AWDLSTM
from seqba.models.config import AWDLSTMConfig
from seqba.nn import label_smoothed_cross_entropy
from seqba.nn.kernels.casts import shared_casts

WORDS, FIRST = 40, 4
COPIES = {"transformer": 2, "lstm": 2, "resnet8": 1}
Task = tuple[nn.Module, Callable[[torch.Generator], Any], Callable[..., tuple[Tensor, float]], float]


def reversal() -> Task:
    """Sentences turned round."""

    def draw(generator: torch.Generator) -> PairBatch:
        length = int(torch.randint(4, 13, (), generator=generator))
        words = torch.randint(FIRST, WORDS, (32, length), generator=generator)
        end = torch.full((32, 1), Dictionary.eos)
        target = torch.cat([words.flip(1), end], 1)
        return PairBatch(torch.arange(32), torch.cat([words, end], 1), shifted(target), target)

    return build_ours(Size(2, 64, 256, 4), vocabulary=WORDS), draw, fused_loss, 1e-3


def text() -> Task:
    """Words that follow from the two before, one in five drawn at random."""

    def draw(generator: torch.Generator) -> Tensor:
        rows = torch.randint(0, WORDS, (16, 21), generator=generator)
        follows = torch.rand(rows.shape, generator=generator) > 0.2
        for time in range(2, rows.shape[1]):
            next_word = (rows[:, time - 1] + rows[:, time - 2]) % WORDS
            rows[:, time] = torch.where(follows[:, time], next_word, rows[:, time])
        return rows

    def loss(model: nn.Module, rows: Tensor) -> tuple[Tensor, float]:
        assert isinstance(model, AWDLSTM)
        hidden, target = model.window(rows[:, :-1]).hidden.flatten(0, 1), rows[:, 1:].flatten()
        total, _ = label_smoothed_cross_entropy(hidden, model.output_weight, target, bias=model.output_bias)
        return total, float(len(target))

    config = AWDLSTMConfig(decoder_layers=2, decoder_embed_dim=360, decoder_hidden_size=360, dropout=0.1)
    return AWDLSTM(config, vocabulary=WORDS), draw, loss, 2e-3


def stripes() -> Task:
    """Stripes of five widths in two directions under noise."""

    def draw(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        labels = torch.randint(0, images.CLASSES, (32,), generator=generator)
        waves = torch.sin(torch.arange(32) * (labels % 5 + 1).unsqueeze(1) * 0.3)  # (32, 32)
        flat = torch.where((labels < 5).view(-1, 1, 1), waves.unsqueeze(1), waves.unsqueeze(2)).unsqueeze(1)
        return flat + 2 * torch.randn(32, 3, 32, 32, generator=generator), labels

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, float]:
        return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="sum"), float(len(batch[1]))

    return images.network("resnet8"), draw, loss, 1e-3


TASKS = {"transformer": reversal, "lstm": text, "resnet8": stripes}


def final_loss(name: str, seed: int, updates: int, dtype: torch.dtype | None) -> float:
    """Mean loss over the last tenth of a run."""
    torch.manual_seed(seed)
    model, draw, loss, lr = TASKS[name]()
    optimizer = torch.optim.Adam(model.train().parameters(), lr=lr)
    generator, losses = torch.Generator().manual_seed(seed), []
    for number in range(updates):
        with shared_casts():
            step = seqba.merged_gradient(
                model,
                draw(generator),
                under_autocast(loss, dtype),
                copies=COPIES[name],
                plan="looped",
                seed=seed,
                update=number,
            )
        optimizer.step()
        optimizer.zero_grad()
        losses.append(step.loss)
    return statistics.mean(losses[-max(1, updates // 10) :])


def measure(name: str, seeds: int, updates: int) -> Row:
    """The row of one model."""
    runs = [
        [final_loss(name, seed, updates, dtype) for seed in range(1, seeds + 1)] for dtype in (None, torch.bfloat16)
    ]
    differences = [narrow - wide for wide, narrow in zip(*runs, strict=True)]
    return {
        "model": name,
        "float32": statistics.mean(runs[0]),
        "noise": statistics.stdev(runs[0]),
        "bfloat16": statistics.mean(runs[1]),
        "difference": f"{statistics.mean(differences):+.4f}",
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains every model with every seed in both dtypes."""
    options = parse_options(__doc__, arguments, models=list(TASKS), updates=200, seeds=3)
    torch.set_num_threads(options.threads)
    if options.quick:
        options.models, options.updates, options.seeds = ["transformer"], 2, 2
    rows = [measure(name, options.seeds, options.updates) for name in options.models]
    report(f"Losses after {options.updates} updates", rows, options)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
