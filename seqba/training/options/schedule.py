"""Options of a training run: learning rate of each update, and the noise that rises with it."""

from __future__ import annotations

from itertools import pairwise

from seqba.errors import UserError, quoted
from seqba.options import option, options

LARGEST_POWER = 4
"""Of M, in --lr-factor."""


def power_of_copies(text: str, copies: int) -> float:
    """The factor that `M^0.5`, say, or `M` is for so many copies.

    Raises:
        ValueError: for another text, or a power beyond ±4.
    """
    base, mark, power = text.partition("^")
    try:
        if base != "M" or (mark and not power):
            raise ValueError
        value = float(power or 1)
    except ValueError:
        raise ValueError(f"{text!r} is neither a number nor a power of the copies like M^0.5") from None
    if not abs(value) <= LARGEST_POWER:
        raise ValueError(f"the power of {text} must be from -{LARGEST_POWER} to {LARGEST_POWER}")
    return float(copies**value)


def factor_option(text: str) -> float | str:
    """Value of --lr-factor on a command line: a number where it is one, the text of a power of M otherwise.

    Raises:
        ValueError: as `power_of_copies`.
    """
    try:
        return float(text)
    except ValueError:
        power_of_copies(text, 1)
        return text


def rate_option(text: str) -> float:
    """Value of --lr on a command line, also as fairseq's list of one rate.

    Raises:
        ValueError: for another text; for fairseq's list of a rate for each epoch, with the options that mean the same.
    """
    given = [one.strip() for one in text.strip().strip("[]()").split(",")]
    try:
        rates = [float(one) for one in given if one]
    except ValueError:
        rates = []
    if not rates:
        raise ValueError(f"{quoted(text[:60])} is not a number")
    if len(rates) == 1:
        return rates[0]
    factors = [after / before if before > 0 else 0.0 for before, after in pairwise(rates)]
    same = "take one, and an --lr-scheduler"
    if all(0 < factor <= 1 for factor in factors):
        drops = ",".join(str(epoch) for epoch in range(1, len(rates)))
        shrinks = ",".join(f"{factor:.6g}" for factor in factors)
        same = f"the same are --lr {given[0]} --lr-scheduler step --lr-drops {drops} --lr-shrink {shrinks}"
    raise ValueError(f"{quoted(text[:60])} are rates of one epoch after another: {same}")


@options
class ScheduleOptions:
    """Learning rate of each update, and the noise that rises with it."""

    lr_scheduler: str = option(
        "fixed",
        "fixed; step, which falls at each of --lr-drops; inverse_sqrt; cosine, which falls to --min-lr, again in each "
        "period; polynomial_decay, which falls to --end-learning-rate; or vaswani, d^-0.5 · min(t^-0.5, t · "
        "warmup^-1.5), which sets its own peak",
        choices=("fixed", "step", "inverse_sqrt", "cosine", "polynomial_decay", "vaswani"),
    )
    lr: float | None = option(
        None,
        "learning rate, the peak where there is a warm-up; needed but for vaswani",
        above=0,
        metavar="X",
        read=rate_option,
    )
    lr_factor: float | str = option(
        1.0,
        "all learning rates of the schedule × this: a number, or a power of --copies like M^0.5, which is the same for "
        "all arms (the paper tried M^0.25, M^0.5, M and M^2 on fixed-samples; not in fairseq)",
        above=0,
        metavar="X or M^P",
        read=factor_option,
    )
    warmup_updates: int | None = option(
        None, "updates of linear warm-up (default: 4000 for inverse_sqrt and vaswani, 0 for the others)", minimum=0
    )
    warmup_init_lr: float = option(
        -1, "where the warm-up of inverse_sqrt or step (-1 = 0) or cosine (-1 = --min-lr) starts", minimum=-1
    )
    lr_drops: tuple[int, ...] = option(
        (),
        "step: the learning rate falls after so many epochs or updates each (not in fairseq)",
        minimum=1,
        metavar="N[,N]",
    )
    lr_drop_unit: str = option(
        "epoch",
        "what --lr-drops counts: updates, or epochs of the arm baseline, so that all arms fall at the same updates "
        "(not in fairseq)",
        choices=("epoch", "update"),
    )
    lr_shrink: tuple[float, ...] = option(
        (0.1,),
        "step: by this factor; a list has one for each drop; cosine: each period's rates are so much of those before",
        above=0,
        maximum=1,
        metavar="X[,X]",
    )
    min_lr: float | None = option(
        None,
        "cosine: the least learning rate of a period (default: 0); for the others the former name of --stop-min-lr",
        minimum=0,
    )
    lr_period_updates: int | None = option(
        None, "cosine: updates of the first period (default: those from the warm-up to --max-update)", minimum=1
    )
    t_mult: float = option(1.0, "cosine: each period is so much longer than the one before", minimum=1)
    total_num_update: int | None = option(
        None, "polynomial_decay: the update at which it has fallen (default: --max-update)", minimum=1
    )
    end_learning_rate: float = option(0.0, "polynomial_decay: what it falls to", minimum=0)
    power: float = option(1.0, "polynomial_decay: of the share of updates that are left; 1 is a line", above=0)
    drop_path_epochs: int | None = option(
        None,
        "--drop-path is reached after so many epochs of the arm baseline, from 0 in the first one on by equal steps "
        "(default: --max-epoch; not in fairseq)",
        minimum=1,
    )
    stop_min_lr: float = option(-1, "stop once the learning rate has fallen to this after its warm-up", minimum=-1)

    def __post_init__(self) -> None:
        """Refuses a factor that is none."""
        try:
            self.factor(1)
        except ValueError as error:
            raise UserError(f"--lr-factor: {error}") from None

    def factor(self, copies: int) -> float:
        """--lr-factor for so many copies."""
        factor = self.lr_factor
        return power_of_copies(factor, copies) if isinstance(factor, str) else factor

    @property
    def stops_below(self) -> float:
        """Learning rate at which the run ends; -1 for none."""
        has_floor = self.min_lr is not None and self.lr_scheduler != "cosine"
        return self.min_lr if has_floor and self.min_lr is not None else self.stop_min_lr
