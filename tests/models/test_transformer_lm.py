"""The decoder-only Transformer against torch's encoder under a causal mask, with the same weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from initial_weights import check_transformer
from torch import Tensor, nn

import seqba
from seqba.core import Noise, noise_context
from seqba.models.attention import Attention
from seqba.models.config import DecoderConfig
from seqba.models.embedding import sinusoids
from seqba.models.transformer_lm import TransformerLM

PAD, EOS = 1, 2
VOCABULARY = 23
LENGTHS = [7, 3, 7, 1]


def make_model(vocabulary: int = VOCABULARY, **changes: Any) -> TransformerLM:
    torch.manual_seed(4)
    sizes: dict[str, Any] = {
        "decoder_layers": 2,
        "decoder_embed_dim": 16,
        "decoder_ffn_embed_dim": 24,
        "decoder_attention_heads": 4,
        "dropout": 0.0,
    }
    return TransformerLM(DecoderConfig(**{**sizes, **changes}), vocabulary=vocabulary).double()


def make_rows(lengths: list[int] = LENGTHS, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.full((len(lengths), max(lengths)), PAD)
    for row, length in enumerate(lengths):
        rows[row, :length] = torch.randint(4, VOCABULARY, (length,), generator=generator)
        rows[row, 0] = EOS
    return rows


def copy_attention(ours: Attention, theirs: nn.MultiheadAttention) -> None:
    theirs.in_proj_weight.data.copy_(ours.input_projection.weight)
    theirs.in_proj_bias.data.copy_(ours.input_projection.bias)
    theirs.out_proj.load_state_dict(ours.output_projection.state_dict())


def reference_of(model: TransformerLM, *, pre_norm: bool, activation: str) -> nn.TransformerEncoder:
    """torch's encoder with our weights."""
    layer = nn.TransformerEncoderLayer(
        16, 4, 24, dropout=0.0, activation=activation, batch_first=True, norm_first=pre_norm, dtype=torch.float64
    )
    final = nn.LayerNorm(16, dtype=torch.float64) if pre_norm else None
    theirs = nn.TransformerEncoder(layer, 2, norm=final, enable_nested_tensor=False)
    for ours, other in zip(model.layers, theirs.layers, strict=True):
        copy_attention(ours.attention, other.self_attn)
        other.linear1.load_state_dict(ours.feed_forward.expand.state_dict())
        other.linear2.load_state_dict(ours.feed_forward.contract.state_dict())
        other.norm1.load_state_dict(ours.attention_residual.norm.state_dict())
        other.norm2.load_state_dict(ours.feed_forward_residual.norm.state_dict())
    if final is not None:
        final.load_state_dict(model.norm.state_dict())
    return theirs


def reference_logits(model: TransformerLM, theirs: nn.TransformerEncoder, rows: Tensor) -> Tensor:
    embedded = model.embedding.tokens(rows) * 4 + sinusoids(rows.shape[1], 16, 2).double()
    causal = nn.Transformer.generate_square_subsequent_mask(rows.shape[1], dtype=torch.float64)
    padding = torch.zeros(rows.shape).double().masked_fill(rows == PAD, float("-inf"))
    return theirs(embedded, mask=causal, src_key_padding_mask=padding) @ model.output_weight.t()


@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("lengths", [LENGTHS, [5, 5, 5]], ids=["padded", "full"])
def test_outputs_and_gradients_equal_those_of_nn_transformer_encoder(
    pre_norm: bool, activation: Any, shared: bool, lengths: list[int]
) -> None:
    model = make_model(
        decoder_normalize_before=pre_norm, activation_fn=activation, share_decoder_input_output_embed=shared
    )
    theirs = reference_of(model, pre_norm=pre_norm, activation=activation)
    rows = make_rows(lengths)
    present = rows != PAD
    upstream = torch.randn(int(present.sum()), VOCABULARY, dtype=torch.float64)

    ours = model(rows)[present]
    ours.backward(upstream)
    own = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    expected = reference_logits(model, theirs, rows)[present]
    expected.backward(upstream)

    torch.testing.assert_close(ours, expected)
    table = model.embedding.tokens.weight.grad
    assert table is not None
    if not shared:
        own["embedding.tokens.weight"][PAD] = table[PAD]  # the padding's embedding is never trained here
    torch.testing.assert_close(own["embedding.tokens.weight"], table)
    for number, other in enumerate(theirs.layers):
        for name, theirs_ in (
            ("attention.input_projection.weight", other.self_attn.in_proj_weight),
            ("attention.output_projection.bias", other.self_attn.out_proj.bias),
            ("feed_forward.expand.weight", other.linear1.weight),
            ("feed_forward_residual.norm.weight", other.norm2.weight),
        ):
            torch.testing.assert_close(own[f"layers.{number}.{name}"], theirs_.grad)


