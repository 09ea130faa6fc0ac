"""Modules that draw keyed noise or look at copies one by one, and fused functions: the loss, frugal linear layers."""

from seqba.nn.accuracy import count_right
from seqba.nn.batch_norm import GhostBatchNorm2d
from seqba.nn.blocked import blocked, blocked_product
from seqba.nn.colour_jitter import ColourJitter
from seqba.nn.dropout import Dropout, LockedDropout
from seqba.nn.image_noise import Cutout, HorizontalFlip, Normalize, RandomCrop
from seqba.nn.linear import gathered_linear, linear, norm_linear
from seqba.nn.loss import label_smoothed_cross_entropy
from seqba.nn.lstm import WeightDroppedLSTM
from seqba.nn.mixup import Mixing, Mixup
from seqba.nn.resized_crop import CenterCrop, RandomResizedCrop, RandomWindow
from seqba.nn.weight_noise import WeightDropout, WordDropout

__all__ = [
    "CenterCrop",
    "ColourJitter",
    "Cutout",
    "Dropout",
    "GhostBatchNorm2d",
    "HorizontalFlip",
    "LockedDropout",
    "Mixing",
    "Mixup",
    "Normalize",
    "RandomCrop",
    "RandomResizedCrop",
    "RandomWindow",
    "WeightDropout",
    "WeightDroppedLSTM",
    "WordDropout",
    "blocked",
    "blocked_product",
    "count_right",
    "gathered_linear",
    "label_smoothed_cross_entropy",
    "linear",
    "norm_linear",
]
