"""What every image model promises: mixing before its stages, rows apart in evaluation, norms and dropout as asked."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from networks import close, images, noise_for, settle, shake
from torch import Tensor, nn

import seqba
from seqba.core import noise_context
from seqba.models.alexnet import alexnet_bn
from seqba.models.classifier import ImageClassifier, average_head, conv_norm_relu, convolution, init_convolutions
from seqba.models.densenet import densenet_bc
from seqba.models.mobilenet import mobilenet_v1
from seqba.models.resnet import resnet_cifar, resnet_imagenet, wide_resnet
from seqba.models.vgg import vgg16_bn

Norm = Callable[[int], nn.Module]

# Small forms of every network, and the side of their images.
NETWORKS: dict[str, tuple[Callable[[Norm], ImageClassifier], int]] = {
    "resnet_cifar": (lambda norm: resnet_cifar(5, depth=8, norm=norm), 32),
    "wide_resnet": (lambda norm: wide_resnet(5, depth=10, widen=2, norm=norm), 32),
    "resnet_imagenet": (lambda norm: resnet_imagenet(5, norm=norm), 32),
    "vgg16_bn": (lambda norm: vgg16_bn(5, norm=norm, dropout=0), 32),
    "densenet_bc": (lambda norm: densenet_bc(5, depth=16, growth=4, norm=norm), 32),
    "mobilenet_v1": (lambda norm: mobilenet_v1(5, width=0.25, norm=norm), 64),
    "alexnet_bn": (lambda norm: alexnet_bn(5, image_size=63, norm=norm, dropout=0), 63),
}

WITH_DROPOUT: dict[str, tuple[Callable[[float], ImageClassifier], int]] = {
    "resnet_cifar": (lambda p: resnet_cifar(5, depth=8, dropout=p, norm=row_norm), 16),
    "wide_resnet": (lambda p: wide_resnet(5, depth=10, widen=1, dropout=p, norm=row_norm), 16),
    "densenet_bc": (lambda p: densenet_bc(5, depth=10, growth=4, dropout=p, norm=row_norm), 16),
    "vgg16_bn": (lambda p: vgg16_bn(5, dropout=p, norm=row_norm), 32),
    "alexnet_bn": (lambda p: alexnet_bn(5, image_size=63, dropout=p, norm=row_norm), 63),
}


class CountedNorm(nn.BatchNorm2d):
    """Stands for a norm with other statistics."""


class RowNorm(nn.GroupNorm):
    """A norm over the channels and positions of each row: a plan doesn't change it."""

    def __init__(self, channels: int) -> None:
        super().__init__(1, channels)


row_norm = RowNorm


@pytest.fixture(autouse=True)
def narrow_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The 4,096 channels of two networks' heads take seconds; their own tests have them."""
    monkeypatch.setattr("seqba.models.vgg.HEAD_WIDTH", 48)
    monkeypatch.setattr("seqba.models.alexnet.HEAD_WIDTH", 48)


def build(name: str, norm: Norm = nn.BatchNorm2d) -> tuple[ImageClassifier, Tensor]:
    torch.manual_seed(3)
    make, side = NETWORKS[name]
    return make(norm), images(side=side)


