"""Pictures of random bytes, passes over them, and the promises that every module of image noise keeps."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seqba.core import Noise, noise_context

CPU = torch.device("cpu")
KEY = {"seed": 1, "update": 2, "micro_batch": 3}


def random_pictures(rows: int, height: int, width: int, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(rows + 10 * height + 100 * width)
    return torch.randint(0, 256, (rows, channels, height, width), dtype=torch.uint8, generator=generator)


def in_pass(call: Callable[..., Any], *rows: Tensor, copies: tuple[int, ...] = (0,), **key: int) -> Any:
    """What `call` makes of `copies` of some rows, in a pass of its own."""
    with noise_context(Noise(**{**KEY, **key}, copies=copies)):
        return call(*(tensor.repeat(len(copies), *[1] * (tensor.dim() - 1)) for tensor in rows))


def drawn_numbers(*shape: int, copy: int = 0) -> np.ndarray:
    """The numbers that the first draw of a pass over one copy sees."""
    return Noise(**KEY, copies=(copy,)).uniform(object(), shape, CPU).numpy()


def check_the_draws(module: nn.Module, *rows: Tensor) -> None:
    """Every copy draws the same in any company; every part of the key, and the number of the call, makes another draw.

    Nothing comes from the global generator, and what goes in is left as it was, also if its rows share their memory.
    """
    before, state = [tensor.clone() for tensor in rows], torch.get_rng_state()
    together = in_pass(module, *rows, copies=(0, 1, 2, 3))
    alone = [in_pass(module, *rows, copies=(copy,)) for copy in range(4)]
    assert torch.equal(together, torch.cat(alone))
    assert torch.equal(in_pass(module, *rows, copies=(3, 1)), torch.cat([alone[3], alone[1]]))
    with noise_context(Noise(**KEY, copies=(0,))):
        calls = [module(*rows) for _ in range(2)]
    others = [in_pass(module, *rows, **{part: 9}) for part in KEY]
    assert torch.equal(calls[0], alone[0])
    for one, other in itertools.combinations([*alone, *others, calls[1]], 2):
        assert one.shape == other.shape
        assert not torch.equal(one, other)
    assert all(map(torch.equal, rows, before))
    assert torch.equal(torch.get_rng_state(), state)

    one_picture = [tensor[:1].expand(len(tensor), *tensor.shape[1:]) for tensor in rows]
    with noise_context(Noise(**KEY, copies=(0,))):
        views = module(*one_picture)
    assert torch.equal(views, in_pass(module, *(tensor.contiguous() for tensor in one_picture)))
    assert not torch.equal(views, views[:1].expand_as(views))


def check_outside_an_update(module: nn.Module, *rows: Tensor) -> None:
    """It draws from the global generator there, and not at all in evaluation."""
    torch.manual_seed(0)
    first = module(*rows)
    torch.manual_seed(0)
    assert torch.equal(module(*rows), first)
    assert not torch.equal(module(*rows), first)
    module.eval()
    assert module(*rows) is rows[0]
    with noise_context(noise := Noise(**KEY, copies=(0,))):
        assert module(*rows) is rows[0]
    assert noise.draws == 0
