"""Image classifiers of other programs: batch norm becomes ghost batch norm, and what they draw is keyed."""

from __future__ import annotations

from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from seqba.keying.keyed import keyed
from seqba.models.classifier import Mixes, check_images
from seqba.models.config import ImageClassifierConfig
from seqba.models.timm_names import TIMM, check_timm, imported_timm
from seqba.nn import GhostBatchNorm2d
from seqba.noise.context import current_noise


class ForeignClassifier(nn.Module):
    """Image classifier that holds nothing of this package's, in a form that keeps its promise.

    Every batch norm of `network` is replaced (`replace_batch_norms`), and inside an update its dropout and drop path
    are drawn under `seqba.keyed`. `seqba.check` tells whether that is all it needs.

    Args:
        network: any module, images (R, 3, H, W) → logits (R, classes). It is changed in place.
        ghost_batch: images of a group of batch normalisation; None for the whole batch of a copy.
        image_size: side of the square images that it takes; None for any.

    Shape:
        images (R, 3, H, W), floating → logits (R, classes). Mixup mixes the images alone.

    Raises:
        ValueError: for a normalisation over the batch that can't be replaced, and for images of another form.
    """

    def __init__(self, network: nn.Module, *, ghost_batch: int | None = None, image_size: int | None = None) -> None:
        super().__init__()
        self.network = replace_batch_norms(network, ghost_batch)
        self.image_size = image_size
        nn.utils.convert_conv2d_weight_memory_format(self, torch.channels_last)

    def forward(self, images: Tensor, mixing: Mixes | None = None) -> Tensor:
        """Images (R, 3, H, W) → logits (R, classes)."""
        check_images(images, self.image_size)
        x = images.contiguous(memory_format=torch.channels_last)
        x = x if mixing is None else mixing.at(x, 0)
        if current_noise() is None:
            return cast(Tensor, self.network(x))
        with keyed(self.network):
            return cast(Tensor, self.network(x))


class _WithActivation(Protocol):
    """timm's BatchNormAct2d: a batch norm that drops and activates what it has normalised."""

    drop: nn.Module
    act: nn.Module


class GhostBatchNormAct2d(GhostBatchNorm2d):
    """Ghost batch norm, then a dropout and an activation, as timm's `BatchNormAct2d` has them.

    Args:
        num_features: C.
        ghost_batch: images of a group; None for all of a copy.
        eps: ε.
        momentum: how far the running statistics move in an update.
        drop: applied to what is normalised.
        act: applied to that.

    Shape:
        (k·B, C, H, W) → the same; k copies in the pass, copy-major.
    """

    def __init__(
        self,
        num_features: int,
        ghost_batch: int | None,
        *,
        eps: float,
        momentum: float,
        drop: nn.Module,
        act: nn.Module,
    ) -> None:
        super().__init__(num_features, ghost_batch, eps=eps, momentum=momentum)
        self.drop = drop
        self.act = act

    def forward(self, input: Tensor) -> Tensor:
        """Normalises, drops and activates `input` (k·B, C, H, W)."""
        return cast(Tensor, self.act(self.drop(super().forward(input))))


def replace_batch_norms(network: nn.Module, ghost_batch: int | None = None) -> nn.Module:
    """Puts ghost batch norms with the same weights and statistics in place of a network's batch norms.

    Args:
        network: changed in place.
        ghost_batch: images of a group; None for all of a copy.

    Returns:
        The network, or the ghost batch norm that takes its place where it is a batch norm itself.

    Raises:
        ValueError: for a batch norm that isn't over pictures, or is without weights or running statistics.
    """
    if isinstance(network, _BatchNorm):
        return _ghost(network, ghost_batch, "the network")
    ghosts: dict[nn.Module, nn.Module] = {}  # one norm may stand in several places
    for name, module in list(network.named_modules(remove_duplicate=False)):
        if isinstance(module, _BatchNorm) and not isinstance(module, GhostBatchNorm2d):
            parent, _, own = name.rpartition(".")
            if module not in ghosts:
                ghosts[module] = _ghost(module, ghost_batch, name)
            setattr(network.get_submodule(parent), own, ghosts[module])
    return network


def _ghost(norm: _BatchNorm, ghost_batch: int | None, name: str) -> GhostBatchNorm2d:
    is_activating = all(isinstance(getattr(norm, part, None), nn.Module) for part in ("drop", "act"))
    if not isinstance(norm, nn.BatchNorm2d) or (type(norm) is not nn.BatchNorm2d and not is_activating):
        raise ValueError(f"{name} is a {type(norm).__name__}, for which there is no ghost batch norm")
    if not norm.affine or not norm.track_running_stats or norm.momentum is None:
        raise ValueError(f"{name} is a batch norm without weights, running statistics or a momentum")
    ghost: GhostBatchNorm2d
    if is_activating:
        parts = cast(_WithActivation, norm)
        ghost = GhostBatchNormAct2d(
            norm.num_features, ghost_batch, eps=norm.eps, momentum=norm.momentum, drop=parts.drop, act=parts.act
        )
    else:
        ghost = GhostBatchNorm2d(norm.num_features, ghost_batch, eps=norm.eps, momentum=norm.momentum)
    ghost.to(device=norm.weight.device, dtype=norm.weight.dtype)
    ghost.load_state_dict(norm.state_dict())
    return ghost.train(norm.training)


def build_timm(arch: str, config: ImageClassifierConfig, classes: int, image_size: int) -> ForeignClassifier:
    """Builds a network of timm with new weights.

    Args:
        arch: `TIMM` and its name there.
        config: its `ghost_batch`, and what isn't None of `dropout` and `drop_path`.
        classes: number of classes.
        image_size: side of the square pictures, which networks of one size alone are built for.

    Raises:
        UserError: for an unknown name, or without timm.
        ValueError: for a network that has no place for an option, or whose norms can't be replaced.

    Source: Wightman, "PyTorch Image Models".
    """
    check_timm(arch)
    timm, name = imported_timm(), arch.removeprefix(TIMM)
    described = timm.get_pretrained_cfg(name, allow_unregistered=True)
    is_of_one_size = bool(getattr(described, "fixed_input_size", False))
    given: dict[str, Any] = {
        "num_classes": classes,
        "drop_rate": config.dropout,
        "drop_path_rate": config.drop_path,
        "img_size": image_size if is_of_one_size else None,
    }
    try:
        network = timm.create_model(name, **{key: value for key, value in given.items() if value is not None})
    except TypeError as error:
        raise ValueError(f"--arch {arch} can't be built so: {error}") from error
    return ForeignClassifier(network, ghost_batch=config.ghost_batch, image_size=image_size if is_of_one_size else None)