class Recorder:
    """Mixing that notes what it is asked and adds something of its own at each stage."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, Tensor]] = []

    def at(self, x: Tensor, stage: int) -> Tensor:
        self.seen.append((stage, x.clone()))
        return x + (stage + 1) / 8


def test_mixing_comes_before_each_stage_in_order() -> None:
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 4, 3), nn.Sequential(nn.Flatten(), nn.Linear(4 * 6 * 6, 2))
    model, mixing, x = ImageClassifier([first, second]), Recorder(), images(side=8)
    logits = model(x, mixing)
    between = first(x + 1 / 8)
    assert [stage for stage, _ in mixing.seen] == [0, 1]
    assert torch.equal(mixing.seen[0][1], x)
    assert torch.allclose(mixing.seen[1][1], between)
    assert torch.allclose(logits, second(between + 2 / 8))
    assert torch.allclose(model(x), second(first(x)))


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_have_three_places_to_mix_and_none_is_touched_unasked(name: str) -> None:
    model, x = build(name)
    settle(model, x)
    mixing, before = Recorder(), x.clone()
    mixed = model(x, mixing)
    assert [stage for stage, _ in mixing.seen] == [0, 1, 2] == list(range(len(model.stages)))
    after = x
    for stage, (number, seen) in zip(model.stages, mixing.seen, strict=True):
        assert close(seen, after, 1e-5)
        after = stage(seen + (number + 1) / 8)
    assert close(mixed, after, 1e-5)
    assert torch.equal(x, before)
    assert not close(mixed, model(x), 1e-2)


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_have_a_row_for_each_image_and_every_parameter_a_gradient(name: str) -> None:
    model, x = build(name)
    logits = shake(model)(x)
    assert logits.shape == (3, 5)
    logits.square().sum().backward()
    assert [n for n, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("name", NETWORKS)
def test_construction_is_decided_by_the_seed(name: str) -> None:
    (model, _), (again, _) = build(name), build(name)
    state = again.state_dict()
    assert all(torch.equal(tensor, state[key]) for key, tensor in model.state_dict().items())
    torch.manual_seed(4)
    other = NETWORKS[name][0](nn.BatchNorm2d)
    drawn = [key for key, tensor in other.state_dict().items() if not torch.equal(tensor, state[key])]
    weights = [n for n, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert {f"{module}.weight" for module in weights} <= set(drawn)


@pytest.mark.parametrize("name", NETWORKS)
def test_in_evaluation_a_row_does_not_depend_on_the_others(name: str) -> None:
    model, x = build(name)
    x = x.double()
    settle(model.double(), x)
    with torch.inference_mode():
        together = model(x)
        assert close(model(x[1:2]), together[1:2])
        assert close(model(x.flip(0)), together.flip(0))
    assert not close(together[:1], together[1:2], 1e-2)


@pytest.mark.parametrize("name", NETWORKS)
def test_channels_last_is_the_same_network(name: str) -> None:
    model, x = build(name)
    # In doubles: statistics over three rows of one position enlarge the rounding.
    shake(model).double()
    x = x.double()
    expected = model(x)
    model.to(memory_format=torch.channels_last)
    assert close(model(x.to(memory_format=torch.channels_last)), expected, 1e-8)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_norm_is_the_one_that_was_asked_for(name: str) -> None:
    model, _ = build(name, CountedNorm)
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._NormBase)]
    assert norms
    assert {type(norm) for norm in norms} == {CountedNorm}
    default = [m for m in build(name)[0].modules() if isinstance(m, nn.modules.batchnorm._NormBase)]
    assert len(default) == len(norms)


@pytest.mark.parametrize("name", WITH_DROPOUT)
def test_dropout_is_keyed_so_that_copies_differ_and_repeat(name: str) -> None:
    make, side = WITH_DROPOUT[name]
    x = images(rows=2, side=side).repeat(2, 1, 1, 1)
    torch.manual_seed(3)
    quiet = wake(make(0.0))
    with noise_context(noise_for(quiet)) as noise:
        first, second = quiet(x).chunk(2)
    assert noise is not None
    assert noise.draws == 0
    assert close(first, second, 1e-5)
    noisy = wake(make(0.4))
    with noise_context(noise_for(noisy)) as noise:
        logits = noisy(x)
    assert noise is not None
    assert noise.draws == sum(isinstance(module, seqba.nn.Dropout) for module in noisy.modules()) > 0
    assert {m.p for m in noisy.modules() if isinstance(m, seqba.nn.Dropout)} == {0.4}
    assert not any(isinstance(module, nn.Dropout) for module in noisy.modules())
    assert not close(logits[:2], logits[2:], 1e-3)
    with noise_context(noise_for(noisy)):
        assert torch.equal(noisy(x), logits)
    assert close(noisy.eval()(x)[:2], noisy(x)[2:], 1e-5)


@pytest.mark.parametrize("name", WITH_DROPOUT)
def test_the_gradient_does_not_depend_on_the_plan(name: str) -> None:
    make, side = WITH_DROPOUT[name]
    x, gradients = images(rows=2, side=side, dtype=torch.float64), []
    for plan in ("stacked", "looped"):
        torch.manual_seed(3)
        model = wake(make(0.4)).double()
        seqba.merged_gradient(model, x, lambda m, batch: m(batch).square().mean(), copies=2, plan=plan, seed=1)
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert close(*gradients, 1e-10)
    assert gradients[0].norm() > 0


def wake(model: nn.Module) -> nn.Module:
    """Branches that start at γ = 0 would hide what happens in them."""
    for module in model.modules():
        if isinstance(module, nn.GroupNorm):
            nn.init.ones_(module.weight)
    return model


def test_what_is_no_batch_of_images_is_refused() -> None:
    model = ImageClassifier([average_head(3, 2)])
    assert model(images(side=7)).shape == (3, 2)
    with pytest.raises(ValueError, match=r"rows, channels, height, width\), not \(3, 8, 8\)"):
        model(torch.zeros(3, 8, 8))
    with pytest.raises(ValueError, match="at least one stage"):
        ImageClassifier([])


@pytest.mark.parametrize(("height", "width"), [(8, 9), (9, 8), (4, 4)])
def test_a_head_for_one_size_refuses_others(height: int, width: int) -> None:
    model = ImageClassifier([average_head(3, 2)], image_size=8)
    assert model(images(side=8)).shape == (3, 2)
    with pytest.raises(ValueError, match=f"images of 8×8, not {height}×{width}"):
        model(torch.zeros(2, 3, height, width))


def test_convolutions_keep_the_resolution_and_have_no_bias_unless_asked() -> None:
    for kernel, stride, side in ((1, 1, 9), (3, 1, 9), (5, 1, 9), (7, 2, 5), (3, 2, 5), (1, 2, 5)):
        layer = convolution(3, 6, kernel, stride=stride, groups=3)
        assert layer(torch.zeros(1, 3, 9, 9)).shape == (1, 6, side, side)
        assert layer.weight.shape == (6, 1, kernel, kernel)
        assert layer.bias is None
    assert convolution(3, 6, 1, bias=True).bias is not None


def test_initial_convolutions_have_variance_two_over_their_outputs_fan() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(7, 40, 5), nn.Sequential(nn.Conv2d(40, 20, 3, groups=2)), nn.Conv2d(20, 4000, 1), nn.Linear(4, 4)
    )
    linear = model[3].weight.clone()
    init_convolutions(model)
    for layer, n in ((model[0], 25 * 40), (model[1][0], 9 * 20), (model[2], 4000)):
        weights = layer.weight.detach()
        scaled = weights / (2 / n) ** 0.5
        assert scaled.var().item() == pytest.approx(1, abs=5 * (2 / weights.numel()) ** 0.5)
        assert scaled.mean().item() == pytest.approx(0, abs=5 * weights.numel() ** -0.5)
        assert scaled.abs().max() > 2.5  # normal, not uniform
        assert not layer.bias.any()
    assert torch.equal(model[3].weight, linear)


def test_conv_norm_relu_is_in_that_order() -> None:
    torch.manual_seed(0)
    layer = shake(conv_norm_relu(convolution(3, 4, 3), nn.BatchNorm2d)).eval()
    x = images()
    assert close(layer(x), layer.norm(layer.conv(x)).clamp(min=0), 1e-6)


def test_the_head_averages_over_positions() -> None:
    torch.manual_seed(0)
    head, x = average_head(3, 4), images()
    assert close(head(x), x.mean((2, 3)) @ head.linear.weight.t() + head.linear.bias, 1e-5)
