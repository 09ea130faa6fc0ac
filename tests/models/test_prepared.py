"""Models for translation alone: what they share with the model, and what they give."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch

from seqba.models.config import TransformerConfig
from seqba.models.prepared import prepared, quantized
from seqba.models.transformer import Transformer
from seqba.nn.kernels.prepacked import PaddedOutputs, PrepackedLinear
from seqba.nn.kernels.products import HAS_ONEDNN
from seqba.nn.kernels.quantized import QuantizedLinear, can_quantize

SOURCE = torch.tensor([[5, 9, 7, 2], [8, 6, 2, 1]])


def make_model() -> Transformer:
    torch.manual_seed(0)
    config = TransformerConfig(encoder_layers=1, decoder_layers=1, output_bias=True)
    return Transformer(config, source_vocabulary=50, target_vocabulary=50).eval()


def first_logits(model: Transformer) -> torch.Tensor:
    return model.step(model.begin(SOURCE, 2), torch.full((2, 1), 2))


@pytest.mark.skipif(not HAS_ONEDNN, reason="this torch offers no oneDNN product")
def test_a_prepared_model_gives_the_same_logits_and_lays_weights_out_once() -> None:
    model = make_model()
    twin = prepared(model)
    assert isinstance(twin.encoder_layers[0].feed_forward.expand, PrepackedLinear)
    assert twin.begin(SOURCE, 2).output is twin.begin(SOURCE, 2).output
    torch.testing.assert_close(first_logits(twin), first_logits(model))
    assert model.output_product is None
    assert twin.target_embedding is model.target_embedding


def test_a_model_without_such_products_is_itself() -> None:
    model = make_model().double()
    assert prepared(model) is model
    assert model.output_product is None


@pytest.mark.skipif(not can_quantize(), reason="this torch offers no int8 product for this processor")
def test_a_quantized_model_has_all_its_linear_layers_and_words_in_int8() -> None:
    model = make_model()
    twin = quantized(model)
    assert not any(isinstance(module, torch.nn.Linear) for module in twin.modules())
    assert isinstance(twin.output_product, PaddedOutputs)  # of 50 words
    assert isinstance(twin.output_product.layer, QuantizedLinear)
    expected, found = first_logits(model), first_logits(twin)
    assert 0 < (found - expected).norm() < 0.05 * expected.norm()
    torch.testing.assert_close(first_logits(model), expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    "prepare",
    [
        pytest.param(prepared, marks=pytest.mark.skipif(not HAS_ONEDNN, reason="no oneDNN product")),
        pytest.param(quantized, marks=pytest.mark.skipif(not can_quantize(), reason="no int8 product")),
    ],
)
def test_a_prepared_model_can_be_copied(prepare: Callable[[Transformer], Transformer]) -> None:
    model = prepare(make_model())
    expected = first_logits(model)
    twin = copy.deepcopy(model)
    assert torch.equal(first_logits(twin), expected)
    layer, other = (each.decoder_layers[0].feed_forward.expand for each in (model, twin))
    assert other is not layer
    assert other.packed is layer.packed
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert torch.equal(first_logits(model), expected)
