"""Translator of seqba-generate and seqba-interactive, made of checkpoints and a data-bin."""

from __future__ import annotations

import ast
import typing
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from seqba.checkpoints.model import LoadedModel, load_model
from seqba.cli.arguments import Given, Parser, plain_type, read_options
from seqba.cli.fairseq_options import (
    INFERENCE,
    OTHER_SUBWORD_TOOLS,
    SCORERS,
    WITHOUT_EFFECT,
    hints,
    taken,
    without_effect_line,
)
from seqba.cli.output import warn_on_stderr
from seqba.data.dictionary import is_described_by
from seqba.data.marian import is_marian_folder
from seqba.data.moses import BytePairs, Moses
from seqba.data.pairs import choose_languages
from seqba.data.sides import Side, marian_sides, open_side
from seqba.data.subwords import Subwords, read_subwords
from seqba.decoding.detokenize import TextForm
from seqba.decoding.ensemble import Ensemble
from seqba.decoding.options import SearchOptions
from seqba.errors import UserError, quoted
from seqba.models.options import TransformerOptions
from seqba.models.transformer import Transformer
from seqba.options import flag_of, is_given, option, options
from seqba.runtime.devices import choose_device
from seqba.runtime.memory import keep_freed_memory

OTHER_TOOLS = "text is made with --bpe sentencepiece or subword_nmt, and --tokenizer moses; leave it out"
CODES = "give the codes of subword-nmt (--bpe subword_nmt), or apply it to the text beforehand and use --remove-bpe"
VALIDATION = "it belongs to seqba-train, for BLEU in validation; leave it out"
NO_REFINING = "there is no iterative decoder here; leave it out"
ACCEPTED = {
    **WITHOUT_EFFECT,
    **taken("progress is a bar on a terminal", "log-format", str),
    **taken("progress is a bar on a terminal", "log-interval", int),
    **taken("no result depends on it", "no-beamable-mm"),
}
"""fairseq's options that both commands take and that change nothing."""

UNSUPPORTED_VALUES = {
    "--bpe": {
        "fastbpe": CODES,
        "gpt2": CODES,
        "hf_byte_bpe": CODES,
        "bert": CODES,
        "bytes": CODES,
        "characters": CODES,
    },
    "--tokenizer": {"nltk": "take moses, or tokenise the text beforehand"},
}
"""fairseq's values of options that have others here, and what to do instead."""

UNSUPPORTED = {
    **INFERENCE,
    **hints(OTHER_TOOLS, OTHER_SUBWORD_TOOLS),
    **hints("sacreBLEU is of 13a tokens, mixed case; seqba-score has --ignore-case", SCORERS),
    **hints(
        NO_REFINING, "iter-decode-eos-penalty iter-decode-max-iter iter-decode-force-max-iter iter-decode-with-beam"
    ),
    **hints(NO_REFINING, "iter-decode-with-external-reranker retain-iter-history decoding-format"),
    "--retain-dropout-modules": "--retain-dropout keeps all of it; change rates with --model-overrides",
    "--eos-token": "a translation ends with </s>; leave it out",
    **hints("there are no alignments or tags in a data-bin; leave it out", "load-alignments upsample-primary"),
    **hints("texts are not shortened; see --skip-invalid-size-inputs-valid-test", "truncate-source"),
    **hints(VALIDATION, "eval-bleu eval-bleu-args eval-bleu-detok eval-bleu-detok-args eval-bleu-remove-bpe"),
    **hints(VALIDATION, "eval-tokenized-bleu eval-bleu-print-samples"),
    "--print-alignment": "alignments are not kept; use an aligner such as fast_align on the H- lines",
    "--print-step": NO_REFINING,
    "--replace-unk": "alignments are not kept; use subwords (seqba-preprocess --sentencepiece), which leave no <unk>",
    "--match-source-len": "use --max-len-a 1 --max-len-b 0",
    "--diverse-beam-groups": "use --sampling with --sampling-topk or --sampling-topp for variety",
    "--diverse-beam-strength": "use --sampling with --sampling-topk or --sampling-topp for variety",
    "--diversity-rate": "use --sampling with --sampling-topk or --sampling-topp for variety",
    "--constraints": "use --prefix-size of seqba-generate for what a translation must begin with",
    "--user-dir": "there are no plug-ins; use the library from Python",
    "--max-source-positions": "it is the model's: --model-overrides \"{'max_source_positions': N}\"",
    "--max-target-positions": "it is the model's: --model-overrides \"{'max_target_positions': N}\"",
    "--lm-path": "there is no shallow fusion; use several translation models in --path",
    "--lm-weight": "there is no shallow fusion; use several translation models in --path",
    "--no-early-stop": "fairseq dropped it as well; leave it out",
    "--no-repeat-ngram": "its name is --no-repeat-ngram-size",
}


