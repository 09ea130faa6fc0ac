"""Torch's own generators in a pass: what draws from them all the same, keyed by no site."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor

from seqba.noise.noise import Noise


@contextmanager
def ordinary_noise(noise: Noise, *, seeded: bool) -> Iterator[None]:
    """Inside, `noise.ordinary` watches torch's own generators; afterwards `noise.drew_ordinary` tells of them.

    Args:
        noise: of the pass that runs inside.
        seeded: whether the pass seeds the generators, which go on afterwards as if nothing had been drawn. For ordinary
            dropout on several ranks, which may have seeded theirs alike, and what `seqba.keyed` doesn't reach. Numbers
            that are drawn from them count as a draw of the pass. Generators that it doesn't seed are asked only where
            nothing else was drawn above the fork.
    """
    with torch.random.fork_rng(devices=_cuda_devices()) if seeded else nullcontext():
        noise.ordinary = ordinary = OrdinaryNoise(noise, is_seeded=seeded)
        yield
        noise.drew_ordinary = (seeded or not noise.draws_above) and ordinary.has_drawn()
        if seeded:
            noise.draws += noise.drew_ordinary


class OrdinaryNoise:
    """What a pass draws from torch's own generators.

    It doesn't keep the noise, which keeps it: in a cycle what is below a fork would outlive a pass that failed.

    Args:
        noise: of the pass.
        is_seeded: whether the pass seeds them, below a fork and again above it.
    """

    def __init__(self, noise: Noise, *, is_seeded: bool) -> None:
        self._is_seeded = is_seeded
        self._begin(noise)

    def has_drawn(self) -> bool:
        """Whether anything was drawn since the pass began, or since its fork."""
        return not all(map(torch.equal, self._begun, _generator_states()))

    def go_above(self, noise: Noise) -> None:
        """Passes the fork of the pass."""
        if self._is_seeded:
            noise.draws += self.has_drawn()
        self._begin(noise)

    def _begin(self, noise: Noise) -> None:
        if self._is_seeded:
            torch.manual_seed(noise.ordinary_seed())
        self._begun = _generator_states()


def _cuda_devices() -> list[int]:
    is_used = torch.cuda.is_available() and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return [torch.cuda.current_device()] if is_used else []


def _generator_states() -> list[Tensor]:
    return [torch.random.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in _cuda_devices())]
