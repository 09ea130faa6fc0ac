"""The grid of one update: its cells, the passes that they run in, what these see, and the sums that they add up to."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from seqba.core.accumulator import Accumulator, AlsoRead, Step
from seqba.core.passes import Update
from seqba.core.plan import PlanLike, plan_for
from seqba.group import ALONE, Exchange, divided_micro_batches
from seqba.modules.gradients import GradientsBefore, is_looked_at, unchanged_gradients
from seqba.modules.update_hooks import discarding_pending, finish_update
from seqba.modules.walk import device_of, gradients_of
from seqba.noise.compare import Comparison, check_compared, exchange_rows
from seqba.noise.fork import Trunk, check_forked
from seqba.noise.noise import Noise
from seqba.rows.nested import count_rows, own_parts
from seqba.rows.replicate import repeated, select_copies
from seqba.values import Loss, checked_batches, described, number_of_copies

Batch = TypeVar("Batch")
LossFunction = Callable[[nn.Module, Batch], Loss]
Backward = Callable[[Tensor], object]
Cells = Sequence[tuple[int, range]]
"""Those of a process: for each of its micro-batches, in order, which copies."""


class MicroBatch(Generic[Batch]):
    """A micro-batch of an update, as passes of its copies on this process see it.

    Args:
        update: that it is of.
        number: its place in the update, from 0.
        batch: of distinct examples, or of the rows of all M copies; its rows are checked here, alike for looped and for
            stacked copies.
        own: the copies that run on this process.
        copies: M.

    Attributes:
        number: its place in the update.
        comparison: what is compared between its copies, in an update whose loss does that.
        trunk: what its passes have in common below the fork, in an update that forks.

    Raises:
        TypeError, ValueError: for rows that can't be repeated (see `replicate`).
    """

    def __init__(self, update: Update, number: int, batch: Batch, own: range, copies: int) -> None:
        if copies > 1 and not update.forked and not update.replicated:
            count_rows(batch)
        self.number = number
        self.comparison = Comparison(copies) if update.compared else None
        self._update = update
        self._batch = batch
        self._last_copy = own.stop - 1
        self._copies = copies
        self.begin()

    def begin(self) -> None:
        """Forgets what earlier passes have computed below the fork: those of a look made no graph."""
        self.trunk = Trunk(self._last_copy) if self._update.forked else None

    def pass_of(self, some: range) -> tuple[Batch, Noise]:
        """What a pass of some copies sees, rows copy-major, and what it draws from."""
        update = self._update
        rows = self._batch
        # What a model changes in place (features that it masks, a label that it pops), no other pass shall see.
        if update.replicated:
            rows = own_parts(select_copies(rows, some, self._copies))
        elif self._copies > 1:
            rows = repeated(rows, 1 if update.forked else len(some))
        counted = count_rows(rows) if update.keys_draws and self._copies > 1 else None
        return rows, update.noise(self.number, some, counted, self.trunk, self.comparison)


Planned = tuple[MicroBatch[Batch], Iterable[range]]
"""A micro-batch, with what is compared between its copies, and the copies of each of their passes."""


class Grid(Generic[Batch]):
    """Runs the passes of one update's cells: S micro-batches × M copies.

    Args:
        update: what the passes have in common.
        micro_batches: S; which of their cells are this process's, the group of the update says.
        loss_fn: of the model and the rows of a pass.
        copies: M.
        plan: how cells are grouped into passes.
        backward: computes the gradient of a pass's loss; None for the loss's own.
    """

    def __init__(
        self,
        update: Update,
        micro_batches: Sequence[Batch],
        loss_fn: LossFunction[Batch],
        *,
        copies: int,
        plan: PlanLike,
        backward: Backward | None,
    ) -> None:
        if not callable(loss_fn):
            raise TypeError(f"loss_fn must be a function of model and batch, not {described(loss_fn)}")
        if backward is not None and not callable(backward):
            raise TypeError(f"backward must be a function of a loss, not {described(backward)}")
        self.update = update
        self.model = update.model
        self.group = update.group
        self.micro_batches = checked_batches(micro_batches)
        self.copies = number_of_copies(copies)
        self.loss_fn = loss_fn
        self.plan = plan_for(update.model, plan, is_sharded=update.is_sharded)
        self.backward = backward
        self._exchange: Exchange = ALONE
        moves_gradients = bool(update.replicas.synchronised) or update.is_sharded  # in a forward
        self._is_looked_at = not moves_gradients and is_looked_at(self.model, loss_fn)
        self._has_sent = False  # what other processes wait for, so that passes can't begin again
        self._tried = range(0)  # copies of the pass that is being computed

    def run(
        self,
        weight: float | None,
        *,
        end_update: bool,
        also_sum: Sequence[float] = (),
        also_read: AlsoRead | None = None,
    ) -> Step:
        """Runs the passes, and adds up and divides what they made.

        Args:
            weight: of the whole grid, or with a group of this process's cells; None where the first pass says it.
            end_update: whether modules use now what they gathered in the passes.
            also_sum: numbers of this process that are added up over the group in the same message.
            also_read: called once the gradient is finished, for 0-dim tensors that are read together with the loss.
        """
        before = GradientsBefore(self.model, set_aside=self.group is not ALONE)
        try:
            self._exchange = self.group.exchange(self.model)
            sums = self._run_until_it_fits(weight, before)
            step = sums.step(self.model, self._exchange, also_sum, also_read)
        except BaseException:
            finish_update(self.model, keep=False)
            before.restore()
            raise
        before.add()
        if end_update:
            finish_update(self.model, keep=math.isfinite(step.loss))
        self.update.warnings.warn(stacklevel=3)
        return step

    def _run_until_it_fits(self, weight: float | None, before: GradientsBefore) -> Accumulator:
        """Runs the passes, from the beginning again with smaller ones where memory ran out."""
        while True:
            self._tried = range(0)
            try:
                return self._run_passes(weight)
            except torch.OutOfMemoryError:
                if not self.plan.shrink(self._tried) or self._has_sent or self._exchange.has_begun:
                    raise
            finish_update(self.model, keep=False)
            before.begin_again()

    def _run_passes(self, weight: float | None) -> Accumulator:
        cells = self.group.cells(len(self.micro_batches), self.copies)
        sums = Accumulator(weight, sum(len(copies) for _, copies in cells), self.group)
        self._run_dummies(cells, sums)
        for micro_batch, copies in self._passes(cells):
            is_last = (micro_batch.number, copies.stop) == (cells[-1][0], cells[-1][1].stop)
            self._run_pass(micro_batch, copies, sums, is_last=is_last)
        return sums

    def _passes(self, cells: Cells) -> Iterator[tuple[MicroBatch[Batch], range]]:
        """The passes of this process: a micro-batch, and which copies of it."""
        divided = self._plan_divided(dict(cells)) if self.update.compared else {}
        for number, copies in (cell for cell in cells if cell[1]):
            micro_batch, passes = divided.get(number) or self._plan_passes(number, copies)
            yield from ((micro_batch, some) for some in passes)

    def _run_pass(self, micro_batch: MicroBatch[Batch], copies: range, sums: Accumulator, *, is_last: bool) -> None:
        self._has_sent = self._has_sent or (is_last and bool(self.update.replicas.synchronised))
        last_backward = self._exchange.last_backward() if is_last else nullcontext()
        plan, trunk = self.plan, micro_batch.trunk
        measuring = plan.measuring(self.model, trunk, self.copies) if plan.is_auto else nullcontext()
        with self._running(micro_batch, copies, exchanges=is_last) as (rows, noise), last_backward:
            with measuring:
                loss = self._loss(rows, noise)
            scaled = sums.add(loss, len(copies))
            if self._is_looked_at and self.group is not ALONE:
                self.update.warnings.note_reach(scaled)
            self._run_backward(scaled, is_last=is_last)
        self.update.warnings.note(noise, scaled, is_mean=isinstance(loss, Tensor))

    def _loss(self, rows: Batch, noise: Noise) -> Loss:
        """The forward of a pass, which must have done what the update says of it."""
        with unchanged_gradients(self.model, self.loss_fn) if self._is_looked_at else nullcontext():
            loss = self.loss_fn(self.model, rows)
        if noise.trunk:
            check_forked(noise)
        if noise.comparison:
            check_compared(noise.comparison, loss)
        return loss

    def _run_backward(self, loss: Tensor, *, is_last: bool) -> None:
        if self.backward is None:
            loss.backward()  # type: ignore[no-untyped-call]
            return
        self.backward(loss)
        if is_last and not gradients_of(self.model):  # those below a fork come with the last pass
            raise ValueError(
                "backward= was called with the loss and left no gradient: call .backward() in it, as "
                "lambda loss: scaler.scale(loss).backward() does"
            )

    @contextmanager
    def _running(
        self, micro_batch: MicroBatch[Batch], copies: range, *, exchanges: bool
    ) -> Iterator[tuple[Batch, Noise]]:
        """Inside runs a pass of some copies on its rows; memory that runs out there may suffice for smaller passes."""
        self._tried = copies
        rows, noise = micro_batch.pass_of(copies)
        with self.update.running(noise, exchanges=exchanges):
            yield rows, noise
        self._tried = range(0)

    def _plan_passes(self, number: int, copies: range) -> Planned[Batch]:
        """The passes of some copies of a micro-batch, and what they compare.

        Where a loss compares copies, and not all are in one pass, each pass runs forward here, without a graph: a look
        at the rows that it compares.
        """
        micro_batch = MicroBatch(self.update, number, self.micro_batches[number], copies, self.copies)
        comparison = micro_batch.comparison
        if comparison is None:
            return micro_batch, self.plan.passes(copies)
        passes = list(self.plan.passes(copies))
        if any(len(some) < self.copies for some in passes):
            with comparison.looking(), discarding_pending(self.model), torch.no_grad():
                for some in passes:
                    with self._running(micro_batch, some, exchanges=False) as (rows, noise):
                        self._loss(rows, noise)
            torch.clear_autocast_cache()  # torch 2.6 takes weights that were cast without a graph into the next forward
            micro_batch.begin()
        return micro_batch, passes

    def _plan_divided(self, own: dict[int, range]) -> dict[int, Planned[Batch]]:
        """`_plan_passes` for micro-batches whose copies run on several processes, which tell each other the rows."""
        numbers = divided_micro_batches(self.group, len(self.micro_batches), self.copies)
        found = {number: self._plan_passes(number, own[number]) for number in numbers if own.get(number)}
        if numbers:
            self._has_sent = True
            own_rows = {number: micro_batch.comparison for number, (micro_batch, _) in found.items()}
            comparisons = (own_rows.get(number) or Comparison(self.copies) for number in numbers)
            exchange_rows(list(comparisons), self.group, device_of(self.model))
        return found

    def _run_dummies(self, cells: Cells, sums: Accumulator) -> None:
        """Passes of this rank's first cell, or of another rank's, whose outcome counts nowhere.

        They come before the others: what they carry over, the cell's own pass carries over as well.
        """
        for _ in range(self._number_of_dummies(cells)):
            number, copies = cells[0]
            one = range(copies.start, copies.start + 1)
            micro_batch = MicroBatch(self.update, number, self.micro_batches[number], one, self.copies)
            looking = nullcontext() if micro_batch.comparison is None else micro_batch.comparison.looking()
            rows, noise = micro_batch.pass_of(one)
            with looking, discarding_pending(self.model), self.update.running(noise, exchanges=True):
                nothing = sums.add_dummy(self._loss(rows, noise))
                nothing.backward()  # type: ignore[no-untyped-call]

    def _number_of_dummies(self, cells: Cells) -> int:
        """How many dummy passes this rank runs.

        One where it has no cell, to know what the loss function reports; with sharded parameters, whose every pass is a
        conversation, as many as the rank with the most passes has more.
        """
        if not self.group.passes_together(self.model):
            return 0 if not cells or any(copies for _, copies in cells) else 1
        size = len(self.micro_batches), self.copies
        dealt = (self.group.cells(*size, rank) for rank in range(self.group.size))
        return max(map(self._count_passes, dealt)) - self._count_passes(cells)

    def _count_passes(self, cells: Cells) -> int:
        return sum(1 for _, copies in cells for _ in self.plan.passes(copies))
