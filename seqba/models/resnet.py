"""Residual networks: He et al.'s for CIFAR, its wide form as the paper's released code ran it, and ImageNet's."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from seqba.models.classifier import (
    ImageClassifier,
    Norm,
    average_head,
    conv_norm_relu,
    convolution,
    init_convolutions,
    sequence,
)
from seqba.nn import Dropout

BOTTLENECKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Depth of an ImageNet network → blocks in each of its groups (He et al. 2016, table 1)."""

EXPANSION = 4
"""Output channels of a bottleneck for each channel of its 3×3 convolution."""

STEM_WIDTH = 16
"""Channels of a CIFAR network's first convolution; the wide form keeps it."""


class BasicBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut: relu(branch(x) + shortcut(x)).

    The last norm of the branch starts with γ = 0, so that the block starts as its shortcut: the identity (x is never
    negative), or a 1×1 convolution and a norm where stride or width change.

    Args:
        inputs: channels of x.
        outputs: channels of the result.
        stride: of the first convolution and of the shortcut.
        norm: makes a norm for a number of channels.
        dropout: probability of dropping between the convolutions; each element of each row has its own draw.

    Shape:
        (R, inputs, H, W) → (R, outputs, ⌈H / stride⌉, ⌈W / stride⌉).

    Source: He et al. 2016, "Deep Residual Learning", figure 2, with option B's shortcuts (section 3.3); dropout as in
    Zagoruyko & Komodakis 2016, section 2.4; γ = 0 as in Goyal et al. 2017, section 5.1.
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int, norm: Norm, dropout: float = 0.0) -> None:
        super().__init__()
        self.conv1 = convolution(inputs, outputs, 3, stride=stride)
        self.norm1 = norm(outputs)
        self.dropout = Dropout(dropout)
        self.conv2 = convolution(outputs, outputs, 3)
        self.norm2 = _zero_norm(norm(outputs))
        self.shortcut = _shortcut(inputs, outputs, stride, norm)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Adds the branch to the shortcut of x (R, inputs, H, W)."""
        branch = self.dropout(self.relu(self.norm1(self.conv1(x))))
        branch = self.norm2(self.conv2(branch))
        result: Tensor = self.relu(branch + self.shortcut(x))
        return result


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions beside a shortcut: relu(branch(x) + shortcut(x)).

    The stride is the 3×3 convolution's, where the paper puts it on the first 1×1: so it is in the code that Batch
    Augmentation's networks came from, as in most others since, and it reads every position where a strided 1×1
    convolution skips three quarters of them. The number of parameters is the same. γ = 0 at the end of the branch as in
    `BasicBlock`.

    Args:
        inputs: channels of x.
        width: channels of the 3×3 convolution; the result has `EXPANSION` times as many.
        stride: of the 3×3 convolution and of the shortcut.
        norm: makes a norm for a number of channels.

    Shape:
        (R, inputs, H, W) → (R, 4·width, ⌈H / stride⌉, ⌈W / stride⌉).

    Source: He et al. 2016, figure 5, with option B's shortcuts (section 3.3); the stride as in torchvision.
    """

    def __init__(self, inputs: int, width: int, *, stride: int, norm: Norm) -> None:
        super().__init__()
        outputs = EXPANSION * width
        self.conv1 = convolution(inputs, width, 1)
        self.norm1 = norm(width)
        self.conv2 = convolution(width, width, 3, stride=stride)
        self.norm2 = norm(width)
        self.conv3 = convolution(width, outputs, 1)
        self.norm3 = _zero_norm(norm(outputs))
        self.shortcut = _shortcut(inputs, outputs, stride, norm)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Adds the branch to the shortcut of x (R, inputs, H, W)."""
        branch = self.relu(self.norm1(self.conv1(x)))
        branch = self.relu(self.norm2(self.conv2(branch)))
        branch = self.norm3(self.conv3(branch))
        result: Tensor = self.relu(branch + self.shortcut(x))
        return result


def resnet_cifar(
    classes: int,
    *,
    depth: int = 44,
    widths: Sequence[int] = (16, 32, 64),
    norm: Norm = nn.BatchNorm2d,
    dropout: float = 0.0,
) -> ImageClassifier:
    """The residual network for 32×32 images: a 3×3 stem, three groups of n basic blocks, global average, linear layer.

    depth = 6n + 2: two convolutions in each of 3n blocks, the stem and the linear layer. The second and the third group
    begin with stride 2. Stages: stem and group 1, group 2, group 3 and the head. Shortcuts that change shape are 1×1
    convolutions with a norm, where the paper's CIFAR networks have none: so in Batch Augmentation's released code.

    Args:
        classes: number of classes.
        depth: 6n + 2; 44 has n = 7.
        widths: channels of the three groups. The stem has 16 whatever they are.
        norm: makes a norm for a number of channels.
        dropout: see `BasicBlock`.

    Raises:
        ValueError: for a depth that isn't 6n + 2 with n ≥ 1, or widths that aren't three.

    Initial weights: `init_convolutions`; γ = 1 but for the last norm of each block, β = 0; linear N(0, 0.01²), bias 0.

    Source: He et al. 2016, section 4.2; Batch Augmentation's released code.
    """
    if depth < 8 or (depth - 2) % 6:
        raise ValueError(f"depth is {depth}; it must be 6n + 2: 8, 14, 20, … 44")
    return _cifar(classes, (depth - 2) // 6, widths, norm, dropout)


def wide_resnet(
    classes: int, *, depth: int = 28, widen: int = 10, norm: Norm = nn.BatchNorm2d, dropout: float = 0.0
) -> ImageClassifier:
    """The wide residual network as Batch Augmentation's released code ran it: `resnet_cifar`, wider.

    It has the n = (depth − 4) / 6 blocks a group and the 16·widen, 32·widen, 64·widen channels of WRN-depth-widen, but
    norm and activation come after each convolution as in `resnet_cifar`, where Zagoruyko & Komodakis's blocks begin
    with them (and a last norm and activation precede the average). The released code counts n = ⌊(depth − 2) / 6⌋,
    which is the same number.

    Args:
        classes: number of classes.
        depth: 6n + 4, which counts the stem, two convolutions a block and the three shortcuts; 28 has n = 4.
        widen: k, the channels over those of `resnet_cifar`.
        norm: makes a norm for a number of channels.
        dropout: between the convolutions of a block; the released code had none, Zagoruyko & Komodakis try 0.3.

    Raises:
        ValueError: for a depth that isn't 6n + 4 with n ≥ 1.

    Source: Zagoruyko & Komodakis 2016; Batch Augmentation's released code for the blocks and the initial weights.
    """
    if depth < 10 or (depth - 4) % 6:
        raise ValueError(f"depth is {depth}; it must be 6n + 4: 10, 16, 22, 28, …")
    return _cifar(classes, (depth - 4) // 6, [width * widen for width in (16, 32, 64)], norm, dropout)


def resnet_imagenet(classes: int, *, depth: int = 50, norm: Norm = nn.BatchNorm2d) -> ImageClassifier:
    """The residual network of bottlenecks for 224×224 images.

    A 7×7 stem with stride 2, max pooling with stride 2, four groups of 64, 128, 256 and 512 channels (times 4 at the
    end of a block), of which all but the first begin with stride 2, global average, linear layer. Stages: stem and
    group 1, group 2, groups 3 and 4 and the head. Any image size.

    Args:
        classes: number of classes.
        depth: a key of `BOTTLENECKS`.
        norm: makes a norm for a number of channels.

    Raises:
        ValueError: for another depth.

    Initial weights: as in `resnet_cifar`.

    Source: He et al. 2016, table 1; for the stride see `Bottleneck`.
    """
    if depth not in BOTTLENECKS:
        raise ValueError(f"depth is {depth}; it must be one of {', '.join(map(str, BOTTLENECKS))}")

    def block(inputs: int, outputs: int, stride: int) -> nn.Module:
        return Bottleneck(inputs, outputs // EXPANSION, stride=stride, norm=norm)

    stem = conv_norm_relu(convolution(3, 64, 7, stride=2), norm)
    stem.add_module("pool", nn.MaxPool2d(3, stride=2, padding=1))
    widths = [EXPANSION * width for width in (64, 128, 256, 512)]
    first, second, third, fourth = _groups(block, BOTTLENECKS[depth], 64, widths)
    return _initialised(
        ImageClassifier(
            [
                sequence({"stem": stem, "group1": first}),
                sequence({"group2": second}),
                sequence({"group3": third, "group4": fourth, "head": average_head(widths[-1], classes)}),
            ]
        )
    )


def _cifar(classes: int, blocks: int, widths: Sequence[int], norm: Norm, dropout: float) -> ImageClassifier:
    if len(widths) != 3:
        raise ValueError(f"a CIFAR network has three groups, but there are {len(widths)} widths")

    def block(inputs: int, outputs: int, stride: int) -> nn.Module:
        return BasicBlock(inputs, outputs, stride=stride, norm=norm, dropout=dropout)

    stem = conv_norm_relu(convolution(3, STEM_WIDTH, 3), norm)
    first, second, third = _groups(block, [blocks] * 3, STEM_WIDTH, widths)
    return _initialised(
        ImageClassifier(
            [
                sequence({"stem": stem, "group1": first}),
                sequence({"group2": second}),
                sequence({"group3": third, "head": average_head(widths[-1], classes)}),
            ]
        )
    )


def _groups(
    block: Callable[[int, int, int], nn.Module], counts: Sequence[int], inputs: int, widths: Sequence[int]
) -> list[nn.Sequential]:
    """Groups of `counts` blocks with `widths` output channels, halving the resolution from each to the next."""
    groups = []
    for number, (count, outputs) in enumerate(zip(counts, widths, strict=True)):
        first = block(inputs, outputs, 1 if number == 0 else 2)
        groups.append(nn.Sequential(first, *[block(outputs, outputs, 1) for _ in range(count - 1)]))
        inputs = outputs
    return groups


def _shortcut(inputs: int, outputs: int, stride: int, norm: Norm) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return sequence({"conv": convolution(inputs, outputs, 1, stride=stride), "norm": norm(outputs)})


def _zero_norm(norm: nn.Module) -> nn.Module:
    nn.init.zeros_(norm.get_parameter("weight"))
    return norm


def _initialised(model: ImageClassifier) -> ImageClassifier:
    init_convolutions(model)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)
    return model
