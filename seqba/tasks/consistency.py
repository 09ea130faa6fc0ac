"""R-Drop's term of a loss: how far what the copies of a token predict diverges."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from seqba.core import current_noise
from seqba.nn import copy_divergence


def with_divergence(
    loss: Tensor, nll: Tensor, hidden: Tensor, weight: Tensor, alpha: float, *, bias: Tensor | None = None
) -> tuple[Tensor, Mapping[str, Tensor]]:
    """Adds α/2 · M · J to a loss that is summed over M copies, where there are copies: in an update, not in validation.

    The mean is then (1/M)·Σ CE_m + (α/2)·J. fairseq divides CE_1 + CE_2 + α·J by the tokens of one copy: the same but
    for a factor of 2.

    Args:
        loss: 0-dim, summed over the copies of this pass.
        nll: 0-dim, likewise.
        hidden: (M·N, D), copy after copy.
        weight: (V, D), the output embedding.
        alpha: α; 0 for none.
        bias: (V,), of the output; None for none.

    Returns:
        The loss, and further sums: "nll", and in an update "divergence", M · J.

    Source: Liang et al. 2021 (R-Drop); fairseq's `label_smoothed_cross_entropy_with_rdrop`.
    """
    noise = current_noise()
    if not alpha or noise is None:
        return loss, {"nll": nll}
    copies = len(noise.copies)
    if bias is not None:  # as one more column of the weight, which every row reads with a 1
        hidden = torch.cat([hidden, hidden.new_ones(hidden.shape[0], 1)], dim=1)
        weight = torch.cat([weight, bias.to(weight.dtype).unsqueeze(1)], dim=1)
    divergence = copies * copy_divergence(hidden, weight, copies=copies)
    return loss + alpha / 2 * divergence, {"nll": nll, "divergence": divergence.detach()}
