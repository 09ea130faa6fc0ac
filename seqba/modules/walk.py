"""Modules and parameters of a model, found in a tenth of the time that torch's own walks take.

An update looks through its model several times, and on a GPU waits for that: torch's walks make a name for everything.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn


def modules_of(model: nn.Module) -> list[nn.Module]:
    """All modules of a model, itself the first, each once: `list(model.modules())`."""
    found = {id(model): model}
    _add_below(model, found)
    return list(found.values())


def _add_below(module: nn.Module, found: dict[int, nn.Module]) -> None:
    for child in module._modules.values():
        if child is not None and (key := id(child)) not in found:
            found[key] = child
            if child._modules:
                _add_below(child, found)


def parameters_of(model: nn.Module) -> list[nn.Parameter]:
    """All parameters of a model, each once: `list(model.parameters())`."""
    found: dict[int, nn.Parameter] = {}
    for module in modules_of(model):
        if module._parameters:
            for parameter in module._parameters.values():
                if parameter is not None:
                    found[id(parameter)] = parameter
    return list(found.values())


def trained_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that have a gradient, in the order of the model."""
    return [parameter for parameter in parameters_of(model) if parameter.requires_grad]


def reaches_others(loss: Tensor, model: nn.Module) -> bool:
    """Whether the gradient of a loss reaches a parameter that isn't the model's: a criterion's, another model's."""
    own = {id(parameter) for parameter in parameters_of(model)}
    nodes = [loss.grad_fn]
    seen = set(nodes)
    while nodes:
        node = nodes.pop()
        if node is None:
            continue
        leaf = getattr(node, "variable", None)
        if isinstance(leaf, nn.Parameter) and id(leaf) not in own:
            return True
        further = {following for following, _ in node.next_functions} - seen
        seen |= further
        nodes.extend(further)
    return False


def device_of(model: nn.Module) -> torch.device:
    """The device of a model's parameters, which are on one (see `check_model`); the CPU for a model without any."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def gradients_of(model: nn.Module) -> list[Tensor]:
    """The gradients that there are, in the order of the parameters."""
    return [parameter.grad for parameter in parameters_of(model) if parameter.grad is not None]


def is_in_parts(tensor: Tensor) -> bool:
    """Whether each process has a part of a tensor (a `DTensor`)."""
    return hasattr(tensor, "to_local")


def local_part(tensor: Tensor) -> Tensor:
    """Part that this process has of a tensor in parts (a `DTensor`), in the same memory; any other tensor itself."""
    return cast(Any, tensor).to_local().detach() if is_in_parts(tensor) else tensor
