"""The merged gradient for loops of one's own: over the copies of a batch, or over all micro-batches of an update."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TypeVar

from torch import nn

from seqba.core.accumulator import AlsoRead, Step
from seqba.core.grid import Backward, Grid, LossFunction
from seqba.core.passes import Update
from seqba.core.plan import PlanLike
from seqba.group import Group

Batch = TypeVar("Batch")


def merged_gradient(
    model: nn.Module,
    batch: Batch,
    loss_fn: LossFunction[Batch],
    *,
    copies: int,
    plan: PlanLike = "auto",
    seed: int = 0,
    update: int = 0,
    micro_batch: int = 0,
    ranks: Group | None = None,
    end_update: bool = True,
    replicated: bool = False,
    keyed: bool = False,
    forked: bool = False,
    compared: bool = False,
    backward: Backward | None = None,
    shard: int | None = None,
) -> Step:
    """Adds to every parameter's `.grad` the mean gradient over `copies` noisy views of one batch.

        .grad += 1/Σw · Σ_m ∇ loss_m        (m = 1..M, each copy through its own noise)

    Args:
        model: any module. Ordinary dropout draws per row, hence per copy, from the global generator (on several ranks
            from one that each pass seeds). What seqba's own modules draw is keyed, and with `keyed` what all others
            draw, so that the gradient doesn't depend on the plan. Wrappers (`torch.compile`, DistributedDataParallel,
            FSDP, activation checkpointing) change no draw.
        batch: nested tensors with B rows on dimension 0 (see `replicate`).
        loss_fn: `loss_fn(model, batch)` → the mean over rows (0-dim tensor), or (sum, weight), or (sum, weight, further
            sums to report). A weight may not depend on the noise.
        copies: M, noisy views of each example; 1 is an ordinary step, bit for bit where there is no dropout.
        plan: "auto", "stacked", "looped", a number of copies per pass, or a `Plan`. What "auto" measures is remembered
            for the model, from call to call; a loop whose batches differ much keeps a `Plan` for each kind.
        seed: of the run.
        update: number of this update. **Pass it**: the same (seed, update, micro-batch) draws the same masks again.
        micro_batch: number of this batch within the update, when several are added up before one optimizer step.
        ranks: the processes that share the copies (`seqba.Ranks.of()` under torchrun); each calls with the same batch,
            runs its part of the copies, and ends with the gradient of all of them. None for this process alone, and
            for a model in DistributedDataParallel or FSDP: there each process has rows of its own, whose draws are its
            own (micro-batch s of rank r is keyed as micro-batch s·R + r), and the wrapper means the gradients, once a
            call.
        end_update: whether modules that gather something over an update (running statistics of `GhostBatchNorm2d`) use
            it now. False for a loop that decides about the step afterwards, and then calls `finish_update` itself.
        replicated: whether `batch` holds M·B rows already, copy after copy, as a loader with `RepeatingBatchSampler`
            makes them: every copy with its own random transforms.
        keyed: whether the passes run under `seqba.keyed(model)`, so that the gradient of any model, not only of one
            made of seqba's modules, is the same in every plan.
        forked: whether copies begin inside the model, where it calls `seqba.fork`: it sees every row once, the loss
            the rows of the copies (`seqba.per_copy` repeats its targets).
        compared: whether the loss function compares copies, by `seqba.compare_copies`. Where not all copies of a batch
            are in one pass, each runs forward twice then. Passes seed torch's own generators for it, so that ordinary
            dropout repeats its masks as well.
        backward: called with the loss of each pass in place of its `.backward()`: `accelerator.backward`, or
            `lambda loss: scaler.scale(loss).backward()`. What it multiplies the loss by, gradients are multiplied by.
        shard: the former name of `micro_batch`, which is taken with a warning.

    Returns:
        The mean loss and the weight; under DistributedDataParallel or FSDP, those of this process's rows.

    Raises:
        ValueError: for a batch whose rows can't be told (see `replicate`), copies < 1, more ranks than copies, `ranks`
            beside a wrapper that takes means itself, an unknown plan, a loss that isn't a 0-dim tensor, or a weight
            that isn't positive or changes between copies; with `forked` for a replicated batch; with `forked` or
            `compared` for sharded parameters.
        RuntimeError: with `forked` where nothing calls `seqba.fork`, and as `seqba.fork`; with `compared` where
            nothing calls `seqba.compare_copies`, and as that.
        TypeError: for an argument, a loss or a weight of another type.

    Whatever is raised, also by the model or the loss function, `.grad` is afterwards what it was before: a loop may
    skip the batch. (Where gradients were there already, they are copied for that.) What ordinary modules keep on the
    side, running statistics of batch normalisation say, isn't taken back; nor are the gradients of earlier passes that
    FSDP holds itself while it is told not to exchange them (`set_requires_gradient_sync(False)`, `no_sync`).

    Source: Hoffer et al. 2020, section 2, the modified learning rule.
    """
    if shard is not None:
        warnings.warn("shard= is called micro_batch= now", DeprecationWarning, stacklevel=2)
        micro_batch = shard
    made = Update(
        model,
        seed=seed,
        update=update,
        micro_batch=micro_batch,
        ranks=ranks,
        keyed=keyed,
        forked=forked,
        compared=compared,
        replicated=replicated,
    )
    grid = Grid(made, [batch], loss_fn, copies=copies, plan=plan, backward=backward)
    made.group.check(1, grid.copies)
    made.warnings.note_labels(batch, 1 if forked else copies, replicated=replicated)
    return grid.run(weight=None, end_update=end_update)


def grid_gradient(
    model: nn.Module,
    micro_batches: Sequence[Batch],
    loss_fn: LossFunction[Batch],
    *,
    copies: int,
    weight: float,
    plan: PlanLike = "auto",
    seed: int = 0,
    update: int = 0,
    ranks: Group | None = None,
    also_sum: Sequence[float] = (),
    also_read: AlsoRead | None = None,
    end_update: bool = True,
    replicated: bool = False,
    keyed: bool = False,
    forked: bool = False,
    compared: bool = False,
    backward: Backward | None = None,
) -> Step:
    """`merged_gradient` over S micro-batches at once: the mean is over the whole grid of S × M cells.

        .grad += 1/weight · Σ_s Σ_m ∇ (summed loss of cell (s, m))

    Args:
        model: as in `merged_gradient`.
        micro_batches: S batches of distinct examples; micro-batch s is keyed by its place in this sequence. With
            `ranks` only those that have a cell here are asked for.
        loss_fn: as in `merged_gradient`, returning (sum, weight) or (sum, weight, further sums).
        copies: M.
        weight: of the whole grid, M × Σ_s weight of micro-batch s (of replicated batches Σ_s of all their rows), known
            beforehand: dividing by it is the only division. With `ranks`, of the cells of this rank alone (0 where it
            has none): weights are added up in the same all-reduce as the gradients, and divided by then.
        plan: as in `merged_gradient`.
        seed: of the run.
        update: number of the update.
        ranks: the processes among which the cells are dealt; None for this process alone, and as in `merged_gradient`
            for a wrapped model. One without a cell runs a pass whose outcome is thrown away: an epoch's last update may
            be that small.
        also_sum: numbers of this process that shall be added up over the ranks in the same message.
        also_read: called once the gradient is finished, for 0-dim tensors whose values shall be read together with the
            loss: a host waits for a GPU each time. It may change the gradient (clip it, say).
        end_update: as in `merged_gradient`.
        replicated: as in `merged_gradient`; copies may have different weights here.
        keyed: as in `merged_gradient`.
        forked: as in `merged_gradient`.
        compared: as in `merged_gradient`.
        backward: as in `merged_gradient`.

    Where this raises, what modules gathered is thrown away, and `.grad` is what it was before.

    Returns:
        The mean loss over the grid and the weight.

    Raises:
        ValueError: as `merged_gradient`, and if the weights that come out don't add up to `weight`, or are 0 on all
            ranks.
        TypeError: as `merged_gradient`.
    """
    if not weight > 0 and not (ranks is not None and weight == 0):
        raise ValueError(f"the grid's weight is {weight}; it must be positive")
    made = Update(
        model,
        seed=seed,
        update=update,
        ranks=ranks,
        keyed=keyed,
        forked=forked,
        compared=compared,
        replicated=replicated,
    )
    grid = Grid(made, micro_batches, loss_fn, copies=copies, plan=plan, backward=backward)
    return grid.run(weight, end_update=end_update, also_sum=also_sum, also_read=also_read)
