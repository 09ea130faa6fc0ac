"""One text in a data folder: what a language model reads."""

from __future__ import annotations

from pathlib import Path

from seqba.data.dictionary import Dictionary
from seqba.data.indexed import Corpus, IndexedCorpus, JoinedCorpus, corpus_files, index_path
from seqba.data.splits import (
    NO_TARGET,
    check_sentences,
    language_pairs,
    missing_split,
    part_names,
    text_languages,
    two_sided,
    with_suffix,
)
from seqba.errors import UserError

REMEDY = "make one with seqba-preprocess --only-source"


def open_dictionary(data_dir: str | Path) -> Dictionary:
    """The dictionary of a folder that holds one text: `dict.txt`, or `dict.en.txt` if the text has a language.

    Raises:
        UserError: if the folder holds no single text, or its dictionary is missing or broken.
    """
    folder = Path(data_dir)
    return Dictionary.load(folder / f"{with_suffix('dict', _find_language(folder))}.txt")


def open_monolingual(data_dir: str | Path, split: str, dictionary: Dictionary, *, combine: bool = False) -> Corpus:
    """Opens a split of a single text: `train`, or `train.en-None.en` if the text has a language.

    Args:
        data_dir: folder that `seqba-preprocess --only-source` or fairseq's wrote.
        split: "train", "valid", "test", "valid1", …
        dictionary: every id must be in it.
        combine: with `train`, take `train1`, `train2`, … as well when they are there, as fairseq does in training.

    Raises:
        UserError: if the folder holds no single text, or the split is missing, broken or empty.
    """
    folder = Path(data_dir)
    language = _find_language(folder)
    names = part_names(split, lambda name: index_path(_prefix(folder, name, language)).exists(), combine=combine)
    parts = [_open_part(folder, name, language, dictionary) for name in names]
    return parts[0] if len(parts) == 1 else JoinedCorpus(parts)


def text_files(folder: Path, split: str, *, combine: bool = False) -> list[Path]:
    """The files that `open_monolingual` reads of a split; one that is missing is named too.

    Raises:
        UserError: if the folder holds no single text.
    """
    language = _find_language(folder)
    names = part_names(split, lambda name: index_path(_prefix(folder, name, language)).exists(), combine=combine)
    return corpus_files(_prefix(folder, name, language) for name in names)


def _find_language(folder: Path) -> str | None:
    """The language in the names of a text's files; None where they have none."""
    if not folder.is_dir():
        raise UserError(f"data folder {folder} does not exist; {REMEDY}")
    languages, pairs = text_languages(folder), language_pairs(folder)
    if not languages and pairs and not any(two_sided(folder, pair) for pair in pairs):
        raise UserError(
            f"data folder {folder} holds the source side of {', '.join(sorted(pairs))}, made with --only-source for "
            "translating: for a language model preprocess it again without --target-lang"
        )
    if not languages and pairs:
        raise UserError(
            f"data folder {folder} holds sentence pairs ({', '.join(sorted(pairs))}), not the text of a language "
            f"model: take --task translation, or {REMEDY}"
        )
    if not languages:
        raise UserError(f"data folder {folder} holds no text (no file like train.idx); {REMEDY}")
    if len(languages) > 1:
        named = ", ".join(sorted(language or "one without a language" for language in languages))
        raise UserError(f"data folder {folder} holds several texts ({named}); put each into a folder of its own")
    return languages.pop()


def _prefix(folder: Path, split: str, language: str | None) -> Path:
    return folder / (split if language is None else f"{split}.{language}-{NO_TARGET}.{language}")


def _open_part(folder: Path, split: str, language: str | None, dictionary: Dictionary) -> IndexedCorpus:
    prefix = _prefix(folder, split, language)
    if not index_path(prefix).exists():
        raise missing_split(folder, split, "", index_path(prefix).name)
    corpus = IndexedCorpus(prefix, vocabulary_size=len(dictionary))
    check_sentences(corpus)
    return corpus
