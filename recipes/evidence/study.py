"""What a study is: a model and its data, the arms that are compared on it, and a run of one of them.

A run is an arm with a seed; `Run.name` is its name on the command line, in the folder of runs and in recipes/results/.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import flop

Kind = Literal["language", "translation", "images"]

SEEDS = (1, 2, 3)


@dataclass(frozen=True)
class Arm:
    """One side of a comparison.

    Attributes:
        name: seqba-train's --arm.
        copies: M.
        variant: a word for what else is different; "" for nothing.
        options: seqba-train's options for that.
        share: of the study's updates, of its schedule and of the time between two validations.
    """

    name: str
    copies: int = 1
    variant: str = ""
    options: tuple[str, ...] = ()
    share: Fraction = Fraction(1)

    @property
    def copies_of_an_update(self) -> int:
        """Noisy views of each example: M in the arms that have copies."""
        return self.copies if self.name in ("ba", "fixed-rows") else 1

    @property
    def label(self) -> str:
        """Name of the arm in files: ba-4, ba-4-fork."""
        number = "" if self.name == "baseline" else f"-{self.copies}"
        return f"{self.name}{number}{self.variant and '-' + self.variant}"


@dataclass(frozen=True)
class Study:
    """A model, a text or pictures, and the arms that are compared on it.

    Attributes:
        name: on the command line and in files.
        title: heading on the page.
        kind: what is learned, which says how a run is evaluated.
        data: folder under the prepared data (`prepare.py`).
        options: seqba-train's, of every arm; {N} in one stands for N × the arm's share.
        updates: of an arm whose share is 1; the most of them where there is patience.
        validate_every: so many of them.
        metric: of validation, by which arms are compared along the way: a field of the log.
        cost: multiplications and additions of a run.
        arms: the baseline first.
        measure: further options of seqba-measure.
        patience: validations in a row without a new best that end a run before its updates are made; 0 for none.
    """

    name: str
    title: str
    kind: Kind
    data: str
    options: tuple[str, ...]
    updates: int
    validate_every: int
    metric: str
    cost: flop.Cost
    arms: tuple[Arm, ...]
    measure: tuple[str, ...] = ()
    patience: int = 0

    @property
    def rises(self) -> bool:
        """Whether the larger metric is the better one."""
        return self.metric == "top1"


@dataclass(frozen=True)
class Run:
    """An arm of a study with a seed.

    Attributes:
        study: see `Study`.
        arm: see `Arm`.
        seed: of weights, order and noise.
        most_updates: a longer one is shortened to this, with its schedule; for trials.
    """

    study: Study
    arm: Arm
    seed: int
    most_updates: int | None = None

    @property
    def name(self) -> str:
        """STUDY.ARM.SEED."""
        return f"{self.study.name}.{self.arm.label}.{self.seed}"

    @property
    def is_measured(self) -> bool:
        """Whether the variance of its gradient is measured at the end: of the baseline, with one seed."""
        return self.arm == self.study.arms[0] and self.seed == SEEDS[0]

    @property
    def share(self) -> Fraction:
        """Of the study's updates and schedule."""
        shortest = self.arm.share if self.most_updates is None else Fraction(self.most_updates, self.study.updates)
        return min(self.arm.share, shortest)

    @property
    def updates(self) -> int:
        """How many it makes; the most of them where the study has patience."""
        return int(self.study.updates * self.share)

    @property
    def options(self) -> list[str]:
        """seqba-train's options, but for the data, the folder and the device."""
        share, every = self.share, max(1, int(self.study.validate_every * self.share))
        scaled = [
            re.sub(r"\{(\d+)\}", lambda number: str(int(int(number[1]) * share)), each) for each in self.study.options
        ]
        copies = [] if self.arm.name == "baseline" else ["--copies", str(self.arm.copies)]
        return [
            *("--arm", self.arm.name, *copies, "--seed", str(self.seed)),
            *scaled,
            *self.arm.options,
            *("--max-update", str(self.updates)),
            *(["--patience", str(self.study.patience)] if self.study.patience else []),
            *("--validate-interval", "1000000", "--save-interval", "1000000", "--no-epoch-checkpoints"),
            *("--save-interval-updates", str(every), "--keep-interval-updates", "1"),
            *("--log-interval", str(max(1, every // 2)), "--log-format", "json"),
        ]
