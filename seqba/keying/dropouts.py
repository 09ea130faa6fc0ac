"""Keyed forms of torch's dropout functions, and of its attention with dropout (see `seqba.keying.draws`)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from seqba.keying.draws import KeyedForm, keep_mask
from seqba.noise.noise import Noise
from seqba.random.masks import LEVELS, drop, drop_level, kept_scale

_ALPHA = -1.7580993408473766  # what SELU tends to on its left: −αλ, Klambauer et al. 2017


def dropout(noise: Noise, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor | None:
    """`F.dropout`: the masks of `seqba.nn.Dropout` in the same place."""
    return _dropped(noise, input, input.shape, p, training, inplace)


def of_torch(form: KeyedForm, *, inplace: bool = False) -> KeyedForm:
    """`torch.dropout`, `dropout_` and so on, which say `train`, from the form of `F.dropout`."""

    def dropped(noise: Noise, input: Tensor, p: float, train: bool) -> Tensor | None:
        result: Tensor | None = form(noise, input, p, train, inplace)
        return result

    return dropped


def native_dropout(noise: Noise, input: Tensor, p: float, train: bool | None) -> tuple[Tensor, Tensor] | None:
    """`torch.native_dropout`: (dropped, which are kept); `train` None means True."""
    if train is False or p == 0 or drop_level(p) == LEVELS:
        return None
    _check_probability(p)
    kept = keep_mask(noise, input, input.shape, p)
    return drop(input, kept, p), kept.bool()


def feature_dropout(batched_dimensions: int | None) -> KeyedForm:
    """`F.dropout1d`, `2d`, `3d`: whole channels of rows (R, C, ...); without rows where there is a dimension less.

    Args:
        batched_dimensions: how many an input with rows has; None where every input has rows.
    """

    def dropped(
        noise: Noise, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor | None:
        has_rows = batched_dimensions is None or input.dim() == batched_dimensions
        return _dropped(noise, input, _channels(input, 2 if has_rows else 1), p, training, inplace)

    return dropped


def alpha_dropout(
    noise: Noise, input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False
) -> Tensor | None:
    """`F.alpha_dropout`: dropped elements become SELU's −αλ, and mean and variance are kept."""
    return _alpha_dropped(noise, input, input.shape, p, training, inplace)


def feature_alpha_dropout(
    noise: Noise, input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False
) -> Tensor | None:
    """`F.feature_alpha_dropout`: the same for whole channels of rows (R, C, ...)."""
    return _alpha_dropped(noise, input, _channels(input, 2), p, training, inplace)


def scaled_dot_product_attention(
    noise: Noise,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor | None:
    """`F.scaled_dot_product_attention` with dropout, written out: the fused kernels draw where no key reaches.

        dropout(softmax(scale·Q·Kᵀ + mask))·V

    It keeps the weights (R, H, T, S) for the backward, as `eager` attention does and with its masks.
    """
    if dropout_p == 0:
        return None
    if enable_gqa:
        groups = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(groups, -3), value.repeat_interleave(groups, -3)
    scores = (query * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)) @ key.transpose(-2, -1)
    if is_causal:
        if attn_mask is not None:
            raise ValueError("scaled_dot_product_attention takes attn_mask or is_causal, not both")
        scores = scores.masked_fill(_future(scores), -math.inf)
    unseeing = None
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
        unseeing = scores.isneginf().all(-1, keepdim=True)  # queries that see no key come to zero, not to NaN
        scores = scores.masked_fill(unseeing, 0)
    dtype = torch.float32 if scores.dtype in (torch.float16, torch.bfloat16) else scores.dtype
    weights = scores.softmax(-1, dtype=dtype).to(value.dtype)
    if unseeing is not None:
        weights = weights.masked_fill(unseeing, 0)
    dropped = _dropped(noise, weights, weights.shape, dropout_p, training=True, inplace=False, is_rows_first=True)
    return (weights if dropped is None else dropped) @ value


def _dropped(
    noise: Noise,
    input: Tensor,
    shape: Sequence[int],
    p: float,
    training: bool,
    inplace: bool,
    *,
    is_rows_first: bool = False,
) -> Tensor | None:
    """Drops by a mask of `shape`, which may be broadcast."""
    if not training or p == 0:
        return None
    _check_probability(p)
    if drop_level(p) == LEVELS:
        return input.mul_(0) if inplace else input * 0
    kept = keep_mask(noise, input, shape, p, is_rows_first=is_rows_first)
    return input.mul_(kept.to(input.dtype).mul_(kept_scale(p))) if inplace else drop(input, kept, p)


def _alpha_dropped(
    noise: Noise, input: Tensor, shape: Sequence[int], p: float, training: bool, inplace: bool
) -> Tensor | None:
    """a·(x·mask + α'·(1 − mask)) + b with a = ((1 − p)(1 + p·α'²))^−1/2 and b = −a·p·α'.

    Source: Klambauer et al. 2017, section 3.
    """
    if not training or p == 0:
        return None
    _check_probability(p)
    if drop_level(p) == LEVELS:
        return input.mul_(0) if inplace else input * 0
    drawn_p = drop_level(p) / LEVELS
    scale = ((1 - drawn_p) * (1 + drawn_p * _ALPHA**2)) ** -0.5
    kept = keep_mask(noise, input, shape, p).to(input.dtype)
    shift = (1 - kept).mul_(_ALPHA * scale).sub_(scale * drawn_p * _ALPHA)
    return input.mul_(kept.mul_(scale)).add_(shift) if inplace else input * kept.mul_(scale) + shift


def _check_probability(p: float) -> None:
    if not 0 <= p <= 1:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")


def _channels(input: Tensor, kept_dimensions: int) -> list[int]:
    """The shape of a mask that is one over all but the first dimensions."""
    return [*input.shape[:kept_dimensions], *([1] * (input.dim() - kept_dimensions))]


def _future(scores: Tensor) -> Tensor:
    """True where key s comes after query t: (T, S) of scores (..., T, S)."""
    return torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
