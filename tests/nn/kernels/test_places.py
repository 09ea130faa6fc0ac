from __future__ import annotations

import pytest
import torch

from seqba.nn.kernels.places import UNKNOWN, TokenCounts, places_of, without_padding


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_positions_by_search_are_those_of_nonzero(share: float) -> None:
    """The way of a GPU, on a device without data: shapes alone; and its arithmetic, on the CPU."""
    mask = torch.rand(7, 9, generator=torch.Generator().manual_seed(1)) < share
    count = int(mask.sum())
    assert places_of(mask.to("meta"), count).shape == (count,)  # without asking the device
    by_search = torch.searchsorted(mask.flatten().cumsum(0), torch.arange(1, count + 1))
    assert torch.equal(by_search, places_of(mask, count))
    assert torch.equal(places_of(mask), mask.flatten().nonzero().squeeze(1))


def test_tokens_without_padding() -> None:
    tokens = torch.tensor([[5, 6, 1], [7, 1, 1]])
    assert without_padding(tokens, 1).tolist() == without_padding(tokens, 1, 3).tolist() == [5, 6, 7]
    assert without_padding(tokens[:, :1], 1, 2).tolist() == [5, 7]


def test_counts_of_copies() -> None:
    assert TokenCounts(3, None).times(4) == TokenCounts(12, None)
    assert UNKNOWN.times(2) == UNKNOWN
