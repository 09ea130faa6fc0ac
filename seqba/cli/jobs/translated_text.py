"""Text of seqba-generate and seqba-interactive: languages, dictionaries, and what splits lines and joins subwords."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from seqba.cli.translator_options import TextOptions
from seqba.data.marian import is_marian_folder
from seqba.data.moses import BytePairs, Moses
from seqba.data.pair_files import choose_languages
from seqba.data.sides import Side, marian_sides, open_side
from seqba.data.subwords import Segmenter, Subwords, read_subwords
from seqba.data.tokenizer_json import TOKENIZER_NAME, JsonTokenizer, read_tokenizer
from seqba.decoding.detokenize import TextForm
from seqba.errors import UserError


def text_forms(options: TextOptions, sides: tuple[Side, Side], folder: Path) -> tuple[TextForm, TextForm]:
    """Ways from text to ids and back, of source and target.

    Raises:
        UserError: for a file that can't be used, or subwords that the data-bin doesn't have.
    """
    words = _words(options, (sides[0].language, sides[1].language))
    source, target = (
        TextForm(side.dictionary, _subwords(options, side, folder), options.post_process, own)
        for side, own in zip(sides, words, strict=True)
    )
    return source, target


def _subwords(options: TextOptions, side: Side, folder: Path) -> Segmenter | None:
    """Segmenter of a side's subwords, by the options or the data-bin; None for words."""
    if options.bpe == "subword_nmt":
        return BytePairs(str(options.bpe_codes), options.bpe_separator)
    if options.sentencepiece_model is not None:
        return read_subwords(options.sentencepiece_model)
    if options.tokenizer_json is not None:
        return read_tokenizer(options.tokenizer_json)
    if options.bpe == "sentencepiece" and not isinstance(side.subwords, Subwords):
        raise UserError(f"--bpe sentencepiece: {folder} has no model of its own, so give it as --sentencepiece-model")
    if options.bpe == "tokenizers" and not isinstance(side.subwords, JsonTokenizer):
        raise UserError(
            f"--bpe tokenizers: {folder} has no {TOKENIZER_NAME} of its own, so give it as --tokenizer-json"
        )
    return side.subwords


def _words(options: TextOptions, languages: tuple[str, str]) -> tuple[Moses | None, Moses | None]:
    """Tokenizers of source and target; none where words are what spaces separate."""
    if options.tokenizer != "moses":
        return None, None
    chosen = (options.moses_source_lang or languages[0], options.moses_target_lang or languages[1])
    source, target = (
        Moses(language, dash_splits=not options.moses_no_dash_splits, escape=not options.moses_no_escape)
        for language in chosen
    )
    return source, target


def text_folder(data: str | None, paths: list[str]) -> Path:
    """The folder with dictionaries: the given one, or a model's own."""
    if data is None and not is_marian_folder(paths[0]):
        raise UserError(f"DATA is missing, the data-bin that {paths[0]} was trained on: its dictionaries are needed")
    folder = Path(paths[0] if data is None else data)
    if not folder.is_dir():
        raise UserError(f"there is no data-bin {data}: give the folder that the model was trained on")
    return folder


def open_sides(options: TextOptions, path: str, task_state: Mapping[str, Any], folder: Path) -> tuple[Side, Side]:
    """Both languages' dictionaries and subwords, in a folder for a model.

    Args:
        options: the languages that are asked for.
        path: of the model, for messages.
        task_state: what the model says of its languages.
        folder: a data-bin or a Marian folder.

    Raises:
        UserError: for a file that is missing or broken, or languages that the model doesn't translate.
    """
    own = marian_sides(folder) if is_marian_folder(folder) else None
    between = None if own is None else (own[0].language, own[1].language)
    source, target = _languages(options, path, task_state, folder, between)
    if own is None:
        return open_side(folder, source), open_side(folder, target)
    return replace(own[0], language=source), replace(own[1], language=target)


def _languages(
    options: TextOptions, path: str, task_state: Mapping[str, Any], folder: Path, between: tuple[str, str] | None
) -> tuple[str, str]:
    """Languages that were asked for, if they are the model's; a checkpoint that doesn't say leaves them to the folder.

    `between` are the languages of a Marian folder, None where it is a data-bin.
    """
    own = (task_state["source_lang"], task_state["target_lang"])
    if own == (None, None):
        if between is not None:
            return options.source_lang or between[0], options.target_lang or between[1]
        return choose_languages(folder, options.source_lang, options.target_lang)
    source, target = options.source_lang or own[0], options.target_lang or own[1]
    if own != (source, target):
        raise UserError(
            f"the model of {path} translates {own[0]} to {own[1]}, not {source} to {target}: "
            "leave out --source-lang and --target-lang, or take another checkpoint"
        )
    return source, target
