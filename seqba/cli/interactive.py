"""seqba-interactive: lines of text in, translations out, in the same order."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from seqba.cli.arguments import Parser, read_options
from seqba.cli.command import run
from seqba.cli.fairseq_options import taken
from seqba.cli.translator_options import (
    ACCEPTED,
    UNSUPPORTED,
    UNSUPPORTED_VALUES,
    add_translator_flags,
    read_choices,
)
from seqba.decoding.options import SEARCH_MAX_TOKENS
from seqba.errors import UserError
from seqba.options import option, options

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


@options
class InteractiveOptions:
    """Options of seqba-interactive: the source of lines, and the number read before they are translated."""

    input: str = option("-", "file to translate; - is standard input", metavar="FILE")
    buffer_size: int = option(
        0, "read so many lines before translating them together: no result depends on it, speed does", minimum=0
    )
    max_tokens: int | None = option(
        None, f"tokens of a batch; {SEARCH_MAX_TOKENS} if --batch-size is not given either", minimum=1
    )
    batch_size: int | None = option(
        None, "most sentences of a batch, at most --buffer-size", minimum=1, aliases=("max-sentences",)
    )
    skip_invalid_size_inputs_valid_test: bool = option(
        False, "leave out lines that are too long for the model, with a warning, instead of stopping at them"
    )

    def __post_init__(self) -> None:
        """Checks what no single option can."""
        if self.batch_size is not None and self.batch_size > max(1, self.buffer_size):
            raise UserError(
                f"--batch-size {self.batch_size} is more than --buffer-size {self.buffer_size}: raise --buffer-size"
            )


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
    sys.exit(run(main))
