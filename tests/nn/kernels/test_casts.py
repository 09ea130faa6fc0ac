from __future__ import annotations

import pytest
import torch

from seqba.nn.kernels import casts


def test_casts_that_are_kept_for_the_next_update_are_made_again_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where all are cast in one kernel; fused optimizers don't tell that they have written to a weight."""
    monkeypatch.setattr(casts, "_on_gpu", lambda shared: shared)
    weight = torch.nn.Parameter(torch.randn(3, 4))
    with casts.shared_casts():
        first = casts.narrow(weight, torch.bfloat16)
    optimizer = torch.optim.AdamW([weight], lr=0.1, fused=True)
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    with casts.shared_casts():
        second = casts.narrow(weight, torch.bfloat16)
    assert second is first
    assert torch.equal(second, weight.detach().to(torch.bfloat16))
    monkeypatch.setattr(casts, "_of_last_update", {})
