from __future__ import annotations

import pytest
import torch

from seqba.core import ALONE
from seqba.errors import UserError
from seqba.training.agreement import Interrupted, Status

FINE, STOPPED, BROKEN = Status(elapsed_s=2.0), Status(stop=True, elapsed_s=4.0), Status(unreadable=True, elapsed_s=6.0)


def test_any_rank_stops_all_and_clocks_are_meaned() -> None:
    assert Status.merged([FINE, FINE]) == FINE
    assert Status.merged([FINE, STOPPED]) == Status(stop=True, elapsed_s=3.0)
    assert Status.merged([FINE, STOPPED, BROKEN]) == Status(stop=True, unreadable=True, elapsed_s=4.0)
    assert STOPPED.over(ALONE, torch.device("cpu")) == STOPPED


def test_what_cannot_be_read_is_told_before_a_stop() -> None:
    FINE.raise_if_ended("a batch")
    with pytest.raises(Interrupted):
        STOPPED.raise_if_ended("a batch")
    both = Status.merged([STOPPED, BROKEN])
    with pytest.raises(UserError, match=r"picture 5\.png is broken"):
        both.raise_if_ended(UserError("picture 5.png is broken"))
    with pytest.raises(UserError, match="another rank can't read what it needs"):
        both.raise_if_ended("a batch")
