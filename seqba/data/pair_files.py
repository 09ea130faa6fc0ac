"""Files of sentence pairs in a data folder: which languages it holds, and both sides of a split."""

from __future__ import annotations

from pathlib import Path

from seqba.data.dictionary import Dictionary
from seqba.data.indexed import IndexedCorpus, JoinedCorpus, corpus_files, index_path
from seqba.data.pairs import AbsentSide, PairCorpus
from seqba.data.splits import NO_TARGET, check_sentences, language_pairs, missing_split, part_names, text_languages
from seqba.errors import UserError


def open_pairs(
    data_dir: str | Path,
    split: str,
    languages: tuple[str, str],
    dictionaries: tuple[Dictionary, Dictionary],
    *,
    combine: bool = False,
    needs_target: bool = True,
) -> PairCorpus:
    """Opens both sides of a split, whichever way round the files were made (`train.en-de.en` serves de → en too).

    Args:
        data_dir: folder that seqba-preprocess or fairseq-preprocess wrote.
        split: "train", "valid", "test", "valid1", …
        languages: translated from and to.
        dictionaries: of both; every id of a side must be in its own.
        combine: with `train`, take `train1`, `train2`, … as well when they are there, as fairseq does in training.
        needs_target: refuse a split that has the source side alone, as --only-source makes it.

    Raises:
        UserError: if a file is missing or broken, the sides do not match, or the split holds no sentences.
    """
    folder = Path(data_dir)
    names = part_names(split, lambda name: _find_stem(folder, name, languages) is not None, combine=combine)
    parts = [_open_part(folder, name, languages, dictionaries, needs_target=needs_target) for name in names]
    if len(parts) == 1:
        return PairCorpus(*parts[0])
    sources = JoinedCorpus([source for source, _ in parts])
    targets = [target for _, target in parts if isinstance(target, IndexedCorpus)]
    return PairCorpus(sources, JoinedCorpus(targets) if len(targets) == len(parts) else AbsentSide(len(sources)))


def pair_files(folder: Path, split: str, languages: tuple[str, str], *, combine: bool = False) -> list[Path]:
    """The files that `open_pairs` reads of a split; none where it isn't there."""
    names = part_names(split, lambda name: _find_stem(folder, name, languages) is not None, combine=combine)
    stems = [stem for name in names if (stem := _find_stem(folder, name, languages)) is not None]
    prefixes = [folder / f"{stem}.{language}" for stem in stems for language in languages]
    return corpus_files(prefixes)


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
    stem = _find_stem(folder, split, languages)
    if stem is None:
        raise _missing(folder, split, languages)
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


def _missing(folder: Path, split: str, languages: tuple[str, str]) -> UserError:
    """The error for a split whose source isn't there."""
    source_lang, target_lang = languages
    for stem in _stems(split, languages):
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


def _find_stem(folder: Path, split: str, languages: tuple[str, str]) -> str | None:
    """`train.en-de` or `train.de-en`, whichever has both sides; else what has the source, `train.en-None` too."""
    source_lang, target_lang = languages
    stems = [stem for stem in _stems(split, languages) if index_path(folder / f"{stem}.{source_lang}").exists()]
    whole = [stem for stem in stems if index_path(folder / f"{stem}.{target_lang}").exists()]
    return next(iter([*whole, *stems]), None)


def _stems(split: str, languages: tuple[str, str]) -> tuple[str, ...]:
    source_lang, target_lang = languages
    pairs = (f"{source_lang}-{target_lang}", f"{target_lang}-{source_lang}", f"{source_lang}-{NO_TARGET}")
    return tuple(f"{split}.{pair}" for pair in pairs)
