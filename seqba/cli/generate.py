"""seqba-generate: a split of a data-bin → translations and BLEU."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from seqba.cli.arguments import Parser, read_options
from seqba.cli.command import run_process
from seqba.cli.options.generate import GenerateOptions
from seqba.cli.translator_options import (
    ACCEPTED,
    UNSUPPORTED,
    UNSUPPORTED_VALUES,
    add_translator_flags,
    read_choices,
)
from seqba.data.outputs import check_new_folder
from seqba.errors import UserError
from seqba.options import flag_of

OF_A_SEARCH = (
    "beam",
    "nbest",
    "max_len_a",
    "max_len_b",
    "min_len",
    "no_repeat_ngram_size",
    "unkpen",
    "sampling",
    "sampling_topk",
    "sampling_topp",
    "prefix_size",
)
"""Options that say what is searched for, and nothing of how a translation is scored."""


def _refuse_search(given: Collection[str]) -> None:
    """Refuses options of a search that were given, where references are scored and nothing is searched for."""
    for name in OF_A_SEARCH:
        if name in given:
            raise UserError(f"{flag_of(name)} has no meaning with --score-reference: leave one out")


def main(arguments: Sequence[str] | None = None) -> int:
    """Translates a split, prints fairseq's lines, and BLEU at the end."""
    namespace = build_parser().parse(arguments)
    options = read_options(namespace, GenerateOptions)
    if options.score_reference:
        _refuse_search(vars(namespace))
    choices = read_choices(namespace)
    if options.score_reference and choices.models.int8:
        raise UserError("--int8 is for searching, and references are scored in float32: leave it out")
    if options.results_path is not None:
        check_new_folder(options.results_path, f"--results-path {options.results_path}")
    from seqba.cli.jobs.generate import generate  # brings torch, for which --help and a mistake need not wait

    generate(namespace.data, choices, options, vars(namespace))
    return 0


def build_parser() -> Parser:
    """The command line of seqba-generate."""
    parser = Parser(
        "seqba-generate",
        "Translates a split of a data-bin. Prints S- (source), T- (reference), H- (score, tokens), D- (score, plain "
        "text) and P- (scores of tokens) lines, scores in base 2, then BLEU; of a split without references (made with "
        "seqba-preprocess --only-source) neither T- lines nor BLEU. Options and lines are fairseq-generate's.",
        unsupported=UNSUPPORTED,
        unsupported_values=UNSUPPORTED_VALUES,
        accepted=ACCEPTED,
    )
    add_translator_flags(parser, needs_data=True)
    parser.add_options(GenerateOptions, "sentences and output")
    return parser


def entry() -> None:
    """The `seqba-generate` command."""
    run_process(main)
