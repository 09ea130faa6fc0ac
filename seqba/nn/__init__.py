"""Dropout modules that draw keyed noise, and the fused loss."""

from seqba.nn.dropout import Dropout, LockedDropout
from seqba.nn.loss import label_smoothed_cross_entropy

__all__ = ["Dropout", "LockedDropout", "label_smoothed_cross_entropy"]
