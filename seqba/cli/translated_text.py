"""Text of seqba-generate and seqba-interactive: languages, dictionaries, and what splits lines and joins subwords."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from seqba.data.marian import is_marian_folder
from seqba.data.moses import BytePairs, Moses
from seqba.data.pairs import choose_languages
from seqba.data.sides import Side, marian_sides, open_side
from seqba.data.subwords import Segmenter, Subwords, read_subwords
from seqba.data.tokenizer_json import TOKENIZER_NAME, JsonTokenizer, read_tokenizer
from seqba.decoding.detokenize import TextForm
from seqba.errors import UserError
from seqba.options import flag_of, is_given, option, options

OWNERS = {
    "moses_source_lang": ("tokenizer", "moses"),
    "moses_target_lang": ("tokenizer", "moses"),
    "moses_no_dash_splits": ("tokenizer", "moses"),
    "moses_no_escape": ("tokenizer", "moses"),
    "sentencepiece_model": ("bpe", "sentencepiece"),
    "bpe_codes": ("bpe", "subword_nmt"),
    "bpe_separator": ("bpe", "subword_nmt"),
    "tokenizer_json": ("bpe", "tokenizers"),
}
"""Option → the option and its value without which it would have no effect."""


@options
class TextOptions:
    """Options of the languages, and of the way from text to tokens and back."""

    source_lang: str | None = option(
        None, "source language (default: the checkpoint's)", aliases=("-s",), metavar="SRC"
    )
    target_lang: str | None = option(
        None, "target language (default: the checkpoint's)", aliases=("-t",), metavar="TRG"
    )
    post_process: str | None = option(
        None,
        "join subwords: subword_nmt (if the option stands alone: '@@ '), sentencepiece, or any symbol to remove; a "
        "data-bin with its own SentencePiece model needs no such option",
        aliases=("remove-bpe",),
        bare="subword_nmt",
        metavar="SYMBOL",
    )
    tokenizer: str = option(
        "space",
        "moses: source lines are tokenised, and D- lines detokenised, as Moses does (extra wmt); space: words are what "
        "spaces separate",
        choices=("space", "moses"),
    )
    moses_source_lang: str | None = option(None, "whose rules hold for the source (default: its own)", metavar="SRC")
    moses_target_lang: str | None = option(None, "whose rules hold for the target (default: its own)", metavar="TRG")
    moses_no_dash_splits: bool = option(False, "leave words with hyphens whole")
    moses_no_escape: bool = option(False, "write apostrophes and quotes as they are, not as &apos; and &quot;")
    bpe: str | None = option(
        None,
        "how source lines are split into subwords, and those of D- lines joined: sentencepiece, subword_nmt (extra "
        "wmt), or tokenizers (Hugging Face's, extra tokenizers); default: by the data-bin's own SentencePiece model or "
        "tokenizer, if it has one",
        choices=("sentencepiece", "subword_nmt", "tokenizers"),
    )
    sentencepiece_model: str | None = option(
        None, "model of --bpe sentencepiece (default: the data-bin's own)", metavar="FILE"
    )
    tokenizer_json: str | None = option(
        None, "tokenizer of --bpe tokenizers (default: the data-bin's own)", metavar="FILE"
    )
    bpe_codes: str | None = option(None, "merges of --bpe subword_nmt", metavar="FILE")
    bpe_separator: str = option("@@", "what subwords that go on end in, with --bpe subword_nmt")

    def __post_init__(self) -> None:
        """Refuses options that have no effect, and subwords without their merges."""
        for name, (owner, value) in OWNERS.items():
            if is_given(self, name) and getattr(self, owner) != value:
                raise UserError(f"{flag_of(name)} belongs to {flag_of(owner)} {value}, which isn't given")
        if self.bpe == "subword_nmt" and self.bpe_codes is None:
            raise UserError("--bpe subword_nmt needs --bpe-codes: the file of merges that the text was made with")


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
    """What splits and joins a side's subwords, by the options or the data-bin."""
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
    """What was asked for, if it is what the model does; a checkpoint that doesn't say leaves it to the folder.

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
