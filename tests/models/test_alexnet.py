"""AlexNet with batch normalization, read layer by layer."""

from __future__ import annotations

import pytest
import torch
from networks import Layer, close, convolutions, count, images, places, shake
from torch import Tensor, nn
from torch.nn import functional as F

import seqba
from seqba.models import alexnet
from seqba.models.alexnet import alexnet_bn


def test_it_is_the_one_tower_network() -> None:
    with torch.device("meta"):
        model = alexnet_bn(1000)
    assert convolutions(model, 224) == [
        Layer(11, 4, 3, 64, 55),
        Layer(5, 1, 64, 192, 27),
        Layer(3, 1, 192, 384, 13),
        Layer(3, 1, 384, 256, 13),
        Layer(3, 1, 256, 256, 13),
    ]
    kernels = 121 * 3 * 64 + 25 * 64 * 192 + 9 * (192 * 384 + 384 * 256 + 256 * 256)
    norms = 2 * (64 + 192 + 384 + 256 + 256 + 4096 + 4096)
    linears = 256 * 6 * 6 * 4096 + 4096 * 4096 + 4096 * 1000 + 1000
    assert count(model) == kernels + norms + linears == 61_110_184
    assert places(model, 224) == [(3, 224, 224), (64, 27, 27), (192, 13, 13)]
    assert model(torch.empty(2, 3, 224, 224, device="meta")).shape == (2, 1000)
    assert model.image_size == 224


@pytest.mark.parametrize(("image_size", "side"), [(63, 1), (94, 1), (95, 2), (127, 3), (223, 6), (256, 7)])
def test_the_head_fits_the_images(image_size: int, side: int) -> None:
    with torch.device("meta"):
        model = alexnet_bn(10, image_size=image_size)
    assert model.stages[2].head.linear1.in_features == 256 * side**2
    assert model(torch.empty(2, 3, image_size, image_size, device="meta")).shape == (2, 10)


@pytest.mark.parametrize("image_size", [0, 3, 32, 62])
def test_images_that_leave_nothing_are_refused(image_size: int) -> None:
    with pytest.raises(ValueError, match=f"image_size is {image_size}; it must be at least 63"):
        alexnet_bn(10, image_size=image_size)


def test_the_network_read_by_hand_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alexnet, "HEAD_WIDTH", 48)
    torch.manual_seed(0)
    model = shake(alexnet_bn(10, image_size=95, dropout=0)).double()
    state, x = model.state_dict(), images(rows=4, side=95, dtype=torch.float64)

    def norm(y: Tensor, name: str) -> Tensor:
        # On (R, C) this is nn.BatchNorm1d's function.
        return F.batch_norm(y, None, None, state[f"{name}.weight"], state[f"{name}.bias"], training=True)

    def conv(y: Tensor, name: str, stride: int = 1, padding: int = 1) -> Tensor:
        return F.conv2d(y, state[f"{name}.conv.weight"], stride=stride, padding=padding)

    y = norm(F.max_pool2d(conv(x, "stages.0.conv1", 4, 2), 3, 2), "stages.0.conv1.norm").relu()
    y = norm(F.max_pool2d(conv(y, "stages.1.conv2", padding=2), 3, 2).relu(), "stages.1.conv2.norm")
    y = norm(conv(y, "stages.2.conv3").relu(), "stages.2.conv3.norm")
    y = norm(conv(y, "stages.2.conv4").relu(), "stages.2.conv4.norm")
    y = norm(F.max_pool2d(conv(y, "stages.2.conv5"), 3, 2).relu(), "stages.2.conv5.norm")
    y = y.flatten(1)
    for number in (1, 2):
        y = norm(y @ state[f"stages.2.head.linear{number}.weight"].t(), f"stages.2.head.norm{number}").relu()
    assert y.shape == (4, 48)
    logits = F.linear(y, state["stages.2.head.linear3.weight"], state["stages.2.head.linear3.bias"])
    assert close(model(x), logits)


def test_dropout_follows_both_hidden_layers() -> None:
    with torch.device("meta"):
        head = alexnet_bn(10).stages[2].head
    kinds = [type(module) for module in head]
    unit = [nn.Flatten, nn.Linear, nn.Unflatten, nn.BatchNorm2d, nn.ReLU, seqba.nn.Dropout]
    assert kinds == [*unit, *unit, nn.Flatten, nn.Linear]
    assert head.dropout1.p == head.dropout2.p == 0.5
    assert (head.linear1.bias, head.linear2.bias) == (None, None)
    assert head.linear3.bias is not None


def test_initial_weights_are_the_framework_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alexnet, "HEAD_WIDTH", 48)
    torch.manual_seed(0)
    for module in alexnet_bn(50, image_size=63).modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            bound = module.weight[0].numel() ** -0.5
            assert bound * 0.98 < module.weight.abs().max() <= bound
            assert module.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)


def test_names_of_the_weights() -> None:
    with torch.device("meta"):
        names = set(alexnet_bn(10).state_dict())
    assert {
        "stages.0.conv1.conv.weight",
        "stages.1.conv2.norm.running_var",
        "stages.2.conv5.conv.weight",
        "stages.2.head.norm2.weight",
        "stages.2.head.linear3.bias",
    } <= names
