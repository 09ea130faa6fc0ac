"""The optimizer: Adam in one fused kernel."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from seqba.training.options import OptimisationOptions


def build_optimizer(parameters: Iterable[nn.Parameter], options: OptimisationOptions) -> torch.optim.AdamW:
    """Adam with decoupled weight decay on all parameters, as fairseq's `adam`.

    The step reads and writes each weight once (fused), on the CPU as well. The learning rate is set before every step
    by the trainer. fairseq adds eps before the bias correction of the denominator, torch after it: the first updates'
    effective eps differs, nothing else.

    Source: Kingma & Ba 2015; Loshchilov & Hutter 2019 for the decay.
    """
    return torch.optim.AdamW(
        parameters,
        lr=0.0,
        betas=(options.adam_betas[0], options.adam_betas[1]),
        eps=options.adam_eps,
        weight_decay=options.weight_decay,
        fused=True,
    )
