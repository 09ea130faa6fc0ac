"""Text files of a folder of Hugging Face's Marian form: vocabularies under their own ids, and SentencePiece models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from seqba.data.dictionary import Dictionary
from seqba.data.files import open_file
from seqba.data.lines import has_half_characters
from seqba.data.subwords import Subwords, language_codes, read_subwords
from seqba.errors import UserError, quoted

CONFIG = "config.json"
REMEDY = (
    "a Marian folder has config.json, vocab.json, source.spm, target.spm and model.safetensors or pytorch_model.bin"
)
ABSENT = -1
"""In place of their id: a symbol that they have none of."""

MOST_SYMBOLS = 1 << 24

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Vocabulary:
    """One side's symbols.

    Attributes:
        dictionary: under our ids: the four special ones first, then the others in their order.
        their_ids: (V,) int64, their id of each of ours; `ABSENT` for `<s>` where they have none.
    """

    dictionary: Dictionary
    their_ids: Ids


@dataclass(frozen=True)
class MarianText:
    """Both sides' way from text to ids.

    Attributes:
        source: symbols of the source.
        target: symbols of the target; the same object where there is one vocabulary.
        source_subwords: segments source text.
        target_subwords: segments target text, and joins it.
        languages: (source, target) as the folder names them.
    """

    source: Vocabulary
    target: Vocabulary
    source_subwords: Subwords
    target_subwords: Subwords
    languages: tuple[str, str]


def is_marian_folder(path: str | Path) -> bool:
    """Whether a path is a folder with a `config.json`, as transformers' are and data-bins aren't."""
    return (Path(path) / CONFIG).is_file()


def read_marian_config(folder: Path) -> dict[str, Any]:
    """The folder's `config.json`.

    Raises:
        UserError: for one that isn't there, can't be read, or is of another kind of model.
    """
    config = read_json(folder / CONFIG)
    if config.get("model_type") != "marian":
        raise UserError(
            f"{folder} holds a model of the kind {quoted(str(config.get('model_type')))}; of transformers' models "
            "marian is read"
        )
    return config


def read_marian_text(folder: str | Path) -> MarianText:
    """Reads vocabularies and SentencePiece models.

    Raises:
        UserError: for a file that is missing or broken, or ids that don't fit the configuration.
    """
    folder = Path(folder)
    config = read_marian_config(folder)
    path = folder / "tokenizer_config.json"
    settings = read_json(path) if path.exists() else {}
    size = _number(config, "vocab_size", folder)
    target_size = size if config.get("decoder_vocab_size") is None else _number(config, "decoder_vocab_size", folder)
    source = target = read_vocabulary(folder / "vocab.json", config, size)
    if settings.get("separate_vocabs", False):
        target = read_vocabulary(folder / "target_vocab.json", config, target_size)
    elif target_size != size:
        target = read_vocabulary(folder / "vocab.json", config, target_size)
    languages = [str(settings.get(f"{side}_lang") or side) for side in ("source", "target")]
    return MarianText(
        source,
        target,
        _read_subwords(folder / "source.spm", source.dictionary),
        _read_subwords(folder / "target.spm", target.dictionary),
        (languages[0], languages[1]),
    )


def read_vocabulary(path: Path, config: Mapping[str, Any], size: int) -> Vocabulary:
    """Reads a `vocab.json`, {symbol: id}.

    Ids up to `size` that it has no symbol of become fillers, as in the dictionaries of fairseq.

    Args:
        path: the file.
        config: names the ids of `</s>` and `<pad>`.
        size: V of theirs.

    Raises:
        UserError: for a broken file, or ids that are no numbers below `size`, each once.
    """
    vocabulary = read_json(path)
    if any(map(has_half_characters, vocabulary)):
        raise UserError(f"{path} has a symbol that is no text (half of a character): fetch the folder anew")
    symbols: list[str | None] = [None] * size
    for symbol, number in vocabulary.items():
        if type(number) is not int or not 0 <= number < size or symbols[number] is not None:
            raise UserError(
                f"{path} gives {quoted(symbol[:60])} the id {number!r}: ids are whole numbers below {size} "
                f"({CONFIG}), each once"
            )
        symbols[number] = symbol
    bos, pad, eos, unk = (vocabulary.get(symbol, ABSENT) for symbol in Dictionary.specials)
    if ABSENT in (pad, eos, unk):
        raise UserError(f"{path} lacks one of {', '.join(Dictionary.specials[1:])}: it is no vocabulary of Marian's")
    if eos != _number(config, "eos_token_id", path.parent):
        raise UserError(f"{path} has </s> as {eos}, and {path.parent / CONFIG} as {config['eos_token_id']}")
    others = [number for number in range(size) if number not in (bos, pad, eos, unk)]
    fillers = (name for name in map("madeupword{:04d}".format, range(2 * size)) if name not in vocabulary)
    words = [(symbols[number], 1) if symbols[number] is not None else (next(fillers), 0) for number in others]
    return Vocabulary(
        Dictionary((str(symbol), count) for symbol, count in words), np.array([bos, pad, eos, unk, *others])
    )


def read_json(path: Path) -> dict[str, Any]:
    """Reads an object of JSON.

    Raises:
        UserError: for a file that is missing, or holds something else.
    """
    with open_file(path, "file", REMEDY) as file:
        content = file.read()
    try:
        read = json.loads(content)
    except (ValueError, RecursionError):
        raise UserError(f"{path} is no JSON, or is damaged: fetch the folder anew") from None
    if not isinstance(read, dict):
        raise UserError(f"{path} holds a {type(read).__name__}, not an object of JSON: fetch the folder anew")
    return read


def _number(config: Mapping[str, Any], name: str, folder: Path) -> int:
    number = config.get(name)
    if type(number) is not int or not 0 <= number < MOST_SYMBOLS:
        raise UserError(f"{folder / CONFIG} has {name} {number!r}: it must be a whole number below {MOST_SYMBOLS}")
    return number


def _read_subwords(path: Path, dictionary: Dictionary) -> Subwords:
    return read_subwords(path).with_codes(language_codes(dictionary.symbols))
