"""From one text, or two that are parallel, to a data folder, byte for byte as fairseq-preprocess writes it."""

from __future__ import annotations

import functools
import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from seqba.data.dictionary import Dictionary
from seqba.data.encoding import Encoded, count_piece, encode_piece
from seqba.data.files import atomic_text, atomic_write
from seqba.data.indexed_writer import IndexedWriter
from seqba.data.marian import read_marian_text
from seqba.data.mixing import weights_path, write_weights
from seqba.data.preprocess_checks import check_consistency, check_destination, check_files
from seqba.data.preprocess_options import PreprocessOptions
from seqba.data.splits import with_suffix
from seqba.data.staging import staged
from seqba.data.subwords import Subwords, model_name, read_subwords, train_subwords
from seqba.data.tables import texts_of
from seqba.data.text import Text, TextPiece
from seqba.data.tokenizer_json import TOKENIZER_NAME, JsonTokenizer, read_tokenizer
from seqba.data.workers import Workers
from seqba.errors import UserError

LOG_NAME = "preprocess.log"
MOST_SUBWORD_LINES = 10_000_000  # what SentencePiece holds in memory at once; from larger texts every k-th line

Forms = dict[str | None, tuple[Dictionary, Subwords | JsonTokenizer | None]]
"""Language → its dictionary, and what segments its text."""

Report = Callable[[str], None]
Advance = Callable[[int], None]
Progress = Callable[[str, int], Advance]


def preprocess(options: PreprocessOptions, report: Report, progress: Progress) -> None:
    """Makes a data folder: dictionaries, and every split's ids, memory-mapped.

    The files appear in the folder together at the end; on any failure none does, and the folder is as it was.

    Args:
        options: what to make of what.
        report: takes one line at a time, fairseq's summaries; they go to `preprocess.log` as well.
        progress: called with a title and a number of bytes for each stretch of work; what it returns is called with
            the bytes done since.

    Raises:
        UserError: for contradictory options and for text or dictionaries that cannot be used, before any long work
            where possible.
    """
    check_consistency(options)
    check_destination(options)
    check_files(options)
    lines: list[str] = []

    def note(line: str) -> None:
        lines.append(line)
        report(line)

    # Dictionaries last: once they are there, a second run refuses to start.
    staging = staged(options.destdir, f"--destdir {options.destdir}", last="dict.")
    with staging as stage, Workers(options.workers) as workers:
        note(str(options))
        forms = _take_forms(options) if options.takes_dictionaries else _make_forms(options, workers, progress)
        _write_subwords(options, forms, stage)
        for language, (dictionary, _) in forms.items():
            _write_dictionary(dictionary, stage / f"{with_suffix('dict', language)}.txt")
            note(f"[{language}] Dictionary: {len(dictionary)} types")
        if not options.dict_only:
            for language in options.languages:
                dictionary, subwords = forms[language]
                for split, text in texts_of(options, language).items():
                    prefix = stage / options.corpus_name(split, language)
                    binarise = functools.partial(encode_piece, dictionary=dictionary, subwords=subwords)
                    note(f"[{language}] {_binarise(text, prefix, binarise, len(dictionary), workers, progress)}")
        if options.weights:
            write_weights(weights_path(stage, "train"), options.weights)
        note(f"Wrote preprocessed data to {options.destdir}")
        _extend_log(Path(options.destdir) / LOG_NAME, stage / LOG_NAME, lines)


def _training_texts(options: PreprocessOptions, languages: Iterable[str | None]) -> list[Text]:
    """The texts that dictionaries and subwords are made from."""
    named = (item for language in languages for item in texts_of(options, language).items())
    return [text for split, text in named if split.startswith("train")]


def _take_forms(options: PreprocessOptions) -> Forms:
    """Dictionaries and subwords of a Marian folder or a tokenizer."""
    if options.tokenizer_json is not None:
        tokenizer = read_tokenizer(options.tokenizer_json)
        return dict.fromkeys(options.languages, (tokenizer.dictionary(options.padding_factor), tokenizer))
    text = read_marian_text(str(options.from_model))
    forms = ((text.source.dictionary, text.source_subwords), (text.target.dictionary, text.target_subwords))
    return dict(zip((options.source_lang, options.target_lang), forms, strict=True))


def _make_forms(options: PreprocessOptions, workers: Workers, progress: Progress) -> Forms:
    subwords = _make_subwords(options)
    dictionaries = _make_dictionaries(options, subwords, workers, progress)
    return {language: (dictionary, subwords) for language, dictionary in dictionaries.items()}


