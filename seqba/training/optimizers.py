"""Optimizers: Adam and SGD, each in one fused kernel."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from itertools import compress
from typing import Any

import torch
from torch import nn

from seqba.errors import UserError
from seqba.modules.walk import local_part
from seqba.training.nt_asgd import NonMonotonicTrigger
from seqba.training.options import OptimisationOptions


def build_optimizer(parameters: Iterable[nn.Parameter], options: OptimisationOptions) -> torch.optim.Optimizer:
    """Optimizer that `--optimizer` names. The trainer sets the learning rate before every step.

    adam      Adam with decoupled weight decay on all parameters, as fairseq's. fairseq adds eps before the bias
              correction of the denominator, torch after it: the first updates' effective eps differs, nothing else.
    sgd       stochastic gradient descent with momentum; weight decay is added to the gradient.
    nt_asgd   the same without momentum, until `build_trigger`'s trigger fires (`seqba.training.nt_asgd`).

    With --weight-decay-on weights, parameters of one dimension don't decay: biases, and the scales and shifts of norms.
    With weights-not-depthwise, neither do those of depthwise convolutions: each output reads one channel, (C, 1, h, w).
    When the decay ends is for `Optimisation.decay_updates` to say.

    A step reads and writes each weight once (fused), on the CPU as well; but torch's SGD can't do so with sharded ones.

    Raises:
        UserError: for weights-not-depthwise where there is no depthwise convolution.

    Source: Kingma & Ba 2015; Loshchilov & Hutter 2019 for Adam's decay; Merity et al. 2018 for NT-ASGD.
    """
    groups = _groups(list(parameters), options)
    if options.optimizer == "adam":
        return torch.optim.AdamW(
            groups,
            lr=0.0,
            betas=(options.adam_betas[0], options.adam_betas[1]),
            eps=options.adam_eps,
            fused=True,
        )
    whole = all(local_part(parameter) is parameter for group in groups for parameter in group["params"])
    return torch.optim.SGD(groups, lr=0.0, momentum=options.momentum, fused=whole, foreach=not whole)


def _groups(parameters: list[nn.Parameter], options: OptimisationOptions) -> list[dict[str, Any]]:
    """Groups of parameters: those that decay, then those that don't."""
    decays = [options.weight_decay_on == "all" or parameter.dim() > 1 for parameter in parameters]
    if options.weight_decay_on == "weights-not-depthwise":
        depthwise = [parameter.dim() == 4 and parameter.shape[1] == 1 for parameter in parameters]
        if not any(depthwise):
            raise UserError(
                "--weight-decay-on weights-not-depthwise is for networks with depthwise convolutions (mobilenet_v1), "
                "and this model has none: take weights"
            )
        decays = [decay and not single for decay, single in zip(decays, depthwise, strict=True)]
    groups = [
        {"params": list(compress(parameters, decays)), "weight_decay": options.weight_decay},
        {"params": list(compress(parameters, map(operator.not_, decays))), "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def build_trigger(options: OptimisationOptions) -> NonMonotonicTrigger | None:
    """Trigger that says when `nt_asgd` begins to average; None for the other optimizers."""
    return NonMonotonicTrigger(options.nonmono) if options.optimizer == "nt_asgd" else None


KEPT_PER_WEIGHT = {
    torch.optim.AdamW: ("exp_avg", "exp_avg_sq"),
    torch.optim.ASGD: ("ax",),
    torch.optim.SGD: (),
}
"""Tensors that each optimizer must keep for a weight once it has moved it."""


def check_optimizer_state(optimizer: torch.optim.Optimizer) -> None:
    """Checks the state that an optimizer has taken over from a file.

    Raises:
        ValueError: if an average is missing, or isn't of its weight's shape.
    """
    for parameter, kept in optimizer.state.items():
        for name in KEPT_PER_WEIGHT[type(optimizer)]:
            if kept.get(name) is None:
                raise ValueError(f"the optimizer's {name}")
        for name, value in kept.items():
            if not isinstance(value, torch.Tensor | None) or (
                isinstance(value, torch.Tensor) and value.dim() and value.shape != parameter.shape
            ):
                raise ValueError(f"the optimizer's {name} isn't of its weight's shape {tuple(parameter.shape)}")
