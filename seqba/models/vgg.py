"""VGG-16 with batch normalization."""

from __future__ import annotations

from torch import nn

from seqba.models.classifier import ImageClassifier, Norm, conv_norm_relu, convolution, sequence
from seqba.nn import Dropout

BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Output channels of the 3×3 convolutions between two poolings: configuration D."""

HEAD_WIDTH = 4096


def vgg16_bn(
    classes: int, *, image_size: int = 32, norm: Norm = nn.BatchNorm2d, dropout: float = 0.5
) -> ImageClassifier:
    """Thirteen 3×3 convolutions, a norm after each, in five blocks that end in 2×2 max pooling; three linear layers.

    The convolutions keep their biases, which a norm makes superfluous: so do Batch Augmentation's released code and
    torchvision, and their sizes are what people count. On 32×32 images the head reads 512 features, on 224×224 ones
    7·7·512. Stages: block 1, block 2, the rest.

    Args:
        classes: number of classes.
        image_size: side of the square images, a multiple of 32.
        norm: makes a norm for a number of channels.
        dropout: probability of dropping after each of the head's two hidden layers; each element of each row has its
            own draw.

    Raises:
        ValueError: for an image size that isn't a multiple of 32.

    Initial weights: the framework's own throughout, as in Batch Augmentation's released code for CIFAR (weights and
    biases uniform within ±1/√(fan in)).

    Source: Simonyan & Zisserman 2015, table 1, column D, and section 3.1; the norms as in the released code.
    """
    if image_size < 32 or image_size % 32:
        raise ValueError(f"image_size is {image_size}; it must be a multiple of 32, as the size is halved five times")
    inputs, blocks = 3, []
    for widths in BLOCKS:
        layers = []
        for outputs in widths:
            layers.append(conv_norm_relu(convolution(inputs, outputs, 3, bias=True), norm))
            inputs = outputs
        blocks.append(nn.Sequential(*layers, nn.MaxPool2d(2)))
    head = _head(inputs * (image_size // 32) ** 2, classes, dropout)
    rest = {f"block{number}": block for number, block in enumerate(blocks[2:], start=3)}
    stages = [sequence({"block1": blocks[0]}), sequence({"block2": blocks[1]}), sequence({**rest, "head": head})]
    return ImageClassifier(stages, image_size=image_size, first_dropout="dropout1")


def _head(features: int, classes: int, dropout: float) -> nn.Sequential:
    return sequence(
        {
            "flatten": nn.Flatten(),
            "linear1": nn.Linear(features, HEAD_WIDTH),
            "relu1": nn.ReLU(inplace=True),
            "dropout1": Dropout(dropout),
            "linear2": nn.Linear(HEAD_WIDTH, HEAD_WIDTH),
            "relu2": nn.ReLU(inplace=True),
            "dropout2": Dropout(dropout),
            "linear3": nn.Linear(HEAD_WIDTH, classes),
        }
    )