def _make_subwords(options: PreprocessOptions) -> Subwords | None:
    if options.sentencepiece is not None:
        texts = _training_texts(options, options.languages)
        return train_subwords(_sample_lines(texts), options.sentencepiece)
    return read_subwords(options.sentencepiece_model) if options.sentencepiece_model is not None else None


def _write_subwords(options: PreprocessOptions, forms: Forms, stage: Path) -> None:
    """Writes the model of both languages, or one for each where they come from a Marian folder; or the tokenizer."""
    own = options.from_model is not None
    models = {model_name(language if own else None): subwords for language, (_, subwords) in forms.items()}
    for name, subwords in models.items():
        if subwords is None:
            continue
        path = stage / (TOKENIZER_NAME if isinstance(subwords, JsonTokenizer) else name)
        with atomic_write(path) as file:
            file.write(subwords.model)
        if isinstance(subwords, Subwords):
            with atomic_text(path.with_suffix(".vocab")) as text:
                text.write(subwords.vocabulary())


def _write_dictionary(dictionary: Dictionary, path: Path) -> None:
    """Writes a dictionary; symbols that its file can't hold (line ends, say), which only others' may have, are told."""
    dictionary.save(path)
    with suppress(UserError):
        if Dictionary.load(path) == dictionary:
            return
    raise UserError(f"a symbol of the vocabulary can't be written to {path.name}, where each is a line")


def _sample_lines(texts: Sequence[Text]) -> Iterator[str]:
    stride = -(-sum(text.count_lines() for text in texts) // MOST_SUBWORD_LINES)
    lines = (line for text in texts for piece in text.pieces() for line in piece.lines())
    return itertools.islice(lines, 0, None, stride)


def _make_dictionaries(
    options: PreprocessOptions, subwords: Subwords | None, workers: Workers, progress: Progress
) -> dict[str | None, Dictionary]:
    """The dictionary of each language, loaded or counted."""

    def make(path: str | None, languages: Iterable[str | None], threshold: int, size: int) -> Dictionary:
        if path is not None:
            return Dictionary.load(path)
        counts = _count_tokens(_training_texts(options, languages), subwords, workers, progress)
        return Dictionary.build(counts, threshold=threshold, size=size, padding_factor=options.padding_factor)

    if options.is_joined:
        both = make(options.srcdict or options.tgtdict, options.languages, options.thresholdsrc, options.nwordssrc)
        return dict.fromkeys(options.languages, both)
    dictionaries = {
        options.source_lang: make(options.srcdict, [options.source_lang], options.thresholdsrc, options.nwordssrc)
    }
    if not options.only_source:
        dictionaries[options.target_lang] = make(
            options.tgtdict, [options.target_lang], options.thresholdtgt, options.nwordstgt
        )
    return dictionaries


def _count_tokens(
    texts: Sequence[Text], subwords: Subwords | None, workers: Workers, progress: Progress
) -> Counter[str]:
    pieces = [piece for text in texts for piece in text.pieces()]
    names = ", ".join(os.path.basename(str(text)) for text in texts)
    advance = progress(f"counting {names}", sum(piece.size for piece in pieces))
    counts: Counter[str] = Counter()
    for piece, found in workers.map(functools.partial(count_piece, subwords=subwords), pieces):
        counts.update(found)
        advance(piece.size)
    return counts


def _binarise(
    text: Text,
    prefix: Path,
    encode: Callable[[TextPiece], Encoded],
    vocabulary_size: int,
    workers: Workers,
    progress: Progress,
) -> str:
    """Writes one side of a split and returns fairseq's line about it."""
    pieces = text.pieces()
    advance = progress(f"encoding {os.path.basename(str(text))}", sum(piece.size for piece in pieces))
    sentences = tokens = unknown = 0
    with IndexedWriter(prefix, vocabulary_size) as writer:
        for piece, encoded in workers.map(encode, pieces):
            writer.add_rows(encoded.ids, encoded.sizes)
            sentences += len(encoded.sizes)
            tokens += len(encoded.ids)
            unknown += encoded.unknown
            advance(piece.size)
    share = 100 * unknown / tokens
    return f"{text}: {sentences} sents, {tokens} tokens, {share:.3}% replaced by {Dictionary.specials[Dictionary.unk]}"


def _extend_log(old: Path, new: Path, lines: list[str]) -> None:
    with atomic_text(new) as file:
        if old.exists():
            file.write(old.read_text(encoding="utf-8", errors="surrogateescape"))
        file.writelines(f"{line}\n" for line in lines)
