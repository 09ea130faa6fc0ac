"""Batches whose rows can't be told are refused, by name."""

from __future__ import annotations

import warnings
from collections import deque
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from odd_batches import ForeignMapping, Named, Rigid, Subclass
from torch.nn.utils import rnn

import seqba

X = torch.ones(2, 4)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch calls these beta, or old
    CSR, CSC = X.to_sparse_csr(), X.to_sparse_csc()
    QUANTIZED = torch.quantize_per_tensor(X, 0.1, 0, torch.quint8)
    NESTED, JAGGED = (
        torch.nested.nested_tensor([X[0], X[0, :2]], layout=kind) for kind in (torch.strided, torch.jagged)
    )
REFUSED = [
    (X.to_sparse(), r"batch is a tensor of layout torch.sparse_coo, .*: pass tensor.to_dense\(\)"),
    (
        {"x": CSR},
        r"batch\['x'\] is a tensor of layout torch.sparse_csr, .*: pass tensor.to_dense",
    ),
    ((X, CSC), r"batch\[1\] is a tensor of layout torch.sparse_csc"),
    (QUANTIZED, r"a quantized tensor, .*: pass tensor.dequantize\(\)"),
    (NESTED, "a nested tensor, .*: pass the padded tensor"),
    (JAGGED, "a NestedTensor, .*: pass the padded tensor"),
    (X.as_subclass(Subclass), "a Subclass, .*: pass a plain torch.Tensor"),
    (rnn.pack_sequence([X[0], X[1]]), "a PackedSequence, .*: pass the padded tensor .* and the lengths"),
    ((X, torch.distributions.Normal(X, X)), r"batch\[1\] is a Normal, .*: pass its parameters as tensors"),
    ({"x": X, "a": np.ones(2)}, r"batch\['a'\] is a ndarray, .*: pass torch.from_numpy"),
    ((X, range(2)), "a range, .*: pass a list with one item for each row"),
    ((X, {1, 2}), "a set, .*: pass a list"),
    ((X, {"a": 1, "b": 2}.values()), "a dict_values, .*: pass a list"),
    ((X, (i for i in range(2))), "a generator, .*: pass a list"),
    ((X, bytearray(2)), "a bytearray, .*: pass a list"),
    ((X, deque([1, 2])), "a deque, .*: pass a list"),
    ((X, SimpleNamespace(x=X)), "a SimpleNamespace, .*: pass its tensors"),
    ((X, (32, 32)), r"batch\[1\] is a tuple of 2 ints, .*torch.Size"),
    ((X, (32, 32, 3)), r"batch\[1\] is a tuple of 3 ints"),
    ((X, ([5, 3], [7, 2])), r"batch\[1\] is a tuple of 2 lists"),
    ((X, (None, None)), r"batch\[1\] is a tuple of 2 NoneTypes"),
    ((X, [{"boxes": X}, {"boxes": X}]), r"batch\[1\] is a list of 2 dicts beside 2 rows"),
    ((X, [Named(X, X), Named(X, X)]), r"batch\[1\] is a list of 2 Nameds beside 2 rows"),
    ((X, [("a", "b"), ("c", "d")]), r"batch\[1\] is a list of 2 tuples of 2 beside 2 rows"),
    ((X, ("de", 7)), r"batch\[1\] is a tuple of 2 strs"),
    ((X, Rigid(2, X)), r"batch\[1\] is a Rigid, .*: pass a dict of its parts"),
    ((X, ForeignMapping(x=X)), r"a ForeignMapping, .*: pass a dict"),
]


@pytest.mark.parametrize(("batch", "message"), REFUSED)
@pytest.mark.parametrize("copies", [1, 2])
def test_what_may_hold_rows_otherwise_is_refused_in_every_plan(batch: Any, message: str, copies: int) -> None:
    with pytest.raises(TypeError, match=message):
        seqba.replicate(batch, copies)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (
            (torch.ones(2), torch.ones(3)),
            r"\[2, 3\] rows: batch\[0\] is a tensor \(2,\); batch\[1\] is a tensor \(3,\)",
        ),
        ((X, [1, 2, 3]), r"\[2, 3\] rows: batch\[0\] is a tensor \(2, 4\); batch\[1\] is a list of 3"),
        ({"x": X, "mean": ["a"]}, r"batch\['mean'\] is a list of 1"),
        ({"x": X, "boxes": [torch.ones(3, 4), torch.ones(1, 4)]}, r"batch\['boxes'\]\[0\] is a tensor \(3, 4\)"),
        ({"values": torch.ones(5), "offsets": torch.tensor([0, 3])}, r"batch\['offsets'\] is a tensor \(2,\)"),
        (None, "holds nothing that has rows"),
        ({"seed": 3}, "holds nothing that has rows"),
    ],
)
@pytest.mark.parametrize("copies", [1, 2])
def test_parts_that_disagree_are_named(batch: Any, message: str, copies: int) -> None:
    with pytest.raises(ValueError, match=message):
        seqba.replicate(batch, copies)
