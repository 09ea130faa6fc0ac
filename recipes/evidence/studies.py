"""The studies of docs/results.md as data: which model learns from what, in which arms, and for how long.

Every arm of a study makes the same updates, but for those whose `Arm.share` says otherwise, and is validated after the
same ones. A run is an arm with a seed; `Run.name` is its name on the command line, in the folder of runs and in
recipes/results/.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
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
        about: what is learned from what, for the page.
        kind: what is learned, which says how a run is evaluated.
        data: folder under the prepared data (`prepare.py`).
        options: seqba-train's, of every arm; {N} in one stands for N × the arm's share.
        updates: of an arm whose share is 1.
        validate_every: so many of them.
        metric: of validation, by which arms are compared along the way: a field of the log.
        cost: multiplications and additions of a run.
        arms: the baseline first.
    """

    name: str
    title: str
    about: str
    kind: Kind
    data: str
    options: tuple[str, ...]
    updates: int
    validate_every: int
    metric: str
    cost: flop.Cost
    arms: tuple[Arm, ...]

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
        """How many it makes."""
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
            *("--validate-interval", "1000000", "--save-interval", "1000000", "--no-epoch-checkpoints"),
            *("--save-interval-updates", str(every), "--keep-interval-updates", "1"),
            *("--log-interval", str(max(1, every // 2)), "--log-format", "json"),
        ]


def arms(*copies: int, names: Sequence[str] = ("ba", "fixed-samples", "fixed-rows")) -> tuple[Arm, ...]:
    """The baseline, and the named arms with each number of copies."""
    return (Arm("baseline"), *(Arm(name, count) for count in copies for name in names))


def words(text: str) -> tuple[str, ...]:
    """Words of a command line."""
    return tuple(text.split())


AWD_LSTM = words(
    "--task language_modeling --arch awd_lstm --decoder-layers 3 --decoder-embed-dim 200 --decoder-hidden-size 300"
    " --dropout 0.4 --hidden-dropout 0.25 --input-dropout 0.4 --embedding-dropout 0.1 --weight-dropout 0.5"
    " --bptt 35 --batch-size-valid 40 --optimizer nt_asgd --nonmono 5 --lr 30 --clip-norm 0.25 --weight-decay 1.2e-6"
)
TRANSFORMER = words(
    "--arch transformer_wmt_en_de --encoder-layers 2 --encoder-embed-dim 128 --encoder-ffn-embed-dim 512"
    " --encoder-attention-heads 4 --decoder-layers 2 --decoder-embed-dim 128 --decoder-ffn-embed-dim 512"
    " --decoder-attention-heads 4 --share-all-embeddings --optimizer adam --adam-betas 0.9,0.98"
    " --lr-scheduler inverse_sqrt --lr 2e-3"
)
SMOOTHED = words("--criterion label_smoothed_cross_entropy --label-smoothing 0.1")
RDROP = words("--criterion label_smoothed_cross_entropy_with_rdrop --rdrop-alpha 5 --plan stacked")
SAMPLED = words("--subword-sampling 0.1")
RESNET = words(
    "--task image_classification --arch resnet8 --batch-size 64 --cutout 16 --valid-subset test --batch-size-valid 1000"
    " --optimizer sgd --momentum 0.9 --lr 0.1 --weight-decay 1e-4 --weight-decay-on weights --lr-scheduler step"
    " --lr-drop-unit update --best-checkpoint-metric top1 --maximize-best-checkpoint-metric"
)

STUDIES = (
    Study(
        name="images-2500",
        title="Images: ResNet8 on 2,500 pictures of CIFAR-10",
        about="ResNet8 with crops, flips and cutout on 2,500 pictures, batches of 64, a learning rate of 0.1 that "
        "falls to a tenth after two thirds and again after five sixths of the updates; bfloat16",
        kind="images",
        data="cifar10-2500",
        options=(*RESNET, "--bf16", "--lr-drops", "{936},{1170}"),
        updates=1404,
        validate_every=234,
        metric="top1",
        cost=flop.ResNet(8),
        arms=(*arms(4), Arm("ba", 2), Arm("ba", 4, "quarter", share=Fraction(1, 4))),
    ),
    Study(
        name="images-5000",
        title="Images: ResNet8 on 5,000 pictures of CIFAR-10",
        about="The same network on 5,000 pictures, in float32",
        kind="images",
        data="cifar10-5000",
        options=(*RESNET, "--lr-drops", "{2080},{2600}"),
        updates=3120,
        validate_every=156,
        metric="top1",
        cost=flop.ResNet(8),
        arms=(
            *arms(4),
            *(Arm("ba", copies) for copies in (2, 8)),
            *(Arm("fixed-samples", copies) for copies in (2, 8)),
            *(Arm("ba", 4, word, share=Fraction(1, part)) for word, part in (("half", 2), ("quarter", 4))),
            Arm("baseline", 1, "fourfold", share=Fraction(4)),
        ),
    ),
    Study(
        name="translation-5000",
        title="Translation: a small Transformer on 5,000 pairs of Multi30k",
        about="2+2 layers of width 128, dropout 0.3, on 5,000 pairs of Multi30k, English to German, at most 4,096 "
        "tokens an update",
        kind="translation",
        data="multi30k-5000",
        options=(*TRANSFORMER, *SMOOTHED, *words("--dropout 0.3 --max-tokens 4096 --warmup-updates 300")),
        updates=1200,
        validate_every=60,
        metric="nll",
        cost=flop.Transformer(layers=2, width=128, inner=512, length=20),
        arms=(
            *arms(4),
            Arm("ba", 4, "fork", words("--fork encoder")),
            Arm("ba", 4, "rdrop", RDROP),
            Arm("baseline", 1, "sampled", SAMPLED),
            Arm("ba", 4, "sampled", SAMPLED),
        ),
    ),
    Study(
        name="translation-29000",
        title="Translation: the same Transformer on all of Multi30k",
        about="2+2 layers of width 128, dropout 0.1, on the 29,000 pairs of Multi30k, at most 4,096 tokens an update",
        kind="translation",
        data="multi30k",
        options=(*TRANSFORMER, *SMOOTHED, *words("--dropout 0.1 --max-tokens 4096 --warmup-updates 300")),
        updates=6000,
        validate_every=150,
        metric="nll",
        cost=flop.Transformer(layers=2, width=128, inner=512, length=17),
        arms=arms(4),
    ),
    Study(
        name="language-tenth",
        title="Language model: AWD-LSTM on a tenth of Penn Treebank",
        about="An AWD-LSTM of 3 × 300, embedding 200, with the dropouts of the released recipe, on the first 4,200 "
        "lines of Penn Treebank's training text; 40 streams, windows of 35 words",
        kind="language",
        data="ptb-tenth",
        options=(*AWD_LSTM, *words("--batch-size 40")),
        updates=6800,
        validate_every=136,
        metric="nll",
        cost=flop.AWDLSTM(layers=3, embedding=200, hidden=300),
        arms=arms(4, 10),
    ),
)
"""In the order in which their runs begin."""


def runs_of(studies: Iterable[Study], seeds: Sequence[int], most_updates: int | None = None) -> list[Run]:
    """Runs of the studies: arm after arm, so that the first arms of a study are there with all seeds first."""
    return [Run(study, arm, seed, most_updates) for study in studies for arm in study.arms for seed in seeds]
