"""What the tests of image models share: the layers of a network as it runs, and its weights read by hand."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seqba.core import Noise
from seqba.models.classifier import ImageClassifier


class Layer(NamedTuple):
    """A convolution as it ran; `side` is that of the square features that it gives."""

    kernel: int
    stride: int
    inputs: int
    outputs: int
    side: int
    groups: int = 1


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def convolutions(model: nn.Module, image_size: int) -> list[Layer]:
    """Every convolution of a network on the meta device, in the order in which they run."""
    found: list[Layer] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        height, width = output.shape[2:]
        assert height == width
        ((kernel, other_kernel), (stride, other_stride)) = (module.kernel_size, module.stride)
        assert (kernel, stride) == (other_kernel, other_stride)
        found.append(Layer(kernel, stride, module.in_channels, module.out_channels, height, module.groups))

    hooks = [m.register_forward_hook(note) for m in model.modules() if isinstance(m, nn.Conv2d)]
    model(torch.empty(2, 3, image_size, image_size, device="meta"))
    for hook in hooks:
        hook.remove()
    return found


def places(model: ImageClassifier, image_size: int) -> list[tuple[int, ...]]:
    """The shapes, without rows, of what goes into each stage of a network on the meta device."""
    found: list[tuple[int, ...]] = []

    class Watch:
        def at(self, x: Tensor, stage: int) -> Tensor:
            assert stage == len(found)
            found.append(tuple(x.shape[1:]))
            return x

    model(torch.empty(2, 3, image_size, image_size, device="meta"), Watch())
    return found


def images(rows: int = 3, side: int = 32, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(rows, 3, side, side, generator=torch.Generator().manual_seed(rows), dtype=dtype)


def shake(model: nn.Module) -> nn.Module:
    """Gives every norm a scale, a shift and statistics of its own, so that no norm is like another or like nothing."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            with torch.no_grad():
                for tensor in (module.weight, module.running_var):
                    tensor.uniform_(0.5, 1.5, generator=generator)
                for tensor in (module.bias, module.running_mean):
                    tensor.normal_(0, 0.3, generator=generator)
    return model


def settle(model: nn.Module, x: Tensor) -> nn.Module:
    """Evaluation with the statistics of x, so that features neither vanish nor blow up where weights are untrained."""
    norms = [module for module in shake(model).modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(x)
    return model.eval()


def noise_for(model: nn.Module, copies: tuple[int, ...] = (0, 1)) -> Noise:
    return Noise(0, 0, 0, copies, {id(module): name for name, module in model.named_modules()})


class Reading:
    """The layers of a network as plain functions of its state dict, in evaluation."""

    def __init__(self, model: nn.Module) -> None:
        self.state = {name: tensor.detach() for name, tensor in model.state_dict().items()}

    def conv(self, x: Tensor, name: str, stride: int = 1, groups: int = 1, padding: int | None = None) -> Tensor:
        weight = self.state[f"{name}.weight"]
        padding = weight.shape[-1] // 2 if padding is None else padding
        return F.conv2d(x, weight, self.state.get(f"{name}.bias"), stride=stride, padding=padding, groups=groups)

    def norm(self, x: Tensor, name: str) -> Tensor:
        mean, variance, scale, shift = (
            self.state[f"{name}.{part}"].view(1, -1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (variance + 1e-5).sqrt() * scale + shift

    def linear(self, x: Tensor, name: str) -> Tensor:
        product = x.flatten(1) @ self.state[f"{name}.weight"].t()
        return product + self.state[f"{name}.bias"] if f"{name}.bias" in self.state else product


def close(first: Tensor, second: Tensor, bound: float = 1e-9) -> bool:
    return bool((first - second).norm() <= bound * second.norm())
