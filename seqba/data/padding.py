"""Lengths of padded rows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from seqba.data.dictionary import Dictionary


def count_tokens(rows: npt.NDArray[np.int64]) -> list[int]:
    """Tokens of each padded row that aren't padding."""
    counts: list[int] = np.count_nonzero(rows != Dictionary.pad, axis=1).tolist()
    return counts
