"""Learning rate as a function of the 1-based number of the update: no state, nothing to save."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from seqba.training.options import ScheduleOptions

Schedule = Callable[[int], float]

DEFAULT_WARMUP_UPDATES = 4000


def fixed(update: int, *, lr: float, warmup_updates: int = 0) -> float:
    """`lr` throughout, after an optional linear warm-up from 0.

        lr · min(1, update / warmup_updates)

    Raises:
        ValueError: if `update` < 1.

    Source: fairseq's `fixed`, without its annealing.
    """
    _check(update)
    return lr * min(1.0, update / warmup_updates) if warmup_updates else lr


def inverse_sqrt(update: int, *, peak_lr: float, warmup_updates: int, warmup_init_lr: float = 0.0) -> float:
    """Linear warm-up to `peak_lr`, then decay with update**-0.5.

        init + (peak - init) · update / warmup          for update < warmup
        peak · (warmup / update)^0.5                    from then on

    Update u runs at the rate of u; fairseq's runs at that of u - 1, so its first one moves nothing.

    Raises:
        ValueError: if `update` < 1 or `warmup_updates` < 1.

    Source: Vaswani et al. 2017, section 5.3, as parametrised by fairseq's `inverse_sqrt`.
    """
    _check(update, warmup_updates)
    if update < warmup_updates:
        return warmup_init_lr + (peak_lr - warmup_init_lr) * update / warmup_updates
    return peak_lr * math.sqrt(warmup_updates / update)


def vaswani(update: int, *, width: int, warmup_updates: int) -> float:
    """The Transformer's own schedule; `width` is the model's embedding size.

        width^-0.5 · min(update^-0.5, update · warmup^-1.5)

    Raises:
        ValueError: if `update` < 1 or `warmup_updates` < 1.

    Source: Vaswani et al. 2017, section 5.3, equation 3. Hoffer et al. 2020 train with it (512, 4000 updates).
    """
    _check(update, warmup_updates)
    return float(width**-0.5 * min(update**-0.5, update * warmup_updates**-1.5))


def build_schedule(options: ScheduleOptions, width: int) -> Schedule:
    """The schedule that the options name; `width` is the model's embedding size."""
    warmup = options.warmup_updates
    if options.lr_scheduler == "vaswani":
        return partial(vaswani, width=width, warmup_updates=warmup or DEFAULT_WARMUP_UPDATES)
    if options.lr is None:
        raise ValueError(f"{options.lr_scheduler} needs a learning rate")
    if options.lr_scheduler == "fixed":
        return partial(fixed, lr=options.lr, warmup_updates=warmup or 0)
    return partial(
        inverse_sqrt,
        peak_lr=options.lr,
        warmup_updates=warmup or DEFAULT_WARMUP_UPDATES,
        warmup_init_lr=max(0.0, options.warmup_init_lr),
    )


def _check(update: int, warmup_updates: int = 1) -> None:
    if update < 1 or warmup_updates < 1:
        raise ValueError(f"update is {update} and warmup_updates {warmup_updates}; both count from 1")
