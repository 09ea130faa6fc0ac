"""BLEU, chrF and TER of plain text by sacreBLEU, with intervals, and whether one system is better than another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from seqba.errors import UserError
from seqba.evaluation.bleu import check_lengths
from seqba.extras import needed

TEXT_METRICS = {"bleu": "BLEU", "chrf": "CHRF", "ter": "TER"}
"""sacreBLEU's classes, by the names of a command line. BLEU and chrF rise with quality; TER, a rate of edits, falls."""


@dataclass(frozen=True)
class TextScore:
    """Score of a corpus by one metric.

    Attributes:
        score: 0 to 100 for BLEU and chrF; edits per 100 words for TER.
        signature: how it was counted; without it a score means nothing.
        details: sacreBLEU's own line, with mean and 95% interval where it was resampled.
    """

    score: float
    signature: str
    details: str

    def __str__(self) -> str:
        """Name, signature and details: `chrF2|nrefs:1|case:mixed|… = 52.10`."""
        name, _, rest = self.details.partition(" ")
        return f"{name}|{self.signature} {rest}"


@dataclass(frozen=True)
class SystemComparison:
    """Two systems by one metric.

    Attributes:
        metric: its name, as sacreBLEU writes it (BLEU, chrF2, TER).
        scores: of the baseline and of the other system.
        means: over the resamples.
        intervals: half the width of the 95% interval of each.
        p_value: probability of a difference as large as this one between systems of equal quality.
    """

    metric: str
    scores: tuple[float, float]
    means: tuple[float, float]
    intervals: tuple[float, float]
    p_value: float


def text_scores(
    hypotheses: Sequence[str],
    references: Sequence[str],
    metrics: Sequence[str],
    *,
    ignore_case: bool = False,
    resamples: int = 0,
) -> list[TextScore]:
    """Scores plain, detokenised text by several metrics.

    Args:
        hypotheses: one line per sentence.
        references: as many.
        metrics: names in `TEXT_METRICS`.
        ignore_case: lower both sides first; TER, as sacreBLEU counts it, does so in any case.
        resamples: bootstrap resamples for a 95% interval; 0 for none. Their seed is sacreBLEU's, 12345, or that of the
            environment's SACREBLEU_SEED.

    Raises:
        UserError: for an empty corpus or one of other length.

    Source: Papineni et al. 2002 (BLEU), Popović 2015 (chrF), Snover et al. 2006 (TER), Post 2018; Koehn 2004
    (intervals).
    """
    check_lengths(hypotheses, references)
    found = []
    for name in metrics:
        metric = _metric(name, references, ignore_case=ignore_case)
        result = metric.corpus_score(list(hypotheses), None, n_bootstrap=resamples or 1)
        found.append(TextScore(float(result.score), str(metric.get_signature()), str(result)))
    return found


def sacre_bleu(hypotheses: Sequence[str], references: Sequence[str], *, ignore_case: bool = False) -> TextScore:
    """BLEU of plain, detokenised text: 13a tokenisation, comparable across papers.

    Raises:
        UserError: as `text_scores`.

    Source: Post 2018.
    """
    (score,) = text_scores(hypotheses, references, ("bleu",), ignore_case=ignore_case)
    return score


def compare_systems(
    baseline: Sequence[str],
    system: Sequence[str],
    references: Sequence[str],
    metrics: Sequence[str],
    *,
    ignore_case: bool = False,
    resamples: int = 1000,
) -> list[SystemComparison]:
    """Compares two systems on the same sentences by paired bootstrap resampling.

    Args:
        baseline: translations of the one.
        system: translations of the other.
        references: as many.
        metrics: names in `TEXT_METRICS`.
        ignore_case: lower everything first.
        resamples: corpora that are drawn, with replacement, from the sentences; seeded as in `text_scores`.

    Raises:
        UserError: for an empty corpus or one of other length, and for a single sentence, of which every resample is the
            same.

    Source: Koehn 2004, as sacreBLEU counts it; but systems of equal scores have a p-value of 1.
    """
    for lines in (baseline, system):
        check_lengths(lines, references)
    if len(references) == 1:
        raise UserError("one sentence can't be resampled, so that it tells nothing of significance: give more of them")
    test = needed("sacrebleu.significance", "a comparison").PairedTest(
        [("baseline", list(baseline)), ("system", list(system))],
        {name: _metric(name, references, ignore_case=ignore_case) for name in metrics},
        references=None,
        test_type="bs",
        n_samples=resamples,
    )
    _, columns = test()
    return [
        SystemComparison(
            metric=name,
            scores=(float(first.score), float(second.score)),
            means=(float(first.mean), float(second.mean)),
            intervals=(float(first.ci), float(second.ci)),
            # sacreBLEU counts resamples that differ more than nothing: of equal translations none, a p-value near 0.
            p_value=1.0 if first.score == second.score else float(second.p_value),
        )
        for name, (first, second) in columns.items()
        if name != "System"
    ]


def _metric(name: str, references: Sequence[str], *, ignore_case: bool) -> Any:
    """A metric of sacreBLEU's, made for these references."""
    kind = getattr(needed("sacrebleu.metrics", "a score"), TEXT_METRICS[name])
    own: dict[str, Any] = {} if name == "ter" else {"lowercase": ignore_case}  # TER has no case anyway
    if name == "bleu":
        own["force"] = True  # no warning about text that looks tokenised: seqba-score has one
    return kind(references=[list(references)], **own)


def read_metrics(text: str) -> tuple[str, ...]:
    """Names of metrics, separated by commas.

    Raises:
        UserError: for a name that is none, or none at all.
    """
    names = tuple(name.strip().lower() for name in text.split(",") if name.strip())
    unknown = [name for name in names if name not in TEXT_METRICS]
    if unknown or not names:
        raise UserError(f"--metrics is {text!r}: give one or more of {', '.join(TEXT_METRICS)}, separated by commas")
    return tuple(dict.fromkeys(names))
