"""Batches of indices, repeated for every copy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, DistributedSampler, RandomSampler, SequentialSampler

import seqba


class Drawn(Dataset[tuple[int, Tensor]]):
    """Each example with a transform that is drawn when it is loaded."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> tuple[int, Tensor]:
        return index, torch.rand(())


def batches_of(size: int) -> BatchSampler:
    return BatchSampler(SequentialSampler(range(5)), size, drop_last=False)


def test_the_indices_of_a_batch_come_copy_major() -> None:
    sampler = seqba.RepeatingBatchSampler(batches_of(2), copies=3)
    assert list(sampler) == [[0, 1] * 3, [2, 3] * 3, [4] * 3]
    assert list(sampler) == [[0, 1] * 3, [2, 3] * 3, [4] * 3]  # the next epoch
    assert len(sampler) == 3
    assert list(seqba.RepeatingBatchSampler(batches_of(2), copies=1)) == list(batches_of(2))


def test_a_batch_may_be_any_iterable_of_indices() -> None:
    inner = [(0, 1), torch.tensor([2, 3]), np.array([4]), range(2), iter([3, 4]), ["key"]]
    assert list(seqba.RepeatingBatchSampler(inner, copies=2)) == [
        [0, 1, 0, 1],
        [2, 3, 2, 3],
        [4, 4],
        [0, 1, 0, 1],
        [3, 4, 3, 4],
        ["key", "key"],
    ]


@pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker processes:UserWarning")  # on a single core
@pytest.mark.parametrize("workers", [0, 2])
def test_transforms_are_drawn_anew_for_every_copy(workers: int) -> None:
    torch.manual_seed(3)
    sampler = seqba.RepeatingBatchSampler(batches_of(2), copies=3)
    loader = DataLoader(Drawn(), batch_sampler=sampler, num_workers=workers)
    assert len(loader) == 3
    batches = list(loader)
    assert [indices.tolist() for indices, _ in batches] == [[0, 1] * 3, [2, 3] * 3, [4] * 3]
    # Two workers may begin with one seed each, but within a batch no draw is another's.
    assert all(len(set(drawn.tolist())) == len(drawn) for _, drawn in batches)


class Epochs(list[list[int]]):
    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


def test_the_epoch_reaches_the_inner_sampler() -> None:
    deals = DistributedSampler(range(8), num_replicas=2, rank=1, seed=1)
    inner = BatchSampler(deals, 2, drop_last=False)
    sampler = seqba.RepeatingBatchSampler(inner, copies=2)
    first = list(sampler)
    sampler.set_epoch(4)
    assert deals.epoch == 4
    assert sampler.sampler is deals
    assert first != list(sampler) == [batch * 2 for batch in inner]

    epochs = Epochs([[0]])
    sampler = seqba.RepeatingBatchSampler(epochs, copies=2)
    sampler.set_epoch(5)
    assert epochs.epoch == 5
    assert not hasattr(sampler, "sampler")
    seqba.RepeatingBatchSampler(batches_of(2), copies=2).set_epoch(6)  # nobody wants to know


def generated() -> Iterator[list[int]]:
    yield [0]


def test_the_length_is_that_of_the_inner_sampler_or_none() -> None:
    with pytest.raises(TypeError, match="has no len"):
        len(seqba.RepeatingBatchSampler(generated(), copies=2))


@pytest.mark.parametrize(
    ("inner", "message"),
    [
        (SequentialSampler(range(5)), "SequentialSampler yields 0, a single index: wrap it, BatchSampler"),
        (RandomSampler([7]), "RandomSampler yields 0, a single index"),
        ([torch.tensor(3)], r"list yields tensor\(3\), a single index"),
        ([np.int64(3)], r"list yields .*3.*, a single index"),
        (["key"], "list yields 'key', a single index"),
    ],
)
def test_a_sampler_of_single_indices_is_refused(inner: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        list(seqba.RepeatingBatchSampler(inner, copies=2))


def test_misuse_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="copies is 0; it must be at least 1"):
        seqba.RepeatingBatchSampler(batches_of(2), copies=0)
    with pytest.raises(TypeError, match="batch_sampler is 32; it must yield batches of indices"):
        seqba.RepeatingBatchSampler(32, copies=2)  # type: ignore[arg-type]
