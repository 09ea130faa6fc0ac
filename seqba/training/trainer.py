"""One update: the merged gradient of a grid, clipping, the learning rate, the optimizer's step."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from seqba.core import ALONE, Group, Step, finish_update, grid_gradient, parse_plan
from seqba.distributed import collective_errors, is_sharded, reshard, whole_tensor
from seqba.errors import UserError
from seqba.modules.walk import gradients_of, parameters_of
from seqba.nn.kernels.casts import shared_casts
from seqba.statistics import CellWatch
from seqba.tasks import Task
from seqba.training.agreement import GOING_ON, Status
from seqba.training.arms import Grid
from seqba.training.averages import MovingAverage, exchanged
from seqba.training.batches import UpdateBatch
from seqba.training.nt_asgd import NonMonotonicTrigger, averages_of, begin_averaging
from seqba.training.optimizers import check_optimizer_state
from seqba.training.options import TrainingOptions
from seqba.training.schedules import Schedule
from seqba.training.sharding import fit_optimizer_state
from seqba.training.totals import Totals
from seqba.training.update_report import UpdateReport

Batch = TypeVar("Batch")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class UpdateRules:
    """Rules that stay the same from update to update.

    Attributes:
        copies: M, the largest of a schedule; carried states are of so many.
        plan: where the copies run.
        seed: of the noise, whose key is (seed, update, micro-batch, copy).
        clip_norm: largest gradient norm; 0 for no limit.
        autocast: dtype that the forward runs in under autocast; None for no autocast.
        max_skipped_updates: so many non-finite updates in a row end the run.
        decay_updates: after so many updates weights don't decay any more; None for never.
        measure_every: every so many updates the variance is measured, in looped passes; 0 for never.
        forked: whether copies begin inside the model, where its `fork_at` was told.
        compared: whether the loss of a copy depends on the others.
    """

    copies: int
    plan: str
    seed: int
    clip_norm: float = 0.0
    autocast: torch.dtype | None = None
    max_skipped_updates: int = 10
    decay_updates: int | None = None
    measure_every: int = 0
    forked: bool = False
    compared: bool = False

    @classmethod
    def of(
        cls,
        options: TrainingOptions,
        grid: Grid,
        decay_updates: int | None,
        autocast: torch.dtype | None,
        *,
        compared: bool,
    ) -> UpdateRules:
        """Rules of a run, from its options, the grid of its arm, and what depends on data, device and loss."""
        return cls(
            copies=grid.copies.most,
            plan=options.grid.plan,
            seed=options.grid.seed,
            clip_norm=options.optimisation.clip_norm,
            autocast=autocast,
            max_skipped_updates=options.optimisation.max_skipped_updates,
            decay_updates=decay_updates,
            measure_every=options.log.measure_every,
            forked=grid.fork is not None,
            compared=compared,
        )


class Trainer(Generic[Batch]):
    """Makes updates, and counts them.

    Args:
        task: gives the loss and the weights.
        model: on the device that it trains on; its parameters may be sharded over the ranks.
        optimizer: of the model's parameters; its learning rate is set before every step.
        schedule: learning rate of the 1-based update.
        rules: see `UpdateRules`.
        trigger: says when the optimizer begins to average the weights (NT-ASGD); None for never.
        ranks: the processes that make the updates together, each running its cells.
        scaler: scales losses up for passes in float16, and gradients down again; None for no scaling.
        average: exponential moving average of the weights; None for none.

    Attributes:
        updates: steps made so far. Skipped updates don't count.
        tried: updates made or skipped so far, by which copies are scheduled; no reset of counts for the log changes it.
        skipped: updates skipped so far.
        is_sharded: whether each rank has a part of the weights, and of what the optimizer keeps for them.
    """

    def __init__(
        self,
        task: Task[Batch],
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
        rules: UpdateRules,
        trigger: NonMonotonicTrigger | None = None,
        ranks: Group = ALONE,
        scaler: torch.amp.GradScaler | None = None,
        average: MovingAverage | None = None,
    ) -> None:
        self.task = task
        self.model = model
        self.optimizer = optimizer
        self.schedule = schedule
        self.rules = rules
        self.trigger = trigger
        self.ranks = ranks
        self.scaler = scaler
        self.average = average
        self.updates = 0
        self.tried = 0
        self.skipped = 0
        self.skipped_in_a_row = 0
        self.device = next(model.parameters()).device
        self.is_sharded = is_sharded(model)
        self._plan = parse_plan(rules.plan)

    def update(self, batch: UpdateBatch[Batch], status: Status = GOING_ON) -> UpdateReport:
        """Makes one optimizer step on the grid of micro-batches × copies, unless the loss or gradient isn't finite.

        Args:
            batch: the micro-batches, of which this process has those with cells here, for the device of the model.
            status: of this rank; that of all ranks comes back in the report.

        Raises:
            UserError: after `max_skipped_updates` updates in a row that had to be skipped.
        """
        number, own = self.updates + 1, batch.sums(self.task)
        lift = _power_of_two_at(own.weight) if self.ranks is ALONE else 1.0  # what the group divides by comes later
        if not self.model.training:
            self.model.train()
        watch = self._watch(number, batch)
        with shared_casts(enabled=not self.is_sharded):
            step = grid_gradient(
                self.model,
                batch,
                self.loss if watch is None else watch.watching(self.loss),
                copies=batch.copies,
                weight=own.weight,
                plan=self._plan if watch is None else "looped",
                seed=self.rules.seed,
                update=number,
                ranks=self.ranks,
                also_sum=(own.unique, own.processed, *status.as_sums()),
                also_read=None if watch is not None else lambda: [self._finish_gradient(lift)],
                end_update=False,
                backward=None if self.scaler is None else partial(self._scaled_backward, self.scaler, lift),
                replicated=batch.copied,
                forked=self.rules.forked,
                compared=self.rules.compared,
            )
        unique, processed, *statuses = step.also
        split = None if watch is None else watch.split()
        grad_norm = step.read[0] if watch is None else float(self._finish_gradient(lift))
        lr = self.schedule(number) * self.task.learning_rate_factor(batch.first)
        skipped = not (math.isfinite(grad_norm) and math.isfinite(step.loss))
        if not skipped:
            self._step(number, lr)
        if self.scaler is not None:
            self.scaler.update()
        self.optimizer.zero_grad()
        self._end_update(skipped=skipped)
        if self.average is not None and not skipped:
            self.average.update(number)
        report = UpdateReport(
            update=number,
            lr=lr,
            totals=_totals(step, processed),
            unique=round(unique),
            processed=round(processed),
            copies=batch.copies,
            grad_norm=grad_norm,
            clipped=not skipped and 0 < self.rules.clip_norm < grad_norm,
            skipped=skipped,
            status=Status.agreed(statuses, self.ranks.size),
            split=split,
        )
        self._count(report)
        return report

    def _watch(self, number: int, batch: UpdateBatch[Batch]) -> CellWatch | None:
        """Sees the gradient of each cell in an update that is measured; one of a single cell shows no variance."""
        every = self.rules.measure_every
        is_measured = every > 0 and number % every == 0 and len(batch) * batch.copies > 1
        return CellWatch(self.model) if is_measured else None

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, float, Mapping[str, Tensor]]:
        """Loss of the task, under autocast where the rules say so."""
        with torch.autocast(self.device.type, self.rules.autocast, enabled=self.rules.autocast is not None):
            return self.task.loss(model, batch)

    def observe(self, loss: float) -> None:
        """Records a validation's loss; where the trigger says so, the optimizer averages from now on."""
        if self.trigger is not None and self.trigger.observe(loss):
            self.optimizer = begin_averaging(self.optimizer)
            logger.info("averaging the weights from update %d on", self.updates + 1)

    @contextmanager
    def averaged_weights(self) -> Iterator[bool]:
        """Exchanges the weights for their averages inside, where there are any; yields whether there are."""
        pairs = averages_of(self.optimizer) if self.average is None else self.average.pairs()
        try:
            with exchanged(pairs):
                yield bool(pairs)
        finally:
            reshard(self.model)

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
            "trigger": None if self.trigger is None else self.trigger.state_dict(),
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
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
        if self.scaler is not None and state.get("scaler") is not None:
            self.scaler.load_state_dict(state["scaler"])
        if keep_plan:
            self._plan.copies_per_pass = state["copies_per_pass"]
        if keep_carried and self.task.carried is not None and state.get("carried") is not None:
            self.task.carried.load_state_dict(state["carried"], copies=self.rules.copies, device=self.device)

    def load_optimizer(self, state: Mapping[str, Any], trigger: Mapping[str, Any] | None) -> None:
        """Restores the state that an optimizer of the same kind kept for the weights, and that of its trigger.

        Nothing else of it: learning rate, betas and decay are this command's, not those of the one that wrote the file.

        Raises:
            ValueError: for a state that isn't that of this model's weights.
        """
        if self.trigger is not None and trigger is not None:
            self.trigger.load_state_dict(trigger)
            if self.trigger.has_fired:
                self.optimizer = begin_averaging(self.optimizer)
        fitting = fit_optimizer_state(self.optimizer, state)
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": fitting})
        check_optimizer_state(self.optimizer)

    def _end_update(self, *, skipped: bool) -> None:
        """Keeps what the passes gathered, or left for the next update, unless the update was thrown away."""
        finish_update(self.model, keep=not skipped)
        if self.task.carried is not None:
            if skipped:
                self.task.carried.discard()
            else:
                self.task.carried.commit()

    def _scaled_backward(self, scaler: torch.amp.GradScaler, lift: float, loss: Tensor) -> None:
        """Backward of a loss that is scaled as a sum over tokens: as a mean, its gradients would underflow."""
        scaler.scale(loss * lift).backward()  # type: ignore[no-untyped-call]

    def _unscale(self, scaler: torch.amp.GradScaler, lift: float) -> None:
        scaler.unscale_(self.optimizer)
        torch._foreach_div_(gradients_of(self.model), lift)

    def _finish_gradient(self, lift: float) -> Tensor:
        """Undoes the scaling of losses, and clips; returns the norm before that, 0-dim, which no one has waited for."""
        if self.scaler is not None:
            self._unscale(self.scaler, lift)
        return self._clip()

    def _clip(self) -> Tensor:
        """Scales gradients down where their norm is too large; returns the norm before that, 0-dim."""
        gradients = gradients_of(self.model)
        if self.is_sharded:
            with collective_errors():
                norm = whole_tensor(nn.utils.get_total_norm(gradients))
        else:
            norm = nn.utils.get_total_norm(gradients)
        if self.rules.clip_norm > 0:
            nn.utils.clip_grads_with_norm_(parameters_of(self.model), self.rules.clip_norm, norm)
        return norm

    def _step(self, number: int, lr: float) -> None:
        last = self.rules.decay_updates
        for group in self.optimizer.param_groups:
            group["lr"] = lr
            if last is not None and number > last:
                group["weight_decay"] = 0.0
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)

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


def _power_of_two_at(weight: float) -> float:
    """The power of two nearest to a weight: multiplying by it rounds nothing."""
    return float(2.0 ** round(math.log2(weight)))


def _totals(step: Step, processed: float) -> Totals:
    """Sums of an update."""
    return Totals(step.loss * step.weight, step.weight, processed, step.sums)