@options
class TranslatorOptions:
    """Options of the models, the languages and the device."""

    path: str | None = option(
        None,
        "the checkpoint, or a Marian folder; several with colons between them vote (probabilities are averaged)",
        metavar="A.pt[:B.pt]",
    )
    source_lang: str | None = option(
        None, "source language (default: the checkpoint's)", aliases=("-s",), metavar="SRC"
    )
    target_lang: str | None = option(
        None, "target language (default: the checkpoint's)", aliases=("-t",), metavar="TRG"
    )
    task: str = option("translation", "the only task that translates", choices=("translation",))
    model_overrides: str = option(
        "{}", "fields of the model to change, as a Python dict: \"{'max_target_positions': 512}\"", metavar="DICT"
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
        "how source lines are split into subwords, and those of D- lines joined: sentencepiece, or subword_nmt (extra "
        "wmt); default: by the data-bin's own SentencePiece model, if it has one",
        choices=("sentencepiece", "subword_nmt"),
    )
    sentencepiece_model: str | None = option(
        None, "model of --bpe sentencepiece (default: the data-bin's own)", metavar="FILE"
    )
    bpe_codes: str | None = option(None, "merges of --bpe subword_nmt", metavar="FILE")
    bpe_separator: str = option("@@", "what subwords that go on end in, with --bpe subword_nmt")
    retain_dropout: bool = option(
        False, "keep dropout on: noisy models; unlike everything else its results depend on the batches"
    )
    cpu: bool = option(False, "run on the CPU even where there is a GPU")
    fp16: bool = option(False, "half precision on a GPU; bfloat16 on a CPU")
    bf16: bool = option(False, "bfloat16")

    def __post_init__(self) -> None:
        """Refuses options that contradict each other, or have no effect."""
        if self.fp16 and self.bf16:
            raise UserError("give --fp16 or --bf16, not both")
        for name in ("moses_source_lang", "moses_target_lang", "moses_no_dash_splits", "moses_no_escape"):
            if is_given(self, name) and self.tokenizer != "moses":
                raise UserError(f"{flag_of(name)} belongs to --tokenizer moses, which isn't given")
        if self.sentencepiece_model is not None and self.bpe != "sentencepiece":
            raise UserError("--sentencepiece-model belongs to --bpe sentencepiece, which isn't given")
        for name in ("bpe_codes", "bpe_separator"):
            if is_given(self, name) and self.bpe != "subword_nmt":
                raise UserError(f"{flag_of(name)} belongs to --bpe subword_nmt, which isn't given")
        if self.bpe == "subword_nmt" and self.bpe_codes is None:
            raise UserError("--bpe subword_nmt needs --bpe-codes: the file of merges that the text was made with")


