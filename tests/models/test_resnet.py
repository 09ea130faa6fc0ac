"""Residual networks: their published sizes, every convolution of the papers' tables, and how they start."""

from __future__ import annotations

import pytest
import torch
from networks import Layer, Reading, close, convolutions, count, images, places, shake
from torch import Tensor, nn

from seqba.models.classifier import ImageClassifier
from seqba.models.resnet import BasicBlock, Bottleneck, resnet_cifar, resnet_imagenet, wide_resnet


def cifar_layers(blocks: int, widths: tuple[int, ...]) -> list[Layer]:
    """He et al. 2016, section 4.2: feature maps of 32, 16 and 8; shortcuts of 1×1 where the shape changes."""
    layers, inputs = [Layer(3, 1, 3, 16, 32)], 16
    for outputs, side in zip(widths, (32, 16, 8), strict=True):
        for block in range(blocks):
            stride = 2 if block == 0 and side < 32 else 1
            layers += [Layer(3, stride, inputs, outputs, side), Layer(3, 1, outputs, outputs, side)]
            if stride == 2 or inputs != outputs:
                layers.append(Layer(1, stride, inputs, outputs, side))
            inputs = outputs
    return layers


def imagenet_layers(blocks: tuple[int, ...]) -> list[Layer]:
    """He et al. 2016, table 1, with the stride on the 3×3 convolution."""
    layers, inputs = [Layer(7, 2, 3, 64, 112)], 64
    for number, width, side in zip(blocks, (64, 128, 256, 512), (56, 28, 14, 7), strict=True):
        for block in range(number):
            stride = 2 if block == 0 and width > 64 else 1
            layers.append(Layer(1, 1, inputs, width, side * stride))
            layers.append(Layer(3, stride, width, width, side))
            layers.append(Layer(1, 1, width, 4 * width, side))
            if block == 0:
                layers.append(Layer(1, stride, inputs, 4 * width, side))
            inputs = 4 * width
    return layers


def parameters(layers: list[Layer], features: int, classes: int) -> int:
    """Weights of the convolutions, scale and shift of a norm behind each, the linear layer."""
    kernels = sum(layer.kernel**2 * layer.inputs * layer.outputs for layer in layers)
    return kernels + sum(2 * layer.outputs for layer in layers) + features * classes + classes


