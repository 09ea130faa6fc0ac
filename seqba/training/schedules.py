"""Learning rate as a function of the 1-based number of the update: no state, nothing to save."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

from seqba.errors import UserError
from seqba.training.options import OptimisationOptions, ScheduleOptions

Schedule = Callable[[int], float]

DEFAULT_WARMUP_UPDATES = 4000


def fixed(update: int, *, lr: float, warmup_updates: int = 0) -> float:
    """Learning rate `lr` throughout, after an optional linear warm-up from 0.

        lr · min(1, update / warmup_updates)

    Raises:
        ValueError: if `update` < 1.

    Source: fairseq's `fixed`, without its annealing.
    """
    _check(update)
    return lr * min(1.0, update / warmup_updates) if warmup_updates else lr


def step(update: int, *, lr: float, drops: Sequence[int], factors: Sequence[float], warmup_updates: int = 0) -> float:
    """Learning rate that falls by a factor after each of the updates `drops`, after an optional linear warm-up from 0.

        lr · min(1, update / warmup_updates) · Π factors[j]   over the drops j with drops[j] < update

    Args:
        update: 1-based.
        lr: where it begins.
        drops: updates made before each drop, rising.
        factors: one for each drop.
        warmup_updates: of linear warm-up.

    Raises:
        ValueError: if `update` < 1.

    Source: the regimes of Hoffer et al. 2020's released code ("at epoch 81": after 81 whole ones).
    """
    fallen = sum(drop < update for drop in drops)
    return fixed(update, lr=lr, warmup_updates=warmup_updates) * math.prod(factors[:fallen])


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
    """Learning rate of the original Transformer; `width` is the model's embedding size.

        width^-0.5 · min(update^-0.5, update · warmup^-1.5)

    Raises:
        ValueError: if `update` < 1 or `warmup_updates` < 1.

    Source: Vaswani et al. 2017, section 5.3, equation 3. Hoffer et al. 2020 train with it (512, 4000 updates).
    """
    _check(update, warmup_updates)
    return float(width**-0.5 * min(update**-0.5, update * warmup_updates**-1.5))


def build_schedule(options: ScheduleOptions, *, width: int | None, epoch_updates: Callable[[], int]) -> Schedule:
    """Schedule that the options name.

    Args:
        options: which, and its numbers.
        width: of the model's embedding; None for a model without one.
        epoch_updates: how many updates an epoch of the arm baseline has; asked where drops are counted in epochs.

    Raises:
        UserError: for `vaswani` where there is no width.
    """
    warmup = options.warmup_updates
    if options.lr_scheduler == "vaswani":
        if width is None:
            raise UserError("--lr-scheduler vaswani goes by the width of an embedding, and this model has none")
        return partial(vaswani, width=width, warmup_updates=warmup or DEFAULT_WARMUP_UPDATES)
    if options.lr is None:
        raise ValueError(f"{options.lr_scheduler} needs a learning rate")
    if options.lr_scheduler == "fixed":
        return partial(fixed, lr=options.lr, warmup_updates=warmup or 0)
    if options.lr_scheduler == "step":
        unit = epoch_updates() if options.lr_drop_unit == "epoch" else 1
        drops = [unit * drop for drop in options.lr_drops]
        factors = options.lr_shrink if len(options.lr_shrink) == len(drops) else options.lr_shrink * len(drops)
        return partial(step, lr=options.lr, drops=drops, factors=factors, warmup_updates=warmup or 0)
    return partial(
        inverse_sqrt,
        peak_lr=options.lr,
        warmup_updates=warmup or DEFAULT_WARMUP_UPDATES,
        warmup_init_lr=max(0.0, options.warmup_init_lr),
    )


def count_decay_updates(options: OptimisationOptions, epoch_updates: Callable[[], int]) -> int | None:
    """Number of updates in which weights decay, by `--weight-decay-until`; None for all.

    Args:
        options: the optimizer's.
        epoch_updates: how many updates an epoch of the arm baseline has; asked where the decay is counted in epochs.

    Source: the regime of AlexNet in Hoffer et al. 2020's released code, without decay "at epoch 15":
    after 15 whole ones.
    """
    if options.weight_decay_until is None:
        return None
    return options.weight_decay_until * (epoch_updates() if options.weight_decay_unit == "epoch" else 1)


def _check(update: int, warmup_updates: int = 1) -> None:
    if update < 1 or warmup_updates < 1:
        raise ValueError(f"update is {update} and warmup_updates {warmup_updates}; both count from 1")
