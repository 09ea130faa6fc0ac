"""From a merged gradient to new weights: scaling of losses, clipping, the optimizer's step, averages of the weights."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from seqba.distributed import collective_errors, is_sharded, reshard, whole_tensor
from seqba.modules.walk import gradients_of, parameters_of
from seqba.training.averages import MovingAverage, exchanged
from seqba.training.nt_asgd import NonMonotonicTrigger, averages_of, begin_averaging
from seqba.training.optimizers import check_optimizer_state
from seqba.training.schedules import Schedule
from seqba.training.sharding import fit_optimizer_state

logger = logging.getLogger(__name__)


@dataclass
class Optimisation:
    """Steps of a model's weights along merged gradients, and averages of the weights.

    Attributes:
        model: on the device that it trains on; its parameters may be sharded over the ranks.
        optimizer: of the model's parameters; its learning rate is set before every step.
        schedule: learning rate of the 1-based update.
        clip_norm: largest gradient norm; 0 for no limit.
        decay_updates: after so many updates weights don't decay any more; None for never.
        scaler: scales losses up for passes in float16, and gradients down again; None for no scaling.
        trigger: says when the optimizer begins to average the weights (NT-ASGD); None for never.
        average: exponential moving average of the weights; None for none.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    clip_norm: float = 0.0
    decay_updates: int | None = None
    scaler: torch.amp.GradScaler | None = None
    trigger: NonMonotonicTrigger | None = None
    average: MovingAverage | None = None

    def __post_init__(self) -> None:
        """Looks once whether each rank has a part of the weights, and of what the optimizer keeps for them."""
        self.is_sharded = is_sharded(self.model)

    def backward(self, weight: float) -> Callable[[Tensor], None] | None:
        """Backward of a pass's loss, scaled up where its gradients would underflow; None for the loss's own.

        Args:
            weight: that the loss is divided by already. It is scaled as a sum over tokens: the gradients of a mean
                would underflow at any scale that is usual.
        """
        if self.scaler is None:
            return None
        scaler, lift = self.scaler, _power_of_two_at(weight)
        return lambda loss: scaler.scale(loss * lift).backward()  # type: ignore[no-untyped-call]

    def finish_gradient(self, weight: float) -> Tensor:
        """Takes the scaling of `backward` back, and clips; returns the norm before that, 0-dim.

        A host that reads it waits for the gradient on a GPU.
        """
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
            torch._foreach_div_(gradients_of(self.model), _power_of_two_at(weight))
        norm = self._norm(gradients_of(self.model))
        if self.clip_norm > 0:
            nn.utils.clip_grads_with_norm_(parameters_of(self.model), self.clip_norm, norm)
        return norm

    def _norm(self, gradients: list[Tensor]) -> Tensor:
        """L2 norm of the whole gradient, 0-dim."""
        if not self.is_sharded:
            return nn.utils.get_total_norm(gradients)
        with collective_errors():
            return whole_tensor(nn.utils.get_total_norm(gradients))

    def step(self, number: int, lr: float) -> None:
        """Moves the weights along the gradient, and their average after them; the gradient is gone afterwards.

        Args:
            number: 1-based, of the update.
            lr: its learning rate.
        """
        is_beyond_decay = self.decay_updates is not None and number > self.decay_updates
        for group in self.optimizer.param_groups:
            group["lr"] = lr
            if is_beyond_decay:
                group["weight_decay"] = 0.0
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
        if self.average is not None:
            self.average.update(number)
        self._end()

    def skip(self) -> None:
        """Throws the gradient away."""
        self._end()

    def _end(self) -> None:
        if self.scaler is not None:
            self.scaler.update()  # halves the scale after an overflow
        self.optimizer.zero_grad()

    def observe(self, loss: float, updates: int) -> None:
        """Records a validation's loss after so many updates; where the trigger says so, averages from now on."""
        if self.trigger is not None and self.trigger.observe(loss):
            self.optimizer = begin_averaging(self.optimizer)
            logger.info("averaging the weights from update %d on", updates + 1)

    @contextmanager
    def averaged_weights(self) -> Iterator[bool]:
        """Exchanges the weights for their averages inside, where there are any; yields whether there are."""
        pairs = averages_of(self.optimizer) if self.average is None else self.average.pairs()
        try:
            with exchanged(pairs):
                yield bool(pairs)
        finally:
            reshard(self.model)

    def state_dict(self) -> dict[str, Any]:
        """State of the trigger and of the scaler; a checkpoint keeps the optimizer's by itself."""
        return {
            "trigger": None if self.trigger is None else self.trigger.state_dict(),
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
        }

    def load_scaler(self, state: Mapping[str, Any]) -> None:
        """Restores the scaler from what `state_dict` returned, where there was one."""
        if self.scaler is not None and state.get("scaler") is not None:
            self.scaler.load_state_dict(state["scaler"])

    def load_optimizer(self, state: Mapping[str, Any], trigger: Mapping[str, Any] | None) -> None:
        """Restores the state that an optimizer of the same kind kept for the weights, and that of its trigger.

        Nothing else of it: learning rate, betas and decay are this command's, not those of the one that wrote the file.

        Raises:
            ValueError: for a state that isn't that of this model's weights.
        """
        if self.trigger is not None and trigger is not None:
            self.trigger.load_state_dict(trigger)
            if self.trigger.has_fired:
                self.optimizer = begin_averaging(self.optimizer)
        fitting = fit_optimizer_state(self.optimizer, state)
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": fitting})
        check_optimizer_state(self.optimizer)


def _power_of_two_at(weight: float) -> float:
    """The power of two nearest to a weight: multiplying by it rounds nothing."""
    return float(2.0 ** round(math.log2(weight)))
