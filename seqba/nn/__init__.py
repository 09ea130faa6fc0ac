"""Modules that draw keyed noise or look at copies one by one, and the loss of large vocabularies."""

from seqba.nn.batch_norm import GhostBatchNorm2d
from seqba.nn.drop_path import DropPath
from seqba.nn.dropout import Dropout, LockedDropout
from seqba.nn.images.colour_jitter import ColourJitter
from seqba.nn.images.image_noise import Cutout, HorizontalFlip, Normalize, RandomCrop
from seqba.nn.images.mixup import Mixup
from seqba.nn.images.resized_crop import CenterCrop, RandomResizedCrop, RandomWindow
from seqba.nn.kernels.divergence import copy_distance, copy_divergence
from seqba.nn.kernels.loss import label_smoothed_cross_entropy
from seqba.nn.lstm_layer import WeightDroppedLSTM
from seqba.nn.weight_noise import WeightDropout, WordDropout

__all__ = [
    "CenterCrop",
    "ColourJitter",
    "Cutout",
    "DropPath",
    "Dropout",
    "GhostBatchNorm2d",
    "HorizontalFlip",
    "LockedDropout",
    "Mixup",
    "Normalize",
    "RandomCrop",
    "RandomResizedCrop",
    "RandomWindow",
    "WeightDropout",
    "WeightDroppedLSTM",
    "WordDropout",
    "copy_distance",
    "copy_divergence",
    "label_smoothed_cross_entropy",
]
