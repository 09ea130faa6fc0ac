"""Mean of several checkpoints' weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from seqba.errors import UserError


def average_weights(states: Iterable[tuple[str, Mapping[str, Tensor]]]) -> dict[str, Tensor]:
    """Element-wise mean of state_dicts, summed in float64 so that neither order nor number costs precision.

    Averaging the last checkpoints of a run is worth some tenths of BLEU.

    Args:
        states: (name for messages, state_dict), read one after the other: only one of them and the sum are in memory.

    Returns:
        The mean in the dtypes of the first, or in float32 where that is a half precision, which would round the mean;
        what is not floating point (a counter, say) is the first's.

    Raises:
        UserError: if there is nothing to average, or the weights have other names or shapes.

    Source: Vaswani et al. 2017, section 6.1.
    """
    sums: dict[str, Tensor] = {}
    first: Mapping[str, Tensor] = {}
    first_name, count = "", 0
    for name, weights in states:
        if not count:
            first, first_name = weights, name
            sums = {
                key: tensor.to(torch.float64, copy=True)
                for key, tensor in weights.items()
                if tensor.is_floating_point()
            }
        else:
            _check_alike(first_name, first, name, weights)
            for key, total in sums.items():
                total += weights[key]
        count += 1
    if not count:
        raise UserError("there is no checkpoint to average")
    return {
        key: (sums[key] / count).to(torch.promote_types(tensor.dtype, torch.float32)) if key in sums else tensor
        for key, tensor in first.items()
    }


def _check_alike(first_name: str, first: Mapping[str, Tensor], name: str, weights: Mapping[str, Tensor]) -> None:
    odd = first.keys() ^ weights.keys()
    if odd:
        raise UserError(f"{first_name} and {name} are of different models: only one of them has {min(odd)!r}")
    for key, tensor in first.items():
        if tensor.shape != weights[key].shape:
            raise UserError(
                f"{first_name} and {name} are of different models: {key!r} is {tuple(tensor.shape)} in one and "
                f"{tuple(weights[key].shape)} in the other"
            )
