"""A key that comes again after the weights have moved: an update whose number was forgotten."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from seqba.modules.walk import local_part, parameters_of

Key = tuple[int, int, int]

# By identity: a model may define what it is equal to.
_last: WeakIdKeyDictionary = WeakIdKeyDictionary()


def is_repeated(model: nn.Module, key: Key) -> bool:
    """Whether an update has the key of the model's update before, and the weights have moved in between.

    Args:
        model: after the update's passes, when gradients are there.
        key: seed, update, and number of the first micro-batch.
    """
    sample = _sample_weights(model)
    last_key, last_sample = _last.get(model, (None, None))  # type: ignore[no-untyped-call]
    _last[model] = key, sample
    return key == last_key and _differ(sample, last_sample)


def _sample_weights(model: nn.Module) -> Tensor:
    """A few hundred weights of one parameter, which tell moved weights from unmoved ones; no GPU is asked for them."""
    trained = next((one for one in reversed(parameters_of(model)) if one.grad is not None), None)
    flat = torch.zeros(1) if trained is None else local_part(trained).detach().flatten()
    return flat[:: max(1, flat.numel() // 256)].clone()


def _differ(sample: Tensor, before: Tensor) -> bool:
    """Whether weights have moved; not told of those that went to another device in between."""
    return before.device == sample.device and not torch.equal(before, sample)
