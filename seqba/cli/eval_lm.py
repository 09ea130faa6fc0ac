"""seqba-eval-lm: a language model and a split of a data-bin → perplexity."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from seqba.cli.arguments import Parser, read_options
from seqba.cli.command import run_process
from seqba.cli.fairseq_options import (
    INFERENCE,
    OTHER_SUBWORD_TOOLS,
    PADDED,
    PROCESSES,
    SCORERS,
    TOKENISERS,
    WITHOUT_EFFECT,
    hints,
    taken,
    without_effect_line,
)
from seqba.cli.options.eval_lm import EvalLMOptions
from seqba.cli.output import warn_on_stderr

_WORDS = "perplexity is of the tokens of the data-bin; for words, multiply the loss by tokens / words yourself"
_TARGETS = "a language model predicts the next token of its own vocabulary; leave it out"
_SHARDS = "a split is scored by one process; leave it out"
_BAR = "progress is a bar on a terminal; --quiet turns it off"
_PRINTED = "the loss and the perplexity go to standard output; send them to a file with >"
_BLOCKS = "rows are cut to --tokens-per-sample; leave it out"
ACCEPTED = {
    **WITHOUT_EFFECT,
    **taken(_BAR, "log-format", str),
    **taken(_BAR, "log-interval", int),
    **taken(_BAR, "no-progress-bar"),
    **taken("nothing here is random", "seed", int),
    **taken("no result depends on it", "required-batch-size-multiple", int),
    **taken("the softmax is always taken over a few rows at a time", "softmax-batch", int),
    **taken(PADDED, "pad-to-fixed-length pad-to-fixed-bsz"),
}
UNSUPPORTED = {
    **INFERENCE,
    **hints(_SHARDS, PROCESSES),
    **hints(_WORDS, f"{TOKENISERS} {OTHER_SUBWORD_TOOLS}"),
    **hints(_PRINTED, f"results-path scoring {SCORERS}"),
    **hints(_BLOCKS, "shorten-method shorten-data-split-list"),
    "--output-word-stats": "add up the lines of --output-word-probs",
    "--model-overrides": "the model is taken as it was trained; see --tokens-per-sample and --sample-break-mode",
    "--remove-bpe": _WORDS,
    "--post-process": _WORDS,
    "--add-bos-token": "it is the model's: <s> stands before each row if it did so in training",
    "--max-target-positions": "it is the model's; --tokens-per-sample says how long rows are",
    "--output-dictionary-size": _TARGETS,
    "--self-target": _TARGETS,
    "--future-target": _TARGETS,
    "--past-target": _TARGETS,
    "--user-dir": "there are no plug-ins; use the library from Python",
    "--num-shards": _SHARDS,
    "--shard-id": _SHARDS,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Scores a split and prints fairseq's last lines."""
    logging.basicConfig(level=logging.WARNING, format="warning: %(message)s", stream=sys.stderr)
    namespace = build_parser().parse(arguments)
    options = read_options(namespace, EvalLMOptions)
    if namespace.without_effect:
        warn_on_stderr(without_effect_line(namespace.without_effect))
    from seqba.cli.jobs.eval_lm import evaluate  # brings torch, for which --help and a mistake need not wait

    evaluate(namespace.data, options, vars(namespace))
    return 0


def build_parser() -> Parser:
    """The command line of seqba-eval-lm."""
    parser = Parser(
        "seqba-eval-lm",
        "Measures the perplexity of a language model on a split of a data-bin. Options and lines are those of "
        "fairseq-eval-lm.",
        unsupported=UNSUPPORTED,
        accepted=ACCEPTED,
    )
    parser.add_argument("data", help="data-bin that seqba-preprocess --only-source or fairseq-preprocess wrote")
    parser.add_options(EvalLMOptions, "model, text and output")
    return parser


def entry() -> None:
    """The `seqba-eval-lm` command."""
    run_process(main)
