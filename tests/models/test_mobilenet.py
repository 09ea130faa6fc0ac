"""MobileNet against table 1 of its paper."""

from __future__ import annotations

import pytest
import torch
from networks import Layer, Reading, close, convolutions, count, images, places, shake
from torch import nn

from seqba.models.mobilenet import mobilenet_v1

# Table 1 without its first and last rows: channels in, channels out, stride, and the side of what comes out.
TABLE = [
    (32, 64, 1, 112),
    (64, 128, 2, 56),
    (128, 128, 1, 56),
    (128, 256, 2, 28),
    (256, 256, 1, 28),
    (256, 512, 2, 14),
    (512, 512, 1, 14),
    (512, 512, 1, 14),
    (512, 512, 1, 14),
    (512, 512, 1, 14),
    (512, 512, 1, 14),
    (512, 1024, 2, 7),
    (1024, 1024, 1, 7),
]


def test_it_is_table_1() -> None:
    with torch.device("meta"):
        model = mobilenet_v1(1000)
    expected = [Layer(3, 2, 3, 32, 112)]
    for inputs, outputs, stride, side in TABLE:
        expected += [Layer(3, stride, inputs, inputs, side, groups=inputs), Layer(1, 1, inputs, outputs, side)]
    assert convolutions(model, 224) == expected
    assert len(expected) + 1 == 28  # layers, as the paper counts them
    kernels = sum(layer.kernel**2 * layer.inputs // layer.groups * layer.outputs for layer in expected)
    norms = sum(2 * layer.outputs for layer in expected)
    assert count(model) == kernels + norms + 1024 * 1000 + 1000 == 4_231_976
    assert model(torch.empty(2, 3, 224, 224, device="meta")).shape == (2, 1000)
    assert places(model, 224) == [(3, 224, 224), (128, 56, 56), (256, 28, 28)]
    assert model.image_size is None


@pytest.mark.parametrize(("width", "millions"), [(1.0, 4.2), (0.75, 2.6), (0.5, 1.3), (0.25, 0.5)])
def test_widths_have_the_published_sizes(width: float, millions: float) -> None:
    with torch.device("meta"):
        model = mobilenet_v1(1000, width=width)
    assert round(count(model) / 1e6, 1) == millions  # table 6
    assert {layer.outputs for layer in convolutions(model, 64)} == {round(width * n) for n in (32, *CHANNELS)}


CHANNELS = (64, 128, 256, 512, 1024)


@pytest.mark.parametrize("width", [0.0, -1.0, 0.01])
def test_a_width_without_channels_is_refused(width: float) -> None:
    with pytest.raises(ValueError, match=f"width is {width}; it must leave at least one of 32 channels"):
        mobilenet_v1(10, width=width)


def test_the_network_read_by_hand() -> None:
    torch.manual_seed(0)
    model = shake(mobilenet_v1(10, width=0.25)).double().eval()
    read, x = Reading(model), images(side=96, dtype=torch.float64)
    y = read.norm(read.conv(x, "stages.0.stem.conv", 2), "stages.0.stem.norm").clamp(min=0)
    for block, (_, _, stride, side) in enumerate(TABLE, start=1):
        stage = {112: 0, 56: 0, 28: 1}.get(side, 2)
        name = f"stages.{stage}.block{block}"
        depth = read.conv(y, f"{name}.depthwise.conv", stride, groups=y.shape[1])
        depth = read.norm(depth, f"{name}.depthwise.norm").clamp(min=0)
        y = read.norm(read.conv(depth, f"{name}.pointwise.conv"), f"{name}.pointwise.norm").clamp(min=0)
    assert close(model(x), read.linear(y.mean((2, 3)), "stages.2.head.linear"))


def test_initial_weights_are_the_framework_s_and_no_convolution_has_a_bias() -> None:
    torch.manual_seed(0)
    model = mobilenet_v1(10, width=0.5)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            assert module.bias is None
            bound = module.weight[0].numel() ** -0.5
            assert bound * 0.9 < module.weight.abs().max() <= bound
            assert module.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.2)


def test_names_of_the_weights() -> None:
    with torch.device("meta"):
        names = set(mobilenet_v1(10).state_dict())
    assert {
        "stages.0.stem.conv.weight",
        "stages.0.block3.pointwise.conv.weight",
        "stages.1.block4.depthwise.norm.running_mean",
        "stages.2.block13.pointwise.norm.bias",
        "stages.2.head.linear.weight",
    } <= names
