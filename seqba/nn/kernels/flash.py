"""Attention of packed rows without padding them, where a GPU has a kernel for it."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from seqba.nn.kernels.products import HALVES

MAX_HEAD_DIM = 256


def suits_flash(device: torch.device, dtype: torch.dtype, head_dim: int) -> bool:
    """Whether `flash_attention` takes heads of this width in this dtype on a device.

    It is flash attention for rows of different lengths: 16 bits, on NVIDIA GPUs from compute capability 8.0 on.
    """
    fits = head_dim % 8 == 0 and head_dim <= MAX_HEAD_DIM
    return fits and dtype in HALVES and has_flash_attention(device)


@cache
def has_flash_attention(device: torch.device) -> bool:
    """Whether torch has flash attention for a device."""
    if device.type != "cuda" or torch.version.cuda is None or not torch.backends.cuda.is_flash_attention_available():
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)


def flash_attention(
    query: Tensor, key: Tensor, value: Tensor, ends: tuple[Tensor, Tensor], lengths: tuple[int, int], *, causal: bool
) -> Tensor:
    """softmax(Q·Kᵀ/√d)·V for each of B rows whose tokens lie one row after the other.

    Args:
        query: (N, H, d).
        key: (N', H, d).
        value: (N', H, d).
        ends: where rows begin and the last one ends, (B + 1,) int32, of the queries and of the keys.
        lengths: of the longest row, at least, of either.
        causal: whether a token sees its past alone.

    Returns:
        (N, H, d).

    Source: Dao 2023, "FlashAttention-2".
    """
    mixed: Tensor = torch.ops.aten._flash_attention_forward(query, key, value, *ends, *lengths, 0.0, causal, False)[0]
    return mixed
