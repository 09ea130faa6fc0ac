"""fairseq's lines: S- source, T- reference, H- hypothesis, D- detokenised, P- scores of its tokens."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:  # a warning needs no numpy
    from seqba.decoding.detokenize import TextForm
    from seqba.decoding.hypothesis import Hypothesis


def print_hypotheses(identifier: int, hypotheses: Sequence[Hypothesis], form: TextForm, file: TextIO) -> None:
    """Prints the H-, D- and P- lines of a sentence's translations, best first. Scores are base 2.

    H-12	-0.4567	▁Ein ▁Hund
    D-12	-0.4567	Ein Hund
    P-12	-0.5123 -0.4011 -0.4567
    """
    for hypothesis in hypotheses:
        score = hypothesis.score / math.log(2)
        parts = " ".join(f"{part / math.log(2):.4f}" for part in hypothesis.token_scores)
        print(f"H-{identifier}\t{score}\t{form.tokens(hypothesis.tokens)}", file=file)
        print(f"D-{identifier}\t{score}\t{form.plain(hypothesis.tokens)}", file=file)
        print(f"P-{identifier}\t{parts}", file=file)


def warn_on_stderr(line: str) -> None:
    """Prints a warning where it stays out of what the command prints."""
    print(f"warning: {line}", file=sys.stderr)


@contextmanager
def warnings_on_stderr() -> Iterator[None]:
    """Inside, what the library warns of is one line each, without a path and a line of its code."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: warn_on_stderr(str(message))
        yield
