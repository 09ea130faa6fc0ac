from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from seqba.nn.kernels.scores import target_log_probabilities


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.1)])
def test_they_are_those_of_log_softmax(
    with_bias: bool, dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seqba.nn.kernels.loss.CHUNK_ELEMENTS", 40)  # several chunks of two rows, the last one short
    torch.manual_seed(0)
    hidden, weight, bias = torch.randn(7, 5).to(dtype), torch.randn(19, 5).to(dtype), torch.randn(19).to(dtype)
    target = torch.randint(0, 19, (7,))
    found = target_log_probabilities(hidden, weight, target, bias=bias if with_bias else None)
    logits = functional.linear(hidden.double(), weight.double(), bias.double() if with_bias else None)
    expected = functional.log_softmax(logits, dim=1)[torch.arange(7), target]
    assert found.dtype == torch.promote_types(dtype, torch.float32)
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance)


def test_of_nothing_there_is_nothing() -> None:
    assert target_log_probabilities(torch.zeros(0, 5), torch.zeros(19, 5), torch.zeros(0, dtype=torch.int64)).shape == (
        0,
    )


def test_weights_that_need_gradients_are_fine() -> None:
    weight = torch.zeros(4, 5, requires_grad=True)
    found = target_log_probabilities(torch.zeros(3, 5), weight, torch.tensor([0, 1, 3]))
    assert not found.requires_grad
    torch.testing.assert_close(found.exp(), torch.full((3,), 0.25))
