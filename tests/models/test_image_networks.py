"""The image networks by name: sizes, where ghost batches and dropout go, and sizes that can't be."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from seqba.errors import UserError
from seqba.models.builders import build_image_classifier
from seqba.models.families import ARCHITECTURES, resolve_image_classifier
from seqba.models.image_networks import NETWORKS
from seqba.models.options import ImageClassifierOptions
from seqba.nn import Dropout, DropPath, GhostBatchNorm2d
from seqba.tasks.image_classification import PLACES

# name → (classes, side, parameters): published, or counted by hand in the test of each builder.
SIZES = {
    "resnet8": (10, 32, 78_042),
    "resnet20": (10, 32, 272_474),
    "resnet32": (10, 32, 466_906),
    "resnet44": (10, 32, 661_338),
    "resnet56": (10, 32, 855_770),
    "wide_resnet28_10": (10, 32, 36_481_434),
    "vgg16_bn": (10, 32, 33_646_666),
    "densenet_bc100_12": (10, 32, 769_162),
    "resnet50": (1000, 224, 25_557_032),
    "mobilenet_v1": (1000, 224, 4_231_976),
    "alexnet": (1000, 224, 61_110_184),
    "darts": (10, 32, 3_825_768),
    "darts_v1": (10, 32, 3_645_840),
    "amoebanet": (10, 32, 3_603_072),
    "nasnet_a": (10, 32, 4_288_944),
}


def build(name: str, classes: int, side: int, **options: float) -> nn.Module:
    given = ImageClassifierOptions(**options)  # type: ignore[arg-type]
    with torch.device("meta"):
        return build_image_classifier(name, resolve_image_classifier(name, given), classes, side)


def test_every_network_is_an_architecture() -> None:
    named = {name for name, family in ARCHITECTURES.items() if family == "image_classifier"}
    assert named == NETWORKS.keys() == SIZES.keys()


@pytest.mark.parametrize("name", SIZES)
def test_sizes(name: str) -> None:
    classes, side, parameters = SIZES[name]
    model = build(name, classes, side)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert len(list(model.get_submodule("stages").children())) == PLACES


def test_weights_and_activations_have_their_channels_last() -> None:
    torch.manual_seed(0)
    model = build_image_classifier("resnet8", resolve_image_classifier("resnet8", ImageClassifierOptions()), 10, 32)
    seen: list[bool] = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            assert module.weight.is_contiguous(memory_format=torch.channels_last)
            module.register_forward_hook(
                lambda _, __, output: seen.append(output.is_contiguous(memory_format=torch.channels_last))
            )
    model(torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    assert seen
    assert all(seen)


@pytest.mark.parametrize("name", SIZES)
def test_every_norm_has_the_ghost_batch_that_was_asked_for(name: str) -> None:
    classes, side, _ = SIZES[name]
    norms = [each for each in build(name, classes, side, ghost_batch=32).modules() if "Norm" in type(each).__name__]
    assert norms
    for norm in norms:
        assert isinstance(norm, GhostBatchNorm2d)
        assert norm.ghost_batch == 32


@pytest.mark.parametrize("name", SIZES)
def test_dropout_goes_where_the_network_has_it(name: str) -> None:
    classes, side, _ = SIZES[name]
    if NETWORKS[name].dropout is None:
        with pytest.raises(UserError, match=f"--dropout has no place in --arch {name}"):
            build(name, classes, side, dropout=0.3)
        return
    for given, expected in (({}, NETWORKS[name].dropout), ({"dropout": 0.3}, 0.3)):
        rates = {each.p for each in build(name, classes, side, **given).modules() if isinstance(each, Dropout)}
        assert rates == {expected}


@pytest.mark.parametrize(("name", "side"), [("vgg16_bn", 40), ("alexnet", 32)])
def test_a_size_that_a_network_can_not_have_is_one_line(name: str, side: int) -> None:
    with pytest.raises(UserError, match=f"image_size is {side}"):
        build(name, 10, side)


def test_networks_of_cells_have_the_sizes_that_were_asked_for() -> None:
    sizes = {"init_channels": 4, "layers": 6, "drop_path": 0.1}
    model = build("amoebanet", 10, 32, **sizes, auxiliary_weight=0)
    stages = model.get_submodule("stages").children()
    assert [len(list(stage.get_submodule("cells").children())) for stage in stages] == [2, 2, 2]
    assert model.get_parameter("head.linear.weight").shape == (10, 3 * 4 * 4)
    assert {each.p for each in model.modules() if isinstance(each, DropPath)} == {0.1}
    assert model.auxiliary is None
    assert build("amoebanet", 10, 32, **sizes).auxiliary_weight == 0.4
    assert {each.p for each in build("darts", 10, 32).modules() if isinstance(each, DropPath)} == {0.2}
    for name in ("init_channels", "layers", "drop_path", "auxiliary_weight"):
        value = sizes.get(name, 0.4)
        flag = "--" + name.replace("_", "-")
        with pytest.raises(UserError, match=f"{flag} has no place in --arch resnet8: darts, darts_v1, amoebanet, nasn"):
            build("resnet8", 10, 32, **{name: value})


def test_densenet_may_begin_as_in_the_released_code() -> None:
    spreads = {}
    for given in (None, "fan-out", "fan-in"):
        torch.manual_seed(0)
        options = resolve_image_classifier("densenet_bc100_12", ImageClassifierOptions(conv_init=given))
        model = build_image_classifier("densenet_bc100_12", options, 10, 32)
        spreads[given] = {
            name: float(module.weight.detach().std()) * math.prod(module.kernel_size) ** 0.5
            for name, module in model.named_modules()
            if isinstance(module, nn.Conv2d)
        }
        for name, module in model.named_modules():
            if isinstance(module, nn.Conv2d):
                channels = module.in_channels if given == "fan-in" else module.out_channels
                # The deviation of n draws is known to 1/√(2n) of itself.
                close = 5 / math.sqrt(2 * module.weight.numel())
                assert spreads[given][name] == pytest.approx(math.sqrt(2 / channels), rel=close), name
    assert spreads[None] == spreads["fan-out"] != spreads["fan-in"]
    with pytest.raises(UserError, match="--conv-init has no place in --arch resnet8: densenet_bc100_12 has one"):
        resolve_image_classifier("resnet8", ImageClassifierOptions(conv_init="fan-in"))
