"""Keyed forms of torch's samplers by tensors of parameters, and of random orders (see `seqba.keying.draws`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from seqba.keying.draws import KeyedForm, fill
from seqba.keying.owner import find_owner
from seqba.keying.shapes import check_divisible, copies_dimension
from seqba.noise.noise import Noise


def sampled(name: str, *, event_dimensions: int = 0) -> KeyedForm:
    """`torch.poisson`, `binomial`, `multinomial` and their like by name: each copy's part by a generator of its own.

    Args:
        name: of the function in torch, which takes a tensor of parameters first.
        event_dimensions: how many of its last dimensions belong to one draw: the categories of `multinomial`.
    """

    def drawn(
        noise: Noise,
        input: Tensor,
        *others: Any,
        generator: torch.Generator | None = None,
        out: Tensor | None = None,
        **named: Any,
    ) -> Tensor | None:
        if generator is not None:
            return None
        owner = find_owner(noise.names)
        dim = copies_dimension(noise, owner, input.shape[: input.dim() - event_dimensions], of_rows=True)
        generators = noise.generators(owner, input.device, shared=dim is None)
        function = getattr(torch, name)
        if dim is None:
            result: Tensor = function(input, *others, generator=next(iter(generators)), **named)
        else:
            copies = len(noise.copies)
            check_divisible(noise, owner, input.shape[dim:])
            parts = zip(*(_parts(each, copies, dim, like=input) for each in (input, *others)), strict=True)
            drawn = [function(*part, generator=own, **named) for part, own in zip(parts, generators, strict=True)]
            result = torch.cat(drawn, dim)
        return result if out is None else out.resize_(result.shape).copy_(result)

    return drawn


def _parts(value: Any, copies: int, dim: int, *, like: Tensor) -> list[Any]:
    """A tensor of as many rows by copies, each in memory of its own; anything else for all of them."""
    if isinstance(value, Tensor) and value.dim() == like.dim() and value.shape[dim] == like.shape[dim]:
        return [part.contiguous() for part in value.chunk(copies, dim)]
    return [value] * copies


def randperm(
    noise: Noise, n: int, *, generator: torch.Generator | None = None, out: Tensor | None = None, **options: Any
) -> Tensor | None:
    """`torch.randperm`: of as many as there are rows, each copy's rows among themselves; else one order for all."""
    if generator is not None:
        return None
    owner = find_owner(noise.names)
    dim = copies_dimension(noise, owner, (n,), of_rows=False)
    device = torch.empty(0, device=options.get("device")).device
    generators = noise.generators(owner, device, shared=dim is None)
    size = n if dim is None else n // len(noise.copies)
    orders = [torch.randperm(size, generator=own, **options) for own in generators]
    order = torch.cat([number * size + order for number, order in enumerate(orders)])
    return order if out is None else out.resize_(order.shape).copy_(order)


def randint_like(
    noise: Noise, input: Tensor, *numbers: Any, generator: torch.Generator | None = None, **options: Any
) -> Tensor | None:
    """`torch.randint_like`: (input, high) or (input, low, high), by place or by name."""
    if generator is not None:
        return None
    given = list(numbers)
    high = options.pop("high") if "high" in options else given.pop()
    low = options.pop("low", 0) if not given else given.pop()
    tensor = torch.empty_like(input, **options)
    return fill(noise, tensor, lambda part, own: part.random_(int(low), int(high), generator=own), of_rows=True)


def rrelu(*, inplace: bool) -> KeyedForm:
    """`torch.rrelu` and `rrelu_`: x where x > 0, else a·x with a drawn for each element, uniform from lower to upper.

    Source: Xu et al. 2015, "Empirical Evaluation of Rectified Activations".
    """

    def activated(
        noise: Noise,
        input: Tensor,
        lower: float = 1 / 8,
        upper: float = 1 / 3,
        training: bool = False,
        generator: torch.Generator | None = None,
    ) -> Tensor | None:
        if not training or generator is not None:
            return None
        with torch.no_grad():
            slopes = torch.empty_like(input)
            fill(noise, slopes, lambda part, own: part.uniform_(lower, upper, generator=own), of_rows=True)
            slopes.masked_fill_(input > 0, 1)
        return input.mul_(slopes) if inplace else input * slopes

    return activated
