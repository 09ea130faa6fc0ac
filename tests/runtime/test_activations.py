"""Bytes that a forward keeps."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from seqba.core import Plan
from seqba.runtime.activations import SavedBytes


def test_room_is_asked_of_the_device_of_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not of that of the parameters, which FSDP may keep on another one; "meta" stands for a GPU."""
    asked: list[torch.device] = []
    monkeypatch.setattr("seqba.core.plan.room_bytes", lambda device: asked.append(device) or 1000)
    plan, elsewhere = Plan(is_auto=True), torch.ones(10, device="meta", requires_grad=True)
    with plan.measuring(nn.Linear(2, 2), None, 4):
        _ = elsewhere.exp() * torch.ones((), requires_grad=True)
    assert asked == [torch.device("meta")]
    assert plan.copies_per_pass == 1000 // 44


def test_nothing_kept_is_on_the_cpu() -> None:
    saved = SavedBytes(nn.Linear(2, 2))
    assert (saved.total, saved.device) == (0, torch.device("cpu"))
