"""`seqba-export`: a checkpoint → what fairseq, transformers or anybody who reads safetensors can load."""

from __future__ import annotations

from collections.abc import Sequence

from seqba.cli.arguments import Parser, read_options
from seqba.cli.command import run_process
from seqba.cli.options.export import ExportOptions
from seqba.data.outputs import check_file, check_new_folder

DESCRIPTION = (
    "Hands a checkpoint's weights on. fairseq: a checkpoint that fairseq-generate and fairseq-eval-lm read, of a "
    "Transformer or a Transformer language model. transformers: a folder of the Marian form with its tokenizer, for "
    "AutoModelForSeq2SeqLM, pipelines and CTranslate2's converter. safetensors: the weights alone, of any model."
)


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
    check = check_new_folder if options.to == "transformers" else check_file
    check(str(options.output), f"--output {options.output}")
    from seqba.cli.jobs.export import export  # brings torch, for which --help and a mistake need not wait

    export(namespace.checkpoint, options)
    return 0


def entry() -> None:
    """The `seqba-export` command."""
    run_process(main)
