"""seqba-generate: a split of a data-bin → translations and BLEU."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence

from seqba.cli.arguments import Parser, read_options
from seqba.cli.command import run
from seqba.cli.translator_options import (
    ACCEPTED,
    UNSUPPORTED,
    UNSUPPORTED_VALUES,
    add_translator_flags,
    read_choices,
)
from seqba.decoding.options import SEARCH_MAX_TOKENS
from seqba.errors import UserError
from seqba.options import flag_of, option, options

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

OF_REFERENCES = ("score_reference", "prefix_size", "scoring", "sacrebleu", "quiet")
"""Options that have a meaning only where there are references; --quiet would print nothing at all."""


@options
class GenerateOptions:
    """Options of seqba-generate: the sentences to translate, and the output."""

    gen_subset: str = option("test", "the split to translate", metavar="SPLIT")
    max_tokens: int | None = option(
        None,
        f"tokens of a batch, rows × longest side; {SEARCH_MAX_TOKENS} if --batch-size is not given either",
        minimum=1,
    )
    batch_size: int | None = option(None, "most sentences of a batch", minimum=1, aliases=("max-sentences",))
    required_batch_size_multiple: int = option(
        8, "sentences of a batch are a multiple of this where they can", minimum=1
    )
    skip_invalid_size_inputs_valid_test: bool = option(
        False, "leave out sentences that are too long for the model instead of refusing them"
    )
    num_shards: int = option(1, "cut the batches into this many parts, to translate them apart", minimum=1)
    shard_id: int = option(0, "which part, from 0", minimum=0)
    prefix_size: int = option(0, "translations begin with this many words of their reference", minimum=0)
    score_reference: bool = option(False, "translate nothing: score the references")
    quiet: bool = option(False, "print the scores alone")
    results_path: str | None = option(
        None,
        "write everything to DIR/generate-SPLIT.txt, a shard to DIR/generate-SPLIT.ID-of-SHARDS.txt; scores are still "
        "printed",
        metavar="DIR",
    )
    scoring: str = option(
        "bleu",
        "what the last line says: bleu (fairseq's BLEU4: of 13a tokens if the data-bin has its own SentencePiece "
        "model, else of the tokens as they are) or sacrebleu",
        choices=("bleu", "sacrebleu"),
    )
    sacrebleu: bool = option(False, "the same as --scoring sacrebleu")
    no_progress_bar: bool = option(False, "no bar (there is one on a terminal, unless the lines go there)")

    def __post_init__(self) -> None:
        """Refuses combinations of options."""
        if self.shard_id >= self.num_shards:
            raise UserError(
                f"--shard-id is {self.shard_id}, but with --num-shards {self.num_shards} it ends at "
                f"{self.num_shards - 1}"
            )


def _refuse_search(given: Collection[str]) -> None:
    """Refuses options of a search that were given, where references are scored and nothing is searched for."""
    for name in OF_A_SEARCH:
        if name in given:
            raise UserError(f"{flag_of(name)} has no meaning with --score-reference: leave one out")


def refuse_references(given: Collection[str], options: GenerateOptions) -> None:
    """Refuses options that were given and need references, where the split has none."""
    for name in OF_REFERENCES:
        if name in given and getattr(options, name):
            raise UserError(
                f"{flag_of(name)} needs references, and the split {options.gen_subset!r} has none: leave it out, or "
                "preprocess both sides together, without --only-source"
            )


def main(arguments: Sequence[str] | None = None) -> int:
    """Translates a split, prints fairseq's lines, and BLEU at the end."""
    namespace = build_parser().parse(arguments)
    options = read_options(namespace, GenerateOptions)
    if options.score_reference:
        _refuse_search(vars(namespace))
    choices = read_choices(namespace)
    if options.score_reference and choices.models.int8:
        raise UserError("--int8 is for searching, and references are scored in float32: leave it out")
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
    sys.exit(run(main))
