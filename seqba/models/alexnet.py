"""AlexNet in one tower, with batch normalization."""

from __future__ import annotations

from torch import nn

from seqba.models.classifier import ImageClassifier, Norm, convolution, sequence
from seqba.nn import Dropout

HEAD_WIDTH = 4096


def alexnet_bn(
    classes: int, *, image_size: int = 224, norm: Norm = nn.BatchNorm2d, dropout: float = 0.5
) -> ImageClassifier:
    """Five convolutions of 64, 192, 384, 256 and 256 channels, then linear layers of 4,096, 4,096 and the classes.

    A norm follows every layer but the last, which alone has a bias. Where layers pool, they do so before the norm, and
    but for the first convolution and the linear layers the activation too comes before it: conv, pool, relu, norm. That
    order is the released code's. The head's norms see a layer's outputs as images of 1×1, (R, 4096, 1, 1), so that one
    `norm` serves the whole network: over rows alone it is what `nn.BatchNorm1d` computes. Stages: convolution 1,
    convolution 2, the rest.

    Args:
        classes: number of classes.
        image_size: side of the square images, at least 63; 224 leaves 6×6 positions to the head.
        norm: makes a norm for a number of channels.
        dropout: probability of dropping after each of the head's two hidden layers; each element of each row has its
            own draw.

    Raises:
        ValueError: for images that leave nothing to the head.

    Initial weights: the framework's own throughout, as in the released code.

    Source: Krizhevsky 2014, "One weird trick for parallelizing convolutional neural networks"; in this form Batch
    Augmentation's released code (`AlexNetOWT_BN`).
    """
    side = _positions(image_size)
    if side < 1:
        raise ValueError(f"image_size is {image_size}; it must be at least 63, or pooling leaves nothing")
    first = {
        "conv": nn.Conv2d(3, 64, 11, stride=4, padding=2, bias=False),
        "pool": nn.MaxPool2d(3, stride=2),
        "norm": norm(64),
        "relu": nn.ReLU(inplace=True),
    }
    rest = {
        "conv3": _layer(192, 384, 3, norm),
        "conv4": _layer(384, 256, 3, norm),
        "conv5": _layer(256, 256, 3, norm, pool=True),
        "head": _head(256 * side**2, classes, norm, dropout),
    }
    stages = [sequence({"conv1": sequence(first)}), sequence({"conv2": _layer(64, 192, 5, norm, pool=True)})]
    return ImageClassifier([*stages, sequence(rest)], image_size=image_size, first_dropout="dropout1")


def _layer(inputs: int, outputs: int, kernel: int, norm: Norm, *, pool: bool = False) -> nn.Sequential:
    parts: dict[str, nn.Module] = {"conv": convolution(inputs, outputs, kernel)}
    if pool:
        parts["pool"] = nn.MaxPool2d(3, stride=2)
    return sequence({**parts, "relu": nn.ReLU(inplace=True), "norm": norm(outputs)})


def _head(features: int, classes: int, norm: Norm, dropout: float) -> nn.Sequential:
    parts: dict[str, nn.Module] = {}
    for number in (1, 2):
        parts |= {
            f"flatten{number}": nn.Flatten(),
            f"linear{number}": nn.Linear(features, HEAD_WIDTH, bias=False),
            f"image{number}": nn.Unflatten(1, (HEAD_WIDTH, 1, 1)),
            f"norm{number}": norm(HEAD_WIDTH),
            f"relu{number}": nn.ReLU(inplace=True),
            f"dropout{number}": Dropout(dropout),
        }
        features = HEAD_WIDTH
    return sequence({**parts, "flatten3": nn.Flatten(), "linear3": nn.Linear(HEAD_WIDTH, classes)})


def _positions(image_size: int) -> int:
    """Side of the last features: the first convolution's stride of 4, then three poolings of 3 with stride 2."""
    side = (image_size + 2 * 2 - 11) // 4 + 1
    for _ in range(3):
        side = (side - 3) // 2 + 1
    return side
