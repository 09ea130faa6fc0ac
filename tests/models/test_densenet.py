"""DenseNet-BC against its paper's description."""

from __future__ import annotations

import pytest
import torch
from networks import Layer, Reading, close, convolutions, count, images, places, shake
from torch import nn

import seqba
from seqba.models.densenet import DenseLayer, densenet_bc


def expected_layers(layers: int, growth: int) -> tuple[list[Layer], int]:
    """The convolutions of a network with so many layers in each block, and the features of its head."""
    found, channels = [Layer(3, 1, 3, 2 * growth, 32)], 2 * growth
    for side in (32, 16, 8):
        for _ in range(layers):
            found.append(Layer(1, 1, channels, 4 * growth, side))
            found.append(Layer(3, 1, 4 * growth, growth, side))
            channels += growth
        if side > 8:
            found.append(Layer(1, 1, channels, channels // 2, side))
            channels //= 2
    return found, channels


def parameters(layers: list[Layer], features: int, classes: int) -> int:
    """A norm reads what a convolution reads, but for the stem's; one more reads the features."""
    kernels = sum(layer.kernel**2 * layer.inputs * layer.outputs for layer in layers)
    norms = sum(2 * layer.inputs for layer in layers[1:]) + 2 * features
    return kernels + norms + features * classes + classes


@pytest.mark.parametrize(
    ("depth", "growth", "classes", "size"),
    [(100, 12, 10, 769_162), (100, 12, 100, 800_032), (250, 24, 10, 15_324_406), (16, 5, 7, None)],
)
def test_it_is_the_paper_s(depth: int, growth: int, classes: int, size: int | None) -> None:
    with torch.device("meta"):
        model = densenet_bc(classes, depth=depth, growth=growth)
    layers, features = expected_layers((depth - 4) // 6, growth)
    assert convolutions(model, 32) == layers
    assert len(layers) + 1 == depth
    assert count(model) == parameters(layers, features, classes)
    assert size is None or count(model) == size  # 0.8M and 15.3M in the paper's table 2


def test_the_default_is_100_12_without_dropout() -> None:
    with torch.device("meta"):
        model = densenet_bc(10)
    assert count(model) == 769_162
    assert places(model, 32) == [(3, 32, 32), (108, 16, 16), (150, 8, 8)]
    assert {module.p for module in model.modules() if isinstance(module, seqba.nn.Dropout)} == {0.0}
    assert model.image_size is None


@pytest.mark.parametrize("depth", [4, 9, 99, 101])
def test_impossible_depths_are_refused(depth: int) -> None:
    with pytest.raises(ValueError, match=f"depth is {depth}; it must be 6n"):
        densenet_bc(10, depth=depth)


def test_the_network_read_by_hand() -> None:
    torch.manual_seed(0)
    model = shake(densenet_bc(10, depth=16, growth=5)).double().eval()
    read, x = Reading(model), images(side=16, dtype=torch.float64)

    def normed(y: torch.Tensor, name: str) -> torch.Tensor:
        return read.norm(y, name).clamp(min=0)

    y = read.conv(x, "stages.0.stem")
    for block in range(3):
        for layer in range(2):
            name = f"stages.{block}.block.{layer}.branch"
            new = read.conv(normed(y, f"{name}.norm1"), f"{name}.conv1")
            y = torch.cat([y, read.conv(normed(new, f"{name}.norm2"), f"{name}.conv2")], 1)
        if block < 2:
            name = f"stages.{block}.transition"
            y = nn.functional.avg_pool2d(read.conv(normed(y, f"{name}.norm"), f"{name}.conv"), 2)
    y = normed(y, "stages.2.norm")
    assert close(model(x), read.linear(y.mean((2, 3)), "stages.2.head.linear"))


def test_a_layer_keeps_its_input_in_front() -> None:
    torch.manual_seed(0)
    x = images(side=4).repeat(1, 2, 1, 1)
    before = x.clone()
    y = DenseLayer(6, 4, norm=nn.BatchNorm2d)(x)
    assert y.shape == (3, 10, 4, 4)
    assert torch.equal(y[:, :6], before)
    assert torch.equal(x, before)


def test_dropout_follows_every_convolution_but_the_stem() -> None:
    torch.manual_seed(0)
    model, order = densenet_bc(10, depth=10, growth=4, dropout=0.2), []
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, seqba.nn.Dropout)):
            module.register_forward_hook(lambda module, *_: order.append(type(module).__name__))
    model(images(side=8))
    assert order == ["Conv2d", *["Conv2d", "Dropout"] * (len(convolution_modules(model)) - 1)]


def convolution_modules(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, nn.Conv2d)]


def test_initial_weights() -> None:
    torch.manual_seed(0)
    model = densenet_bc(50, depth=22)
    for module in convolution_modules(model):
        n = module.kernel_size[0] ** 2 * module.out_channels
        weights = module.weight.numel()
        assert module.weight.var().item() / (2 / n) == pytest.approx(1, abs=5 * (2 / weights) ** 0.5)
        assert module.bias is None
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.weight.unique().tolist() == [1.0]
            assert not module.bias.any()
    linear = model.stages[2].head.linear
    bound = linear.in_features**-0.5
    assert bound * 0.98 < linear.weight.abs().max().item() <= bound
    assert not linear.bias.any()


def test_names_of_the_weights() -> None:
    with torch.device("meta"):
        names = set(densenet_bc(10).state_dict())
    assert {
        "stages.0.stem.weight",
        "stages.0.block.15.branch.conv2.weight",
        "stages.1.transition.conv.weight",
        "stages.2.norm.running_var",
        "stages.2.head.linear.bias",
    } <= names