def test_features_are_the_rows_that_are_not_padding() -> None:
    model, rows = make_model(), make_rows()
    logits = model(rows)
    torch.testing.assert_close(model.features(rows) @ model.output_weight.t(), logits[rows != PAD])
    assert not logits[rows == PAD].any()


def test_the_future_changes_nothing() -> None:
    model, rows = make_model(), make_rows([7, 7])
    logits = model(rows)
    changed = rows.clone()
    changed[:, 4:] = 5
    torch.testing.assert_close(model(changed)[:, :4], logits[:, :4], rtol=0, atol=0)
    assert not torch.allclose(model(changed)[:, 4:], logits[:, 4:])


def test_padding_and_row_order_change_nothing() -> None:
    model, rows = make_model(), make_rows()
    logits = model(rows)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(model(rows[order]), logits[order])
    torch.testing.assert_close(model(nn.functional.pad(rows, (0, 3), value=PAD))[:, :7], logits)


def loss_of(model: TransformerLM, batch: tuple[Tensor]) -> tuple[Tensor, int]:
    (rows,) = batch
    target = rows[rows != PAD]
    loss, _ = seqba.nn.label_smoothed_cross_entropy(model.features(rows), model.output_weight, target, smoothing=0.1)
    return loss, target.numel()


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("plan", ["looped", 3, "auto"])
def test_its_gradient_does_not_depend_on_the_plan_with_every_dropout_on(
    plan: Any, dtype: torch.dtype, bound: float
) -> None:
    model = make_model(dropout=0.2, attention_dropout=0.1, activation_dropout=0.1).to(dtype)
    rows = make_rows()

    def gradient(plan: Any) -> Tensor:
        model.zero_grad()
        seqba.merged_gradient(model, (rows,), loss_of, copies=4, plan=plan, update=9)
        return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])

    stacked = gradient("stacked")
    assert ((gradient(plan) - stacked).norm() / stacked.norm()).item() < bound


@pytest.mark.parametrize("name", ["dropout", "attention_dropout", "activation_dropout"])
def test_every_dropout_draws_for_each_copy_on_its_own(name: str) -> None:
    model = make_model(**{name: 0.5})
    twice = seqba.replicate(make_rows(), 2)
    with noise_context(Noise(0, 0, 0, (0, 1), {id(m): n for n, m in model.named_modules()})):
        first, second = model.features(twice).chunk(2)
    assert not torch.allclose(first, second)


def test_rows_beyond_the_positions_are_refused() -> None:
    with pytest.raises(ValueError, match="a row has 7 tokens; the model's positions end at 6"):
        make_model(max_target_positions=6)(make_rows())


@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize("tied", [False, True])
def test_initial_weights_are_fairseq_s(tied: bool, pre_norm: bool) -> None:
    sizes = {"vocabulary": 200, "decoder_embed_dim": 64, "decoder_ffn_embed_dim": 96}
    model = make_model(**sizes, share_decoder_input_output_embed=tied, decoder_normalize_before=pre_norm)
    own = {"norm", "bias", "embedding", "expand", "contract", "input_projection", "output_projection"}
    assert check_transformer(model, pad=PAD) == (own if tied else {*own, "output"})
    assert (model.output_weight is model.embedding.tokens.weight) == tied
