"""Language modelling with a Transformer: a text cut into blocks, each token predicted from those before it."""

from __future__ import annotations

from dataclasses import dataclass

from seqba.options import option


@dataclass(frozen=True)
class BlockOptions:
    """How a text is cut into the rows of a Transformer."""

    tokens_per_sample: int = option(
        1024, "tokens of a block, or of the longest line a model is made for (sample-break-mode eos)", minimum=1
    )
    sample_break_mode: str = option(
        "none", "none: blocks of tokens-per-sample, across lines; eos: one line each", choices=("none", "eos")
    )
    add_bos_token: bool = option(False, "put <s> before each block")

    @property
    def longest_row(self) -> int:
        """Tokens of the longest row, `<s>` included, that a model for these blocks must take."""
        return self.tokens_per_sample + self.add_bos_token
