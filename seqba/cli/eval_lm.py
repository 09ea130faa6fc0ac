"""seqba-eval-lm: a language model and a split of a data-bin → perplexity."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from seqba.cli.arguments import Parser, read_options
from seqba.cli.command import run
from seqba.cli.fairseq_options import (
    INFERENCE,
    OTHER_SUBWORD_TOOLS,
    PROCESSES,
    SCORERS,
    TOKENISERS,
    WITHOUT_EFFECT,
    hints,
    taken,
    without_effect_line,
)
from seqba.cli.output import warn_on_stderr
from seqba.data.names import split_paths
from seqba.errors import UserError
from seqba.evaluation.options import SCORING_MAX_TOKENS
from seqba.options import option, options

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
    **taken("padding takes part in no arithmetic", "pad-to-fixed-length pad-to-fixed-bsz"),
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


BLOCKS = ("tokens_per_sample", "sample_break_mode", "context_window", "skip_invalid_size_inputs_valid_test")
"""Options of text that is cut into rows which stand for themselves."""


@options
class EvalLMOptions:
    """Options of seqba-eval-lm: the model, the text, how it is cut, and the output."""

    path: str | None = option(None, "the checkpoint", metavar="FILE")
    task: str = option("language_modeling", "the only task with a perplexity", choices=("language_modeling",))
    gen_subset: str = option("test", "the split to score", metavar="SPLIT")
    max_tokens: int | None = option(
        None,
        f"tokens of a batch, rows × longest row; {SCORING_MAX_TOKENS} if --batch-size is not given either",
        minimum=1,
    )
    batch_size: int | None = option(
        None,
        "Transformer: most rows of a batch; AWD-LSTM: streams that the text is cut into (default: 1, the whole text)",
        minimum=1,
        aliases=("max-sentences",),
    )
    bptt: int | None = option(
        None, "AWD-LSTM: tokens of a window (default: the model's); it doesn't change the result", minimum=1
    )
    tokens_per_sample: int | None = option(
        None, "tokens of a row, context included (default: the model's)", minimum=1, maximum=1 << 20
    )
    sample_break_mode: str | None = option(
        None,
        "none: rows of tokens-per-sample, across lines; eos: one line each (default: the model's)",
        choices=("none", "eos"),
    )
    context_window: int = option(0, "each row begins with so many tokens of the text before it, unscored", minimum=0)
    skip_invalid_size_inputs_valid_test: bool = option(
        False, "leave out lines that are too long for the model instead of refusing them"
    )
    output_word_probs: bool = option(
        False, "print each row: its number, and every token with its natural log-probability, as fairseq does"
    )
    quiet: bool = option(False, "print the loss and the perplexity alone")
    cpu: bool = option(False, "run on the CPU even where there is a GPU")
    fp16: bool = option(False, "half precision on a GPU; bfloat16 on a CPU")
    bf16: bool = option(False, "bfloat16")

    def __post_init__(self) -> None:
        """Refuses combinations of options."""
        if self.path is None:
            raise UserError("--path is missing: which checkpoint shall be evaluated? (checkpoints/checkpoint_best.pt)")
        if len(split_paths(self.path)) > 1:
            raise UserError(f"--path {self.path} names several checkpoints: language models are evaluated one by one")
        if self.fp16 and self.bf16:
            raise UserError("give --fp16 or --bf16, not both")
        if self.quiet and self.output_word_probs:
            raise UserError("--quiet and --output-word-probs exclude each other")


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
        "Perplexity of a language model on a split of a data-bin. Options and lines are fairseq-eval-lm's.",
        unsupported=UNSUPPORTED,
        accepted=ACCEPTED,
    )
    parser.add_argument("data", help="data-bin that seqba-preprocess --only-source or fairseq-preprocess wrote")
    parser.add_options(EvalLMOptions, "model, text and output")
    return parser


def entry() -> None:
    """The `seqba-eval-lm` command."""
    sys.exit(run(main))
