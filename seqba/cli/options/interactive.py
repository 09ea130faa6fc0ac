"""Options of seqba-interactive."""

from __future__ import annotations

from seqba.decoding.options import SEARCH_MAX_TOKENS
from seqba.errors import UserError
from seqba.options import option, options


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