@dataclass(frozen=True)
class Translator:
    """Models that vote, and both sides' way from text to ids and back."""

    models: tuple[Transformer, ...]
    ensemble: Ensemble
    source: TextForm
    target: TextForm
    languages: tuple[str, str]
    device: torch.device

    @property
    def max_source_positions(self) -> int:
        """Longest source, in tokens, that every model takes; end of sentence counted."""
        return min(model.max_source_positions for model in self.models)

    @property
    def max_target_positions(self) -> int:
        """Longest target, likewise."""
        return self.ensemble.max_target_positions


def add_translator_flags(parser: Parser, *, needs_data: bool) -> None:
    """Adds the flags that both commands have.

    Args:
        parser: of the command.
        needs_data: whether there must be a data-bin, whose text is translated.
    """
    of_text = "" if needs_data else "; a Marian folder has dictionaries of its own, and needs none"
    parser.add_argument(
        "data",
        nargs=None if needs_data else "?",
        help=f"data-bin that seqba-preprocess or fairseq-preprocess wrote{of_text}",
    )
    parser.add_options(TranslatorOptions, "models")
    parser.add_options(SearchOptions, "search")


def read_translator(namespace: Given) -> tuple[Translator, SearchOptions]:
    """Loads the models and dictionaries that the flags name, and checks that they belong together.

    Raises:
        UserError: for a wrong option, an unreadable file, or files that do not belong together.
    """
    options, search = read_options(namespace, TranslatorOptions), read_options(namespace, SearchOptions)
    if namespace.without_effect:
        warn_on_stderr(without_effect_line(namespace.without_effect))
    overrides = _read_overrides(options.model_overrides)
    device = choose_device(cpu=options.cpu)
    if options.fp16 and device.type == "cpu":
        warn_on_stderr("--fp16 is bfloat16 on a CPU")
        options = replace(options, fp16=False, bf16=True)
    paths = [path for path in (options.path or "").split(":") if path]
    if not paths:
        raise UserError("--path is missing: which checkpoint shall translate? (checkpoints/checkpoint_best.pt, say)")
    keep_freed_memory()
    torch.manual_seed(search.seed)
    loaded = [load_model(path, device, overrides=overrides, task="translation") for path in paths]
    for path, model in zip(paths, loaded, strict=True):
        _check_is_translation(path, model.task_state)
    folder = _text_folder(namespace.data, paths)
    sides = _open_sides(options, loaded[0].task_state, folder)
    languages = (sides[0].language, sides[1].language)
    for path, model in zip(paths, loaded, strict=True):
        _check_belongs(path, model.task_state, sides, folder)
    models = tuple(_prepared(each, options) for each in loaded)
    source, target = (
        TextForm(side.dictionary, _subwords(options, side, folder), options.post_process, words)
        for side, words in zip(sides, _words(options, languages), strict=True)
    )
    ensemble = Ensemble(models, temperature=search.temperature)
    return Translator(models, ensemble, source, target, languages, device), search


def _subwords(options: TranslatorOptions, side: Side, folder: Path) -> Subwords | BytePairs | None:
    """What splits and joins a side's subwords, by the options or the data-bin."""
    if options.bpe == "subword_nmt":
        return BytePairs(str(options.bpe_codes), options.bpe_separator)
    if options.sentencepiece_model is not None:
        return read_subwords(options.sentencepiece_model)
    if side.subwords is None and options.bpe == "sentencepiece":
        raise UserError(f"--bpe sentencepiece: {folder} has no model of its own, so give it as --sentencepiece-model")
    return side.subwords


def _words(options: TranslatorOptions, languages: tuple[str, str]) -> tuple[Moses | None, Moses | None]:
    """Tokenizers of source and target; none where words are what spaces separate."""
    if options.tokenizer != "moses":
        return None, None
    chosen = (options.moses_source_lang or languages[0], options.moses_target_lang or languages[1])
    source, target = (
        Moses(language, dash_splits=not options.moses_no_dash_splits, escape=not options.moses_no_escape)
        for language in chosen
    )
    return source, target