@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)])
def test_cifar_networks_are_the_paper_s(depth: int, millions: float) -> None:
    with torch.device("meta"):
        model = resnet_cifar(10, depth=depth)
    layers = cifar_layers((depth - 2) // 6, (16, 32, 64))
    assert convolutions(model, 32) == layers
    # Stem, two in each block, and the linear layer are the layers that the paper counts.
    assert sum(layer.kernel == 3 for layer in layers) + 1 == depth
    assert count(model) == parameters(layers, 64, 10)
    # The paper's table 6 has shortcuts without parameters; ours have 1×1 convolutions and norms in two places.
    shortcuts = 16 * 32 + 32 * 64 + 2 * (32 + 64)
    assert (count(model) - shortcuts) / 1e6 == pytest.approx(millions, abs=0.04 if depth > 100 else 0.006)


def test_the_default_is_resnet44() -> None:
    with torch.device("meta"):
        model = resnet_cifar(10)
    assert count(model) == 661_338
    assert sum(isinstance(module, BasicBlock) for module in model.modules()) == 21
    assert places(model, 32) == [(3, 32, 32), (16, 32, 32), (32, 16, 16)]
    assert model.image_size is None


def test_the_wide_network_is_the_released_code_s() -> None:
    with torch.device("meta"):
        model = wide_resnet(10)
    layers = cifar_layers(4, (160, 320, 640))
    assert convolutions(model, 32) == layers
    assert len(layers) + 1 == 29  # 28 by the paper's count, and the first group's shortcut beside the other two
    assert count(model) == parameters(layers, 640, 10) == 36_481_434
    assert places(model, 32) == [(3, 32, 32), (160, 32, 32), (320, 16, 16)]
    with torch.device("meta"):
        small = wide_resnet(100, depth=16, widen=4)
    assert convolutions(small, 32) == cifar_layers(2, (64, 128, 256))


@pytest.mark.parametrize(
    ("depth", "blocks", "published"),
    [(50, (3, 4, 6, 3), 25_557_032), (101, (3, 4, 23, 3), 44_549_160), (152, (3, 8, 36, 3), 60_192_808)],
)
def test_imagenet_networks_are_the_paper_s(depth: int, blocks: tuple[int, ...], published: int) -> None:
    with torch.device("meta"):
        model = resnet_imagenet(1000, depth=depth)
    layers = imagenet_layers(blocks)
    assert convolutions(model, 224) == layers
    assert len(layers) - 4 + 1 == depth
    assert count(model) == parameters(layers, 2048, 1000) == published
    assert places(model, 224) == [(3, 224, 224), (256, 56, 56), (512, 28, 28)]


def test_fifty_layers_are_the_default() -> None:
    with torch.device("meta"):
        assert count(resnet_imagenet(1000)) == 25_557_032


@pytest.mark.parametrize("depth", [0, 2, 7, 9, 45])
def test_impossible_depths_are_refused(depth: int) -> None:
    with pytest.raises(ValueError, match=f"depth is {depth}; it must be 6n"):
        resnet_cifar(10, depth=depth)
    with pytest.raises(ValueError, match=f"depth is {depth}; it must be 6n"):
        wide_resnet(10, depth=depth)
    with pytest.raises(ValueError, match=f"depth is {depth}; it must be one of 50, 101, 152"):
        resnet_imagenet(10, depth=depth)


def test_a_cifar_network_has_three_groups() -> None:
    with pytest.raises(ValueError, match="three groups, but there are 2 widths"):
        resnet_cifar(10, widths=(16, 32))
    with torch.device("meta"):
        assert convolutions(resnet_cifar(10, depth=8, widths=(4, 5, 6)), 32) == cifar_layers(1, (4, 5, 6))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
def test_every_block_starts_as_its_shortcut(kind: str, stride: int) -> None:
    torch.manual_seed(0)
    x = torch.rand(3, 8, 6, 6)  # as behind an activation, never negative

    def block(inputs: int, outputs: int, stride: int) -> nn.Module:
        if kind == "basic":
            return BasicBlock(inputs, outputs, stride=stride, norm=nn.BatchNorm2d)
        return Bottleneck(inputs, outputs // 4, stride=stride, norm=nn.BatchNorm2d)

    same, other = block(8, 8, 1), block(8, 16, stride)
    assert torch.equal(same(x), x)
    shortcut = other.shortcut(x)
    assert shortcut.shape == (3, 16, 6 // stride, 6 // stride)
    assert torch.equal(other(x), shortcut.relu())
    assert not torch.equal(other(x), torch.zeros(()))


@pytest.mark.parametrize("kind", ["resnet_cifar", "wide_resnet", "resnet_imagenet"])
def test_initial_weights(kind: str) -> None:
    torch.manual_seed(0)
    make = {
        "resnet_cifar": lambda: resnet_cifar(50, depth=14),
        "wide_resnet": lambda: wide_resnet(50, depth=10, widen=2),
        "resnet_imagenet": lambda: resnet_imagenet(20),
    }
    model = make[kind]()
    blocks = (BasicBlock, Bottleneck)
    last = {"norm3" if isinstance(m, Bottleneck) else "norm2" for m in model.modules() if isinstance(m, blocks)}
    assert len(last) == 1
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            expected = 0.0 if name.split(".")[-1] in last else 1.0
            assert module.weight.unique().tolist() == [expected], name
            assert not module.bias.any()
        elif isinstance(module, nn.Conv2d):
            n = module.kernel_size[0] ** 2 * module.out_channels
            ratio = module.weight.var().item() / (2 / n)
            assert ratio == pytest.approx(1, abs=5 * (2 / module.weight.numel()) ** 0.5), name
    head = model.stages[-1].head.linear
    assert head.weight.std().item() == pytest.approx(0.01, rel=5 / (2 * head.weight.numel()) ** 0.5)
    assert not head.bias.any()


def read_basic_block(read: Reading, x: Tensor, name: str, stride: int) -> Tensor:
    branch = read.norm(read.conv(x, f"{name}.conv1", stride), f"{name}.norm1").clamp(min=0)
    branch = read.norm(read.conv(branch, f"{name}.conv2"), f"{name}.norm2")
    if f"{name}.shortcut.conv.weight" in read.state:
        x = read.norm(read.conv(x, f"{name}.shortcut.conv", stride), f"{name}.shortcut.norm")
    return (branch + x).clamp(min=0)


def read_bottleneck(read: Reading, x: Tensor, name: str, stride: int) -> Tensor:
    branch = read.norm(read.conv(x, f"{name}.conv1"), f"{name}.norm1").clamp(min=0)
    branch = read.norm(read.conv(branch, f"{name}.conv2", stride), f"{name}.norm2").clamp(min=0)
    branch = read.norm(read.conv(branch, f"{name}.conv3"), f"{name}.norm3")
    if f"{name}.shortcut.conv.weight" in read.state:
        x = read.norm(read.conv(x, f"{name}.shortcut.conv", stride), f"{name}.shortcut.norm")
    return (branch + x).clamp(min=0)


def ready(model: ImageClassifier) -> ImageClassifier:
    shake(model).double().eval()
    return model


def test_the_cifar_network_read_by_hand() -> None:
    torch.manual_seed(0)
    model = ready(resnet_cifar(10, depth=14))
    read, x = Reading(model), images(side=16, dtype=torch.float64)
    y = read.norm(read.conv(x, "stages.0.stem.conv"), "stages.0.stem.norm").clamp(min=0)
    for group in range(3):
        for block in range(2):
            stride = 2 if group and not block else 1
            y = read_basic_block(read, y, f"stages.{group}.group{group + 1}.{block}", stride)
    logits = read.linear(y.mean((2, 3)), "stages.2.head.linear")
    assert close(model(x), logits)


def test_the_imagenet_network_read_by_hand() -> None:
    torch.manual_seed(0)
    model = ready(resnet_imagenet(10))
    read, x = Reading(model), images(rows=2, side=64, dtype=torch.float64)
    y = read.norm(read.conv(x, "stages.0.stem.conv", 2), "stages.0.stem.norm").clamp(min=0)
    y = nn.functional.max_pool2d(y, 3, stride=2, padding=1)
    for group, blocks in enumerate((3, 4, 6, 3)):
        for block in range(blocks):
            stride = 2 if group and not block else 1
            y = read_bottleneck(read, y, f"stages.{min(group, 2)}.group{group + 1}.{block}", stride)
    logits = read.linear(y.mean((2, 3)), "stages.2.head.linear")
    assert close(model(x), logits)


def test_dropout_is_between_the_convolutions_of_a_block() -> None:
    block = BasicBlock(2, 2, stride=1, norm=nn.BatchNorm2d, dropout=0.5)
    order: list[str] = []
    for name, module in block.named_children():
        module.register_forward_hook(lambda *_, name=name: order.append(name))
    block(torch.rand(2, 2, 4, 4))
    assert order[:6] == ["conv1", "norm1", "relu", "dropout", "conv2", "norm2"]


def test_names_of_the_weights() -> None:
    with torch.device("meta"):
        names = {*resnet_cifar(10).state_dict(), *resnet_imagenet(10).state_dict()}
    assert {
        "stages.0.stem.conv.weight",
        "stages.0.stem.norm.running_var",
        "stages.0.group1.6.conv2.weight",
        "stages.1.group2.0.shortcut.conv.weight",
        "stages.1.group2.0.shortcut.norm.bias",
        "stages.2.group3.6.norm2.weight",
        "stages.2.group4.2.norm3.weight",
        "stages.2.head.linear.bias",
    } <= names
