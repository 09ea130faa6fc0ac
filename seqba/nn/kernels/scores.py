"""Log-probabilities of given words under an output projection, without ever holding all logits."""

from __future__ import annotations

import torch
from torch import Tensor

from seqba.nn.kernels.loss import chunk_rows
from seqba.nn.kernels.products import product
from seqba.nn.kernels.recurring import with_recurring_rows


@torch.no_grad()
def target_log_probabilities(
    hidden: Tensor, weight: Tensor, target: Tensor, *, bias: Tensor | None = None, temperature: float = 1.0
) -> Tensor:
    """Log-probability of each target word.

        log p_n = z[n, target_n] − log Σ_v exp z[n, v],   z = (hidden · weightᵀ + bias) / temperature

    Args:
        hidden: (N, D), floating.
        weight: (V, D), the output embedding, of the same dtype.
        target: (N,) int64 in [0, V).
        bias: (V,) or None.
        temperature: divides the logits; above 1 evens the distribution out.

    Returns:
        (N,) in nats, float32 or wider; it has no gradient.
    """
    wide = torch.promote_types(hidden.dtype, torch.float32)
    scores = torch.empty(target.shape, dtype=wide, device=target.device)
    rows = chunk_rows(hidden, weight.shape[0])
    for start in range(0, len(target), rows):
        part = slice(start, start + rows)
        logits = product(with_recurring_rows(hidden[part]), weight, bias)[: len(target[part])].to(wide)
        if temperature != 1.0:
            logits = logits / temperature
        scores[part] = logits.gather(1, target[part].unsqueeze(1)).squeeze(1) - logits.logsumexp(1)
    return scores
