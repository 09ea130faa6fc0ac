"""Folders of Hugging Face's Marian form, made by transformers itself: random weights, toy text."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
import torch
from transformers import MarianConfig, MarianMTModel, MarianTokenizer

WORDS = {
    "en": ("one", "two", "three", "four", "five", "six", "seven", "eight", "house", "garden", "tree", "river"),
    "de": ("eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "Haus", "Garten", "Baum", "Fluss"),
}
FORMS: dict[str, dict[str, Any]] = {
    "one vocabulary": {},
    "two vocabularies": {"share_encoder_decoder_embeddings": False},
    "nothing shared": {"share_encoder_decoder_embeddings": False, "tie_word_embeddings": False},
    "ReLU, unscaled": {"activation_function": "relu", "scale_embedding": False},
}
"""What differs from OPUS-MT's usual models."""


def sentences(language: str, count: int, *, seed: int = 1) -> list[str]:
    """Lines of counting words; line i is the same in every language."""
    chance = np.random.default_rng(seed)
    chosen = [chance.integers(0, len(WORDS["en"]), chance.integers(2, 9)) for _ in range(count)]
    return [" ".join(WORDS[language][number] for number in numbers) + "." for numbers in chosen]


def train_spm(lines: list[str], size: int) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(lines),
        model_writer=model,
        vocab_size=size,
        model_type="unigram",
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


def pieces_of(spm: bytes) -> list[str]:
    processor = sentencepiece.SentencePieceProcessor(model_proto=spm)
    return [processor.IdToPiece(number) for number in range(3, processor.GetPieceSize())]


@dataclass(frozen=True)
class MarianFolder:
    """A folder, and what transformers makes of it."""

    path: Path
    model: MarianMTModel
    tokenizer: MarianTokenizer


def write_marian(
    path: Path, *, seed: int = 1, safetensors: bool = True, steps: int = 0, codes: bool = False, **options: Any
) -> MarianFolder:
    """A folder as OPUS-MT's: `</s>` 0, `<unk>` 1, the pieces, `<pad>` last; two different SentencePiece models.

    Args:
        path: is made.
        seed: of the weights.
        safetensors: the form of the weights; `pytorch_model.bin` otherwise.
        steps: of training on counting sentences; a few hundred make it stop where a sentence should.
        codes: whether the target language is named in the text (`>>deu<<`).
        options: of the configuration, where they differ.
    """
    path.mkdir()
    separate = not options.get("share_encoder_decoder_embeddings", True)
    spms = {language: train_spm(sentences(language, 200), 45) for language in ("en", "de")}
    pieces = {language: pieces_of(spm) for language, spm in spms.items()}
    named = [">>deu<<", ">>nld<<"] if codes else []
    both = [*named, *dict.fromkeys([*pieces["en"], *pieces["de"]])]
    words = [pieces["en"], pieces["de"]] if separate else [both, both]
    size = max(map(len, words)) + 3
    vocabularies = []
    for own in words:  # as OPUS-MT's, both sides have <pad> in the same place
        symbols = ["</s>", "<unk>", *own, *(f"spare{n}" for n in range(size - 3 - len(own))), "<pad>"]
        vocabularies.append({symbol: number for number, symbol in enumerate(symbols)})
    for name, spm in zip(("source.spm", "target.spm"), spms.values(), strict=True):
        (path / name).write_bytes(spm)
    for name, vocabulary in zip(("vocab.json", "target_vocab.json"), vocabularies, strict=True):
        if name == "vocab.json" or separate:
            (path / name).write_text(json.dumps(vocabulary), encoding="utf-8")
    settings = {"source_lang": "en", "target_lang": "de", "model_max_length": 512, "separate_vocabs": separate}
    (path / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    sizes = {"d_model": 32, "encoder_ffn_dim": 48, "decoder_ffn_dim": 64, "encoder_layers": 2, "decoder_layers": 1}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 2}
    ids = {"pad_token_id": size - 1, "decoder_start_token_id": size - 1, "eos_token_id": 0, "forced_eos_token_id": 0}
    config = MarianConfig(
        **{
            **{"vocab_size": size, "decoder_vocab_size": size, "max_position_embeddings": 64},
            **{"activation_function": "swish", "scale_embedding": True, "bad_words_ids": [[size - 1]]},
            **{**sizes, **heads, **ids, **options},
        }
    )
    torch.manual_seed(seed)
    model = MarianMTModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * (0.3 if parameter.dim() > 1 else 0.1))
        for name, parameter in model.named_parameters():
            if "norm" in name and name.endswith("weight"):
                parameter += 1
            if "embed_positions" in name:
                parameter.copy_(model.model.encoder.embed_positions.create_weight())
        model.final_logits_bias.copy_(torch.randn(model.final_logits_bias.shape))
    _train(model, MarianTokenizer.from_pretrained(path), steps)
    if safetensors:
        model.save_pretrained(path)
    else:
        torch.save(model.state_dict(), path / "pytorch_model.bin")
        config.save_pretrained(path)
    return MarianFolder(path, model, MarianTokenizer.from_pretrained(path))


def _train(model: MarianMTModel, tokenizer: MarianTokenizer, steps: int) -> None:
    """Ordinary updates in evaluation mode, without dropout, as a trained model is needed and no better one."""
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(steps):
        source, target = (sentences(language, 32, seed=100 + step) for language in ("en", "de"))
        inputs = tokenizer(source, text_target=target, return_tensors="pt", padding=True)
        labels = inputs.labels.masked_fill(inputs.labels == tokenizer.pad_token_id, -100)
        model(input_ids=inputs.input_ids, attention_mask=inputs.attention_mask, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
