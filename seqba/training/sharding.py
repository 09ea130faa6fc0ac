"""Sharded parameters of this project's models, and their checkpoints, which are those of one process."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from seqba.distributed import Ranks, cut_like, shard_parameters, whole_tensor
from seqba.models.families import FAMILIES
from seqba.models.layers import ResidualStream

FORWARD_METHODS = sorted({method for family in FAMILIES.values() for method in family.forward_methods})
"""Methods that losses call in place of `forward`, by the models that have them."""


def shard_model(model: nn.Module, ranks: Ranks, device: torch.device) -> None:
    """Shards a model's parameters over the ranks: what it has in lists (layers, stages) is a block each.

    Embeddings and the output, which may be one matrix, belong to no block. `validate_config` has looked at torch.

    Args:
        model: the same on every rank, in the memory of the CPU: only parts of it come to the device.
        ranks: the processes.
        device: that this process computes on.
    """
    blocks = [block for child in model.children() if isinstance(child, nn.ModuleList) for block in child]
    for block in blocks:
        block.register_forward_hook(_normalize_output)
    # Nothing here writes over what a block returned, which is what torch warns of.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    methods = [name for name in FORWARD_METHODS if hasattr(model, name)]
    shard_parameters(model, ranks, device, blocks=blocks, methods=methods)


def whole_model_state(model: nn.Module, *, keep: bool) -> dict[str, Any]:
    """State_dict of a sharded model in whole tensors, in the memory of the CPU; all ranks must call it.

    Names of one parameter have one tensor. Where `keep` is false (ranks that write nothing) there is none.
    """
    named = model.state_dict(keep_vars=True)
    whole = {id(tensor): _whole(tensor, keep=keep) for tensor in named.values()}
    return {name: whole[id(tensor)] for name, tensor in named.items()}


def whole_optimizer_state(optimizer: torch.optim.Optimizer, *, keep: bool) -> dict[str, Any]:
    """State_dict of a sharded model's optimizer in whole tensors, on the CPU; all ranks must call it."""
    state = optimizer.state_dict()
    whole = {
        number: {name: _whole(value, keep=keep) if isinstance(value, Tensor) else value for name, value in kept.items()}
        for number, kept in state["state"].items()
    }
    return {**state, "state": whole}


def fit_optimizer_state(optimizer: torch.optim.Optimizer, state: Mapping[Any, Mapping[str, Any]]) -> dict[Any, Any]:
    """State of an optimizer in whole tensors → cut and laid out as the parameters are.

    The fused optimizers take it for granted that a weight and its averages lie alike in memory; but a run in parts
    writes them row by row, where the weights of an image model have their channels last.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return {
        number: {name: _fit(parameters[number], value) for name, value in kept.items()}
        for number, kept in state.items()
    }


def _normalize_output(_module: nn.Module, _inputs: Any, output: Any) -> Any:
    """Applies a norm that was left to the next layer (`ResidualStream`), where this layer's weights are away again."""
    return ResidualStream(output.normalized()) if isinstance(output, ResidualStream) else output


def _whole(tensor: Tensor, *, keep: bool) -> Tensor | None:
    whole = whole_tensor(tensor)  # which may lie in a larger memory, for parts of different sizes
    return whole.cpu().clone() if keep else None


def _fit(parameter: Tensor, value: Any) -> Any:
    if not isinstance(value, Tensor) or value.shape != parameter.shape:
        return value
    fitting = cut_like(parameter, value)
    if fitting is not value or value.stride() == parameter.stride():
        return fitting
    return value.new_empty_strided(value.shape, parameter.stride()).copy_(value)
