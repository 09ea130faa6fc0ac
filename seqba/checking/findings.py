"""From what was measured to what should be done about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from seqba.checking.ambiguous import AmbiguousDraw
from seqba.checking.report import Finding, Report
from seqba.checking.unkeyed import UnkeyedDraw
from seqba.modules.wrappers import in_words


def judge(report: Report) -> Iterator[Finding]:
    """All that isn't as it should be, causes before consequences."""
    if report.gradient_problem is not None:
        yield Finding(
            report.gradient_problem,
            "look at an ordinary step of the model with this batch first: of copies nothing can be said before",
        )
        return
    if report.batch_problem is not None:
        yield Finding(
            f"the batch can't be repeated by rows: {report.batch_problem}",
            "leave out of the batch what isn't of rows (loss_fn may close over it), or take seqba.copies, which "
            "computes one copy after the other and repeats no rows",
        )
    for draw in report.unkeyed:
        yield Finding(
            f"{_called(draw)} draws by {draw.operation} ({draw.times} times a copy), which no key reaches",
            f'plan="looped", where each pass seeds it; for every plan, {_instead_of(draw)}',
        )
    for shaped in report.ambiguous:
        yield _of_a_shape(shaped)
    yield from _of_what_forwards_leave_behind(report)
    yield from _of_the_loss(report)
    if report.recomputed is not None and not report.recomputed.agrees and report.repeated.agrees:
        yield Finding(
            f"recomputed layers differ: {report.recomputed}",
            "leave activation checkpointing off, or have the layer compute the same when it is run again",
        )


def _of_a_shape(draw: AmbiguousDraw) -> Finding:
    module = in_words(draw.module)
    if draw.is_time_first:
        return Finding(
            f"{module} draws {draw.shape}, time first: in a batch whose length is a multiple of the rows of several "
            "copies it is taken for rows first",
            'give the layer around it batch_first = False, which tells; or plan="looped", which is right for any shape',
        )
    if draw.is_table:
        return Finding(
            f"{module} draws {draw.shape} for a table that has no rows: stacked copies share a draw, looped ones don't",
            'plan="looped", where each copy has its own',
        )
    return Finding(
        f"{module} draws {draw.shape} for all rows: in a batch whose rows divide {draw.shape[0]} it is taken for "
        "numbers of the rows",
        'draw one number at a time, torch.rand([]), or plan="looped", where each copy has its own',
    )


def _of_what_forwards_leave_behind(report: Report) -> Iterator[Finding]:
    if report.batch_norms:
        yield Finding(
            f"{_few(report.batch_norms)}: batch normalisation over whatever rows are in a pass",
            'seqba.nn.GhostBatchNorm2d in its place, or plan="looped", or .eval() for a frozen one',
        )
    if report.counting:
        yield Finding(
            f"{_few(report.counting)}: changed by every forward, so M times by M passes",
            "name one plan and stay with it, or change it once an update, outside of the forward",
        )
    if not report.repeated.agrees:
        yield Finding(
            f"the same update repeated isn't the same: {report.repeated}",
            "draw by torch's functions and without a generator of your own, not by Python's random or NumPy: those "
            "aren't keyed; or the model keeps something between forwards that isn't a buffer",
        )


def _of_the_loss(report: Report) -> Iterator[Finding]:
    is_explained = (
        report.unkeyed or report.ambiguous or report.batch_norms or report.counting or not report.repeated.agrees
    )
    if report.loss_grows:
        yield Finding(
            f"the loss grows with the rows: that of {report.copies} copies in one pass is their sum, taken for a mean",
            "return the mean over rows, or (sum, weight)",
        )
    elif report.stacked_looped is not None and not report.stacked_looped.agrees and not is_explained:
        yield Finding(
            f"stacked isn't looped: {report.stacked_looped}",
            "rows see each other (a loss over pairs of rows, statistics of the batch), or noise isn't drawn row by "
            "row (views joined by torch.cat: have those of a row side by side), or a mean is over as many terms as "
            'were drawn (masked tokens): plan="looped"',
        )
    if not report.copies_differ:
        yield Finding(
            "the copies are equal: nothing draws noise",
            f"set dropout above 0, or draw views in loss_fn: as it is, {report.copies} copies cost {report.copies} "
            "times as much and change nothing",
        )


def _called(draw: UnkeyedDraw) -> str:
    return f"{draw.module} ({draw.kind})" if draw.module else in_words("")


def _instead_of(draw: UnkeyedDraw) -> str:
    if draw.kind in ("LSTM", "GRU", "RNN"):
        return f"{draw.kind}(dropout=0) of one layer each, with nn.Dropout between them"
    if "attention" in draw.operation or "flash" in draw.operation:
        return "attention by sdpa or eager"
    return "call the function of torch by its module's name (torch.nn.functional.dropout), where it is replaced"


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(name or "the model itself" for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
