"""Every table row and figure of the paper, with the paper's figures."""

from __future__ import annotations

from collections.abc import Mapping

from entry import Entry

CIFAR, IMAGENET, PENN_TREEBANK = 50_000, 1_281_167, 929_589
"""Pictures, or words, of an epoch."""


def _three_arms(
    row: str,
    recipe: str,
    network: str,
    data: str,
    copies: int,
    rows: float,
    figures: tuple[float, float, float],
    unit: str = "top-1 %",
) -> Entry:
    """A row of table 2."""
    return Entry(
        name=f"table2-{row}",
        place="table 2",
        title=f"{network} on {data}, M = {copies}",
        network=network,
        commands=(f"{recipe} --arm all",),
        rows=rows,
        passes=1 + 2 * copies,
        paper=dict(zip(("baseline", "fixed-samples", "ba"), figures, strict=True)),
        unit=unit,
    )


def _two_arms(
    table: int, row: str, recipe: str, network: str, data: str, copies: int, rows: float, paper: Mapping[str, float]
) -> Entry:
    """A row of table 3 or 4."""
    return Entry(
        name=f"table{table}-{row}",
        place=f"table {table}",
        title=f"{network} on {data}, {'mixup' if table == 3 else 'ten views at test time'}, M = {copies}",
        network=network,
        commands=(f"{recipe} --arm baseline", f"{recipe} --arm ba"),
        rows=rows,
        passes=1 + copies,
        paper=paper,
    )


def _mixed(row: str, recipe: str, network: str, data: str, copies: int, rows: float, *figures: float) -> Entry:
    paper = dict(zip(("baseline", "ba"), figures, strict=True))
    return _two_arms(3, row, f"{recipe} --copies {copies} --mixup 0.2", network, data, copies, rows, paper)


def _viewed(row: str, recipe: str, network: str, data: str, rows: float, *figures: float) -> Entry:
    paper = dict(zip(("baseline", "ba", "baseline, 10 views", "ba, 10 views"), figures, strict=True))
    # The released code averages logits.
    views = f"{recipe} --copies 10 --tta 10 --tta-average logits"
    return _two_arms(4, row, views, network, data, 10, rows, paper)


_RESNET44, _RESNET50, _ROWS = "cifar10_resnet44.sh", "imagenet_resnet50.sh", "table2_images.sh"
_C10, _C100, _IMAGENET = "CIFAR-10", "CIFAR-100", "ImageNet"

TABLE_1 = {
    "epoch 0,": (9.63, 0.99, 0.99, 0.99, -0.11),
    "epoch 5,": (63.24, 0.56, 0.51, 0.42, -0.04),
    "epoch 93,": (95.43, 0.13, 0.09, 0.04, 0.0),
}
"""Accuracy, ρ(x, T(x)) without cutout and with it, ρ(x, y) and ρ(z, w) of each state."""

_CORRELATIONS = Entry(
    name="table1-resnet44",
    place="table 1",
    title="ResNet44 on CIFAR-10, M = 40: correlation of gradients after 0, 5 and 93 epochs",
    network="ResNet44",
    commands=("table1_correlations.sh",),
    rows=93 * CIFAR,
    passes=40,
    paper={
        f"{state} {what}": figure
        for state, figures in TABLE_1.items()
        for what, figure in zip(
            ("top-1 %", "views", "views with cutout", "one class", "two classes"), figures, strict=True
        )
    },
    unit="Pearson's ρ",
)

