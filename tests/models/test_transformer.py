"""The Transformer against torch's own modules with the same weights, and what padding must not change."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toy_transformer import EOS, LENGTHS, PAD, VOCABULARY, make_batch, make_model

import seqba
from seqba.core import Noise, noise_context
from seqba.models.attention import Attention
from seqba.models.embedding import sinusoids
from seqba.models.layers import SelfAttentionLayer
from seqba.models.transformer import Transformer
from seqba.models.unpadding import Packing
from seqba.nn.kernels.casts import shared_casts


def copy_attention(ours: Attention, theirs: nn.MultiheadAttention) -> None:
    if hasattr(ours, "input_projection"):
        theirs.in_proj_weight.data.copy_(ours.input_projection.weight)
        theirs.in_proj_bias.data.copy_(ours.input_projection.bias)
    else:
        theirs.in_proj_weight.data.copy_(torch.cat([ours.query_projection.weight, ours.memory_projection.weight]))
        theirs.in_proj_bias.data.copy_(torch.cat([ours.query_projection.bias, ours.memory_projection.bias]))
    theirs.out_proj.load_state_dict(ours.output_projection.state_dict())


def reference_of(model: Transformer, *, pre_norm: bool, activation: str = "relu") -> nn.Transformer:
    """torch's Transformer with our weights."""
    theirs = nn.Transformer(
        16, 4, 2, 2, 24, dropout=0.0, activation=activation, batch_first=True, norm_first=pre_norm, dtype=torch.float64
    )
    stacks = [(model.encoder_layers, theirs.encoder.layers), (model.decoder_layers, theirs.decoder.layers)]
    for our_layers, their_layers in stacks:
        for ours, other in zip(our_layers, their_layers, strict=True):
            copy_attention(ours.attention, other.self_attn)
            other.linear1.load_state_dict(ours.feed_forward.expand.state_dict())
            other.linear2.load_state_dict(ours.feed_forward.contract.state_dict())
            norms = [ours.attention_residual.norm, ours.feed_forward_residual.norm]
            if hasattr(ours, "cross_attention"):
                copy_attention(ours.cross_attention, other.multihead_attn)
                norms.insert(1, ours.cross_attention_residual.norm)
            for number, norm in enumerate(norms, start=1):
                getattr(other, f"norm{number}").load_state_dict(norm.state_dict())
    if pre_norm:
        theirs.encoder.norm.load_state_dict(model.encoder_norm.state_dict())
        theirs.decoder.norm.load_state_dict(model.decoder_norm.state_dict())
    else:  # torch normalises the end of a post-norm stack once more; the paper doesn't
        theirs.encoder.norm = None
        theirs.decoder.norm = None
    return theirs


def embed(model: Transformer, tokens: Tensor, side: str) -> Tensor:
    embedding = getattr(model, f"{side}_embedding")
    return embedding.tokens(tokens) * 4 + sinusoids(tokens.shape[1], 16, 2).double()


def reference_logits(model: Transformer, theirs: nn.Transformer, source: Tensor, previous: Tensor) -> Tensor:
    causal = nn.Transformer.generate_square_subsequent_mask(previous.shape[1], dtype=torch.float64)
    hidden = theirs(
        embed(model, source, "source"),
        embed(model, previous, "target"),
        tgt_mask=causal,
        src_key_padding_mask=torch.zeros(source.shape).double().masked_fill(source == PAD, float("-inf")),
        memory_key_padding_mask=torch.zeros(source.shape).double().masked_fill(source == PAD, float("-inf")),
    )
    return hidden @ model.output_weight.t()


@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True:UserWarning")  # torch, of its pre-norm encoder
@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("lengths", [LENGTHS, [(5, 4)] * 3], ids=["padded", "full"])
def test_outputs_and_gradients_equal_those_of_nn_transformer(
    pre_norm: bool, activation: Any, lengths: list[tuple[int, int]]
) -> None:
    model = make_model(encoder_normalize_before=pre_norm, decoder_normalize_before=pre_norm, activation_fn=activation)
    theirs = reference_of(model, pre_norm=pre_norm, activation=activation)
    source, previous = make_batch(lengths)
    present = previous != PAD
    upstream = torch.randn(int(present.sum()), VOCABULARY, dtype=torch.float64)

    ours = model(source, previous)[present]
    ours.backward(upstream)
    weights = [model.source_embedding.tokens.weight, model.target_embedding.tokens.weight, model.output_weight]
    our_gradients = [weight.grad.clone() for weight in weights]
    our_norm = [layer.feed_forward.expand.weight.grad.clone() for layer in model.encoder_layers]
    model.zero_grad()

    expected = reference_logits(model, theirs, source, previous)[present]
    expected.backward(upstream)
    torch.testing.assert_close(ours, expected)
    for gradient, weight in zip(our_gradients, weights, strict=True):
        gradient[PAD] = weight.grad[PAD]  # the padding's embedding is never trained here
        torch.testing.assert_close(gradient, weight.grad)
    for gradient, layer in zip(our_norm, theirs.encoder.layers, strict=True):
        torch.testing.assert_close(gradient, layer.linear1.weight.grad)


