"""Keyed forms of torch's random functions, as a pass calls them in place of torch's own.

Each takes the noise of the pass and the arguments of the function that it stands for, and returns what that would, or
None where there is nothing to key: no noise is drawn, or the caller draws it from a generator of his own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from seqba.keying.owner import find_owner
from seqba.keying.shapes import check_divisible, copies_dimension
from seqba.noise.noise import Noise

KeyedForm = Callable[..., Any]


def keep_mask(noise: Noise, input: Tensor, shape: Sequence[int], p: float, *, is_rows_first: bool = False) -> Tensor:
    """Which elements of a tensor are kept: int8 of `shape`, which may be broadcast, as `Noise.keep_mask` draws it."""
    owner, device = find_owner(noise.names), input.device
    dim = copies_dimension(
        noise, owner, shape, of_rows=True, is_rows_first=is_rows_first, is_of_a_weight=is_a_weight(input)
    )
    if dim is None:
        return noise.keep_mask(owner, (1, *shape), p, device, shared=True).view(tuple(shape))
    parts = parts_shape(noise, owner, shape, dim)
    return joined(noise.keep_mask(owner, (parts[0] * parts[1], *parts[2:]), p, device).view(parts), dim)


def fill(
    noise: Noise,
    tensor: Tensor,
    draw: Callable[[Tensor, torch.Generator], object],
    *,
    of_rows: bool = False,
    is_of_a_weight: bool = False,
) -> Tensor:
    """Fills a tensor in place, copy by copy: `draw(part, generator)` draws into a part from a copy's own generator."""
    owner = find_owner(noise.names)
    dim = copies_dimension(noise, owner, tensor.shape, of_rows=of_rows, is_of_a_weight=is_of_a_weight)
    # Drawn in memory of their own: what a kernel draws may depend on how its output lies.
    parts = torch.empty(
        (1, *tensor.shape) if dim is None else parts_shape(noise, owner, tensor.shape, dim),
        dtype=tensor.dtype,
        device=tensor.device,
    )
    generators = noise.generators(owner, tensor.device, shared=dim is None)
    for part, generator in zip(parts, generators, strict=True):
        draw(part, generator)
    tensor.copy_(parts[0] if dim is None else joined(parts, dim))
    return tensor


def is_a_weight(tensor: Tensor) -> bool:
    """Whether a tensor is a parameter itself, and so the same for all copies of a pass, whatever its shape."""
    return isinstance(tensor, nn.Parameter)


