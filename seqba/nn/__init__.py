"""Modules that draw keyed noise or look at copies one by one, and fused functions: the loss, frugal linear layers."""

from seqba.nn.batch_norm import GhostBatchNorm2d
from seqba.nn.blocked import blocked, blocked_product
from seqba.nn.dropout import Dropout, LockedDropout
from seqba.nn.linear import gathered_linear, linear, norm_linear
from seqba.nn.loss import label_smoothed_cross_entropy
from seqba.nn.lstm import WeightDroppedLSTM
from seqba.nn.weight_noise import WeightDropout, WordDropout

__all__ = [
    "Dropout",
    "GhostBatchNorm2d",
    "LockedDropout",
    "WeightDropout",
    "WeightDroppedLSTM",
    "WordDropout",
    "blocked",
    "blocked_product",
    "gathered_linear",
    "label_smoothed_cross_entropy",
    "linear",
    "norm_linear",
]
