"""Numbers of rows that recur from batch to batch, for libraries that compile a kernel for each new one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seqba.nn.kernels.processor import processor

SMALLEST_STEP = 16
"""Rows of one of AMX's tiles, to whose multiples few rows are rounded."""

LEADING_BITS = 6
"""Binary digits that larger numbers keep: 32 of them lie between a power of two and the next."""


def compiles_each_shape(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether products of `dtype` on a device cost much at each new number of rows.

    Decided by dtype and processor alone: those of bfloat16 on a CPU, where oneDNN makes them. In float32 its kernels
    compile in less than a millisecond, and most products are MKL's, which compiles nothing.
    """
    if dtype != torch.bfloat16 or device.type != "cpu":
        return False
    # A compiler can't trace what reads the processor, and makes kernels for any number of rows.
    return not torch.compiler.is_compiling() and processor().has_bfloat16 and not processor().widens_bfloat16


def recurring_rows(rows: int, dtype: torch.dtype, device: torch.device) -> int:
    """Number of rows for products of `dtype` in the place of `rows`: as many, or some more that mean nothing.

    oneDNN compiles a kernel for each shape that it hasn't met, and keeps the last 1,024 of them. In AMX's tiles that
    takes 2 to 15 ms and 0.4 to 1.5 MB a product, and nearly every batch of text has another number of tokens. Rounded
    up to a multiple of 16 and to six binary digits, by 1/32 at most, numbers of rows recur. As they are, where
    nothing is compiled (`compiles_each_shape`).
    """
    if not compiles_each_shape(dtype, device):
        return rows
    step = max(SMALLEST_STEP, 1 << max(0, rows.bit_length() - LEADING_BITS))
    return -(-rows // step) * step


def with_recurring_rows(rows: Tensor) -> Tensor:
    """Rows (N, D), and behind them as many rows of zeros as `recurring_rows` wants for their dtype."""
    missing = recurring_rows(len(rows), rows.dtype, rows.device) - len(rows)
    return nn.functional.pad(rows, (0, 0, 0, missing)) if missing else rows
