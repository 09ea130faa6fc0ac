"""Rules of the learning rate, and of options that count epochs."""

from __future__ import annotations

from seqba.errors import UserError
from seqba.options import flag_of, is_given
from seqba.training.config import RunConfig
from seqba.training.options import ScheduleOptions


def check_epochs_that_options_count(config: RunConfig) -> None:
    """Refuses options in epochs where epochs have different numbers of updates."""
    training = config.training
    if len(training.grid.update_freq) == 1:
        return
    schedule, optimisation = training.schedule, training.optimisation
    if schedule.lr_scheduler == "step" and schedule.lr_drop_unit == "epoch":
        raise UserError("--lr-drop-unit epoch needs one --update-freq for all epochs: give --lr-drops in updates")
    if optimisation.weight_decay_until is not None and optimisation.weight_decay_unit == "epoch":
        raise UserError("--weight-decay-unit epoch needs one --update-freq for all epochs: count in updates")


def check_lr_factor(config: RunConfig) -> None:
    """Refuses a power of M where M changes."""
    factor, schedule = config.training.schedule.lr_factor, config.training.grid.copy_schedule
    if isinstance(factor, str) and not schedule.is_constant:
        raise UserError(f"--lr-factor {factor} is a power of M, and --copies {schedule} has several: give a number")


OF_SCHEDULES = {
    "lr_drops": ("step",),
    "lr_drop_unit": ("step",),
    "lr_shrink": ("step", "cosine"),
    "warmup_init_lr": ("step", "inverse_sqrt", "cosine"),
    "lr_period_updates": ("cosine",),
    "t_mult": ("cosine",),
    "total_num_update": ("polynomial_decay",),
    "end_learning_rate": ("polynomial_decay",),
    "power": ("polynomial_decay",),
}
"""Options that some schedules alone have."""


def check_schedule(schedule: ScheduleOptions) -> None:
    """Refuses options of another schedule, and a schedule without one that it needs."""
    name = schedule.lr_scheduler
    if name == "vaswani":
        if schedule.lr is not None:
            raise UserError(
                "--lr has no effect on --lr-scheduler vaswani, whose peak is (d · warmup)^-0.5: leave it out"
            )
    elif schedule.lr is None:
        raise UserError(f"--lr-scheduler {name} needs --lr (5e-4, say)")
    for option, owners in OF_SCHEDULES.items():
        if is_given(schedule, option) and name not in owners:
            raise UserError(f"{flag_of(option)} belongs to --lr-scheduler {' or '.join(owners)}, not {name}")
    if name == "step":
        _check_drops(schedule)
    if name == "cosine":
        _check_cosine(schedule)
    if schedule.warmup_updates == 0 and name in ("inverse_sqrt", "vaswani"):
        raise UserError(f"--lr-scheduler {name} needs --warmup-updates of at least 1")
    if schedule.min_lr is not None and name != "cosine" and is_given(schedule, "stop_min_lr"):
        raise UserError(f"--min-lr is the former name of --stop-min-lr with --lr-scheduler {name}: leave one out")


def _check_cosine(schedule: ScheduleOptions) -> None:
    if len(schedule.lr_shrink) != 1:
        raise UserError(f"--lr-scheduler cosine takes one --lr-shrink, not {len(schedule.lr_shrink)}")
    if schedule.min_lr is not None and schedule.lr is not None and schedule.min_lr >= schedule.lr:
        raise UserError(
            f"--min-lr {schedule.min_lr:g} is the least rate of --lr-scheduler cosine, and must be below its peak, "
            f"--lr {schedule.lr:g}"
        )


def _check_drops(schedule: ScheduleOptions) -> None:
    drops, factors = schedule.lr_drops, schedule.lr_shrink
    if not drops or list(drops) != sorted(set(drops)):
        raise UserError(f"--lr-scheduler step needs --lr-drops in rising order (81,122 say), not {drops or 'none'}")
    if len(factors) not in (1, len(drops)):
        raise UserError(
            f"--lr-shrink has {len(factors)} factors for {len(drops)} --lr-drops: give one, or one for each"
        )
