"""Copies of nested batches, and the wrapper for loaders."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

import seqba


class Named(NamedTuple):
    x: Tensor
    y: Tensor


@dataclass(frozen=True)
class Pairs:
    source: Tensor
    inner: Named
    language: str


def test_rows_are_copy_major() -> None:
    rows = torch.arange(6).view(3, 2)
    assert seqba.replicate(rows, 2).tolist() == [[0, 1], [2, 3], [4, 5], [0, 1], [2, 3], [4, 5]]


def test_any_nesting_keeps_its_types() -> None:
    x = torch.arange(3)
    batch = {
        "tuple": (x, [x, None]),
        "named": Named(x, x),
        "dataclass": Pairs(x, Named(x, x), "de"),
        "mapping": OrderedDict(x=x),
        "default": defaultdict(list, x=x),
        "count": np.int64(3),
        "scalar": torch.tensor(4.0),
        "number": 7,
    }
    copies = seqba.replicate(batch, 3)
    repeated = [0, 1, 2] * 3
    assert copies["tuple"][0].tolist() == repeated
    assert copies["tuple"][1][0].tolist() == repeated
    assert copies["tuple"][1][1] is None
    assert isinstance(copies["named"], Named)
    assert copies["named"].y.tolist() == repeated
    assert copies["dataclass"].inner.x.tolist() == repeated
    assert copies["dataclass"].language == "de"
    assert isinstance(copies["mapping"], OrderedDict)
    assert isinstance(copies["default"], defaultdict)
    assert copies["default"]["x"].tolist() == repeated
    assert copies["default"]["absent"] == []
    assert copies["count"] == 3
    assert copies["scalar"].item() == 4
    assert copies["number"] == 7


def test_one_copy_is_the_batch_itself() -> None:
    batch = {"x": torch.ones(2)}
    assert seqba.replicate(batch, 1) is batch


@pytest.mark.parametrize(
    ("batch", "copies", "error", "message"),
    [
        (torch.ones(2), 0, ValueError, "copies is 0; it must be at least 1"),
        (
            (torch.ones(2), torch.ones(3)),
            2,
            ValueError,
            r"there are \[2, 3\] rows: batch\[0\] is a tensor \(2,\); batch\[1\]",
        ),
        ({"x": np.ones(2)}, 2, TypeError, r"batch\['x'\] is a ndarray, .*: pass torch.from_numpy"),
    ],
)
def test_what_has_no_rows_is_refused(batch: Any, copies: int, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        seqba.replicate(batch, copies)


def test_a_loader_repeats_through_its_collate_function() -> None:
    collate = seqba.replicating_collate(torch.utils.data.default_collate, 3)
    loader = DataLoader([(torch.tensor(i), i) for i in range(4)], batch_size=2, collate_fn=collate)
    batches = list(loader)
    assert [x.tolist() for x, _ in batches] == [[0, 1] * 3, [2, 3] * 3]
    with pytest.raises(ValueError, match="copies is 0"):
        seqba.replicating_collate(torch.utils.data.default_collate, 0)
