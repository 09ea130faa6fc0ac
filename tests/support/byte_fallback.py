"""A SentencePiece model that spells the characters that it doesn't know in bytes."""

from __future__ import annotations

import io

import sentencepiece


def byte_fallback_model() -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(["the house is small .", "the cat sees a tree ."] * 20),
        model_writer=model,
        vocab_size=300,
        model_type="bpe",
        byte_fallback=True,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()
