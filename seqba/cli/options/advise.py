"""Options of seqba-advise."""

from __future__ import annotations

from seqba.errors import UserError
from seqba.options import is_given, option, options


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
