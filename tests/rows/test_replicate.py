"""Copies of nested batches, and the wrapper for loaders."""

from __future__ import annotations

from collections import OrderedDict, UserDict, defaultdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from odd_batches import Attributed, Kind, Named, Pairs, Scaled, Slotted
from torch import Tensor, nn
from torch.utils.data import DataLoader

import seqba
from seqba.rows.replicate import select_copies


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


def test_one_item_for_each_row_is_repeated() -> None:
    batch = {
        "x": torch.arange(2),
        "lengths": [5, 3],
        "captions": ("a cat", "a dog"),
        "paths": [Path("a"), Path("b")],
        "missing": [None, "b"],
        "ragged": [[1, 2, 3], [4]],
        "scalars": [torch.tensor(1), torch.tensor(2)],
        "numpy": [np.int64(1), np.bool_(True)],
        "targets": [{"id": 7, "box": (1, 2)}, {"id": 8, "box": (3, 4)}],
        "empty": [],
    }
    copies = seqba.replicate(batch, 3)
    assert copies["lengths"] == [5, 3] * 3
    assert copies["captions"] == ("a cat", "a dog") * 3
    assert copies["paths"] == [Path("a"), Path("b")] * 3
    assert copies["missing"] == [None, "b"] * 3
    assert copies["ragged"] == [[1, 2, 3], [4]] * 3
    assert [int(scalar) for scalar in copies["scalars"]] == [1, 2] * 3
    assert copies["numpy"] == [1, True] * 3
    assert copies["targets"] == batch["targets"] * 3
    assert copies["empty"] == []
    assert seqba.replicate(["a", "b"], 2) == ["a", "b", "a", "b"]


def test_what_all_rows_share_is_passed_on() -> None:
    shared = {
        "size": torch.Size((2, 2)),
        "range": {"low": 0.1, "high": 0.2},
        "kind": Kind.TRAIN,
        "dtype": torch.float16,
        "flag": np.bool_(False),
        "zero": np.array(3.0),
        "text": "ab",
        "bytes": b"ab",
    }
    copies = seqba.replicate({"x": torch.ones(2), **shared}, 2)
    assert {name: copies[name] for name in shared} == shared


@pytest.mark.parametrize("plan", ["looped", "stacked", "auto", 2])
@pytest.mark.parametrize("lengths", [[5, 3], torch.tensor([5, 3])])
def test_lengths_in_a_list_give_one_gradient_in_every_plan(plan: Any, lengths: Any) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(seqba.nn.Dropout(0.5), nn.Linear(8, 1))

    def loss(model: nn.Module, batch: tuple[Tensor, Any]) -> tuple[Tensor, float]:
        out = model(batch[0])
        return torch.stack([out[i, :n].sum() for i, n in enumerate(batch[1])]).sum(), float(sum(batch[1]))

    batch = (torch.randn(2, 5, 8), lengths)
    step = seqba.merged_gradient(model, batch, loss, copies=3, plan=plan, update=1)
    found = model[1].weight.grad.clone()
    model.zero_grad()
    expected = seqba.merged_gradient(model, batch, loss, copies=3, plan="looped", update=1)
    assert step.weight == expected.weight == 24
    torch.testing.assert_close(step.loss, expected.loss)
    torch.testing.assert_close(found, model[1].weight.grad)


def test_a_number_of_copies_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="copies is 0; it must be at least 1"):
        seqba.replicate(torch.ones(2), 0)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        torch.randn(2, 1, 4, 5).to(memory_format=torch.channels_last),
        torch.randn(2, 3, 4, 5, 6).to(memory_format=torch.channels_last_3d),
        torch.randn(2, 4, 3).transpose(1, 2),
        torch.randn(5, 2, 3).transpose(0, 1),
        torch.randn(2, 3, 8)[..., ::2],
        torch.randn(1, 3).expand(2, 3),
        torch.randn(2, 1, 3).expand(2, 4, 3),
        torch.randn(2, 3, dtype=torch.cfloat).conj(),
        torch.zeros(0, 3),
        torch.ones(2, dtype=torch.bool),
    ],
)
def test_values_and_memory_format_stay(tensor: Tensor) -> None:
    copies = seqba.replicate(tensor, 2)
    torch.testing.assert_close(copies, tensor.repeat(2, *[1] * (tensor.dim() - 1)))
    order = sorted(range(tensor.dim()), key=lambda dim: -torch.empty_like(tensor).stride(dim))
    if 1 not in tensor.shape:
        assert sorted(range(tensor.dim()), key=lambda dim: -copies.stride(dim)) == order
    for layout, dims in ((torch.channels_last, 4), (torch.channels_last_3d, 5)):
        if tensor.dim() == dims and tensor.is_contiguous(memory_format=layout):
            assert copies.is_contiguous(memory_format=layout)
            assert copies.stride()[1:] == tensor.stride()[1:]


