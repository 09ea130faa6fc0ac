"""Options of seqba-eval-lm."""

from __future__ import annotations

from seqba.data.names import split_paths
from seqba.errors import UserError
from seqba.evaluation.options import SCORING_MAX_TOKENS
from seqba.options import option, options

BLOCKS = ("tokens_per_sample", "sample_break_mode", "context_window", "skip_invalid_size_inputs_valid_test")
"""Options of text that is cut into rows which stand for themselves."""


@options
class EvalLMOptions:
    """Options of seqba-eval-lm: the model, the text, how it is cut, and the output."""

    path: str | None = option(None, "the checkpoint (needed)", metavar="FILE")
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
