"""Counts of correctly classified examples."""

from __future__ import annotations

from torch import Tensor


def count_right(scores: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Counts of labels that are the likeliest class, and among the five likeliest.

    Args:
        scores: (R, classes), the higher the likelier.
        labels: (R,) int64.

    Returns:
        {"top1": …, "top5": …}, 0-dim int64 each; with fewer than five classes all labels are among the likeliest.
    """
    likeliest = scores.topk(min(5, scores.shape[1]), dim=1).indices
    right = likeliest == labels[:, None]
    return {"top1": right[:, 0].sum(), "top5": right.sum()}