def _text_folder(data: str | None, paths: list[str]) -> Path:
    """The folder with dictionaries: the given one, or a model's own."""
    if data is None and not is_marian_folder(paths[0]):
        raise UserError(f"DATA is missing, the data-bin that {paths[0]} was trained on: its dictionaries are needed")
    folder = Path(paths[0] if data is None else data)
    if not folder.is_dir():
        raise UserError(f"there is no data-bin {data}: give the folder that the model was trained on")
    return folder


def _open_sides(options: TranslatorOptions, task_state: Mapping[str, Any], folder: Path) -> tuple[Side, Side]:
    own = marian_sides(folder) if is_marian_folder(folder) else None
    between = None if own is None else (own[0].language, own[1].language)
    source, target = _languages(options, task_state, folder, between)
    if own is None:
        return open_side(folder, source), open_side(folder, target)
    return replace(own[0], language=source), replace(own[1], language=target)


def _prepared(loaded: LoadedModel, options: TranslatorOptions) -> Transformer:
    model = loaded.model
    if not isinstance(model, Transformer):
        raise UserError(f"--path names a {loaded.cfg['model']['arch']}, which does not translate")
    if options.fp16:
        model = model.half()
    if options.bf16:
        model = model.bfloat16()
    return model.train(options.retain_dropout)


def _read_overrides(text: str) -> Mapping[str, Any]:
    example = "write it like \"{'max_target_positions': 512}\""
    try:
        overrides = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise UserError(
            f"--model-overrides {quoted(text[:60])} is not a Python dict of plain values; {example}"
        ) from None
    if not isinstance(overrides, dict):
        raise UserError(f"--model-overrides is a {type(overrides).__name__}, not a dict; {example}")
    known = {name: plain_type(kind) for name, kind in typing.get_type_hints(TransformerOptions).items()}
    for name, value in overrides.items():
        if name not in known:
            raise UserError(f"--model-overrides: a model has no field {quoted(str(name))}; it has: {', '.join(known)}")
        if type(value) is not known[name] and (known[name], type(value)) != (float, int):
            raise UserError(f"--model-overrides: {name!r} is {value!r}; it must be a {known[name].__name__}")
    TransformerOptions(**overrides)  # checks their ranges
    return overrides


def _check_is_translation(path: str, task_state: Mapping[str, Any]) -> None:
    for key in ("source_lang", "target_lang", "source_dictionary_sha256", "target_dictionary_sha256"):
        if not isinstance(task_state.get(key, 0), str | None):  # None in one of fairseq, which doesn't say
            raise UserError(f"checkpoint {path} is not of a translation run: its task_state has no {key!r}")


def _languages(
    options: TranslatorOptions, task_state: Mapping[str, Any], folder: Path, between: tuple[str, str] | None
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
            f"the model of {options.path} translates {own[0]} to {own[1]}, not {source} to {target}: "
            "leave out --source-lang and --target-lang, or take another checkpoint"
        )
    return source, target


def _check_belongs(
    path: str,
    task_state: Mapping[str, Any],
    sides: tuple[Side, Side],
    folder: Path,
) -> None:
    """Refuses other dictionaries, which would give the model's ids another meaning."""
    theirs = (task_state["source_lang"], task_state["target_lang"])
    languages = (sides[0].language, sides[1].language)
    if theirs not in (languages, (None, None)):
        raise UserError(
            f"the model of {path} translates {theirs[0]} to {theirs[1]}, the first one {languages[0]} to "
            f"{languages[1]}: models that vote must do the same"
        )
    for name, side in zip(("source", "target"), sides, strict=True):
        size, digest = task_state[f"{name}_vocabulary"], task_state[f"{name}_dictionary_sha256"]
        if not is_described_by(side.dictionary, size, digest):
            raise UserError(
                f"checkpoint {path} was trained with another dictionary than {folder / f'dict.{side.language}.txt'}: "
                "give the data-bin it was trained on, or preprocess the text with --srcdict and --tgtdict from there"
            )
