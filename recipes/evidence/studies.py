"""The studies of docs/results.md as data: which model learns from what, in which arms, and for how long.

Every arm of a study makes the same updates, but for those whose `Arm.share` says otherwise, and is validated after the
same ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction

import flop
from study import Arm, Run, Study


def arms(*copies: int, names: Sequence[str] = ("ba", "fixed-samples", "fixed-rows")) -> tuple[Arm, ...]:
    """The baseline, and the named arms with each number of copies."""
    return (Arm("baseline"), *(Arm(name, count) for count in copies for name in names))


def words(text: str) -> tuple[str, ...]:
    """Words of a command line."""
    return tuple(text.split())


AWD_LSTM = words(
    "--task language_modeling --arch awd_lstm --decoder-layers 2 --decoder-embed-dim 128 --decoder-hidden-size 256"
    " --dropout 0.4 --hidden-dropout 0.25 --input-dropout 0.4 --embedding-dropout 0.1 --weight-dropout 0.5"
    " --bptt 35 --batch-size-valid 40 --optimizer sgd --lr 30 --clip-norm 0.25 --weight-decay 1.2e-6"
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
PICTURES = words(
    "--task image_classification --cutout 16 --valid-subset test --batch-size-valid 1000 --optimizer sgd --momentum 0.9"
    " --weight-decay-on weights --best-checkpoint-metric top1 --maximize-best-checkpoint-metric"
)
RESNET = (
    *PICTURES,
    *words("--arch resnet8 --lr 0.1 --weight-decay 1e-4 --lr-scheduler step --lr-drop-unit update"),
)
DARTS = (
    *PICTURES,
    *words("--arch darts --init-channels 16 --layers 8 --batch-size 96 --lr 0.025 --lr-scheduler cosine"),
    *words("--weight-decay 3e-4 --clip-norm 5 --drop-path-epochs 10"),
)

STUDIES = (
    Study(
        name="images-2500",
        title="Images: ResNet8 on 2,500 pictures of CIFAR-10",
        kind="images",
        data="cifar10-2500",
        options=(*RESNET, *words("--batch-size 64 --bf16 --lr-drops {936},{1170}")),
        updates=1404,
        validate_every=234,
        metric="top1",
        cost=flop.ResNet(8),
        arms=(*arms(4), Arm("ba", 2), Arm("ba", 4, "quarter", share=Fraction(1, 4))),
    ),
    Study(
        name="images-1000",
        title="Images: ResNet8 on 1,000 pictures of CIFAR-10",
        kind="images",
        data="cifar10-1000",
        options=(*RESNET, *words("--batch-size 32 --bf16 --lr-drops {1560},{1950}")),
        updates=2340,
        validate_every=234,
        metric="top1",
        cost=flop.ResNet(8),
        arms=(*arms(4), Arm("ba", 2), Arm("ba", 8), Arm("ba", 4, "half", share=Fraction(1, 2))),
    ),
    Study(
        name="images-5000",
        title="Images: ResNet8 on 5,000 pictures of CIFAR-10",
        kind="images",
        data="cifar10-5000",
        options=(*RESNET, *words("--batch-size 64 --lr-drops {2080},{2600}")),
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
        name="images-darts",
        title="Images: a narrow DARTS on 10,000 pictures of CIFAR-10",
        kind="images",
        data="cifar10-10000",
        options=DARTS,
        updates=1040,
        validate_every=208,
        metric="top1",
        cost=flop.Counted(products=43_976_704),
        arms=arms(4, names=["ba"]),
        measure=words("--batch-norm running"),  # the auxiliary head has one value per channel of a picture
    ),
    Study(
        name="translation-2500",
        title="Translation: a small Transformer on 2,500 pairs of Multi30k",
        kind="translation",
        data="multi30k-2500",
        options=(*TRANSFORMER, *SMOOTHED, *words("--dropout 0.3 --max-tokens 4096 --warmup-updates 300")),
        updates=1200,
        validate_every=60,
        metric="nll",
        cost=flop.Transformer(layers=2, width=128, inner=512, length=20),
        arms=arms(4),
    ),
    Study(
        name="translation-5000",
        title="Translation: a small Transformer on 5,000 pairs of Multi30k",
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
        name="language-twentieth",
        title="Language model: AWD-LSTM on a twentieth of Penn Treebank",
        kind="language",
        data="ptb-twentieth",
        options=(
            *AWD_LSTM,
            *words("--batch-size 20 --bf16 --lr-scheduler step --lr-drop-unit update --lr-shrink 0.25"),
            *words("--lr-drops {1088},{1360}"),
        ),
        updates=1632,
        validate_every=136,
        metric="nll",
        cost=flop.AWDLSTM(layers=2, embedding=128, hidden=256),
        arms=(*arms(4), Arm("ba", 4, "consistency", words("--consistency 0.15")), Arm("ba", 10)),
    ),
    Study(
        name="language-tenth",
        title="Language model: AWD-LSTM on a tenth of Penn Treebank",
        kind="language",
        data="ptb-tenth",
        options=(
            *AWD_LSTM,
            *words("--batch-size 20 --lr-scheduler step --lr-drop-unit update --lr-shrink 0.25"),
            *words("--lr-drops {2040},{2448}"),
        ),
        updates=2856,
        validate_every=136,
        metric="nll",
        cost=flop.AWDLSTM(layers=2, embedding=128, hidden=256),
        arms=(*arms(4), Arm("ba", 10), Arm("ba", 4, "consistency", words("--consistency 0.15"))),
        patience=5,
    ),
)
"""In the order in which their runs begin."""


def runs_of(studies: Iterable[Study], seeds: Sequence[int], most_updates: int | None = None) -> list[Run]:
    """Runs of the studies: arm after arm, so that the first arms of a study are there with all seeds first."""
    return [Run(study, arm, seed, most_updates) for study in studies for arm in study.arms for seed in seeds]
