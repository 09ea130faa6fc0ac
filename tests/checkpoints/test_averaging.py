from __future__ import annotations

import pytest
import torch

from seqba.checkpoints.averaging import average_weights


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_mean_of_half_precision_is_not_rounded_to_it(dtype: torch.dtype) -> None:
    one, other = torch.tensor([1.0], dtype=dtype), torch.tensor([1.0 + torch.finfo(dtype).eps], dtype=dtype)
    mean = average_weights([("a", {"w": one, "n": torch.tensor(3)}), ("b", {"w": other, "n": torch.tensor(4)})])
    assert mean["w"].dtype == torch.float32
    assert mean["w"] == ((one.double() + other.double()) / 2).float()
    assert mean["n"] == 3


def test_float64_stays() -> None:
    assert average_weights([("a", {"w": torch.ones(2, dtype=torch.float64)})])["w"].dtype == torch.float64
