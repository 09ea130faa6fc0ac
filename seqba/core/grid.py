"""The grid of one update: its cells, the passes that they run in, and the sums that these add up to."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from seqba.core.accumulator import Accumulator, AlsoRead, Step
from seqba.core.cells import Cells
from seqba.core.comparing import divided_micro_batches, exchange_rows
from seqba.core.passes import Update
from seqba.core.plan import Pass, PlanLike, plan_for
from seqba.group import ALONE, Exchange, Group
from seqba.modules.gradients import GradientsBefore, has_gradient
from seqba.modules.update_hooks import discarding_pending, finish_update
from seqba.modules.wrappers import Replicas
from seqba.noise.compare import Comparison, check_compared
from seqba.noise.fork import Trunk, check_forked
from seqba.noise.noise import Noise
from seqba.noise.telling import warn_of_equal_copies
from seqba.rows.nested import count_rows
from seqba.runtime.activations import SavedBytes
from seqba.values import Loss, described

Batch = TypeVar("Batch")
LossFunction = Callable[[nn.Module, Batch], Loss]
Backward = Callable[[Tensor], object]
Planned = tuple[Comparison | None, Iterable[Pass]]
"""The passes of a micro-batch, and what they compare."""


class Grid:
    """Runs the passes of one update's cells.

    Args:
        update: what the passes have in common.
        cells: all of the grid's; which of them are this process's, `group` says.
        loss_fn: of the model and the rows of a pass.
        plan: how cells are grouped into passes.
        group: the processes that share the cells.
        backward: computes the gradient of a pass's loss; None for the loss's own.

    Attributes:
        drew_noise: whether any pass that has run drew noise.
    """

    def __init__(
        self,
        update: Update,
        cells: Cells[Any],
        loss_fn: LossFunction[Any],
        plan: PlanLike,
        group: Group,
        backward: Backward | None,
    ) -> None:
        if not callable(loss_fn):
            raise TypeError(f"loss_fn must be a function of model and batch, not {described(loss_fn)}")
        if backward is not None and not callable(backward):
            raise TypeError(f"backward must be a function of a loss, not {described(backward)}")
        group.check_model(update.model)
        if group is not ALONE and update.replicas != Replicas():
            raise ValueError(
                "the model is wrapped to take means over processes (DistributedDataParallel, FSDP), which ranks= would "
                "take again: pass the model itself (model.module) with ranks=, or leave ranks= out"
            )
        self.update = update
        self.model = update.model
        self.cells = cells
        self.loss_fn = loss_fn
        self.plan = plan_for(update.model, plan)
        self.group = group
        self.backward = backward
        self.exchange: Exchange = ALONE
        self.drew_noise = False
        self._quiet: list[tuple[Pass, torch.Tensor]] = []  # passes that drew nothing, with their losses
        self._has_told_rows = False

    def run(
        self,
        weight: float | None,
        *,
        end_update: bool,
        also_sum: Sequence[float] = (),
        also_read: AlsoRead | None = None,
    ) -> Step:
        """Runs the passes, and adds up and divides what they made."""
        before = GradientsBefore(self.model, set_aside=self.group is not ALONE)
        try:
            self.exchange = self.group.exchange(self.model)
            own_cells = self.group.cells(len(self.cells.micro_batches), self.cells.copies)
            sums = self._run_until_it_fits(own_cells, weight, before)
            step = sums.step(self.model, self.exchange, also_sum, also_read)
        except BaseException:
            finish_update(self.model, keep=False)
            before.restore()
            raise
        before.add()
        if end_update:
            finish_update(self.model, keep=math.isfinite(step.loss))
        self._tell_of_equal_copies()
        return step

    def _tell_of_equal_copies(self) -> None:
        """Warns where several copies came out alike: one pass of them drew nothing, or passes have the same loss."""
        if self.cells.replicated or not self._quiet:
            return
        first, _ = max(self._quiet, key=lambda each: len(each[0].copies))
        losses = [
            loss
            for pass_, loss in self._quiet
            if (pass_.micro_batch, len(pass_.copies)) == (first.micro_batch, len(first.copies))
        ]
        if len(losses) * len(first.copies) > 1 and all(torch.equal(losses[0], loss) for loss in losses[1:]):
            warn_of_equal_copies(self.model)

    def _run_until_it_fits(
        self, cells: Sequence[tuple[int, range]], weight: float | None, before: GradientsBefore
    ) -> Accumulator:
        """Runs the passes, from the beginning again with smaller ones where memory ran out."""
        while True:
            try:
                return self._run_passes(cells, weight)
            except _OutOfMemory as error:
                if self.exchange.has_begun or self._has_told_rows:
                    raise error.cause from None  # a part of the gradient has been sent, or rows that are compared
            finish_update(self.model, keep=False)
            before.begin_again()

    def _run_passes(self, cells: Sequence[tuple[int, range]], weight: float | None) -> Accumulator:
        sums = Accumulator(weight, sum(len(copies) for _, copies in cells), self.group)
        self.drew_noise, self._quiet = False, []
        for _ in range(self._dummy_passes(cells)):
            self._run_dummy(cells, sums)
        shared = self._compare_shared(dict(cells)) if self.update.compared else {}
        for micro_batch, copies in cells:
            if not copies:
                continue
            batch = self.cells.batch(micro_batch)
            comparison, passes = shared.get(micro_batch) or self._compare(micro_batch, copies)
            trunk = self._trunk(copies)
            for pass_ in passes:
                is_last = (micro_batch, pass_.copies.stop) == (cells[-1][0], cells[-1][1].stop)
                self._run_pass(pass_, batch, sums, trunk, comparison, is_last=is_last)
        return sums

    def _compare(self, micro_batch: int, copies: range, *, is_shared: bool = False) -> Planned:
        """The passes of some copies, with what they compare; where one pass hasn't all copies, a first look at it.

        Args:
            micro_batch: whose copies they are.
            copies: that run here.
            is_shared: whether others run on other processes.
        """
        passes = self._passes(micro_batch, copies)
        if not self.update.compared:
            return None, passes
        comparison, planned = Comparison(self.cells.copies), list(passes)
        if planned and (is_shared or len(planned) > 1):
            batch, trunk = self.cells.batch(micro_batch), self._trunk(copies)
            with comparison.looking(), discarding_pending(self.model), torch.no_grad():
                for pass_ in planned:
                    self._look(pass_, batch, trunk, comparison)
        return comparison, planned

    def _compare_shared(self, own: dict[int, range]) -> dict[int, Planned]:
        """`_compare` for the micro-batches whose copies run on several processes, which tell each other the rows."""
        numbers = divided_micro_batches(self.group, len(self.cells.micro_batches), self.cells.copies)
        found = {number: self._compare(number, own.get(number, range(0)), is_shared=True) for number in numbers}
        if found:
            self._has_told_rows = True
            comparisons = [comparison for comparison, _ in found.values() if comparison is not None]
            exchange_rows(comparisons, self.group, next(self.model.parameters()).device)
        return found

    def _look(self, pass_: Pass, batch: Any, trunk: Trunk | None, comparison: Comparison) -> None:
        """The forward of a pass that is to run again, for the rows that its copies compare."""
        rows, noise = self._rows_and_noise(pass_, batch, trunk, comparison)
        try:
            with self.update.running(noise, exchanges=False):
                loss = self.loss_fn(self.model, rows)
        except torch.OutOfMemoryError as error:
            if not self.plan.shrink(pass_):
                raise
            raise _OutOfMemory(error) from error
        check_compared(comparison, loss)

    def _trunk(self, copies: range) -> Trunk | None:
        """What the passes of some copies of a micro-batch have in common."""
        return Trunk(last_copy=copies.stop - 1) if self.update.forked else None

    def _passes(self, micro_batch: int, copies: range) -> Iterator[Pass]:
        """The passes of some copies, each planned when it is asked for: by then the plan may have measured."""
        first = copies.start
        while first < copies.stop:
            pass_ = self.plan.next_pass(micro_batch, first, copies.stop)
            yield pass_
            first = pass_.copies.stop

    def _dummy_passes(self, cells: Sequence[tuple[int, range]]) -> int:
        """How many dummy passes this rank runs, whose outcome counts nowhere.

        One where it has no cell, to know what the loss function reports; with sharded parameters, whose every pass is a
        conversation, as many as the rank with the most passes has more.
        """
        if not self.group.passes_together(self.model):
            return 0 if not cells or any(copies for _, copies in cells) else 1
        size = len(self.cells.micro_batches), self.cells.copies
        dealt = (self.group.cells(*size, rank) for rank in range(self.group.size))
        return max(map(self._count_passes, dealt)) - self._count_passes(cells)

    def _count_passes(self, cells: Sequence[tuple[int, range]]) -> int:
        return sum(1 for micro_batch, copies in cells for _ in self._passes(micro_batch, copies))

    def _run_dummy(self, cells: Sequence[tuple[int, range]], sums: Accumulator) -> None:
        """A pass of this rank's first cell, or of another rank's, whose outcome counts nowhere.

        It comes before the others: what it carries over, the cell's own pass carries over as well.
        """
        micro_batch, copies = cells[0]
        one = Pass(micro_batch, range(copies.start, copies.start + 1))
        comparison = Comparison(self.cells.copies) if self.update.compared else None
        batch, trunk = self.cells.batch(micro_batch), self._trunk(one.copies)
        rows, noise = self._rows_and_noise(one, batch, trunk, comparison)
        looking = nullcontext() if comparison is None else comparison.looking()
        with looking, discarding_pending(self.model), self.update.running(noise, exchanges=True):
            nothing = sums.add_dummy(self.loss_fn(self.model, rows))
            nothing.backward()  # type: ignore[no-untyped-call]

    def _run_pass(
        self,
        pass_: Pass,
        batch: Any,
        sums: Accumulator,
        trunk: Trunk | None,
        comparison: Comparison | None,
        *,
        is_last: bool,
    ) -> None:
        rows, noise = self._rows_and_noise(pass_, batch, trunk, comparison)
        saved = SavedBytes(self.model) if self.plan.needs_measuring(self.cells.copies) else None
        if saved and trunk:
            trunk.weigh = saved.so_far
        try:
            with ExitStack() as stack:
                stack.enter_context(self.update.running(noise, exchanges=is_last))
                if is_last:
                    stack.enter_context(self.exchange.last_backward())
                with saved.counting() if saved else nullcontext():
                    loss = self.loss_fn(self.model, rows)
                if trunk:
                    check_forked(noise)
                if comparison:
                    check_compared(comparison, loss)
                scaled = sums.add(loss, len(pass_.copies))
                if saved:
                    shared = trunk.saved_bytes if trunk else 0
                    self.plan.measured(saved.total - shared, scaled.device, shared_bytes=shared)
                self._run_backward(scaled)
        except torch.OutOfMemoryError as error:
            if (is_last and self.update.replicas.synchronised) or not self.plan.shrink(pass_):
                raise  # other processes have a part of the last pass's gradient, or nothing smaller is left
            raise _OutOfMemory(error) from error
        self.drew_noise = self.drew_noise or noise.draws > 0
        if not noise.draws and not noise.drew_ordinary:
            self._quiet.append((pass_, scaled.detach()))

    def _run_backward(self, loss: torch.Tensor) -> None:
        if self.backward is None:
            loss.backward()  # type: ignore[no-untyped-call]
            return
        self.backward(loss)
        if not has_gradient(self.model):
            raise ValueError(
                "backward= was called with the loss and left no gradient: call .backward() in it, as "
                "lambda loss: scaler.scale(loss).backward() does"
            )

    def _rows_and_noise(
        self, pass_: Pass, batch: Any, trunk: Trunk | None, comparison: Comparison | None
    ) -> tuple[Any, Noise]:
        """What a pass of some copies of a batch sees, and what it draws from."""
        rows = self.cells.rows(batch, pass_.copies)
        counted = count_rows(rows) if self.update.keys_draws and self.cells.copies > 1 else None
        noise = self.update.noise(
            pass_.micro_batch,
            pass_.copies,
            counted,
            trunk,
            copies_differ=self.cells.replicated,
            comparison=comparison,
        )
        return rows, noise


def checked_group(ranks: Group | None) -> Group:
    """The processes that share an update: this one alone for None.

    Raises:
        TypeError: for what isn't a group.
    """
    if ranks is not None and not isinstance(ranks, Group):
        raise TypeError(f"ranks must be a seqba.Ranks (Ranks.of()), not {described(ranks)}")
    return ALONE if ranks is None else ranks


class _OutOfMemory(Exception):
    """Memory ran out and the plan has a smaller pass to offer."""

    def __init__(self, cause: torch.OutOfMemoryError) -> None:
        super().__init__()
        self.cause = cause