def test_gradients_reach_what_was_repeated() -> None:
    for rows in (torch.ones(2, 3, requires_grad=True), nn.Parameter(torch.ones(2, 3))):
        seqba.replicate({"x": rows}, 3)["x"].sum().backward()
        assert rows.grad is not None
        assert rows.grad.tolist() == [[3] * 3] * 2


def test_a_dataclass_is_made_anew_without_its_constructor() -> None:
    batch = Scaled(torch.tensor([2.0, 4.0]))
    assert batch.total == 3
    batch.beside = [1, 2]
    copies = seqba.replicate(batch, 2)
    assert copies.x.tolist() == [1, 2, 1, 2]  # halved once
    assert copies.mask.tolist() == [True, True] * 2
    assert copies.beside == [1, 2, 1, 2]
    assert copies.total == 6  # not what was computed from 2 rows
    assert copies.epoch == 0
    slotted = seqba.replicate(Slotted(torch.ones(2), 7), 2)
    assert (slotted.x.shape, slotted.epoch) == ((4,), 7)


def test_mappings_and_named_tuples_keep_what_they_are() -> None:
    batch = UserDict(x=torch.ones(2))
    copies = seqba.replicate(batch, 2)
    assert type(copies) is UserDict
    assert copies["x"].shape == (4,)
    assert type(seqba.replicate(MappingProxyType({"x": torch.ones(2)}), 2)) is MappingProxyType
    attributed = Attributed(x=torch.ones(2))
    attributed.scale = 2.0
    assert seqba.replicate(attributed, 2).scale == 2
    top = torch.ones(2, 3).max(1)
    assert seqba.replicate(top, 2).indices.tolist() == [0] * 4
    attributed.extra = torch.ones(2)
    with pytest.raises(TypeError, match="an Attributed, which can't be made anew: pass a dict"):
        seqba.replicate(attributed, 2)


def test_copies_are_selected_as_they_were_repeated() -> None:
    batch = {
        "x": torch.arange(6).view(3, 2),
        "names": ["a", "b", "c"],
        "seed": 3,
        "inner": (torch.arange(3), ["d"] * 3),
    }
    replicated = seqba.replicate(batch, 4)
    two = select_copies(replicated, range(1, 3), 4)
    torch.testing.assert_close(two["x"], seqba.replicate(batch, 2)["x"])
    assert two["x"].data_ptr() == replicated["x"][3:].data_ptr()
    assert two["names"] == ["a", "b", "c"] * 2
    assert two["inner"][1] == ["d"] * 6
    assert two["seed"] == 3
    assert select_copies(replicated, range(4), 4) is replicated
    assert select_copies(torch.tensor([0, 10, 1, 11]), range(1, 2), 2).tolist() == [1, 11]
    images = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    assert select_copies(images, range(1), 2).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("copies", "total", "message"),
    [
        (range(1), 4, "6 rows can't hold 4 copies"),
        (range(4), 4, "6 rows can't hold 4 copies"),
        (range(2, 4), 3, r"range\(2, 4\) aren't neighbouring copies of 3"),
        (range(0), 3, r"range\(0, 0\) aren't"),
        (range(0, 3, 2), 3, r"range\(0, 3, 2\) aren't"),
        (range(1), 0, "copies is 0"),
    ],
)
def test_copies_that_are_not_there_are_not_selected(copies: range, total: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        select_copies(torch.ones(6), copies, total)


def test_a_loader_repeats_through_its_collate_function() -> None:
    collate = seqba.replicating_collate(torch.utils.data.default_collate, 3)
    loader = DataLoader([(torch.tensor(i), i) for i in range(4)], batch_size=2, collate_fn=collate)
    batches = list(loader)
    assert [x.tolist() for x, _ in batches] == [[0, 1] * 3, [2, 3] * 3]
    captions = [(torch.tensor(i), str(i)) for i in range(2)]
    [(_, names)] = DataLoader(captions, batch_size=2, collate_fn=collate)
    assert names == ("0", "1") * 3
    with pytest.raises(ValueError, match="copies is 0"):
        seqba.replicating_collate(torch.utils.data.default_collate, 0)
