"""Sentence pairs in two memory-mapped corpora, and the padded batches made of them."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from seqba.data.dictionary import Dictionary
from seqba.data.indexed import Corpus, IndexedCorpus, JoinedCorpus, index_path
from seqba.data.padding import count_tokens
from seqba.data.splits import NO_TARGET, check_sentences, language_pairs, missing_split, part_names, text_languages
from seqba.errors import UserError


class AbsentSide:
    """The target side of a text without references: as many rows, none of which has a token.

    Args:
        rows: N.

    Attributes:
        sizes: (N,) int32, zeros.
    """

    def __init__(self, rows: int) -> None:
        self.sizes = np.zeros(rows, dtype=np.int32)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.sizes)

    def padded(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Some rows: (B, 0) int64."""
        return np.empty((len(rows), 0), dtype=np.int64)


@dataclass(frozen=True)
class PairBatch:
    """Some pairs as tensors, right-padded with `<pad>` = 1; B pairs, sources up to L tokens, targets up to T.

    Attributes:
        ids: (B,) int64, the rows' numbers in their corpus.
        source: (B, L) int64, x1 … xn </s>.
        previous: (B, T) int64, what the decoder reads: </s> y1 … yn.
        target: (B, T) int64, what it shall say: y1 … yn </s>; T is 0 where there are no references.
        source_lengths: tokens of each source, on the host: so no GPU has to be asked. None where they aren't known.
        target_lengths: likewise, of each target.
    """

    ids: torch.Tensor
    source: torch.Tensor
    previous: torch.Tensor
    target: torch.Tensor
    source_lengths: list[int] | None = None
    target_lengths: list[int] | None = None

    @functools.cached_property
    def source_tokens(self) -> int | None:
        """Source tokens, `</s>` included and padding not, where the host knows."""
        return None if self.source_lengths is None else sum(self.source_lengths)

    @functools.cached_property
    def target_tokens(self) -> int:
        """Target tokens, `</s>` included and padding not: the weight of the batch."""
        known = self.known_target_tokens
        return int((self.target != Dictionary.pad).sum()) if known is None else known

    @functools.cached_property
    def known_target_tokens(self) -> int | None:
        """The same where the host knows without asking; in a pass, of all its rows."""
        return None if self.target_lengths is None else sum(self.target_lengths)


class PairCorpus:
    """Row i of the source corpus and row i of the target corpus are translations of each other.

    Args:
        source: the source side.
        target: the target side, of the same number of rows; `AbsentSide` for sources without references.

    Raises:
        UserError: if the sides differ in length.
    """

    def __init__(self, source: Corpus, target: Corpus | AbsentSide) -> None:
        if len(source) != len(target):
            raise UserError(
                f"the source corpus has {len(source)} sentences and the target corpus {len(target)}; "
                "preprocess both sides again, together"
            )
        self.source = source
        self.target = target

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.source)

    @property
    def has_references(self) -> bool:
        """Whether there is a target side."""
        return not isinstance(self.target, AbsentSide)

    @property
    def source_sizes(self) -> npt.NDArray[np.int32]:
        """(N,) int32, tokens of each source, `</s>` included."""
        return self.source.sizes

    @property
    def target_sizes(self) -> npt.NDArray[np.int32]:
        """(N,) int32, tokens of each target, `</s>` included."""
        return self.target.sizes

    @property
    def text_ends(self) -> npt.NDArray[np.int64]:
        """(K,) int64, the pair at which each of K texts (`train`, `train1`, …) ends."""
        return np.cumsum([len(part) for part in self.source.parts], dtype=np.int64)

    def batch(self, rows: npt.NDArray[np.int64]) -> PairBatch:
        """The pairs of the given rows (n,), in that order."""
        return pair_batch(rows, self.source.padded(rows), self.target.padded(rows), self.target_sizes[rows])


def pair_batch(
    rows: npt.NDArray[np.int64],
    source: npt.NDArray[np.int64],
    target: npt.NDArray[np.int64],
    target_sizes: npt.NDArray[np.integer],
) -> PairBatch:
    """Pairs as tensors.

    Args:
        rows: (B,) int64, their numbers in the corpus.
        source: (B, L) int64, padded on the right.
        target: (B, T) int64, padded on the right.
        target_sizes: (B,) tokens of each target, `</s>` included.
    """
    previous = np.full_like(target, Dictionary.eos)
    previous[:, 1:] = target[:, :-1]
    previous[np.arange(target.shape[1]) >= target_sizes[:, None]] = Dictionary.pad
    return PairBatch(
        ids=torch.from_numpy(np.array(rows, dtype=np.int64)),
        source=torch.from_numpy(source),
        previous=torch.from_numpy(previous),
        target=torch.from_numpy(target),
        source_lengths=count_tokens(source),
        target_lengths=count_tokens(target),
    )


