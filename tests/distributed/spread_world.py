"""A few processes that make the same updates in groups of every size, and what they come to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from seqba.core import compare_copies, grid_gradient, merged_gradient
from seqba.distributed import Ranks
from seqba.nn import Dropout, GhostBatchNorm2d, WeightDropout

SIZES = (1, 2, 3, 4)
COPIES = 3
MICRO_BATCHES = 2
UPDATES = 3
COMPARISONS = (("stacked", 1), ("looped", 1), ("stacked", MICRO_BATCHES), (2, 3))
"""Plans and numbers of micro-batches of updates whose loss compares copies."""


class Network(nn.Module):
    """Every kind of noise, batch statistics, a weight that few cells reach and one that none does."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.never = nn.Parameter(torch.ones(5))  # these two first: their messages, the last to leave, wait for the end
        self.rare = nn.Parameter(torch.ones(5))
        self.conv = nn.Conv2d(1, 3, 3)
        self.norm = GhostBatchNorm2d(3, 2)
        self.dropout = Dropout(0.3)
        self.linear = nn.Linear(3 * 4, 5, bias=False)
        self.weight_dropout = WeightDropout(0.5)

    def forward(self, x: Tensor, rare: bool) -> Tensor:
        hidden = self.dropout(self.norm(self.conv(x)).relu()).flatten(1)
        kept = self.weight_dropout(self.linear.weight)
        assert kept is not None
        rows = hidden.view(len(kept), -1, hidden.shape[1])
        out = torch.bmm(rows, (self.linear.weight * kept).transpose(1, 2)).flatten(0, 1)
        return out * self.rare if rare else out


def micro_batch(update: int, number: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(10 * update + number)
    rows = 2 + 2 * number  # micro-batches of different weights
    return torch.randn(rows, 1, 4, 4, generator=generator, dtype=torch.float64), torch.arange(rows) % 5


class MicroBatches:
    """Micro-batches that are made when they are asked for, and remember which were."""

    def __init__(self, update: int) -> None:
        self.update = update
        self.asked: list[int] = []

    def __len__(self) -> int:
        return MICRO_BATCHES

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        if number >= MICRO_BATCHES:
            raise IndexError
        self.asked.append(number)
        return micro_batch(self.update, number)


def loss_fn(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, float, dict[str, Tensor]]:
    x, labels = batch
    logits = model(x, rare=int(labels.max()) > 1)  # the second micro-batch alone
    losses = nn.functional.cross_entropy(logits, labels, reduction="none")
    return losses.sum(), float(len(labels)), {"largest": losses.detach().sum() * 2}


def mean_loss_fn(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    x, labels = batch
    return nn.functional.cross_entropy(model(x, rare=False), labels)


def train(ranks: Ranks | None, plan: Any) -> dict[str, Any]:
    """A few updates of a grid: losses, weights, buffers, and which micro-batches were read."""
    model = Network().double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    steps, asked = [], []
    for update in range(1, UPDATES + 1):
        micro_batches = MicroBatches(update)
        cells = (Ranks(0, 1) if ranks is None else ranks).cells(MICRO_BATCHES, COPIES)
        weight = float(sum(len(copies) * (2 + 2 * number) for number, copies in cells))
        step = grid_gradient(
            model, micro_batches, loss_fn, copies=COPIES, weight=weight, plan=plan, seed=1, update=update, ranks=ranks
        )
        optimizer.step()
        optimizer.zero_grad()
        steps.append((step.loss, step.weight, step.sums["largest"]))
        asked.append(micro_batches.asked)
    return {"state": model.state_dict(), "steps": steps, "asked": asked, "never": model.never.grad is None}


def accumulate(ranks: Ranks | None) -> dict[str, Any]:
    """Two batches added up before one step, with means for losses."""
    model = Network().double()
    for number in range(2):
        merged_gradient(
            model, micro_batch(1, number), mean_loss_fn, copies=4, update=1, micro_batch=number, ranks=ranks
        )
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def ordinary_masks(ranks: Ranks | None) -> dict[str, Any]:
    """What torch's own dropout leaves of ones, of each copy that runs here, and whether its generator is as it was."""
    torch.manual_seed(0)  # as people do on every rank, to have the same weights
    model, masks = nn.Sequential(nn.Linear(1, 1), nn.Dropout(0.5)), []
    before = torch.get_rng_state()

    def loss(model: nn.Module, ones: Tensor) -> Tensor:
        dropped: Tensor = model[1](ones)  # type: ignore[index]
        masks.append(dropped.flatten().tolist())
        return (dropped * model[0].weight).mean()  # type: ignore[index]

    merged_gradient(model, torch.ones(64, 1), loss, copies=4, plan="looped", ranks=ranks)
    return {"masks": masks, "untouched": torch.equal(before, torch.get_rng_state())}


def spread(logits: Tensor, scale: Tensor, *, copies: int) -> Tensor:
    """Summed variance of the copies' logits, times something that is trained."""
    return (logits * scale).view(copies, -1, logits.shape[1]).var(0).sum()


def comparing_loss_fn(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, float, dict[str, Tensor]]:
    logits = model(batch[0], rare=False)
    losses = nn.functional.cross_entropy(logits, batch[1], reduction="none")
    term = compare_copies(spread, logits, model.rare)
    return losses.sum() + term, float(len(losses)), {"spread": term.detach()}


def compare(ranks: Ranks | None, plan: Any, micro_batches: int) -> dict[str, Any]:
    """The gradient, loss and spread of an update whose loss compares copies, in ranks that may have no cell."""
    model = Network().double()
    cells = (Ranks(0, 1) if ranks is None else ranks).cells(micro_batches, COPIES)
    step = grid_gradient(
        model,
        [micro_batch(1, number) for number in range(micro_batches)],
        comparing_loss_fn,
        copies=COPIES,
        weight=float(sum(len(copies) * (2 + 2 * number) for number, copies in cells)),
        plan=plan,
        update=1,
        ranks=ranks,
        compared=True,
    )
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if name != "never"}
    return {"gradients": gradients, "metrics": (step.loss, step.weight, step.sums["spread"])}


def everything(ranks: Ranks) -> dict[str, Any]:
    """What each of the tests looks at."""
    results = {
        "train": train(ranks, "looped"),
        "stacked": train(ranks, "stacked"),
        "accumulate": accumulate(ranks),
        "ordinary": ordinary_masks(ranks),
        "compared": {f"{number} {plan}": compare(ranks, plan, number) for plan, number in COMPARISONS},
    }
    with patch("seqba.distributed.all_reduce.BUCKET_BYTES", 100):  # several messages
        results["late"] = train(ranks, "looped")
        results["early"] = train(replace(ranks, overlap=True), "looped")
    return results
