"""What follows from the number of an update, as the options say: learning rate, decay of the weights, drop path."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from seqba.errors import UserError
from seqba.nn.drop_path import DropPath, EpochRise
from seqba.training.options import OptimisationOptions, ScheduleOptions, TrainingOptions
from seqba.training.schedules import Schedule, cosine, fixed, inverse_sqrt, polynomial_decay, step, vaswani

DEFAULT_WARMUP_UPDATES = 4000


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