_TABLE_2 = (
    _three_arms("resnet44-cifar10", _RESNET44, "ResNet44", _C10, 40, 100 * CIFAR, (93.70, 93.80, 95.43)),
    _three_arms("vgg16-cifar10", f"{_ROWS} vgg16-cifar10", "VGG16", _C10, 32, 200 * CIFAR, (93.82, 94.49, 95.32)),
    _three_arms(
        "wrn28-10-cifar10", f"{_ROWS} wrn28-10-cifar10", "WResNet28-10", _C10, 6, 200 * CIFAR, (96.60, 96.60, 97.15)
    ),
    _three_arms("darts-cifar10", f"{_ROWS} darts-cifar10", "DARTS", _C10, 8, 600 * CIFAR, (97.65, 97.63, 97.85)),
    _three_arms(
        "amoebanet-cifar10", f"{_ROWS} amoebanet-cifar10", "AmoebaNet", _C10, 8, 600 * CIFAR, (98.16, 98.10, 98.24)
    ),
    _three_arms(
        "resnet44-cifar100", f"{_ROWS} resnet44-cifar100", "ResNet44", _C100, 40, 100 * CIFAR, (72.97, 70.30, 74.13)
    ),
    _three_arms("vgg16-cifar100", f"{_ROWS} vgg16-cifar100", "VGG16", _C100, 32, 200 * CIFAR, (73.03, 67.20, 75.50)),
    _three_arms(
        "wrn28-10-cifar100", f"{_ROWS} wrn28-10-cifar100", "WResNet28-10", _C100, 10, 200 * CIFAR, (79.85, 80.12, 83.45)
    ),
    _three_arms(
        "densenet100-cifar100",
        f"{_ROWS} densenet100-cifar100",
        "DenseNet100-12",
        _C100,
        4,
        300 * CIFAR,
        (77.73, 75.35, 78.80),
    ),
    _three_arms(
        "alexnet-imagenet", f"{_ROWS} alexnet-imagenet", "AlexNet", _IMAGENET, 8, 30 * IMAGENET, (58.25, 57.60, 62.31)
    ),
    _three_arms(
        "mobilenet-imagenet",
        f"{_ROWS} mobilenet-imagenet",
        "MobileNet",
        _IMAGENET,
        4,
        90 * IMAGENET,
        (70.60, 69.50, 71.40),
    ),
    _three_arms("resnet50-imagenet", _RESNET50, "ResNet50", _IMAGENET, 4, 90 * IMAGENET, (76.30, 75.70, 76.86)),
    _three_arms(
        "lstm-ptb", "ptb.sh", "LSTM", "Penn Treebank", 10, 500 * PENN_TREEBANK, (58.8, 58.8, 58.6), "perplexity"
    ),
    # 100,000 updates of four micro-batches, each of 4,096 target tokens at most.
    _three_arms(
        "transformer-wmt16", "wmt16_en_de.sh", "Transformer", "WMT16 En-De", 4, 1.5e9, (26.88, 27.13, 27.49), "BLEU"
    ),
)

_TABLE_3 = (
    _mixed("resnet44-cifar10", f"{_RESNET44} --regime 200", "ResNet44", _C10, 10, 200 * CIFAR, 94.60, 95.55),
    _mixed("wrn28-10-cifar10", f"{_ROWS} wrn28-10-cifar10", "WResNet28-10", _C10, 10, 200 * CIFAR, 97.30, 97.80),
    _mixed("wrn28-10-cifar100", f"{_ROWS} wrn28-10-cifar100", "WResNet28-10", _C100, 10, 200 * CIFAR, 82.5, 84.3),
    _mixed("resnet50-imagenet", _RESNET50, "ResNet50", _IMAGENET, 4, 90 * IMAGENET, 76.70, 77.04),
)

_TABLE_4 = (
    _viewed("resnet44-cifar10", _RESNET44, "ResNet44", _C10, 100 * CIFAR, 93.41, 95.03, 94.33, 96.00),
    _viewed("darts-cifar10", f"{_ROWS} darts-cifar10", "DARTS", _C10, 600 * CIFAR, 97.63, 97.85, 97.73, 98.13),
    _viewed(
        "amoebanet128-cifar10",
        f"{_ROWS} amoebanet128-cifar10",
        "AmoebaNet (width=128)",
        _C10,
        600 * CIFAR,
        98.16,
        98.24,
        98.15,
        98.42,
    ),
    _viewed(
        "wrn28-10-cifar100",
        f"{_ROWS} wrn28-10-cifar100",
        "WResNet28-10",
        _C100,
        200 * CIFAR,
        79.85,
        83.45,
        80.29,
        84.88,
    ),
    _viewed("resnet50-imagenet", _RESNET50, "ResNet50", _IMAGENET, 90 * IMAGENET, 76.30, 77.85, 77.10, 77.9),
)

