from __future__ import annotations

import torch
from sums import Rows

from seqba.runtime.devices import choose_device, to_device


def test_the_cpu_on_request() -> None:
    assert choose_device(cpu=True).type == "cpu"


def test_a_batch_that_is_there_already_is_not_copied() -> None:
    batch = Rows(torch.ones(2, 4), torch.ones(2))
    assert to_device(batch, torch.device("cpu")) is batch


def test_every_tensor_of_a_batch_moves() -> None:
    moved = to_device(Rows(torch.ones(2, 4), torch.ones(2)), torch.device("meta"))
    assert {moved.values.device.type, moved.target.device.type} == {"meta"}
