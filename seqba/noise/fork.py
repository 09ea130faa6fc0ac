"""Copies that begin inside the network: one view of each example below the fork, M above it.

Below the fork noise is keyed by `ALL_COPIES` and rows are computed once for a micro-batch, whatever passes its copies
run in; above it every copy has noise of its own. Where copies run one after the other, all start from the same
detached leaf, whose gradients add up, and the last pass takes their sum down through what is below.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from seqba.noise.context import current_noise
from seqba.noise.noise import Noise
from seqba.noise.sites import Place
from seqba.rows.nested import map_rows
from seqba.rows.replicate import repeat_rows, repeated

Value = TypeVar("Value")


def fork(below: Any, *inputs: Any) -> Any:
    """The point of a forward pass from which on there are M copies of every row; below it there is one.

        hidden = seqba.fork(self.encoder, source)       # (B, ...) computed once → (k·B, ...) for k copies in the pass

    A model calls it at one place, in an update with `forked=True`. What is below then has one noisy view of each
    example, the same for all copies (its noise is keyed by `ALL_COPIES` in the copy's place), and is computed once
    for a micro-batch, also where its copies run one after the other. Gradients of the copies add up at the fork, so
    that the update's gradient is still the mean over copies:

        1/M · Σ_m ∇ loss(above_m(below(x))),   at the cost of f + M·(1 − f) passes, f being the share of what is below

    Its variance is S_b/B + S_below/B + S_above/(M·B): noise that is below isn't averaged.

    Args:
        below: the function (a module, a method) that computes what is below; or its value, which is then computed in
            every pass and used from the first: right in every plan, but dearer than the function in all but `stacked`.
        inputs: of the function.

    Returns:
        The value, of any nesting that `replicate` takes, with the rows of every tensor once for each copy of the pass,
        copy-major; tensors may have different numbers of rows (tokens without padding, say). Nothing else of what is
        below may be used above: a tensor that is needed there as well belongs into the value. Outside an update (plain
        loops, evaluation) the value itself.

    Raises:
        RuntimeError: in an update without `forked=True`, whose rows are copies from the beginning; at a second call in
            a pass; or where activation checkpointing recomputes it: checkpoint what is below and what is above apart.
        TypeError: for a value whose rows can't be known (see `replicate`), or inputs beside a value.

    Source: Hoffer et al. 2020, section 2 (copies "in a given layer"); at the last dropouts, multi-sample dropout
    (Inoue 2019, arXiv 1905.09788).
    """
    if not callable(below) and inputs:
        raise TypeError(f"seqba.fork takes inputs beside a function, not beside a {type(below).__name__}")
    noise = current_noise()
    compute: Callable[[], Any] = functools.partial(below, *inputs) if callable(below) else lambda: below
    if noise is None:
        return compute()
    if noise.trunk is None:
        raise RuntimeError(
            "seqba.fork was called in an update whose rows are copies from the beginning: pass forked=True to what "
            "makes the update (merged_gradient, copies, batch_augmented, BatchAugmentation)"
        )
    return noise.trunk.fork(noise, compute)


def copies_at_fork() -> int:
    """How many times `seqba.fork` repeats rows in the current pass; 1 where rows are copies from the beginning."""
    noise = current_noise()
    return 1 if noise is None or noise.trunk is None else len(noise.pass_copies)


def per_copy(batch: Value) -> Value:
    """Rows of a batch once for each copy in the pass, as `fork` repeats them: targets, masks, what is read above.

        target = seqba.per_copy(batch.target)     # (B, ...) → (k·B, ...)

    Args:
        batch: any nesting that `replicate` takes.

    Returns:
        The same nesting with k·B rows, copy-major; the batch itself where rows are copies from the beginning, and
        outside an update.

    Raises:
        RuntimeError: below the fork.
        TypeError: as `replicate`.
    """
    noise = current_noise()
    if noise is None or noise.trunk is None:
        return batch
    if not noise.calls.is_above:
        raise RuntimeError("seqba.per_copy was called below the fork, where there is one copy: call seqba.fork first")
    return repeated(batch, len(noise.pass_copies))


def check_forked(noise: Noise) -> None:
    """Raises RuntimeError for the forward of a pass of an update that forks, which hasn't come to its fork."""
    if not noise.calls.is_above:
        raise RuntimeError(
            "forked=True, but neither the model nor the loss called seqba.fork, so that there was one copy throughout: "
            "call it in the model's forward, or leave forked out"
        )


def counts_below(noise: Noise) -> bool:
    """Whether a pass counts what it gathers at this point: below a fork only the pass that has copy 0.

    What is below may be computed several times, on each rank that has copies of the micro-batch.
    """
    return noise.trunk is None or noise.calls.is_above or noise.pass_copies[0] == 0


class Trunk:
    """What the passes of one micro-batch have in common on this process: the value below the fork, computed once.

    Args:
        last_copy: number of the last copy that runs here, whose backward goes on below the fork.

    Attributes:
        marks: where passes note the places at which recomputed layers were (`seqba.noise.sites`).
        weigh: tells the bytes that the forward has kept so far; asked at the fork.
        saved_bytes: what it told.
    """

    def __init__(self, last_copy: int) -> None:
        self.marks = WeakTensorKeyDictionary()
        self.weigh: Callable[[], int] | None = None
        self.saved_bytes = 0
        self._last_copy = last_copy
        self._value: Any = None
        self._place: Place | None = None  # None until the value is there
        self._leaves: dict[int, Tensor] = {}  # `id` of a tensor of the value → the leaf that passes start from

    def fork(self, noise: Noise, compute: Callable[[], Any]) -> Any:
        """The value for the copies of a pass; see the function `fork`."""
        if noise.calls.is_recomputing:
            raise RuntimeError(
                "seqba.fork is in a part of the model that activation checkpointing recomputes: checkpoint what is "
                "below it and what is above it apart"
            )
        if noise.calls.is_above:
            raise RuntimeError("seqba.fork was called twice in a pass: copies begin at one place of a model")
        if self._place is None:
            self._value = compute()
            self.saved_bytes = 0 if self.weigh is None else self.weigh()
            self._place = noise.go_above()
        else:
            noise.go_above(self._place)
        copies = len(noise.pass_copies)
        if noise.pass_copies[-1] != self._last_copy:
            return self._map(lambda rows: _fresh(self._leaf(rows), copies))
        if self._leaves:
            value = self._map_joined(copies)
        else:  # the only pass
            value = self._value if copies == 1 else self._map(lambda rows: repeat_rows(rows, copies))
        self._value = None
        return value

    def _map(self, function: Callable[[Any], Any]) -> Any:
        return map_rows(self._value, lambda rows, _: function(rows), "the value of seqba.fork")

    def _leaf(self, rows: Any) -> Any:
        if not isinstance(rows, Tensor):
            return rows
        if id(rows) not in self._leaves:
            self._leaves[id(rows)] = rows.detach().requires_grad_(rows.requires_grad)
        return self._leaves[id(rows)]

    def _map_joined(self, copies: int) -> Any:
        """The value for the last pass, whose backward takes along what earlier ones left at the leaves."""
        trained: dict[int, Tensor] = {}
        self._map(lambda rows: trained.setdefault(id(rows), rows) if _is_trained(rows) else rows)
        if not trained:
            return self._map(lambda rows: repeat_rows(rows, copies))
        leaves = [self._leaf(rows) for rows in trained.values()]
        joined = _Join.apply(leaves, copies, *trained.values())  # type: ignore[no-untyped-call]
        repeated = dict(zip(trained, joined, strict=True))
        return self._map(lambda rows: repeated[id(rows)] if id(rows) in repeated else repeat_rows(rows, copies))


def _is_trained(rows: Any) -> bool:
    return isinstance(rows, Tensor) and rows.requires_grad


def _fresh(rows: Any, copies: int) -> Any:
    """Repeats rows into memory of their own, over which what is above may write."""
    return rows.clone() if copies == 1 and isinstance(rows, Tensor) else repeat_rows(rows, copies)


class _Join(torch.autograd.Function):
    """Repeats the tensors of a value; their gradients are summed over the copies and added to those of the leaves.

    All in one function: a pass may leave out a tensor that another one has used.
    """

    @staticmethod
    def forward(ctx: Any, leaves: list[Tensor], copies: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.leaves, ctx.copies = leaves, copies
        ctx.set_materialize_grads(False)
        return tuple(_fresh(tensor, copies) for tensor in tensors)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        return None, None, *(_summed(grad, leaf, ctx.copies) for grad, leaf in zip(grads, ctx.leaves, strict=True))


def _summed(grad: Tensor | None, leaf: Tensor, copies: int) -> Tensor | None:
    earlier = leaf.grad
    if grad is None:
        return earlier
    own = grad if copies == 1 else grad.view(copies, *leaf.shape).sum(0)
    return own if earlier is None else own + earlier
