from __future__ import annotations

import seqba
import seqba.core
import seqba.nn


def test_every_public_name_is_there() -> None:
    for package in (seqba, seqba.core, seqba.nn):
        assert [name for name in package.__all__ if not hasattr(package, name)] == []