def open_pairs(
    data_dir: str | Path,
    split: str,
    source_lang: str,
    target_lang: str,
    source_dictionary: Dictionary,
    target_dictionary: Dictionary,
    *,
    combine: bool = False,
    needs_target: bool = True,
) -> PairCorpus:
    """Opens both sides of a split, whichever way round the files were made (`train.en-de.en` serves de → en too).

    Args:
        data_dir: folder that seqba-preprocess or fairseq-preprocess wrote.
        split: "train", "valid", "test", "valid1", …
        source_lang: language translated from.
        target_lang: language translated to.
        source_dictionary: every source id must be in it.
        target_dictionary: every target id must be in it.
        combine: with `train`, take `train1`, `train2`, … as well when they are there, as fairseq does in training.
        needs_target: refuse a split that has the source side alone, as --only-source makes it.

    Raises:
        UserError: if a file is missing or broken, the sides do not match, or the split holds no sentences.
    """
    folder = Path(data_dir)
    names = part_names(
        split, lambda name: _find_stem(folder, name, source_lang, target_lang) is not None, combine=combine
    )
    parts = [
        _open_part(
            folder,
            name,
            (source_lang, target_lang),
            (source_dictionary, target_dictionary),
            needs_target=needs_target,
        )
        for name in names
    ]
    if len(parts) == 1:
        return PairCorpus(*parts[0])
    sources = JoinedCorpus([source for source, _ in parts])
    targets = [target for _, target in parts if isinstance(target, IndexedCorpus)]
    return PairCorpus(sources, JoinedCorpus(targets) if len(targets) == len(parts) else AbsentSide(len(sources)))


def find_languages(data_dir: str | Path) -> tuple[str, str]:
    """The (source, target) languages of a data folder, from the names of its files: `train.en-de.en.idx`.

    Raises:
        UserError: if the folder is missing, holds no parallel corpus, or more than one pair of languages.
    """
    folder = Path(data_dir)
    if not folder.is_dir():
        raise UserError(f"data folder {folder} does not exist; make it with seqba-preprocess")
    pairs = language_pairs(folder)
    if not pairs and text_languages(folder):
        raise UserError(
            f"data folder {folder} holds no parallel corpus but the text of a language model: take --task "
            "language_modeling, or make pairs with seqba-preprocess --source-lang … --target-lang …"
        )
    if not pairs:
        raise UserError(
            f"data folder {folder} holds no parallel corpus (no file like train.en-de.en.idx); "
            "make one with seqba-preprocess, or give --source-lang and --target-lang"
        )
    if len(pairs) > 1:
        raise UserError(
            f"data folder {folder} holds several language pairs ({', '.join(sorted(pairs))}); "
            "give --source-lang and --target-lang"
        )
    source, target = pairs.pop().split("-")
    return source, target


def choose_languages(folder: Path, source: str | None, target: str | None) -> tuple[str, str]:
    """The (source, target) languages that were asked for; what is None is the data folder's.

    Raises:
        UserError: as `find_languages`, where one of them is None.
    """
    if source and target:
        return source, target
    first, second = find_languages(folder)
    if source == second or target == first:
        first, second = second, first
    return source or first, target or second


def _open_part(
    folder: Path,
    split: str,
    languages: tuple[str, str],
    dictionaries: tuple[Dictionary, Dictionary],
    *,
    needs_target: bool,
) -> tuple[IndexedCorpus, IndexedCorpus | AbsentSide]:
    """Both sides of one numbered piece of a split, checked."""
    source_lang, target_lang = languages
    stem = _find_stem(folder, split, source_lang, target_lang)
    if stem is None:
        raise _missing(folder, split, source_lang, target_lang)
    if not index_path(folder / f"{stem}.{target_lang}").exists():
        if needs_target:
            raise UserError(
                f"split {split!r} of {folder} has no references: {stem}.{source_lang}.idx is there, and no "
                f"{stem}.{target_lang}.idx; preprocess both sides together, without --only-source"
            )
        source = _open_side(folder, stem, source_lang, dictionaries[0])
        return source, AbsentSide(len(source))
    source, target = (
        _open_side(folder, stem, language, dictionary)
        for language, dictionary in zip(languages, dictionaries, strict=True)
    )
    if len(source) != len(target):
        raise UserError(
            f"{index_path(source.prefix)} has {len(source)} sentences and {index_path(target.prefix)} {len(target)}; "
            "preprocess both sides again, together"
        )
    return source, target


def _open_side(folder: Path, stem: str, language: str, dictionary: Dictionary) -> IndexedCorpus:
    corpus = IndexedCorpus(folder / f"{stem}.{language}", vocabulary_size=len(dictionary))
    check_sentences(corpus)
    return corpus


def _missing(folder: Path, split: str, source_lang: str, target_lang: str) -> UserError:
    """The error for a split whose source isn't there."""
    for stem in _stems(split, source_lang, target_lang):
        if index_path(folder / f"{stem}.{target_lang}").exists():
            return UserError(
                f"split {split!r} of {folder} has no {source_lang} side: {stem}.{target_lang}.idx is there, and no "
                f"{stem}.{source_lang}.idx; preprocess both sides together"
            )
    if index_path(folder / split).exists():
        return UserError(
            f"split {split!r} of {folder} is a text without a language ({split}.idx), not {source_lang} to translate: "
            f"preprocess it with --source-lang {source_lang} --target-lang {target_lang} --only-source --srcdict …"
        )
    file = f"{split}.{source_lang}-{target_lang}.{source_lang}.idx"
    return missing_split(folder, split, f" of {source_lang} and {target_lang}", file)


def _find_stem(folder: Path, split: str, source_lang: str, target_lang: str) -> str | None:
    """`train.en-de` or `train.de-en`, whichever has both sides; else what has the source, `train.en-None` too."""
    stems = [
        stem
        for stem in _stems(split, source_lang, target_lang)
        if index_path(folder / f"{stem}.{source_lang}").exists()
    ]
    whole = [stem for stem in stems if index_path(folder / f"{stem}.{target_lang}").exists()]
    return next(iter([*whole, *stems]), None)


def _stems(split: str, source_lang: str, target_lang: str) -> tuple[str, ...]:
    pairs = (f"{source_lang}-{target_lang}", f"{target_lang}-{source_lang}", f"{source_lang}-{NO_TARGET}")
    return tuple(f"{split}.{pair}" for pair in pairs)
