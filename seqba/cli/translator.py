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
from seqba.cli.translated_text import TextOptions, open_sides, text_folder, text_forms
from seqba.data.dictionary import is_described_by
from seqba.data.sides import Side
from seqba.decoding.detokenize import TextForm
from seqba.decoding.ensemble import Ensemble
from seqba.decoding.options import SearchOptions
from seqba.errors import UserError, quoted
from seqba.models.options import TransformerOptions
from seqba.models.transformer import Transformer
from seqba.options import option, options
from seqba.runtime.devices import choose_device
from seqba.runtime.memory import keep_freed_memory

OTHER_TOOLS = "text is made with --bpe sentencepiece, subword_nmt or tokenizers, and --tokenizer moses; leave it out"
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
        "hf_byte_bpe": "take tokenizers, with the tokenizer.json of it",
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
    """Options of the models and the device."""

    path: str | None = option(
        None,
        "the checkpoint, or a Marian folder; several with colons between them vote (probabilities are averaged)",
        metavar="A.pt[:B.pt]",
    )
    task: str = option("translation", "the only task that translates", choices=("translation",))
    model_overrides: str = option(
        "{}", "fields of the model to change, as a Python dict: \"{'max_target_positions': 512}\"", metavar="DICT"
    )
    retain_dropout: bool = option(
        False, "keep dropout on: noisy models; unlike everything else its results depend on the batches"
    )
    cpu: bool = option(False, "run on the CPU even where there is a GPU")
    fp16: bool = option(False, "half precision on a GPU; bfloat16 on a CPU")
    bf16: bool = option(False, "bfloat16")

    def __post_init__(self) -> None:
        """Refuses options that contradict each other."""
        if self.fp16 and self.bf16:
            raise UserError("give --fp16 or --bf16, not both")


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
    parser.add_options(TextOptions, "text")
    parser.add_options(SearchOptions, "search")


def read_translator(namespace: Given) -> tuple[Translator, SearchOptions]:
    """Loads the models and dictionaries that the flags name, and checks that they belong together.

    Raises:
        UserError: for a wrong option, an unreadable file, or files that do not belong together.
    """
    options, text = read_options(namespace, TranslatorOptions), read_options(namespace, TextOptions)
    search = read_options(namespace, SearchOptions)
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
    folder = text_folder(namespace.data, paths)
    sides = open_sides(text, paths[0], loaded[0].task_state, folder)
    languages = (sides[0].language, sides[1].language)
    for path, model in zip(paths, loaded, strict=True):
        _check_belongs(path, model.task_state, sides, folder)
    models = tuple(_prepared(each, options) for each in loaded)
    source, target = text_forms(text, sides, folder)
    ensemble = Ensemble(models, temperature=search.temperature)
    return Translator(models, ensemble, source, target, languages, device), search


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
