"""NT-ASGD: plain SGD until validation stops improving, then SGD whose weights are averaged.

Training goes on with the raw weights throughout; validation, checkpoints and the final test see the average.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class NonMonotonicTrigger:
    """Fires at the first validation that is worse than the best of all but the last `patience` validations before it.

        fires if  L_t > min(L_1, …, L_{t−1−patience}),   with more than `patience` validations before this one

    The paper's Algorithm 1 has its window the other way round in print; this is the rule of the released code, which
    its authors call authoritative.

    Args:
        patience: n, `nonmono` in the released code.

    Attributes:
        has_fired: whether it has; it fires once.

    Source: Merity et al. 2018, section 3, as in the released code (salesforce/awd-lstm-lm, issues 13 and 47).
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.has_fired = False
        self._losses: list[float] = []

    def observe(self, loss: float) -> bool:
        """Records a validation's loss; returns whether the trigger fires here."""
        before = self._losses[: -self.patience] if self.patience else self._losses
        earlier = [value for value in before if value == value]  # NaN is neither better nor worse
        fires = not self.has_fired and bool(earlier) and loss > min(earlier)
        self.has_fired = self.has_fired or fires
        self._losses.append(loss)
        return fires

    def state_dict(self) -> dict[str, Any]:
        """Losses so far, and whether the trigger has fired."""
        return {"losses": list(self._losses), "has_fired": self.has_fired}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self._losses = [float(loss) for loss in state["losses"]]
        self.has_fired = bool(state["has_fired"])


def begin_averaging(optimizer: torch.optim.Optimizer) -> torch.optim.ASGD:
    """Optimizer that goes on where SGD stopped and averages the weights from its first steps on.

    torch's ASGD, with its own decay and learning-rate schedule off (lambd = 0, t0 = 0) as in the released code, is SGD
    plus a running mean of the weights. It differs from the textbook in two ways, which the released code's figures have
    in them, so that they are kept:

    - a step runs at the learning rate that was set for the step before (it reads `eta`, computed at that step's end):
      the factor length / bptt of a window acts on the window after it;
    - the mean begins at the second step: the first one's weights are overwritten (`mu` is 1 twice).

    The mean after n ≥ 2 steps is that of w_2 … w_n, each with weight 1/(n − 1).
    """
    groups = [{name: group[name] for name in ("params", "lr", "weight_decay")} for group in optimizer.param_groups]
    return torch.optim.ASGD(groups, lambd=0.0, t0=0, foreach=True)


def averages_of(optimizer: torch.optim.Optimizer) -> list[tuple[Tensor, Tensor]]:
    """Each weight and its average, where the optimizer has any."""
    if not isinstance(optimizer, torch.optim.ASGD):
        return []
    return [(parameter, state["ax"]) for parameter, state in optimizer.state.items()]
