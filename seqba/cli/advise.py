"""`seqba-advise`: a measured split of the variance and measured times → how many copies pay, in plain words."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from seqba.cli.arguments import Parser, read_options
from seqba.cli.command import run
from seqba.cli.output import warnings_on_stderr
from seqba.data.files import check_folder
from seqba.errors import UserError
from seqba.options import is_given, option, options

DESCRIPTION = (
    "Says how many copies (M) pay, from what seqba-measure --json wrote and the time of an update at several M, which "
    "it measures on this device, stacked and looped, with the batches that the checkpoint was trained with: what M "
    "copies are worth in examples, where that ends, and the predicted updates and time to the same loss against M = 1. "
    "The prediction takes the learning rate to be tuned for each M, and the split to stay as it was measured; what "
    "copies do for generalisation is in no variance. Example: seqba-advise split.json --copies 2,4,8."
)


@options
class AdviseOptions:
    """Numbers of copies to compare, and the updates that are timed."""

    copies: tuple[int, ...] = option((1, 2, 4, 8), "M, numbers of copies to compare", minimum=1, metavar="N[,N]")
    path: str | None = option(
        None, "the checkpoint whose updates are timed (default: the one that was measured)", metavar="FILE"
    )
    data: str | None = option(None, "its data (default: those of the measurement)", metavar="DATA")
    max_tokens: int | None = option(None, "tokens of a micro-batch (default: as in training)", minimum=1)
    batch_size: int | None = option(
        None, "rows of a micro-batch (default: as in training)", minimum=1, aliases=("max-sentences",)
    )
    update_freq: int | None = option(None, "S, micro-batches of an update (default: as in training)", minimum=1)
    timed_updates: int = option(3, "updates that are timed of each M and plan, after one to warm up", minimum=1)
    fork: str | None = option(
        None,
        "time updates whose copies begin inside the model as well (encoder, decoder-layer-N, layer-N or head, as "
        "seqba-train has it), beside whole copies; needs a measurement with the same --fork, or --noise-above",
        metavar="PLACE",
    )
    noise_above: float | None = option(
        None,
        "of --fork: the share of the noise that is above it, and that copies average (default: as measured by "
        "seqba-measure --fork)",
        minimum=0,
        maximum=1,
    )
    times: str | None = option(
        None,
        "take these seconds of an update instead of timing (of another machine, or under torchrun): M:SECONDS, "
        "separated by commas, M = 1 among them",
        metavar="M:S[,M:S]",
    )
    batch_examples: float | None = option(
        None, "B, examples of an update (default: of the batches that are timed)", above=0
    )
    json: str | None = option(None, "write the advice to this file as well", metavar="FILE")
    seed: int = option(1, "of the batches and the noise", minimum=0, maximum=2**63 - 1)
    quiet: bool = option(False, "no progress bar")
    cpu: bool = option(False, "run on the CPU even where there is a GPU")

    def __post_init__(self) -> None:
        """Checks what no single option can."""
        if self.noise_above is not None and self.fork is None:
            raise UserError("--noise-above belongs to --fork, which isn't given: what a fork costs, and what it leaves")
        if self.times is None:
            return
        if self.batch_examples is None:
            raise UserError("--times needs --batch-examples: how many examples has an update? No batch is read then")
        for name in ("path", "data", "max_tokens", "batch_size", "update_freq", "timed_updates", "fork"):
            if is_given(self, name):
                flag = "--" + name.replace("_", "-")
                raise UserError(f"{flag} is for timing, which --times does without: leave one of them out")


def build_parser() -> Parser:
    """The command line of seqba-advise."""
    parser = Parser("seqba-advise", DESCRIPTION)
    parser.add_argument("measured", metavar="MEASURED", help="what seqba-measure --json wrote")
    parser.add_options(AdviseOptions, "what is compared")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Times updates and prints the advice."""
    logging.basicConfig(level=logging.WARNING, format="warning: %(message)s", stream=sys.stderr)
    namespace = build_parser().parse(arguments)
    options = read_options(namespace, AdviseOptions)
    if options.json is not None:
        check_folder(options.json, f"--json {options.json}")
    from seqba.cli.jobs.advise import print_advice  # brings torch, for which --help and a mistake need not wait

    with warnings_on_stderr():
        print_advice(namespace.measured, options)
    return 0


def entry() -> None:
    """The console script."""
    sys.exit(run(main))
