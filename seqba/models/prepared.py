"""A Transformer for translation alone: its weights laid out, or quantised, once for all batches."""

from __future__ import annotations

from typing import cast

from torch import nn

from seqba.models.transformer import Transformer
from seqba.nn.kernels.prepacked import padded_outputs, prepacked, prepacked_product, with_linear_layers
from seqba.nn.kernels.quantized import QuantizedLinear


def prepared(model: Transformer) -> Transformer:
    """The model with its linear layers and output projection in blocks where a CPU has products of them.

    It shares everything else with `model`. What happens to the weights later changes nothing here.
    """
    twin = cast(Transformer, prepacked(model))
    if twin is not model:
        twin.output_product = prepacked_product(model.output_weight, model.output_bias)
    return twin


def quantized(model: Transformer) -> Transformer:
    """The same in int8 (`QuantizedLinear`), for a float32 model on a CPU where `can_quantize`.

    Embeddings, norms and attention's own products stay float32. Words are scored in int8 by `step` alone.
    """
    twin = cast(Transformer, with_linear_layers(model, _quantized_layer))
    twin.output_product = padded_outputs(QuantizedLinear, model.output_weight, model.output_bias)
    return twin


def _quantized_layer(layer: nn.Linear) -> nn.Module:
    return QuantizedLinear(layer.weight, layer.bias)
