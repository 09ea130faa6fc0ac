"""Terms of a loss that compare the copies of an example, whatever passes the copies run in.

Where the copies of a micro-batch aren't all in one pass, each of them runs forward twice. The first time, without a
graph, shows the rows that are compared, of all copies; the gradient of the term by them is then computed once. The
second time, under the same keyed noise, each pass's backward starts from its own part of that gradient. So the memory
is that of the passes, and an update costs M forwards more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from seqba.group import Group
from seqba.noise.context import current_noise
from seqba.noise.noise import Noise

_SITE = "seqba.compare_copies"


Term = Callable[..., Tensor]
"""`term(rows, *shared, copies=M)`: 0-dim, of the rows of M copies, (M·N, ...) copy-major, and of further tensors."""


def compare_copies(term: Term, rows: Tensor, *shared: Tensor) -> Tensor:
    """The current pass's part of a term that compares all copies of a micro-batch, for a loss function to add.

        total = cross_entropy_sum + alpha * seqba.compare_copies(summed_divergence, hidden, weight)
        return total, number_of_tokens

    In an update with `compared=True` the parts of all passes add up to `term(rows of all copies, *shared, copies=M)`,
    and their gradients to its gradient, in any plan and on any ranks. Where not all copies of a micro-batch are in one
    pass, its passes run forward once more, without a graph, and the rows of all copies are held, then their gradient:
    M·N rows, on every rank that has some of them. Running statistics of ordinary batch norms see such passes twice.

    Args:
        term: `term(rows, *shared, copies=M)` → 0-dim, of the (M·N, ...) rows of all copies, copy-major, summed over
            them as the loss is. It may draw no noise.
        rows: (k·N, ...) of the k copies in the pass, copy-major: hidden states, say. N is the same for all copies.
        shared: tensors that all copies have in common: an output embedding. They get their part of the gradient.

    Returns:
        0-dim; zero outside an update, where there are no copies to compare (validation, plain loops).

    Raises:
        RuntimeError: in an update without `compared=True`.
        ValueError: where copies have different numbers of rows.

    Source: Gao et al. 2021 (gradient cache, arXiv 2101.06983), where generators' states are kept; here noise is keyed.
    """
    noise = current_noise()
    if noise is None:
        return rows.new_zeros(())
    if noise.comparison is None:
        raise RuntimeError(
            "seqba.compare_copies was called in an update that doesn't know of it: pass compared=True to "
            "merged_gradient or grid_gradient"
        )
    return noise.comparison.part(noise, term, rows, shared)


def check_compared(comparison: Comparison, loss: object) -> None:
    """Refuses what a pass should have compared and hasn't, and a loss whose scale depends on the copies in the pass.

    Raises:
        RuntimeError: where nothing called `compare_copies`.
        ValueError: for a loss that is a mean over the rows of the pass.
    """
    if not comparison.was_asked:
        raise RuntimeError(
            "compared=True, but the loss function never called seqba.compare_copies: call it there, or leave compared "
            "out"
        )
    if isinstance(loss, Tensor):
        raise ValueError(
            "with compared=True loss_fn must return (sum, weight): the parts that passes have of a term add up to it "
            "in a sum, not in a mean over the rows of a pass"
        )


class Comparison:
    """What is compared between the copies of one micro-batch.

    Args:
        copies: M.

    Attributes:
        was_asked: whether any pass has called `compare_copies`.
    """

    def __init__(self, copies: int) -> None:
        self.was_asked = False
        self._copies = copies
        self._is_looking = False
        self._rows: dict[int, Tensor] = {}  # number of the call in a pass → (M, N, ...), zeros for copies unseen
        self._terms: dict[int, _Differentiated] = {}

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Inside, passes show the rows of their copies, and no term is computed."""
        self._is_looking = True
        try:
            yield
        finally:
            self._is_looking = False

    def part(self, noise: Noise, term: Term, rows: Tensor, shared: Sequence[Tensor]) -> Tensor:
        """See `compare_copies`."""
        self.was_asked, copies = True, len(noise.pass_copies)
        if copies == self._copies and not self._is_looking:
            return term(rows, *shared, copies=copies)
        call = noise.calls.number(_SITE)
        if self._is_looking:
            self._note(call, noise.pass_copies, rows.detach())
            return rows.new_zeros(())
        if call not in self._terms:
            self._terms[call] = _Differentiated(term, self._rows.pop(call), shared, self._copies)
        return self._terms[call].part(noise.pass_copies, rows, shared)

    def _note(self, call: int, copies: Sequence[int], rows: Tensor) -> None:
        if rows.shape[0] % len(copies):
            raise ValueError(
                f"{rows.shape[0]} rows to compare in a pass of {len(copies)} copies: each must have as many"
            )
        parts = rows.view(len(copies), -1, *rows.shape[1:])
        if call not in self._rows:
            self._rows[call] = rows.new_zeros((self._copies, *parts.shape[1:]))
        seen = self._rows[call]
        if seen.shape[1:] != parts.shape[1:]:
            raise ValueError(
                f"copies to compare have {seen.shape[1]} and {parts.shape[1]} rows: they must have the same ones"
            )
        seen[_part(copies)] = parts

    def described(self) -> dict[int, tuple[tuple[int, ...], torch.dtype]]:
        """Shapes and dtypes of the rows that have been shown."""
        return {call: (tuple(rows.shape), rows.dtype) for call, rows in self._rows.items()}

    def seen(self, described: Mapping[int, tuple[tuple[int, ...], torch.dtype]], device: torch.device) -> list[Tensor]:
        """The rows that have been shown, in the order of their calls; zeros for those that other processes have."""
        for call in described.keys() - self._rows.keys():
            shape, dtype = described[call]
            self._rows[call] = torch.zeros(shape, dtype=dtype, device=device)
        return [self._rows[call] for call in sorted(described)]


