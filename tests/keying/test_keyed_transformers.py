"""Keyed noise in models of Hugging Face as they are, at toy size."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from foreign_models import gradient
from small_network import relative_error
from torch import Tensor, nn

import seqba

os.environ.setdefault("HF_HUB_OFFLINE", "1")
transformers = pytest.importorskip("transformers", minversion="5")

WORDS = 40
ROWS = 4
SEQ2SEQ = {
    "vocab_size": WORDS,
    "max_position_embeddings": 16,
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "dropout": 0.2,
    "attention_dropout": 0.2,
    "activation_dropout": 0.1,
    "encoder_layerdrop": 0.3,
    "decoder_layerdrop": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
    "forced_eos_token_id": 1,
}
T5 = {
    "vocab_size": WORDS,
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 24,
    "num_layers": 2,
    "num_heads": 2,
    "dropout_rate": 0.2,
    "decoder_start_token_id": 0,
    "pad_token_id": 0,
}
GPT2 = {"vocab_size": WORDS, "n_positions": 16, "n_embd": 16, "n_layer": 2, "n_head": 2, "attn_pdrop": 0.2}
ENCODER = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "hidden_dropout_prob": 0.2,
    "attention_probs_dropout_prob": 0.2,
}


def tokens(length: int, seed: int) -> Tensor:
    return torch.randint(3, WORDS, (ROWS, length), generator=torch.Generator().manual_seed(seed))


def padded() -> Tensor:
    """1 where there is a token; rows of two lengths."""
    return (torch.arange(6) < torch.tensor([6, 3, 6, 2])[:, None]).long()


def seq2seq_batch() -> dict[str, Tensor]:
    return {"input_ids": tokens(6, 0), "attention_mask": padded(), "labels": tokens(5, 1)}


def token_batch() -> dict[str, Tensor]:
    return {"input_ids": tokens(6, 0), "attention_mask": padded(), "labels": tokens(6, 1)}


def picture_batch() -> dict[str, Tensor]:
    pictures = torch.randn(ROWS, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return {"pixel_values": pictures, "labels": torch.arange(ROWS)}


MODELS: dict[str, tuple[str, str, dict[str, Any], Callable[[], dict[str, Tensor]]]] = {
    "Marian": ("MarianMTModel", "MarianConfig", SEQ2SEQ, seq2seq_batch),
    "BART": ("BartForConditionalGeneration", "BartConfig", SEQ2SEQ, seq2seq_batch),
    "T5": ("T5ForConditionalGeneration", "T5Config", T5, seq2seq_batch),
    "GPT-2": ("GPT2LMHeadModel", "GPT2Config", GPT2, token_batch),
    "BERT": ("BertForMaskedLM", "BertConfig", {**ENCODER, "vocab_size": WORDS}, token_batch),
    "ViT": (
        "ViTForImageClassification",
        "ViTConfig",
        {**ENCODER, "image_size": 8, "patch_size": 4, "num_labels": ROWS},
        picture_batch,
    ),
}


def model_loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return model(**batch).loss


@pytest.mark.filterwarnings("ignore")  # the library's own, which differ from release to release
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", MODELS)
def test_stacked_looped_and_recomputed_gradients_are_the_same(name: str, attention: str) -> None:
    kind, configuration, sizes, make_batch = MODELS[name]
    torch.manual_seed(1)
    config = getattr(transformers, configuration)(**sizes)
    model = getattr(transformers, kind)._from_config(config, attn_implementation=attention).double().train()
    batch = make_batch()

    def found(plan: Any) -> Tensor:
        model.zero_grad()
        seqba.merged_gradient(model, batch, model_loss, copies=3, update=3, plan=plan, keyed=True)
        return gradient(model)

    stacked = found("stacked")
    torch.manual_seed(5)
    assert relative_error(found("looped"), stacked) < 1e-10
    model.gradient_checkpointing_enable()
    assert torch.equal(found("stacked"), stacked)
