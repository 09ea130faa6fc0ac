"""`seqba-export`: a checkpoint → what fairseq, transformers or anybody who reads safetensors can load."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from seqba.cli.arguments import Parser, read_options
from seqba.cli.command import run
from seqba.errors import UserError
from seqba.options import option, options

DESCRIPTION = (
    "Hands a checkpoint's weights on. fairseq: a checkpoint that fairseq-generate and fairseq-eval-lm read, of a "
    "Transformer or a Transformer language model. transformers: a folder of the Marian form with its tokenizer, for "
    "AutoModelForSeq2SeqLM, pipelines and CTranslate2's converter. safetensors: the weights alone, of any model."
)
FORMS = ("safetensors", "transformers", "fairseq")


@options
class ExportOptions:
    """Form and place of an exported checkpoint."""

    to: str | None = option(None, "the form", choices=FORMS)
    output: str | None = option(
        None, "the file (fairseq, safetensors) or the folder (transformers) to write", aliases=("-o",), metavar="PATH"
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


def build_parser() -> Parser:
    """The command line of seqba-export."""
    parser = Parser("seqba-export", DESCRIPTION)
    parser.add_argument("checkpoint", help="a checkpoint of seqba-train, or of fairseq, or a Marian folder")
    parser.add_options(ExportOptions, "what is written")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes a checkpoint in another program's form."""
    namespace = build_parser().parse(arguments)
    options = read_options(namespace, ExportOptions)
    from seqba.cli.jobs.export import export  # brings torch, for which --help and a mistake need not wait

    export(namespace.checkpoint, options)
    return 0


def entry() -> None:
    """The `seqba-export` command."""
    sys.exit(run(main))
