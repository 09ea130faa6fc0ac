"""Batch Augmentation in Lightning's Trainer: a callback that runs the training step of every batch M times."""

from __future__ import annotations

import inspect
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.optim import LBFGS, Optimizer

from seqba.core import copies as passes_of
from seqba.core.copy_passes import CopyPass
from seqba.extras import needed
from seqba.rows.nested import own_parts
from seqba.values import number_of_copies, whole_number

needed("lightning", "seqba.integrations.lightning")

from lightning.pytorch import Callback, LightningModule, Trainer  # noqa: E402
from lightning.pytorch.loops.optimization.automatic import (  # noqa: E402
    Closure,
    ClosureResult,
    _AutomaticOptimization,
)


class BatchAugmentation(Callback):
    """Every update sees each example `copies` times, each time through other noise.

        trainer = Trainer(callbacks=[BatchAugmentation(copies=4)], accumulate_grad_batches=2, gradient_clip_val=1.0)

    An update's gradient is the mean over the copies: learning rate, schedule, number of updates, accumulation, clipping
    and precision stay what they are. `training_step` runs `copies` times for a batch, one after the other, so that
    memory stays what it is as well and a step takes `copies` times as long.

    The noise of a copy is keyed by (seed, update, micro-batch, copy, place in the model) as in
    `seqba.merged_gradient`, also where a model uses torch's own dropout: a resumed run goes on with the masks that it
    would have had, and two processes draw what one process with `accumulate_grad_batches=2` draws.

    What `training_step` does beside its loss, it does M times: see docs/lightning.md on logging.

    Args:
        copies: M, noisy views of each example; 1 keeps the gradient and keys the noise.
        seed: of the noise; None takes that of `lightning.seed_everything`, or 0 where it wasn't called.
        forked: whether copies begin inside the module, where it calls `seqba.fork`: what is below is computed once.

    Raises:
        TypeError: for arguments that aren't whole numbers.
        ValueError: for copies < 1; when training begins, for a module with manual optimization or a
            `training_step` that takes its batches itself, for LBFGS, and for a strategy that accumulates by itself
            (DeepSpeed).

    Source: Hoffer et al. 2020, section 2, the modified learning rule.
    """

    def __init__(self, copies: int = 4, seed: int | None = None, *, forked: bool = False) -> None:
        self.copies = number_of_copies(copies)
        self.forked = forked
        self.seed = None if seed is None else whole_number("seed", seed)
        self._without_copies: _AutomaticOptimization | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Puts copies into the trainer's loop, after a look for what they don't go together with."""
        if not pl_module.automatic_optimization:
            raise ValueError(
                "BatchAugmentation has no passes to repeat under manual optimization: write them in training_step, "
                "for pass_ in seqba.copies(self.trainer.strategy.model, copies, update=…)"
            )
        if any(isinstance(optimizer, LBFGS) for optimizer in trainer.optimizers):
            raise ValueError(
                "BatchAugmentation doesn't go together with LBFGS, which asks for several gradients a step"
            )
        if trainer.strategy.handles_gradient_accumulation:
            raise ValueError(
                f"BatchAugmentation doesn't go together with {type(trainer.strategy).__name__}, which counts backwards "
                "as micro-batches: take DDP or FSDP"
            )
        if "dataloader_iter" in inspect.signature(pl_module.training_step).parameters:
            raise ValueError(
                "training_step takes dataloader_iter, so that every copy would take another batch: let it take batch"
            )
        if sum(isinstance(callback, BatchAugmentation) for callback in trainer.callbacks) > 1:
            raise ValueError("the trainer has several BatchAugmentation callbacks: leave one")
        self._take_out(trainer)  # of a fit that was interrupted
        loop = trainer.fit_loop.epoch_loop
        self._without_copies = loop.automatic_optimization
        loop.automatic_optimization = CopiesOptimization(
            self._without_copies, self.copies, self._noise_seed(), forked=self.forked
        )

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Takes copies out of the trainer's loop again."""
        self._take_out(trainer)

    def _take_out(self, trainer: Trainer) -> None:
        if self._without_copies is not None:
            trainer.fit_loop.epoch_loop.automatic_optimization = self._without_copies
            self._without_copies = None

    def _noise_seed(self) -> int:
        return int(os.environ.get("PL_GLOBAL_SEED", 0)) if self.seed is None else self.seed


class CopiesOptimization(_AutomaticOptimization):
    """Lightning's automatic optimization with M passes in the place of one; all else is Lightning's own.

    Args:
        without_copies: the trainer's own, whose progress goes on here.
        copies: M.
        seed: of the noise.
        forked: whether copies begin inside the module.
    """

    def __init__(self, without_copies: _AutomaticOptimization, copies: int, seed: int, *, forked: bool) -> None:
        super().__init__(without_copies.trainer)
        self.__dict__.update(without_copies.__dict__)
        self.copies = copies
        self.seed = seed
        self.forked = forked

    def _make_closure(self, kwargs: OrderedDict[str, Any], optimizer: Optimizer, batch_idx: int) -> CopiesClosure:
        trainer = self.trainer

        def passes() -> Iterator[CopyPass]:
            ends_update = not trainer.fit_loop._should_accumulate()
            return passes_of(
                trainer.strategy.model,
                self.copies,
                update=trainer.global_step + 1,
                micro_batch=batch_idx % trainer.accumulate_grad_batches,
                seed=self.seed,
                exchange=ends_update,
                end_update=ends_update,
                forked=self.forked,
            )

        return CopiesClosure(
            passes,
            self.copies,
            step_fn=lambda: self._make_step_fn(own_parts(kwargs))(),  # what a copy changes, no other one sees
            backward_fn=self._make_backward_fn(optimizer),
            zero_grad_fn=self._make_zero_grad_fn(batch_idx, optimizer),
        )


class CopiesClosure(Closure):
    """Training step and backward of every copy of a batch; gradients are zeroed before the first backward alone.

    Args:
        passes: makes the passes of a batch; each is a context in which its noise is drawn.
        copies: M, how many passes there are.
        step_fn: runs the training step.
        backward_fn: runs the backward of a loss; None where it shall be left out.
        zero_grad_fn: zeroes the gradients; None where they are accumulated.
    """

    def __init__(
        self,
        passes: Callable[[], Iterator[CopyPass]],
        copies: int,
        *,
        step_fn: Callable[[], ClosureResult],
        backward_fn: Callable[[Tensor], None] | None,
        zero_grad_fn: Callable[[], None] | None,
    ) -> None:
        super().__init__(
            step_fn, None if backward_fn is None else lambda loss: backward_fn(loss / copies), zero_grad_fn
        )
        self._passes = passes

    def closure(self, *args: Any, **kwargs: Any) -> ClosureResult:
        """Runs the copies; the result has the mean of their losses, and all else of the last one."""
        losses: list[Tensor | None] = []
        for pass_ in self._passes():
            zero_grad = None if losses else self._zero_grad_fn
            with pass_:
                result = Closure(self._step_fn, self._backward_fn, zero_grad).closure()
            losses.append(result.loss)
        made = [loss for loss in losses if loss is not None]
        if 0 < len(made) < len(losses):
            raise ValueError("training_step returned None for some copies of a batch and a loss for others")
        if made:
            result.loss = torch.stack(made).mean()
        return result
