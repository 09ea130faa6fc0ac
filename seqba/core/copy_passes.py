"""The passes of a micro-batch one by one, for a loop that computes its losses and gradients itself."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager
from types import TracebackType

from torch import nn

from seqba.core.passes import Update
from seqba.modules.update_hooks import finish_update
from seqba.noise.fork import Trunk, check_forked
from seqba.noise.noise import Noise
from seqba.values import number_of_copies


class CopyPass:
    """The pass of one copy: a context manager for its forward and backward, to be entered once.

    Attributes:
        copy: number of the copy, from 0.
        is_last: whether it is the last of its micro-batch.
        noise: what it draws.
        was_entered: whether it has begun.
        has_failed: whether it ended by an error.
    """

    def __init__(self, update: Update, noise: Noise, *, is_last: bool, exchanges: bool) -> None:
        self.copy = noise.pass_copies[0]
        self.is_last = is_last
        self.was_entered = False
        self.has_failed = False
        self.noise = noise
        self._update = update
        self._running: AbstractContextManager[None] = update.running(noise, exchanges=exchanges)

    def __enter__(self) -> CopyPass:
        """Begins the pass."""
        self.was_entered = True
        self._running.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Ends the pass; where it failed, what modules gathered in the update is thrown away."""
        self.has_failed = True
        try:
            self._running.__exit__(kind, error, traceback)
            if kind is None:
                check_forked(self.noise)
            self.has_failed = kind is not None
        finally:
            if self.has_failed:
                finish_update(self._update.model, keep=False)


def copies(
    model: nn.Module,
    copies: int,
    *,
    update: int,
    micro_batch: int = 0,
    seed: int = 0,
    rows: int | None = None,
    exchange: bool = True,
    end_update: bool = True,
    forked: bool = False,
) -> Iterator[CopyPass]:
    """Yields a pass for each copy of a micro-batch, in which the caller computes loss and gradient.

        for pass_ in seqba.copies(model, 4, update=update):
            with pass_:
                (loss_fn(model, batch) / 4).backward()

    That is the looped plan of `merged_gradient(..., keyed=True)`, and the same gradient, where the loss is a mean over
    rows. What the model draws by torch's functions is keyed (see `seqba.keyed`).

    Args:
        model: any module. In DistributedDataParallel only the last pass exchanges gradients, and each process has
            masks of its own; FSDP exchanges in every pass.
        copies: M, at least 1.
        update: number of the update: the same (seed, update, micro_batch) draws the same masks again.
        micro_batch: number of the micro-batch within the update (on this process).
        seed: of the run.
        rows: of the batch, if they are known: draws that rows share are then shared by the copies as well, as
            `merged_gradient` has it. Otherwise any draw that has a dimension is each copy's own.
        exchange: False for a micro-batch that isn't the update's last, after which others add to the gradient.
        end_update: whether modules that gather something over an update use it after the last pass; False where
            further micro-batches follow, or where the loop calls `seqba.finish_update` itself.
        forked: whether copies begin at `seqba.fork` inside the model: what is below is computed in the first pass, and
            gets its gradient in the backward of the last one.

    Yields:
        One `CopyPass` for each copy, in order. Where one raises, what the passes before it added to `.grad` stays
        there, for the loop to clear; so it does where the loop ends before the last one, which a warning says.

    Raises:
        ValueError: if copies < 1; as `check_model`; for a model whose parameters seqba has sharded, with `forked` for
            any model of sharded parameters.
        TypeError: for an argument of another type.
        RuntimeError: for a pass that wasn't entered before the next one is asked for; with `forked` for one that
            ended without a call of `seqba.fork`.
    """
    made = Update(model, seed=seed, update=update, micro_batch=micro_batch, keyed=True, forked=forked)
    return _passes(made, number_of_copies(copies), rows, exchange=exchange, end_update=end_update)


def _passes(update: Update, copies: int, rows: int | None, *, exchange: bool, end_update: bool) -> Iterator[CopyPass]:
    trunk = Trunk(last_copy=copies - 1) if update.forked else None
    for copy in range(copies):
        noise = update.noise(0, range(copy, copy + 1), rows, trunk)
        is_last = copy == copies - 1
        pass_ = CopyPass(update, noise, is_last=is_last, exchanges=is_last and exchange)
        try:
            yield pass_
        except GeneratorExit:
            if not pass_.was_entered or pass_.has_failed or not is_last:
                _leave(update, pass_, copies)
                return
        if not pass_.was_entered:
            finish_update(update.model, keep=False)
            raise RuntimeError("a pass of seqba.copies wasn't entered: compute its loss and gradient in `with pass_:`")
        update.warnings.note(noise)
    if end_update:
        finish_update(update.model)
    update.warnings.warn(stacklevel=2)


def _leave(update: Update, latest: CopyPass, copies: int) -> None:
    """Throws away what an update has gathered whose loop ended early, and says so; a pass that failed has done that."""
    passes = latest.copy + latest.was_entered
    if passes and not latest.has_failed:
        finish_update(update.model, keep=False)
        warnings.warn(
            f"the loop over seqba.copies ended after {passes} of {copies} passes: .grad has a part of the "
            "gradient, which is to be cleared, and what modules gathered in the update is thrown away",
            stacklevel=3,
        )
