"""Precision of the passes: float32, or 16 bits under autocast, with losses scaled up where these are float16."""

from __future__ import annotations

import logging

import torch

from seqba.training.options import OptimisationOptions

logger = logging.getLogger(__name__)


def choose_precision(options: OptimisationOptions, device: torch.device) -> torch.dtype | None:
    """Dtype of autocast that the options ask for; None for float32 throughout.

    Weights, their gradients and the optimizer are float32 in any case. float16 is for GPUs alone: a CPU's bfloat16 has
    float32's range, and needs no scaling of losses.
    """
    if options.bf16:
        return torch.bfloat16
    if not options.fp16:
        return None
    if device.type == "cpu":
        logger.info("--fp16 is bfloat16 on a CPU")
        return torch.bfloat16
    return torch.float16


def build_scaler(
    options: OptimisationOptions, precision: torch.dtype | None, device: torch.device
) -> torch.amp.GradScaler | None:
    """Scaler of losses for passes in float16; None where gradients don't underflow.

    Losses, summed over tokens as in fairseq, are multiplied by a power of two before their backward, and gradients
    divided by it afterwards. An overflow halves it, and the update is skipped; a row of updates without one doubles it.

    Source: Micikevicius et al. 2018, section 3.2; torch.amp's.
    """
    if precision is not torch.float16:
        return None
    return torch.amp.GradScaler(
        device.type, init_scale=float(options.fp16_init_scale), growth_interval=options.fp16_scale_window
    )
