"""Averages of the weights: an exponential moving one, and the exchange of weights for their averages.

Training goes on with the raw weights throughout; validation, checkpoints and what reads them see the average, whether
it is this one or that of `seqba.training.nt_asgd`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from seqba.modules.walk import local_part
from seqba.training.options import OptimisationOptions


class MovingAverage:
    """Exponential moving average of a model's weights.

        ē ← d·ē + (1 − d)·w   after every `every`-th update;   ē ← w   after those before `start`

    What batch normalisation gathers is averaged like the weights that it was gathered under. Each rank averages what it
    has of the weights, and needs the others for nothing. torch's own `AveragedModel` keeps a copy of the model, which
    a model in parts or with hooks doesn't allow; its step is used here.

    Args:
        model: whose weights are averaged; the average begins with those that it has.
        decay: d.
        start: the 1-based update from which on it is an average.
        every: how many updates lie between two of its steps.
    """

    def __init__(self, model: nn.Module, decay: float, *, start: int = 0, every: int = 1) -> None:
        self._model = model
        self._step = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        self._start = start
        self._every = every
        self._averages: dict[str, Tensor] = {}
        self.begin()

    @torch.no_grad()
    def begin(self) -> None:
        """Begins anew, with the weights that the model has."""
        self._averages = {name: tensor.detach().clone() for name, tensor in self._tensors()}

    @torch.no_grad()
    def update(self, number: int) -> None:
        """Takes up the weights that 1-based update `number` has left."""
        weights = [local_part(tensor) for _, tensor in self._tensors()]
        averages = [local_part(self._averages[name]) for name, _ in self._tensors()]
        if number < self._start:
            torch._foreach_copy_(averages, weights)
        elif number % self._every == 0:
            self._step(averages, weights, None)

    def pairs(self) -> list[tuple[Tensor, Tensor]]:
        """Each weight of the model, and its average."""
        return [(tensor, self._averages[name]) for name, tensor in self._tensors()]

    def _tensors(self) -> list[tuple[str, Tensor]]:
        """Weights and gathered statistics by name, each once; no counts, which have no average."""
        named = self._model.state_dict(keep_vars=True)
        once = {id(tensor): (name, tensor) for name, tensor in named.items() if tensor.is_floating_point()}
        return list(once.values())


def build_average(model: nn.Module, options: OptimisationOptions) -> MovingAverage | None:
    """Average that --store-ema asks for; None without it."""
    if not options.store_ema:
        return None
    return MovingAverage(model, options.ema_decay, start=options.ema_start_update, every=options.ema_update_freq)


@contextmanager
def exchanged(pairs: Iterable[tuple[Tensor, Tensor]]) -> Iterator[None]:
    """Exchanges weights for their averages inside, and back afterwards.

    Tensors taken inside (a state_dict, say) go on holding the averages; but sharded weights change places with their
    averages in the memory of both, and what ranks have gathered of them must be put away before and after.
    """
    known = list(pairs)
    raw = [(weight, weight.data, average) for weight, average in known if local_part(weight) is weight]
    parts = [(local_part(weight), local_part(average)) for weight, average in known if local_part(weight) is not weight]
    for weight, _, average in raw:
        weight.data = average
    _swap(parts)
    try:
        yield
    finally:
        for weight, values, _ in raw:
            weight.data = values
        _swap(parts)


def _swap(pairs: list[tuple[Tensor, Tensor]]) -> None:
    with torch.no_grad():
        for one, other in pairs:
            kept = one.clone()
            one.copy_(other)
            other.copy_(kept)