@pytest.mark.parametrize("causal", [False, True])
def test_attention_with_dropout_equals_softmax_attention_through_its_mask(causal: bool) -> None:
    """The branch that draws keyed dropout, against torch's at p → 0."""
    torch.manual_seed(0)
    ours = Attention(16, 4, dropout=1e-7).double()  # rounds to no dropout, and yet takes the branch
    theirs = nn.MultiheadAttention(16, 4, batch_first=True, dtype=torch.float64)
    copy_attention(ours, theirs)
    tokens, _ = make_batch(LENGTHS)
    packing = Packing(tokens, PAD)
    x = torch.randn(len(packing.positions), 16, dtype=torch.float64)
    padded = packing.pad(x)
    mask = ~torch.ones(7, 7, dtype=torch.bool).tril() if causal else None
    expected, _ = theirs(padded, padded, padded, key_padding_mask=~packing.mask, attn_mask=mask)
    with noise_context(Noise(0, 0, 0, (0,))):
        attended = ours.attend_to_self(ours.input_projection(x), packing, causal=causal)
    torch.testing.assert_close(attended, packing.pack(expected))


def test_features_are_the_rows_that_are_not_padding() -> None:
    model = make_model()
    source, previous = make_batch(LENGTHS)
    logits = model(source, previous)
    features = model.features(source, previous)
    torch.testing.assert_close(features @ model.output_weight.t(), logits[previous != PAD])
    assert not logits[previous == PAD].any()


def test_padding_and_row_order_change_nothing() -> None:
    model = make_model()
    source, previous = make_batch(LENGTHS)
    logits = model(source, previous)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(model(source[order], previous[order]), logits[order])
    wider = model(nn.functional.pad(source, (0, 3), value=PAD), nn.functional.pad(previous, (0, 2), value=PAD))
    torch.testing.assert_close(wider[:, : previous.shape[1]], logits)
    alone = model(source[1:2, :3], previous[1:2])
    torch.testing.assert_close(alone[0], logits[1])


def translation_loss(model: Transformer, batch: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, int]:
    source, previous, target = batch
    target = target[target != PAD]
    loss, _ = seqba.nn.label_smoothed_cross_entropy(
        model.features(source, previous), model.output_weight, target, smoothing=0.1
    )
    return loss, target.numel()


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("plan", ["looped", 3, "auto"])
def test_its_gradient_does_not_depend_on_the_plan_with_every_dropout_on(
    plan: Any, dtype: torch.dtype, bound: float
) -> None:
    model = make_model(dropout=0.2, attention_dropout=0.1, activation_dropout=0.1, share_all_embeddings=True).to(dtype)
    source, previous = make_batch(LENGTHS)
    batch = (source, previous, previous)

    def gradient(plan: Any) -> Tensor:
        model.zero_grad()
        seqba.merged_gradient(model, batch, translation_loss, copies=4, plan=plan, update=9)
        return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])

    stacked = gradient("stacked")
    assert ((gradient(plan) - stacked).norm() / stacked.norm()).item() < bound


@pytest.mark.parametrize("plan", ["looped", 3])
def test_its_gradient_does_not_depend_on_the_plan_in_bfloat16(plan: Any) -> None:
    model = make_model(dropout=0.2, activation_dropout=0.1, share_all_embeddings=True).float()
    source, previous = make_batch(LENGTHS)

    def loss(model: Transformer, batch: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, int]:
        with torch.autocast("cpu", torch.bfloat16):
            return translation_loss(model, batch)

    def gradient(plan: Any, update: int = 9) -> Tensor:
        model.zero_grad()
        with shared_casts():
            seqba.merged_gradient(model, (source, previous, previous), loss, copies=4, plan=plan, update=update)
        return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])

    stacked = gradient("stacked")
    assert ((gradient(plan) - stacked).norm() / stacked.norm()).item() < 0.01  # products are rounded to 2⁻⁹
    assert ((gradient(plan, update=10) - stacked).norm() / stacked.norm()).item() > 0.1  # other masks


