"""Learning rate as a function of the 1-based number of the update: no state, nothing to save."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

from torch import nn

from seqba.errors import UserError
from seqba.nn.drop_path import DropPath, EpochRise
from seqba.training.options import OptimisationOptions, ScheduleOptions, TrainingOptions

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


def build_schedule(
    options: ScheduleOptions,
    *,
    width: int | None,
    epoch_updates: Callable[[], int],
    max_update: int = 0,
    copies: int = 1,
) -> Schedule:
    """Schedule that the options name, all its rates times --lr-factor.

    Args:
        options: which, and its numbers.
        width: of the model's embedding; None for a model without one.
        epoch_updates: how many updates an epoch of the arm baseline has; asked where drops are counted in epochs.
        max_update: the last update of the run, where a schedule ends by default; 0 if there is none.
        copies: M, of whose powers the factor may be.

    Raises:
        UserError: for `vaswani` where there is no width, or a schedule whose end nothing says.
    """
    schedule = _build_unscaled(options, width=width, epoch_updates=epoch_updates, max_update=max_update)
    factor = options.factor(copies)
    return schedule if factor == 1 else lambda update: factor * schedule(update)


def _build_unscaled(
    options: ScheduleOptions, *, width: int | None, epoch_updates: Callable[[], int], max_update: int
) -> Schedule:
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
        return partial(
            step,
            lr=options.lr,
            drops=drops,
            factors=factors,
            warmup_updates=warmup or 0,
            warmup_init_lr=max(0.0, options.warmup_init_lr),
        )
    if options.lr_scheduler == "cosine":
        return _build_cosine(options, options.lr, max_update)
    if options.lr_scheduler == "polynomial_decay":
        return _build_polynomial_decay(options, options.lr, max_update)
    return partial(
        inverse_sqrt,
        peak_lr=options.lr,
        warmup_updates=warmup or DEFAULT_WARMUP_UPDATES,
        warmup_init_lr=max(0.0, options.warmup_init_lr),
    )


def _build_cosine(options: ScheduleOptions, lr: float, max_update: int) -> Schedule:
    warmup, min_lr = options.warmup_updates or 0, options.min_lr or 0.0
    period = options.lr_period_updates or max_update - warmup
    if period < 1:
        raise UserError(
            "--lr-scheduler cosine needs --lr-period-updates, or a --max-update beyond --warmup-updates, where its "
            "only period ends"
        )
    return partial(
        cosine,
        peak_lr=lr,
        period=period,
        min_lr=min_lr,
        growth=options.t_mult,
        shrink=options.lr_shrink[0],
        warmup_updates=warmup,
        warmup_init_lr=min_lr if options.warmup_init_lr < 0 else options.warmup_init_lr,
    )


def _build_polynomial_decay(options: ScheduleOptions, lr: float, max_update: int) -> Schedule:
    warmup, total = options.warmup_updates or 0, options.total_num_update or max_update
    if total <= warmup:
        raise UserError(
            "--lr-scheduler polynomial_decay needs --total-num-update, or --max-update, beyond --warmup-updates: where "
            "the rate has fallen"
        )
    return partial(
        polynomial_decay,
        lr=lr,
        total_updates=total,
        end_lr=options.end_learning_rate,
        power=options.power,
        warmup_updates=warmup,
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


def schedule_drop_path(model: nn.Module, options: TrainingOptions, *, epoch_updates: Callable[[], int]) -> None:
    """Lets the probabilities of a model's drop path rise from epoch to epoch; nothing for a model without.

    In the e-th epoch of the arm baseline, counted from 0, each is e / epochs of what it is at the end. That is a
    function of the update alone, so it is the same in every arm and plan and after going on.

    Args:
        model: whose modules of the class `DropPath` are set.
        options: --drop-path-epochs, or else --max-epoch, says where the rise ends.
        epoch_updates: how many updates an epoch of the arm baseline has; asked where there is drop path.

    Raises:
        UserError: if nothing says where the rise ends, if something does and there is no drop path, or if epochs have
            different numbers of updates.

    Source: the released code of DARTS (Liu et al. 2019).
    """
    paths = [module for module in model.modules() if isinstance(module, DropPath) and module.p > 0]
    given = options.schedule.drop_path_epochs
    epochs = given or options.run.max_epoch
    if not paths:
        if given is not None:
            raise UserError(
                "--drop-path-epochs is for DARTS, AmoebaNet and NASNet with --drop-path above 0: no other model has a "
                "drop path that rises"
            )
        return
    if not epochs:
        raise UserError(
            "--drop-path rises over the epochs of the run: say with --drop-path-epochs, or --max-epoch, how many there "
            "are"
        )
    if len(options.grid.update_freq) > 1:
        raise UserError("--drop-path rises by epochs, which needs one --update-freq for all of them")
    rise = EpochRise(epoch_updates(), epochs)
    for path in paths:
        path.rise = rise


def _check(update: int, warmup_updates: int = 1) -> None:
    if update < 1 or warmup_updates < 1:
        raise ValueError(f"update is {update} and warmup_updates {warmup_updates}; both count from 1")