_MANY_COPIES = (f"{_RESNET44} --arm baseline", f"{_RESNET44} --arm ba --copies 2,4,8,16,32")

_FIGURES = (
    Entry(
        name="figure1",
        place="figure 1",
        title="ResNet44 on CIFAR-10: norm of the gradient, M = 1 to 32",
        network="ResNet44",
        commands=_MANY_COPIES,
        rows=100 * CIFAR,
        passes=1 + 2 + 4 + 8 + 16 + 32,
        plot="--y grad_norm --curves train --by arm",
    ),
    Entry(
        name="figure2",
        place="figure 2",
        title="ResNet44 on CIFAR-10: accuracy by update, M = 1 to 32 (the runs of figure1)",
        network="ResNet44",
        commands=_MANY_COPIES,
        rows=100 * CIFAR,
        passes=1 + 2 + 4 + 8 + 16 + 32,
        plot="--y top1",
        folder="figure1",
    ),
    Entry(
        name="figure3",
        place="figure 3",
        title="ResNet44 on CIFAR-10: ba, M = 10, against ten times the pictures in one batch",
        network="ResNet44",
        commands=(f"{_RESNET44} --copies 10 --arm large-batch", f"{_RESNET44} --copies 10 --arm ba"),
        rows=100 * CIFAR,
        passes=20,
        plot="--y top1",
    ),
    Entry(
        name="figure4",
        place="figure 4",
        title="ResNet50 on ImageNet: accuracy by update, M = 4",
        network="ResNet50",
        commands=(f"{_RESNET50} --arm baseline", f"{_RESNET50} --arm ba"),
        rows=90 * IMAGENET,
        passes=5,
        paper={"baseline": 76.30, "ba": 76.86},
        plot="--y top1",
    ),
)

_TEXT = (
    Entry(
        name="section4.1-resnet44",
        place="section 4.1",
        title="ResNet44 on CIFAR-10, M = 40, 23 epochs",
        network="ResNet44",
        commands=(f"{_RESNET44} --regime 23 --arm ba",),
        rows=23 * CIFAR,
        passes=40,
        paper={"ba": 94.15},
    ),
    Entry(
        name="section4.1-amoebanet",
        place="section 4.1",
        title="AmoebaNet on CIFAR-10, M = 12, the first 14 of 600 epochs",
        network="AmoebaNet",
        commands=(f"{_ROWS} amoebanet-cifar10 --copies 12 --epochs 14 --arm ba",),
        rows=14 * CIFAR,
        passes=12,
        paper={"ba": 94.46},
    ),
    Entry(
        name="section4.2-resnet50-40",
        place="section 4.2",
        title="ResNet50 on ImageNet, M = 4, 40 epochs",
        network="ResNet50",
        commands=(f"{_RESNET50} --regime 40 --arm ba",),
        rows=40 * IMAGENET,
        passes=4,
        paper={"ba": 76.86},
    ),
    Entry(
        name="section4.2-resnet50-23",
        place="section 4.2",
        title="ResNet50 on ImageNet, M = 4, 23 epochs",
        network="ResNet50",
        commands=(f"{_RESNET50} --regime 23 --arm ba",),
        rows=23 * IMAGENET,
        passes=4,
        paper={"ba": 75.7},
    ),
)

_LARGE = Entry(
    name="section4.5-resnet50-large",
    place="section 4.5",
    title="ResNet50 on ImageNet, batches of 8,192, M = 4",
    network="ResNet50",
    commands=(f"{_ROWS} resnet50-large-imagenet --arm baseline", f"{_ROWS} resnet50-large-imagenet --arm ba"),
    rows=90 * IMAGENET,
    passes=5,
    paper={"baseline": 75.86, "ba": 76.51},
)

ENTRIES = {entry.name: entry for entry in (_CORRELATIONS, *_TABLE_2, *_TABLE_3, *_TABLE_4, *_FIGURES, *_TEXT, _LARGE)}
"""In the paper's order, then what its text has."""
