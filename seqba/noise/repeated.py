"""A key that comes again: an update whose number was forgotten, or a micro-batch whose number was."""

from __future__ import annotations

from collections.abc import MutableMapping

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from seqba.modules.walk import gradients_of, local_part, parameters_of

Key = tuple[int, int, int]

# By identity: a model may define what it is equal to.
_last: MutableMapping[nn.Module, tuple[Key, Tensor]] = WeakIdKeyDictionary()


def is_repeated(model: nn.Module, key: Key) -> bool:
    """Whether an update has the key of the model's update before, and the weights have moved in between.

    Args:
        model: after the update's passes, when gradients are there.
        key: seed, update, and number of the first micro-batch.
    """
    last = _last.get(model)
    remember(model, key)
    return last is not None and key == last[0] and _differ(_last[model][1], last[1])


def remember(model: nn.Module, key: Key) -> None:
    """Notes the key and the weights of an update, for those that come after it.

    Args:
        model: as in `is_repeated`.
        key: as in `is_repeated`.
    """
    _last[model] = key, _sample_weights(model)


def is_uncleared(model: nn.Module, key: Key) -> bool | None:
    """Whether an update begins with the gradient of the model's update before, which has moved the weights since.

    Args:
        model: before the update's passes.
        key: as in `is_repeated`.

    Returns:
        None where that can't be told yet: no update of a run was before, it has the same number, or moved nothing.
    """
    last = _last.get(model)
    if last is None or key[:2] == last[0][:2] or last[0][1] < 0:  # `seqba.check` clears what it made
        return None
    gradient = next((one for one in reversed(gradients_of(model)) if one.layout is torch.strided), None)
    if gradient is None:
        return False
    return bool(_sampled(gradient).any()) if _differ(_sample_weights(model), last[1]) else None


def gradient_to_add_to(model: nn.Module, key: Key) -> Tensor | None:
    """A sample of the gradient that an update begins with, if its key is that of the model's update before.

    Two updates of one key, the second of which adds to the gradient of the first, are two micro-batches of one number.

    Args:
        model: before the update's passes.
        key: as in `is_repeated`.
    """
    last = _last.get(model)
    if last is None or key != last[0]:
        return None
    gradient = next((one for one in reversed(gradients_of(model)) if one.layout is torch.strided), None)
    if gradient is None or gradient.device != last[1].device:
        return None
    return _sampled(gradient)


def _sample_weights(model: nn.Module) -> Tensor:
    """A few hundred weights of one parameter, which tell moved weights from unmoved ones; no GPU is asked for them."""
    trained = next((one for one in reversed(parameters_of(model)) if one.grad is not None), None)
    return _sampled(torch.zeros(1) if trained is None else trained)


def _sampled(tensor: Tensor) -> Tensor:
    flat = local_part(tensor).detach().flatten()
    return flat[:: max(1, flat.numel() // 256)].clone()


def _differ(sample: Tensor, before: Tensor) -> bool:
    """Whether weights have moved; not told of those that went to another device in between."""
    return before.device == sample.device and not torch.equal(before, sample)
