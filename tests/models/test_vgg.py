"""VGG-16 with batch normalization against table 1 of its paper."""

from __future__ import annotations

import pytest
import torch
from networks import Layer, Reading, close, convolutions, count, images, places, shake
from torch import nn

import seqba
from seqba.models import vgg
from seqba.models.vgg import vgg16_bn

# Column D: channels in, channels out, and on which fraction of the image's side.
TABLE = [
    (3, 64, 1),
    (64, 64, 1),
    (64, 128, 2),
    (128, 128, 2),
    (128, 256, 4),
    (256, 256, 4),
    (256, 256, 4),
    (256, 512, 8),
    (512, 512, 8),
    (512, 512, 8),
    (512, 512, 16),
    (512, 512, 16),
    (512, 512, 16),
]


@pytest.mark.parametrize("side", [32, 64, 224])
def test_it_is_column_d(side: int) -> None:
    with torch.device("meta"):
        model = vgg16_bn(10, image_size=side)
    assert convolutions(model, side) == [Layer(3, 1, i, o, side // part) for i, o, part in TABLE]
    assert places(model, side) == [(3, side, side), (64, side // 2, side // 2), (128, side // 4, side // 4)]
    assert model.image_size == side
    assert model(torch.empty(2, 3, side, side, device="meta")).shape == (2, 10)


def test_published_sizes() -> None:
    convolved = sum(9 * i * o + o for i, o, _ in TABLE)
    assert convolved == 14_714_688
    norms = sum(2 * o for _, o, _ in TABLE)
    with torch.device("meta"):
        cifar, imagenet = vgg16_bn(10), vgg16_bn(1000, image_size=224)
    assert count(cifar) == convolved + norms + (512 * 4096 + 4096) + (4096 * 4096 + 4096) + (4096 * 10 + 10)
    assert count(cifar) == 33_646_666
    assert count(imagenet) == 138_365_992
    assert count(imagenet) - norms == 138_357_544  # without norms: 138 million in the paper's table 2


@pytest.mark.parametrize("image_size", [0, 16, 33, 100, -32])
def test_sizes_that_pooling_cannot_halve_are_refused(image_size: int) -> None:
    with pytest.raises(ValueError, match=f"image_size is {image_size}; it must be a multiple of 32"):
        vgg16_bn(10, image_size=image_size)


def test_the_network_read_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vgg, "HEAD_WIDTH", 48)
    torch.manual_seed(0)
    model = shake(vgg16_bn(10, image_size=64)).double().eval()
    read, x = Reading(model), images(rows=2, side=64, dtype=torch.float64)
    y = x
    for block, layers in enumerate((2, 2, 3, 3, 3), start=1):
        for layer in range(layers):
            name = f"stages.{min(block - 1, 2)}.block{block}.{layer}"
            y = read.norm(read.conv(y, f"{name}.conv"), f"{name}.norm").clamp(min=0)
        y = nn.functional.max_pool2d(y, 2)
    head = "stages.2.head"
    hidden = read.linear(y, f"{head}.linear1").clamp(min=0)
    hidden = read.linear(hidden, f"{head}.linear2").clamp(min=0)
    assert close(model(x), read.linear(hidden, f"{head}.linear3"))


def test_dropout_follows_both_hidden_layers() -> None:
    with torch.device("meta"):
        model = vgg16_bn(10)
    head = [(name, type(module)) for name, module in model.stages[2].head.named_children()]
    assert head == [
        ("flatten", nn.Flatten),
        ("linear1", nn.Linear),
        ("relu1", nn.ReLU),
        ("dropout1", seqba.nn.Dropout),
        ("linear2", nn.Linear),
        ("relu2", nn.ReLU),
        ("dropout2", seqba.nn.Dropout),
        ("linear3", nn.Linear),
    ]
    assert model.stages[2].head.dropout1.p == model.stages[2].head.dropout2.p == 0.5


def test_initial_weights_are_the_framework_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vgg, "HEAD_WIDTH", 48)
    torch.manual_seed(0)
    model = vgg16_bn(10)
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            bound = module.weight[0].numel() ** -0.5
            assert module.weight.abs().max() <= bound
            assert module.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)
            assert module.bias.abs().max() <= bound


def test_names_of_the_weights() -> None:
    with torch.device("meta"):
        names = set(vgg16_bn(10).state_dict())
    assert {
        "stages.0.block1.1.conv.bias",
        "stages.1.block2.0.norm.running_mean",
        "stages.2.block5.2.conv.weight",
        "stages.2.head.linear3.weight",
    } <= names