def parts_shape(noise: Noise, owner: object, shape: Sequence[int], dim: int) -> tuple[int, ...]:
    """(k, ...): the copies' parts of a draw, each in the order of the draw itself.

    So a copy that is alone in its pass draws the same along whichever dimension its rows lie, where both would fit
    (8 places of 4 rows, time first).

    Raises:
        ValueError: as `check_divisible`.
    """
    copies = len(noise.copies)
    if dim == 0:
        check_divisible(noise, owner, shape)
    return (copies, *shape[:dim], shape[dim] // copies, *shape[dim + 1 :])


def joined(parts: Tensor, dim: int) -> Tensor:
    """Parts (k, ...) one after the other along a dimension of theirs."""
    return parts.movedim(0, dim).flatten(dim, dim + 1)


def in_place(name: str) -> KeyedForm:
    """`Tensor.normal_`, `uniform_`, … by their names."""

    def filled(
        noise: Noise, tensor: Tensor, *numbers: Any, generator: torch.Generator | None = None, **named: Any
    ) -> Tensor | None:
        if generator is not None:
            return None
        method = getattr(Tensor, name)
        return fill(noise, tensor, lambda part, own: method(part, *numbers, generator=own, **named))

    return filled


def bernoulli_in_place(
    noise: Noise, tensor: Tensor, p: float | Tensor = 0.5, *, generator: torch.Generator | None = None
) -> Tensor | None:
    """`Tensor.bernoulli_`, as drop path has it: a number for each row, or one for a whole layer."""
    if generator is not None:
        return None
    if isinstance(p, Tensor):
        return tensor.copy_(_bernoulli(noise, p.expand_as(tensor), of_rows=False))
    return fill(noise, tensor, lambda part, own: part.bernoulli_(p, generator=own))


def bernoulli(
    noise: Noise,
    input: Tensor,
    p: float | None = None,
    *,
    generator: torch.Generator | None = None,
    out: Tensor | None = None,
) -> Tensor | None:
    """`torch.bernoulli` and `Tensor.bernoulli`: by the probabilities in `input`, or by `p` in its shape."""
    if generator is not None:
        return None
    if p is None:
        drawn = _bernoulli(noise, input, of_rows=True)
    else:
        drawn = fill(noise, torch.empty_like(input), lambda part, own: part.bernoulli_(p, generator=own), of_rows=True)
    return drawn if out is None else out.resize_(drawn.shape).copy_(drawn)


def created(name: str) -> KeyedForm:
    """`torch.rand` (`uniform_`), `torch.randn` (`normal_`)."""

    def filled(
        noise: Noise,
        *size: Any,
        generator: torch.Generator | None = None,
        requires_grad: bool = False,
        **options: Any,
    ) -> Tensor | None:
        if generator is not None:
            return None
        tensor = in_place(name)(noise, torch.empty(*size, **options))
        return None if tensor is None else tensor.requires_grad_(requires_grad)

    return filled


def created_like(name: str) -> KeyedForm:
    """`torch.rand_like` (`uniform_`), `torch.randn_like` (`normal_`)."""

    def filled(
        noise: Noise,
        input: Tensor,
        *,
        generator: torch.Generator | None = None,
        requires_grad: bool = False,
        **options: Any,
    ) -> Tensor | None:
        if generator is not None:
            return None
        method = getattr(Tensor, name)
        tensor = torch.empty_like(input, **options)
        fill(
            noise,
            tensor,
            lambda part, own: method(part, generator=own),
            of_rows=True,
            is_of_a_weight=is_a_weight(input),
        )
        return tensor.requires_grad_(requires_grad)

    return filled


def randint(
    noise: Noise,
    *numbers: Any,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
    **options: Any,
) -> Tensor | None:
    """`torch.randint`: (high, size) or (low, high, size), by place or by name."""
    if generator is not None:
        return None
    given = list(numbers)
    size = options.pop("size") if "size" in options else given.pop()
    high = options.pop("high") if "high" in options else given.pop()
    low = options.pop("low", 0) if not given else given.pop()
    tensor = torch.empty(size, dtype=dtype or torch.int64, **options)
    return fill(noise, tensor, lambda part, own: part.random_(low, high, generator=own))


def normal(
    noise: Noise,
    mean: float | Tensor = 0.0,
    std: float | Tensor = 1.0,
    size: Sequence[int] | None = None,
    *,
    generator: torch.Generator | None = None,
    out: Tensor | None = None,
    **options: Any,
) -> Tensor | None:
    """`torch.normal`, as `torch.distributions` samples with: mean + std·z, z standard normal."""
    if generator is not None:
        return None
    total = mean + std
    standard = torch.empty_like(total) if isinstance(total, Tensor) else torch.empty(size or (), **options)
    with torch.no_grad():
        fill(noise, standard, lambda part, own: part.normal_(generator=own), of_rows=isinstance(total, Tensor))
        drawn = standard * std + mean
    return drawn if out is None else out.resize_(drawn.shape).copy_(drawn)


def _bernoulli(noise: Noise, probabilities: Tensor, *, of_rows: bool) -> Tensor:
    """1 with the probability in each element, else 0; in the dtype of the probabilities."""
    uniform = torch.empty(probabilities.shape, dtype=torch.float32, device=probabilities.device)
    fill(noise, uniform, lambda part, own: part.uniform_(generator=own), of_rows=of_rows)
    return (uniform < probabilities).to(probabilities.dtype)
