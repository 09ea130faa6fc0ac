"""One update: the merged gradient of a grid, clipping, the learning rate, the optimizer's step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from seqba.core import grid_gradient, parse_plan
from seqba.errors import UserError
from seqba.tasks import Task
from seqba.training.device import to_device
from seqba.training.schedules import Schedule

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class UpdateReport:
    """What an update came to.

    Attributes:
        update: its 1-based number; a skipped one has the number that the next one will try again.
        lr: learning rate of the step.
        loss: mean over the grid, in nats per weight (target token, or sentence).
        nll: mean negative log-likelihood, in nats per token.
        weight: what the loss was divided by.
        tokens: distinct target tokens seen (each once, however many copies).
        processed_tokens: target tokens that passed through the model: copies × tokens.
        grad_norm: L2 norm of the merged gradient before clipping.
        clipped: whether it was scaled down.
        skipped: whether the loss or gradient was not finite, so that no step was made.
    """

    update: int
    lr: float
    loss: float
    nll: float
    weight: float
    tokens: int
    processed_tokens: int
    grad_norm: float
    clipped: bool
    skipped: bool


@dataclass(frozen=True)
class UpdateRules:
    """What stays the same from update to update.

    Attributes:
        copies: M.
        plan: where the copies run.
        seed: of the noise, whose key is (seed, update, shard, copy).
        clip_norm: largest gradient norm; 0 for no limit.
        bf16: whether the forward runs under autocast to bfloat16.
        max_skipped_updates: so many non-finite updates in a row end the run.
    """

    copies: int
    plan: str
    seed: int
    clip_norm: float = 0.0
    bf16: bool = False
    max_skipped_updates: int = 10


class Trainer(Generic[Batch]):
    """Makes updates, and counts them.

    Args:
        task: gives the loss and the weights.
        model: on the device that it trains on.
        optimizer: of the model's parameters; its learning rate is set before every step.
        schedule: learning rate of the 1-based update.
        rules: see `UpdateRules`.

    Attributes:
        updates: steps made so far. Skipped updates don't count.
        skipped: updates skipped so far.
    """

    def __init__(
        self,
        task: Task[Batch],
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
        rules: UpdateRules,
    ) -> None:
        self.task = task
        self.model = model
        self.optimizer = optimizer
        self.schedule = schedule
        self.rules = rules
        self.updates = 0
        self.skipped = 0
        self.skipped_in_a_row = 0
        self.device = next(model.parameters()).device
        self._plan = parse_plan(rules.plan)

    def update(self, shards: Sequence[Batch]) -> UpdateReport:
        """One optimizer step on the grid of these shards × copies, unless the loss or gradient isn't finite.

        Raises:
            UserError: after `max_skipped_updates` updates in a row that had to be skipped.
        """
        number = self.updates + 1
        tokens = sum(self.task.tokens(shard) for shard in shards)
        weight = self.rules.copies * sum(self.task.weight(shard) for shard in shards)
        self.model.train()
        step = grid_gradient(
            self.model,
            [to_device(shard, self.device) for shard in shards],
            self.loss,
            copies=self.rules.copies,
            weight=weight,
            plan=self._plan,
            seed=self.rules.seed,
            update=number,
        )
        grad_norm = self._clip()
        lr = self.schedule(number)
        skipped = not (math.isfinite(grad_norm) and math.isfinite(step.loss))
        if not skipped:
            self._step(lr)
        self.optimizer.zero_grad()
        report = UpdateReport(
            update=number,
            lr=lr,
            loss=step.loss,
            nll=step.extras["nll"] * weight / (self.rules.copies * tokens),
            weight=weight,
            tokens=tokens,
            processed_tokens=self.rules.copies * tokens,
            grad_norm=grad_norm,
            clipped=not skipped and 0 < self.rules.clip_norm < grad_norm,
            skipped=skipped,
        )
        self._count(report)
        return report

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, float, Mapping[str, Tensor]]:
        """The task's loss, under autocast where the rules say so."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.rules.bf16):
            return self.task.loss(model, batch)

    def state_dict(self) -> dict[str, Any]:
        """Counters, and the plan's choice: the same grouping of copies gives the same sums to the last bit."""
        return {
            "updates": self.updates,
            "skipped": self.skipped,
            "skipped_in_a_row": self.skipped_in_a_row,
            "copies_per_pass": self._plan.copies_per_pass,
        }

    def load_state_dict(self, state: Mapping[str, Any], *, keep_plan: bool) -> None:
        """Goes on from `state_dict`; `keep_plan` takes over the measured number of copies per pass."""
        self.updates = state["updates"]
        self.skipped = state["skipped"]
        self.skipped_in_a_row = state["skipped_in_a_row"]
        if keep_plan:
            self._plan.copies_per_pass = state["copies_per_pass"]

    def _clip(self) -> float:
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        if self.rules.clip_norm > 0:
            nn.utils.clip_grads_with_norm_(self.model.parameters(), self.rules.clip_norm, norm)
        return float(norm)

    def _step(self, lr: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()

    def _count(self, report: UpdateReport) -> None:
        if not report.skipped:
            self.updates = report.update
            self.skipped_in_a_row = 0
            return
        self.skipped += 1
        self.skipped_in_a_row += 1
        if self.skipped_in_a_row >= self.rules.max_skipped_updates:
            raise UserError(
                f"no finite loss and gradient for {self.skipped_in_a_row} updates in a row, number {report.update} "
                f"the last (loss {report.loss:g}, gradient norm {report.grad_norm:g}): lower --lr, lengthen "
                "--warmup-updates or add --clip-norm, and begin again with an earlier checkpoint"
            )
