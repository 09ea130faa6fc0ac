"""Options of seqba-generate and seqba-interactive: models, text and search."""

from __future__ import annotations

import ast
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
from seqba.data.names import split_paths
from seqba.decoding.options import SearchOptions
from seqba.errors import UserError, quoted
from seqba.models.options import TransformerOptions
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
        "the checkpoint, or a Marian folder (needed); several with colons between them vote: their probabilities are "
        "averaged",
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
    int8: bool = option(
        False, "linear layers in int8, the rest in float32, on a CPU: faster, with slightly other translations"
    )

    def __post_init__(self) -> None:
        """Refuses options that contradict each other."""
        if self.fp16 and self.bf16:
            raise UserError("give --fp16 or --bf16, not both")
        if self.int8 and (self.fp16 or self.bf16):
            raise UserError("--int8 leaves everything but linear layers in float32: leave out --fp16 and --bf16")


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


@dataclass(frozen=True)
class TranslatorChoices:
    """All that a command line says of the models, the text and the search.

    Attributes:
        models: the checkpoints and the device.
        overrides: field of the models → value in place of their own.
        text: the way from text to tokens and back.
        search: of each model, or of several that vote.
    """

    models: TranslatorOptions
    overrides: Mapping[str, Any]
    text: TextOptions
    search: SearchOptions

    @property
    def paths(self) -> list[str]:
        """The checkpoints that vote."""
        return split_paths(self.models.path or "")


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


def read_choices(namespace: Given) -> TranslatorChoices:
    """Reads the flags that both commands have, and names those that have no effect.

    Raises:
        UserError: for a wrong option.
    """
    models, text = read_options(namespace, TranslatorOptions), read_options(namespace, TextOptions)
    choices = TranslatorChoices(
        models, _read_overrides(models.model_overrides), text, read_options(namespace, SearchOptions)
    )
    if namespace.without_effect:
        warn_on_stderr(without_effect_line(namespace.without_effect))
    if not choices.paths:
        raise UserError("--path is missing: which checkpoint shall translate? (checkpoints/checkpoint_best.pt, say)")
    return choices


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
