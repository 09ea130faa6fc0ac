"""The other side: Hugging Face's `MarianMTModel` of the same sizes."""

from __future__ import annotations

import torch
from transformers import MarianConfig, MarianMTModel
from workload import DROPOUT, SMOOTHING, VOCABULARY, Size

from seqba.data.dictionary import Dictionary
from seqba.data.pairs import PairBatch
from seqba.models.transformer import Transformer


def build_marian(
    size: Size,
    *,
    vocabulary: int = VOCABULARY,
    dropout: float = DROPOUT,
    attention_dropout: float = 0.0,
    positions: int = 1024,
) -> MarianMTModel:
    """Post-norm, ReLU, one matrix for all embeddings, torch's fused attention (the default)."""
    config = MarianConfig(
        vocab_size=vocabulary,
        max_position_embeddings=positions,
        d_model=size.embed_dim,
        encoder_layers=size.layers,
        decoder_layers=size.layers,
        encoder_ffn_dim=size.ffn_dim,
        decoder_ffn_dim=size.ffn_dim,
        encoder_attention_heads=size.heads,
        decoder_attention_heads=size.heads,
        activation_function="relu",
        dropout=dropout,
        attention_dropout=attention_dropout,
        activation_dropout=0.0,
        scale_embedding=True,
        share_encoder_decoder_embeddings=True,
        tie_word_embeddings=True,
        pad_token_id=Dictionary.pad,
        eos_token_id=Dictionary.eos,
        bos_token_id=Dictionary.bos,
        decoder_start_token_id=Dictionary.eos,
        forced_eos_token_id=None,
    )
    return MarianMTModel(config)


def mean_loss(model: MarianMTModel, batch: PairBatch) -> torch.Tensor:
    """The mean loss over the tokens of a batch."""
    logits = model(
        input_ids=batch.source,
        attention_mask=(batch.source != Dictionary.pad).long(),
        decoder_input_ids=batch.previous,
        use_cache=False,
    ).logits
    return torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), batch.target.flatten(), ignore_index=Dictionary.pad, label_smoothing=SMOOTHING
    )


def plain_backward(model: MarianMTModel, batch: PairBatch, copies: int) -> None:
    """Forward and backward of one copy, as a plain loop accumulates gradients: the mean over tokens and copies."""
    (mean_loss(model, batch) / copies).backward()


@torch.no_grad()
def copy_weights(ours: Transformer, marian: MarianMTModel) -> None:
    """Gives Marian the weights of our post-norm model with shared embeddings, and our table of positions."""
    marian.model.shared.weight.copy_(ours.output_weight)
    marian.final_logits_bias.zero_()
    for side, layers, embedding in (
        (marian.model.encoder, ours.encoder_layers, ours.source_embedding),
        (marian.model.decoder, ours.decoder_layers, ours.target_embedding),
    ):
        side.embed_positions.weight.copy_(embedding.positions[: side.embed_positions.weight.shape[0]])
        for theirs, own in zip(side.layers, layers, strict=True):
            _copy_layer(own, theirs)


def _copy_layer(own: torch.nn.Module, theirs: torch.nn.Module) -> None:
    attention, mine = theirs.self_attn, own.attention
    _copy_split([attention.q_proj, attention.k_proj, attention.v_proj], mine.input_projection)
    _copy_split([attention.out_proj], mine.output_projection)
    _copy_split([theirs.self_attn_layer_norm], own.attention_residual.norm)
    if hasattr(theirs, "encoder_attn"):
        attention, mine = theirs.encoder_attn, own.cross_attention
        _copy_split([attention.q_proj], mine.query_projection)
        _copy_split([attention.k_proj, attention.v_proj], mine.memory_projection)
        _copy_split([attention.out_proj], mine.output_projection)
        _copy_split([theirs.encoder_attn_layer_norm], own.cross_attention_residual.norm)
    _copy_split([theirs.fc1], own.feed_forward.expand)
    _copy_split([theirs.fc2], own.feed_forward.contract)
    _copy_split([theirs.final_layer_norm], own.feed_forward_residual.norm)


def _copy_split(targets: list[torch.nn.Module], origin: torch.nn.Module) -> None:
    """Cuts weight and bias of one of our layers into equal parts, one for each of Marian's."""
    for name in ("weight", "bias"):
        parts = getattr(origin, name).chunk(len(targets))
        for target, part in zip(targets, parts, strict=True):
            getattr(target, name).copy_(part)
