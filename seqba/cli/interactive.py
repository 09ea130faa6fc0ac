"""seqba-interactive: lines of text in, translations out, in the same order."""

from __future__ import annotations

from collections.abc import Sequence

from seqba.cli.arguments import Parser, read_options
from seqba.cli.command import run_process
from seqba.cli.fairseq_options import taken
from seqba.cli.options.interactive import InteractiveOptions
from seqba.cli.translator_options import (
    ACCEPTED,
    UNSUPPORTED,
    UNSUPPORTED_VALUES,
    add_translator_flags,
    read_choices,
)

ALSO_ACCEPTED = {
    **taken("no result depends on it", "required-batch-size-multiple", int),
    **taken("there is none", "no-progress-bar"),
}
"""What this command takes besides, and has no use for."""

NOT_HERE = {
    "--gen-subset": "lines come from --input; seqba-generate translates a split",
    "--prefix-size": "there are no references here; seqba-generate has it",
    "--score-reference": "there are no references here; seqba-generate has it",
    "--quiet": "translations are all there is to print; leave it out",
    "--results-path": "send the output to a file with >",
    "--sacrebleu": "there are no references here; seqba-generate and seqba-score have it",
    "--scoring": "there are no references here; seqba-generate and seqba-score have it",
    "--num-shards": "cut the input with split instead",
    "--shard-id": "cut the input with split instead",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Translates lines until the input ends."""
    namespace = build_parser().parse(arguments)
    options = read_options(namespace, InteractiveOptions)
    choices = read_choices(namespace)
    from seqba.cli.jobs.interactive import translate_lines  # brings torch, for which --help and a mistake need not wait

    translate_lines(namespace.data, choices, options)
    return 0


def build_parser() -> Parser:
    """The command line of seqba-interactive."""
    parser = Parser(
        "seqba-interactive",
        "Translates lines of text, in their order. Prints S- (source), W- (seconds), H- (score, tokens), D- (score, "
        "plain text) and P- (scores of tokens) lines; scores are in base 2. With a Marian folder, or a data-bin that "
        "has its own SentencePiece model, text is plain on both sides; otherwise give lines tokenised as the "
        "data-bin's were. An empty line has an empty translation. Options and lines are fairseq-interactive's.",
        unsupported={**UNSUPPORTED, **NOT_HERE},
        unsupported_values=UNSUPPORTED_VALUES,
        accepted={**ACCEPTED, **ALSO_ACCEPTED},
    )
    add_translator_flags(parser, needs_data=False)
    parser.add_options(InteractiveOptions, "lines")
    return parser


def entry() -> None:
    """The `seqba-interactive` command."""
    run_process(main)
