"""One update: the merged gradient of a grid, the optimizer's step along it, and the counts of both."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from seqba.core import ALONE, Group, Step, finish_update, parse_plan
from seqba.core.grid import Grid
from seqba.core.passes import Update
from seqba.errors import UserError
from seqba.nn.kernels.casts import shared_casts
from seqba.statistics import CellSplit, CellWatch
from seqba.tasks import Task
from seqba.training.agreement import GOING_ON, Status
from seqba.training.arms import GridShape
from seqba.training.batches import UpdateBatch
from seqba.training.optimisation import Optimisation
from seqba.training.options import TrainingOptions
from seqba.training.totals import Totals
from seqba.training.update_report import UpdateReport

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class UpdateRules:
    """Rules of the merged gradient that stay the same from update to update.

    Attributes:
        copies: M, the largest of a schedule; carried states are of so many.
        plan: where the copies run.
        seed: of the noise, whose key is (seed, update, micro-batch, copy).
        autocast: dtype that the forward runs in under autocast; None for no autocast.
        max_skipped_updates: so many non-finite updates in a row end the run.
        measure_every: every so many updates the variance is measured, in looped passes; 0 for never.
        forked: whether copies begin inside the model, where its `fork_at` was told.
        compared: whether the loss of a copy depends on the others.
    """

    copies: int
    plan: str
    seed: int
    autocast: torch.dtype | None = None
    max_skipped_updates: int = 10
    measure_every: int = 0
    forked: bool = False
    compared: bool = False

    @classmethod
    def of(
        cls, options: TrainingOptions, grid: GridShape, autocast: torch.dtype | None, *, compared: bool
    ) -> UpdateRules:
        """Rules of a run, from its options, the grid of its arm, and what depends on device and loss."""
        return cls(
            copies=grid.copies.most,
            plan=options.grid.plan,
            seed=options.grid.seed,
            autocast=autocast,
            max_skipped_updates=options.optimisation.max_skipped_updates,
            measure_every=options.log.measure_every,
            forked=grid.fork is not None,
            compared=compared,
        )


class Trainer(Generic[Batch]):
    """Makes updates, and counts them.

    Args:
        task: gives the loss and the weights.
        optimisation: of the model, whose weights it moves.
        rules: see `UpdateRules`.
        ranks: the processes that make the updates together, each running its cells.

    Attributes:
        model: that of the optimisation.
        device: that it is on.
        updates: steps made so far. Skipped updates don't count.
        tried: updates made or skipped so far, by which copies are scheduled; no reset of counts for the log changes it.
        skipped: updates skipped so far.
        skipped_in_a_row: updates skipped since the last step.
    """

    def __init__(self, task: Task[Batch], optimisation: Optimisation, rules: UpdateRules, ranks: Group = ALONE) -> None:
        self.task = task
        self.optimisation = optimisation
        self.model = optimisation.model
        self.rules = rules
        self.ranks = ranks
        self.updates = 0
        self.tried = 0
        self.skipped = 0
        self.skipped_in_a_row = 0
        self.device = next(self.model.parameters()).device
        self._plan = parse_plan(rules.plan)

    def update(self, batch: UpdateBatch[Batch], status: Status = GOING_ON) -> UpdateReport:
        """Makes one optimizer step on the grid of micro-batches × copies, unless the loss or gradient isn't finite.

        Args:
            batch: the micro-batches, of which this process has those with cells here, for the device of the model.
            status: of this rank; that of all ranks comes back in the report.

        Raises:
            UserError: after `max_skipped_updates` updates in a row that had to be skipped.
        """
        number = self.updates + 1
        if not self.model.training:
            self.model.train()
        step, grad_norm, split = self._merged_gradient(number, batch, status)
        unique, processed, *statuses = step.also
        lr = self.optimisation.schedule(number) * self.task.learning_rate_factor(batch.first)
        skipped = not (math.isfinite(grad_norm) and math.isfinite(step.loss))
        self._end_update(skipped=skipped)
        if skipped:
            self.optimisation.skip()
        else:
            self.optimisation.step(number, lr)
        report = UpdateReport(
            update=number,
            lr=lr,
            totals=Totals(step.loss * step.weight, step.weight, processed, step.sums),
            unique=round(unique),
            processed=round(processed),
            copies=batch.copies,
            grad_norm=grad_norm,
            clipped=not skipped and 0 < self.optimisation.clip_norm < grad_norm,
            skipped=skipped,
            status=Status.agreed(statuses, self.ranks.size),
            split=split,
        )
        self._count(report)
        return report

    def _merged_gradient(
        self, number: int, batch: UpdateBatch[Batch], status: Status
    ) -> tuple[Step, float, CellSplit | None]:
        """Fills `.grad` with the gradient of the grid, clipped.

        Returns:
            The sums of its passes, its norm before clipping, and its variance where the update is measured.
        """
        own, watch = batch.sums(self.task), self._watch(number, batch)
        weight = own.weight if self.ranks is ALONE else 1.0  # what the group divides by comes later
        update = Update(
            self.model,
            seed=self.rules.seed,
            update=number,
            ranks=self.ranks,
            forked=self.rules.forked,
            compared=self.rules.compared,
            replicated=batch.copied,
        )
        grid = Grid(
            update,
            batch,
            self.loss if watch is None else watch.watching(self.loss),
            copies=batch.copies,
            plan=self._plan if watch is None else "looped",
            backward=self.optimisation.backward(weight),
        )
        with shared_casts(enabled=not self.optimisation.is_sharded):
            step = grid.run(
                own.weight,
                end_update=False,
                also_sum=(own.unique, own.processed, *status.as_sums()),
                also_read=None if watch is not None else lambda: [self.optimisation.finish_gradient(weight)],
            )
        if watch is None:
            return step, step.read[0], None
        split = watch.split()  # of the gradient as it is before clipping
        return step, float(self.optimisation.finish_gradient(weight)), split

    def _watch(self, number: int, batch: UpdateBatch[Batch]) -> CellWatch | None:
        """Sees the gradient of each cell in an update that is measured; one of a single cell shows no variance."""
        every = self.rules.measure_every
        is_measured = every > 0 and number % every == 0 and len(batch) * batch.copies > 1
        return CellWatch(self.model) if is_measured else None

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, float, Mapping[str, Tensor]]:
        """Loss of the task, under autocast where the rules say so."""
        with torch.autocast(self.device.type, self.rules.autocast, enabled=self.rules.autocast is not None):
            return self.task.loss(model, batch)

    def state_dict(self) -> dict[str, Any]:
        """Counters, the trigger, the scale of losses, the carried state, and the plan's choice of copies per pass.

        The same grouping of copies gives the same sums to the last bit. All ranks must call it: each has a part of the
        carried state.
        """
        return {
            "updates": self.updates,
            "tried": self.tried,
            "skipped": self.skipped,
            "skipped_in_a_row": self.skipped_in_a_row,
            "copies_per_pass": self._plan.copies_per_pass,
            **self.optimisation.state_dict(),
            "carried": None if self.task.carried is None else self.task.carried.state_dict(self.ranks),
        }

    def load_state_dict(self, state: Mapping[str, Any], *, keep_plan: bool, keep_carried: bool) -> None:
        """Restores what `state_dict` returned.

        Args:
            state: what `state_dict` returned.
            keep_plan: take over the measured number of copies per pass.
            keep_carried: take over the carried state; a run that begins with the data again has none.
        """
        self.updates = int(state["updates"])
        self.skipped = int(state["skipped"])
        self.tried = int(state.get("tried", self.updates + self.skipped))  # older checkpoints don't say
        self.skipped_in_a_row = int(state["skipped_in_a_row"])
        self.optimisation.load_scaler(state)
        if keep_plan:
            self._plan.copies_per_pass = state["copies_per_pass"]
        if keep_carried and self.task.carried is not None and state.get("carried") is not None:
            self.task.carried.load_state_dict(state["carried"], copies=self.rules.copies, device=self.device)

    def _end_update(self, *, skipped: bool) -> None:
        """Keeps what the passes gathered, or left for the next update, unless the update was thrown away."""
        finish_update(self.model, keep=not skipped)
        if self.task.carried is not None:
            if skipped:
                self.task.carried.discard()
            else:
                self.task.carried.commit()

    def _count(self, report: UpdateReport) -> None:
        self.tried += 1
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
