"""Reports of updates for tests of what is written of them."""

from __future__ import annotations

from typing import Any

from seqba.training.totals import Totals
from seqba.training.update_report import UpdateReport


def report(update: int, loss: float = 2.0, **changes: Any) -> UpdateReport:
    """The report of an update of ten rows with this loss a row, and what else is given."""
    values: dict[str, Any] = {
        "update": update,
        "lr": 0.1,
        "means": {"nll": loss / 2},
        "weight": 10.0,
        "unique": 5,
        "processed": 10,
        "copies": 2,
        "grad_norm": 3.0,
        "clipped": False,
        "skipped": False,
        **changes,
    }
    weight, count = values.pop("weight"), values["processed"]
    sums = {name: mean * count for name, mean in values.pop("means").items()}
    return UpdateReport(totals=Totals(loss * weight, weight, count, sums), **values)
