"""Options of seqba-export."""

from __future__ import annotations

from seqba.errors import UserError
from seqba.options import option, options

FORMS = ("safetensors", "transformers", "fairseq")


@options
class ExportOptions:
    """Form and place of an exported checkpoint."""

    to: str | None = option(None, "the form (needed)", choices=FORMS)
    output: str | None = option(
        None,
        "the file (fairseq, safetensors) or the folder (transformers) to write (needed)",
        aliases=("-o",),
        metavar="PATH",
    )
    data: str | None = option(
        None,
        "transformers: the data-bin that the model was trained on, for its dictionaries and SentencePiece models; or "
        "the Marian folder that it began with",
        metavar="DATA-BIN",
    )

    def __post_init__(self) -> None:
        """Checks what no single option can."""
        if self.to is None:
            raise UserError(f"--to is missing: one of {', '.join(FORMS)}")
        if self.output is None:
            raise UserError("--output is missing: where shall it go?")
        if (self.to == "transformers") != (self.data is not None):
            needs = "needs --data, the data-bin of the model" if self.data is None else "has no use for --data"
            raise UserError(f"--to {self.to} {needs}")
