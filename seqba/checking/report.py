"""Report of `seqba.check`."""

from __future__ import annotations

from dataclasses import dataclass

from seqba.checking.ambiguous import AmbiguousDraw
from seqba.checking.compare import Comparison
from seqba.checking.unkeyed import UnkeyedDraw


@dataclass(frozen=True)
class Finding:
    """One thing to know before a run.

    Attributes:
        problem: what is so.
        advice: what to do about it.
    """

    problem: str
    advice: str

    def __str__(self) -> str:
        """Both, on two lines."""
        return f"{self.problem}\n    → {self.advice}"


@dataclass(frozen=True)
class Report:
    """Findings of `seqba.check` about a model, a batch and a loss; `print` shows it.

    Attributes:
        copies: how many copies were tried.
        stacked_looped: the gradient of all copies in one pass, compared with that of a pass each; None where the batch
            can't be stacked.
        recomputed: the looped gradient with the whole forward recomputed in the backward, compared with it; None for a
            model that forks.
        repeated: the looped gradient under other states of the generators of torch, Python and NumPy, compared with it.
        copies_differ: whether the copies' losses or gradients differ at all.
        loss_grows: whether a loss without a weight grows with the copies of a pass, as a sum does.
        unkeyed: draws that no key reaches.
        ambiguous: draws whose shape doesn't tell rows from what all rows share, in batches like this one.
        batch_norms: names of modules that normalise over whatever rows are in a pass.
        counting: names of buffers, but theirs, that a forward has changed.
        batch_problem: why rows of the batch can't be repeated, or None.
        gradient_problem: why the gradients can't be compared: none reaches the model, or one isn't finite; else None.
        findings: all that needs attention, with advice; empty where the promise holds.
    """

    copies: int
    stacked_looped: Comparison | None
    recomputed: Comparison | None
    repeated: Comparison
    copies_differ: bool
    loss_grows: bool
    unkeyed: tuple[UnkeyedDraw, ...]
    ambiguous: tuple[AmbiguousDraw, ...]
    batch_norms: tuple[str, ...]
    counting: tuple[str, ...]
    batch_problem: str | None
    gradient_problem: str | None = None
    findings: tuple[Finding, ...] = ()

    @property
    def is_fine(self) -> bool:
        """Whether nothing was found: every plan computes the same gradient, and copies differ."""
        return not self.findings

    def __str__(self) -> str:
        """A line for each comparison, then the findings."""
        stacked = "can't be stacked" if self.stacked_looped is None else str(self.stacked_looped)
        lines = [
            f"seqba.check with {self.copies} copies: {'fine in every plan' if self.is_fine else 'look at this first'}",
            f"  stacked = looped        {stacked}",
            f"  recomputed = not        {'not looked at' if self.recomputed is None else self.recomputed}",
            f"  repeated = not          {self.repeated}",
            f"  copies differ           {'yes' if self.copies_differ else 'NO'}",
            *(f"{number}. {finding}" for number, finding in enumerate(self.findings, 1)),
        ]
        return "\n".join(lines)