def exchange_rows(comparisons: Sequence[Comparison], group: Group, device: torch.device) -> None:
    """Gives every process the rows that any of them has shown: one message of shapes, and one sum over the group.

    Args:
        comparisons: of micro-batches whose copies run on several processes, in the same order on every process, copies
            there or not.
        group: the processes.
        device: of the model.
    """
    told = group.gather([each.described() for each in comparisons])
    sums: list[Tensor] = []
    for number, comparison in enumerate(comparisons):
        described = {call: form for each in told for call, form in each[number].items()}
        sums += comparison.seen(described, device)
    group.add_up(sums)


class _Differentiated:
    """A term over all copies, and its gradient by their rows and by what they share.

    Args:
        term: see `compare_copies`, as shared.
        rows: (M, N, ...).
        shared: tensors.
        copies: M.
    """

    def __init__(self, term: Term, rows: Tensor, shared: Sequence[Tensor], copies: int) -> None:
        inputs = [rows.flatten(0, 1), *(tensor.detach() for tensor in shared)]
        needed = [inputs[0], *(each for each, given in zip(inputs[1:], shared, strict=True) if given.requires_grad)]
        for tensor in needed:
            tensor.requires_grad_()
        with torch.enable_grad():
            value = term(*inputs, copies=copies)
        gradients = torch.autograd.grad(value, needed, allow_unused=True, materialize_grads=True)
        self._value = value.detach()
        self._by_rows = gradients[0].view_as(rows)
        self._by_shared = gradients[1:]
        self._copies = copies

    def part(self, copies: Sequence[int], rows: Tensor, shared: Sequence[Tensor]) -> Tensor:
        """What a pass of some copies adds: its rows' gradient, and a share of the value and of the other gradients."""
        share = len(copies) / self._copies
        by_rows = self._by_rows[_part(copies)].view_as(rows)
        trained = [tensor for tensor in shared if tensor.requires_grad]
        gradients = [by_rows, *(gradient * share for gradient in self._by_shared)]
        part: Tensor = _Known.apply(self._value * share, gradients, rows, *trained)  # type: ignore[no-untyped-call]
        return part


def _part(copies: Sequence[int]) -> slice:
    """Place of a pass's copies, which are neighbours, among all copies."""
    return slice(copies[0], copies[-1] + 1)


class _Known(torch.autograd.Function):
    """A value whose gradient by some tensors is known already."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: Sequence[Tensor], *_tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*gradients)
        return value

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *(gradient * grad for gradient in ctx.saved_tensors)
