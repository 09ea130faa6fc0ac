"""Options of seqba-generate."""

from __future__ import annotations

from collections.abc import Collection

from seqba.decoding.options import SEARCH_MAX_TOKENS
from seqba.errors import UserError
from seqba.options import flag_of, option, options

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


def refuse_references(given: Collection[str], options: GenerateOptions) -> None:
    """Refuses options that were given and need references, where the split has none."""
    for name in OF_REFERENCES:
        if name in given and getattr(options, name):
            raise UserError(
                f"{flag_of(name)} needs references, and the split {options.gen_subset!r} has none: leave it out, or "
                "preprocess both sides together, without --only-source"
            )