def test_every_dropout_draws_for_each_copy_on_its_own() -> None:
    for name in ("dropout", "attention_dropout", "activation_dropout"):
        model = make_model(**{name: 0.5})
        source, previous = make_batch(LENGTHS)
        twice = (seqba.replicate(source, 2), seqba.replicate(previous, 2))
        with noise_context(Noise(0, 0, 0, (0, 1), {id(m): n for n, m in model.named_modules()})):
            first, second = model.features(*twice).chunk(2)
        assert not torch.allclose(first, second)


@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize("beams", [1, 3])
def test_step_by_step_equals_all_at_once(pre_norm: bool, beams: int) -> None:
    model = make_model(encoder_normalize_before=pre_norm, decoder_normalize_before=pre_norm).eval()
    source, _ = make_batch([(7, 1), (3, 1), (5, 1), (4, 1)])
    generator = torch.Generator().manual_seed(0)
    state = model.begin(source, beams)
    sentences = torch.arange(4)
    tokens = torch.full((4, 1), EOS)
    past = tokens.unsqueeze(2)  # (B, K, t)
    with torch.no_grad():
        for step in range(20):  # beyond the first capacity of the cache
            logits = model.step(state, tokens)
            rows = source[sentences].repeat_interleave(tokens.shape[1], 0)
            expected = model(rows, past.flatten(0, 1))[:, -1].view(*tokens.shape, VOCABULARY)
            torch.testing.assert_close(logits, expected)
            # Beams go on from any beam; the first sentence leaves and the last takes its place, then the middle leaves.
            kept = {5: torch.tensor([3, 1, 2]), 8: torch.tensor([0, 2])}.get(step, torch.arange(len(sentences)))
            parents = torch.randint(0, tokens.shape[1], (len(kept), beams), generator=generator)
            model.reorder(state, kept, parents)
            sentences = sentences[kept]
            past = past[kept].gather(1, parents.unsqueeze(2).expand(-1, -1, past.shape[2]))
            tokens = torch.randint(4, VOCABULARY, (len(kept), beams), generator=generator)
            past = torch.cat([past, tokens.unsqueeze(2)], dim=2)


def test_a_search_that_begins_later_sees_the_weights_of_then() -> None:
    model = make_model().eval()
    source, tokens = make_batch([(4, 1)])[0], torch.tensor([[EOS]])
    before = model.step(model.begin(source, 1), tokens)
    with torch.no_grad():
        for parameter in model.decoder_layers.parameters():
            parameter.mul_(1.5)
        expected = model(source, tokens)
    after = model.step(model.begin(source, 1), tokens)
    torch.testing.assert_close(after, expected)
    assert not torch.allclose(after, before)


def test_silu_is_the_feed_forwards_activation() -> None:
    layer = make_model(activation_fn="silu").encoder_layers[0]
    assert isinstance(layer, SelfAttentionLayer)
    hidden = torch.linspace(-4, 4, 24, dtype=torch.float64).unsqueeze(0)
    weight, bias = layer.feed_forward.contract.weight, layer.feed_forward.contract.bias
    expected = (hidden / (1 + (-hidden).exp())) @ weight.t() + bias
    torch.testing.assert_close(layer.feed_forward(hidden.clone()), expected)


def test_a_decoder_may_start_with_padding_and_logits_have_a_bias() -> None:
    model = make_model(start_symbol="pad", output_bias=True).eval()
    plain = make_model().eval()
    source, previous = make_batch(LENGTHS)
    assert model.output_bias is not None
    with torch.no_grad():
        model.output_bias.copy_(torch.randn(VOCABULARY))
        plain.load_state_dict({name: each for name, each in model.state_dict().items() if name != "output_bias"})
        # The plain model reads </s> first, with the embedding that the other one's padding has.
        row = torch.randn(16, dtype=torch.float64)
        model.target_embedding.tokens.weight[PAD] = row
        plain.target_embedding.tokens.weight[EOS] = row
        kept = previous != PAD
        expected = plain(source, previous)[kept] + model.output_bias
        torch.testing.assert_close(model(source, previous)[kept], expected)
    state = model.begin(source[:1], 1)
    steps = [model.step(state, previous[:1, place : place + 1])[0, 0] for place in range(LENGTHS[0][1])]
    torch.testing.assert_close(torch.stack(steps), model(source[:1], previous[:1, : LENGTHS[0][1]])[0])
