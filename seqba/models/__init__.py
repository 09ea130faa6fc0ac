"""Models: plain numbers in, tensors out."""

from seqba.models.architectures import ARCHITECTURES, build_transformer, resolve_transformer
from seqba.models.options import TransformerOptions
from seqba.models.transformer import Transformer

__all__ = ["ARCHITECTURES", "Transformer", "TransformerOptions", "build_transformer", "resolve_transformer"]
