"""Tokenizers of Hugging Face's, of every kind of model, trained on a few lines."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

TEXT = [
    "the quick brown fox jumps over the lazy dog",
    "die schnelle Füchsin springt über den Hund",
    "the dog, the fox.",
]
UNKNOWN = ("<unk>", "[UNK]")
SPECIALS = ["<s>", "<pad>", "</s>", "<unk>", "<2de>"]


def byte_level() -> Tokenizer:
    """GPT-2's kind: no text is unknown to it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=alphabet, special_tokens=["<pad>", "</s>", "<2de>"], show_progress=False
    )
    tokenizer.train_from_iterator(TEXT * 5, trainer)
    return tokenizer


def unigram() -> Tokenizer:
    """T5's kind, with `▁` for spaces."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=90, special_tokens=SPECIALS, unk_token=UNKNOWN[0], show_progress=False)
    tokenizer.train_from_iterator(TEXT * 5, trainer)
    return tokenizer


def word_piece() -> Tokenizer:
    """BERT's kind, which adds tokens around a text and calls unknown ones [UNK]."""
    tokenizer = Tokenizer(models.WordPiece(unk_token=UNKNOWN[1]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=90, special_tokens=["[UNK]", "[CLS]", "[SEP]", "<2de>"], show_progress=False
    )
    tokenizer.train_from_iterator(TEXT * 5, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=9)
    return tokenizer


KINDS = {"byte-level": byte_level, "unigram": unigram, "word-piece": word_piece}


def write_tokenizer(path: Path, kind: str = "byte-level") -> Path:
    """A `tokenizer.json`."""
    KINDS[kind]().save(str(path))
    return path
