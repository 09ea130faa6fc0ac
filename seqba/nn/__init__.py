"""Dropout modules that draw keyed noise, and fused functions: the loss, linear layers that keep less or are packed."""

from seqba.nn.dropout import Dropout, LockedDropout
from seqba.nn.linear import gathered_linear, linear, norm_linear
from seqba.nn.loss import label_smoothed_cross_entropy
from seqba.nn.packed import packed, packed_product

__all__ = [
    "Dropout",
    "LockedDropout",
    "gathered_linear",
    "label_smoothed_cross_entropy",
    "linear",
    "norm_linear",
    "packed",
    "packed_product",
]
