"""Learning rate as a function of the 1-based number of the update: no state, nothing to save."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

Schedule = Callable[[int], float]


def fixed(update: int, *, lr: float, warmup_updates: int = 0) -> float:
    """Learning rate `lr` throughout, after an optional linear warm-up from 0.

        lr · min(1, update / warmup_updates)

    Raises:
        ValueError: if `update` < 1.

    Source: fairseq's `fixed`, without its annealing.
    """
    _check(update)
    return lr * min(1.0, update / warmup_updates) if warmup_updates else lr


def step(
    update: int,
    *,
    lr: float,
    drops: Sequence[int],
    factors: Sequence[float],
    warmup_updates: int = 0,
    warmup_init_lr: float = 0.0,
) -> float:
    """Learning rate that falls by a factor after each of the updates `drops`, after an optional linear warm-up.

        (init + (lr − init) · min(1, update / warmup_updates)) · Π factors[j]   over the drops j with drops[j] < update

    Args:
        update: 1-based.
        lr: where it begins.
        drops: updates made before each drop, rising.
        factors: one for each drop.
        warmup_updates: of linear warm-up.
        warmup_init_lr: where that begins.

    Raises:
        ValueError: if `update` < 1.

    Source: the regimes of Hoffer et al. 2020's released code ("at epoch 81": after 81 whole ones); its warm-up from the
    rate of a small batch, Goyal et al. 2017, section 2.2.
    """
    fallen = sum(drop < update for drop in drops)
    rising = warmup_init_lr + fixed(update, lr=lr - warmup_init_lr, warmup_updates=warmup_updates)
    return (rising if update < warmup_updates else lr) * math.prod(factors[:fallen])


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


def cosine(
    update: int,
    *,
    peak_lr: float,
    period: int,
    min_lr: float = 0.0,
    growth: float = 1.0,
    shrink: float = 1.0,
    warmup_updates: int = 0,
    warmup_init_lr: float = 0.0,
) -> float:
    """Linear warm-up to `peak_lr`, then periods in which it falls along half a cosine, each from its peak anew.

        init + (peak - init) · update / warmup                          for update < warmup
        shrink^i · (min + (peak - min) · (1 + cos(π · t / T)) / 2)      from then on

    i counts the periods from 0; T = period · growth^i are the updates of period i, and t those since it began: the last
    update of a period, and of a run of one, has t = T and the lowest rate.

    Raises:
        ValueError: if `update` < 1 or `period` < 1.

    Source: Loshchilov & Hutter 2017 (SGDR), as parametrised by fairseq's `cosine`.
    """
    _check(update, period)
    if update < warmup_updates:
        return warmup_init_lr + (peak_lr - warmup_init_lr) * update / warmup_updates
    number, start, length = 0, float(warmup_updates), float(period)
    if growth == 1:
        number = max(update - warmup_updates - 1, 0) // period
        start += number * period
    while update > start + length:
        number, start, length = number + 1, start + length, length * growth
    share = (update - start) / length
    return float(shrink**number * (min_lr + (peak_lr - min_lr) * (1 + math.cos(math.pi * share)) / 2))


def polynomial_decay(
    update: int, *, lr: float, total_updates: int, end_lr: float = 0.0, power: float = 1.0, warmup_updates: int = 0
) -> float:
    """Linear warm-up from 0 to `lr`, then decay to `end_lr` at update `total_updates`, where it stays.

        lr · update / warmup                                                      for update <= warmup
        end + (lr - end) · (1 - (update - warmup) / (total - warmup))^power       from then on

    Raises:
        ValueError: if `update` < 1 or `total_updates` < 1.

    Source: fairseq's `polynomial_decay`.
    """
    _check(update, total_updates)
    if update <= warmup_updates:
        return lr * update / warmup_updates
    if update >= total_updates:
        return end_lr
    left = 1 - (update - warmup_updates) / (total_updates - warmup_updates)
    return float(end_lr + (lr - end_lr) * left**power)


def _check(update: int, warmup_updates: int = 1) -> None:
    if update < 1 or warmup_updates < 1:
        raise ValueError(f"update is {update} and warmup_updates {warmup_updates}; both count from 1")
