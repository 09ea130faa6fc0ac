"""What two processes come to in either library; one group of them, since each takes a while to start."""

from __future__ import annotations

from typing import Any

import toy_modules
import toy_trainers

from seqba.distributed import Ranks


def train(ranks: Ranks) -> dict[str, Any]:
    found = {f"transformers {name}": value for name, value in toy_trainers.trained_on_processes(ranks).items()}
    return {**found, **{f"lightning {name}": value for name, value in toy_modules.trained_on_processes(ranks).items()}}
