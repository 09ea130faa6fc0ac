"""Consistency of copies as a term of a loss: R-Drop's divergence, fraternal dropout's distance."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from seqba.nn import copy_distance, copy_divergence
from seqba.noise.compare import compare_copies
from seqba.noise.context import current_noise


def with_divergence(
    loss: Tensor, nll: Tensor, hidden: Tensor, weight: Tensor, alpha: float, *, bias: Tensor | None = None
) -> tuple[Tensor, Mapping[str, Tensor]]:
    """Adds α · M · J to a loss that is summed over M copies, where there are copies: in an update, not in validation.

    The mean is then (1/M)·Σ CE_m + α·J, J being the mean divergence of two copies' predictions. fairseq divides
    CE_1 + CE_2 + α'·J by the tokens of one copy: the same for α' = 2·α, but for a factor of 2.

    Args:
        loss: 0-dim, summed over the k copies of this pass.
        nll: 0-dim, likewise.
        hidden: (k·N, D), copy after copy.
        weight: (V, D), the output embedding.
        alpha: α, beside the mean of the losses; 0 for none.
        bias: (V,), of the output; None for none.

    Returns:
        The loss, and further sums: "nll", and in an update "divergence", M · J. A pass of fewer than M copies has its
        part of the term and of M · J.

    Source: Liang et al. 2021 (R-Drop); fairseq's `label_smoothed_cross_entropy_with_rdrop`.
    """
    if not alpha or current_noise() is None:
        return loss, {"nll": nll}
    if bias is not None:  # as one more column of the weight, which every row reads with a 1
        hidden = torch.cat([hidden, hidden.new_ones(hidden.shape[0], 1)], dim=1)
        weight = torch.cat([weight, bias.to(weight.dtype).unsqueeze(1)], dim=1)
    divergence = compare_copies(_summed_divergence, hidden, weight)
    return loss + alpha * divergence, {"nll": nll, "divergence": divergence.detach()}


def with_distance(
    loss: Tensor, nll: Tensor, hidden: Tensor, weight: Tensor, kappa: float
) -> tuple[Tensor, Mapping[str, Tensor]]:
    """Adds κ · M · D to a loss that is summed over M copies, as `with_divergence` adds a divergence.

    The mean is then (1/M)·Σ CE_m + κ·D, where D is the mean over pairs of copies, and over the V logits, of the squared
    difference of their logits.

    Args:
        loss: 0-dim, summed over the k copies of this pass.
        nll: 0-dim, likewise.
        hidden: (k·N, D), copy after copy.
        weight: (V, D), the output embedding; a bias is the same for all copies.
        kappa: κ; 0 for none.

    Returns:
        The loss, and further sums: "nll", and in an update "distance", M · D, or a pass's part of it.

    Source: Zołna et al. 2018, "Fraternal Dropout", equation 3, for two copies.
    """
    if not kappa or current_noise() is None:
        return loss, {"nll": nll}
    distance = compare_copies(_summed_distance, hidden, weight)
    return loss + kappa * distance, {"nll": nll, "distance": distance.detach()}


def _summed_divergence(hidden: Tensor, weight: Tensor, *, copies: int) -> Tensor:
    return copies * copy_divergence(hidden, weight, copies=copies)


def _summed_distance(hidden: Tensor, weight: Tensor, *, copies: int) -> Tensor:
    return copies * copy_distance(hidden, weight, copies=copies)
