"""seqba-preprocess: parallel or monolingual text → data folder, in fairseq's own layout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from seqba.cli.arguments import Parser, read_options
from seqba.cli.command import run_process
from seqba.cli.fairseq_options import (
    HALF_PRECISION,
    LOSS_SCALING,
    MEMORY,
    OF_TRAINING,
    OTHER_SUBWORD_TOOLS,
    PROCESSES,
    SCORERS,
    SERVICES,
    TOKENISERS,
    WITHOUT_EFFECT,
    hints,
    without_effect_line,
)
from seqba.cli.output import warn_on_stderr
from seqba.data.outputs import check_new_folder
from seqba.data.preprocess import Advance, preprocess
from seqba.data.preprocess_options import PreprocessOptions
from seqba.extras import progress_bar

ALIGNMENTS = "word alignments are not used here; leave it out"
TRAINING = "it belongs to seqba-train; leave it out"
NOT_USED = "nothing here has a use for it; leave it out"
TOOLS = "use --sentencepiece N on raw text, or apply subwords to the text beforehand"
ACCEPTED = {flag: option for flag, option in WITHOUT_EFFECT.items() if flag not in ("--dataset-impl", "--num-workers")}
UNSUPPORTED = {
    **hints(NOT_USED, f"{PROCESSES} {HALF_PRECISION} {LOSS_SCALING} {MEMORY} {SERVICES} tpu profile log-file"),
    **hints(TRAINING, OF_TRAINING),
    **hints(TOOLS, f"{TOKENISERS.replace('sentencepiece-model ', '')} {OTHER_SUBWORD_TOOLS}"),
    **hints("it belongs to seqba-score; leave it out", SCORERS),
    "--num-workers": "its name is --workers",
    "--alignfile": ALIGNMENTS,
    "--align-suffix": ALIGNMENTS,
    "--tokenizer": "use --sentencepiece N on raw text, or tokenise the text beforehand",
    "--task": "leave it out; --only-source makes the data of a language model",
    "--user-dir": "there are no plug-ins; leave it out",
    "--scoring": "it belongs to seqba-score; leave it out",
    "--log-format": "lines are the one format; leave it out",
    "--log-interval": "each split gives one line; leave it out",
    "--seed": "nothing here is random; leave it out",
    "--cpu": "nothing here runs on a GPU; leave it out",
    "--fp16": TRAINING,
    "--bf16": TRAINING,
}


def build_parser() -> Parser:
    """The command line of seqba-preprocess."""
    parser = Parser(
        "seqba-preprocess",
        "Makes a data folder (data-bin) for seqba-train from text: dictionaries and memory-mapped ids, as "
        "fairseq-preprocess writes them. Text is split at whitespace, or by SentencePiece with --sentencepiece.",
        unsupported=UNSUPPORTED,
        accepted=ACCEPTED,
    )
    parser.add_options(PreprocessOptions, "data")
    parser.add_argument("--no-progress-bar", action="store_true", help="no progress bar on a terminal")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Makes a data folder and prints fairseq's summary of each split."""
    namespace = build_parser().parse(arguments)
    options = read_options(namespace, PreprocessOptions)
    check_new_folder(options.destdir, f"--destdir {options.destdir}")
    if namespace.without_effect:
        warn_on_stderr(without_effect_line(namespace.without_effect))
    bars: list[Any] = []

    def progress(title: str, size: int) -> Advance:
        bar = progress_bar()(
            total=size,
            desc=title,
            unit="B",
            unit_scale=True,
            leave=False,
            disable=True if namespace.no_progress_bar else None,  # None: only on a terminal
        )
        bars.append(bar)

        def advance(count: int) -> None:
            bar.update(count)
            if bar.n >= size:
                bar.close()

        return advance

    try:
        preprocess(options, progress_bar().write, progress)
    finally:
        for bar in bars:
            bar.close()
    return 0


def entry() -> None:
    """The `seqba-preprocess` command."""
    run_process(main)
