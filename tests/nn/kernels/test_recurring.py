from __future__ import annotations

import pytest
import torch
from processors import AMD, INTEL_WITH_AMX, INTEL_WITHOUT_AMX

from seqba.nn.kernels import recurring
from seqba.nn.kernels.divergence import copy_divergence
from seqba.nn.kernels.loss import label_smoothed_cross_entropy
from seqba.nn.kernels.processor import Processor
from seqba.nn.kernels.recurring import compiles_each_shape, recurring_rows
from seqba.nn.kernels.scores import target_log_probabilities

CPU = torch.device("cpu")


def test_numbers_of_rows_recur(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recurring, "processor", lambda: INTEL_WITH_AMX)
    rounded = {rows: recurring_rows(rows, torch.bfloat16, CPU) for rows in range(2049, 4097)}
    assert len(set(rounded.values())) == 32
    assert all(rows <= more <= rows * 33 / 32 for rows, more in rounded.items())
    assert [recurring_rows(rows, torch.bfloat16, CPU) for rows in (0, 1, 16, 17, 1000, 3000)] == [
        0, 16, 16, 32, 1008, 3008,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("processor", "dtype", "device", "compiles"),
    [
        (INTEL_WITH_AMX, torch.bfloat16, "cpu", True),
        (AMD, torch.bfloat16, "cpu", True),
        (INTEL_WITHOUT_AMX, torch.bfloat16, "cpu", False),
        (Processor(), torch.bfloat16, "cpu", False),
        (INTEL_WITH_AMX, torch.float32, "cpu", False),
        (INTEL_WITH_AMX, torch.bfloat16, "meta", False),
    ],
    ids=["AMX", "AMD", "widened", "without", "float32", "another device"],
)
def test_it_is_for_bfloat16_where_onednn_multiplies_it(
    processor: Processor, dtype: torch.dtype, device: str, compiles: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recurring, "processor", lambda: processor)
    assert compiles_each_shape(dtype, torch.device(device)) == compiles
    assert (recurring_rows(1001, dtype, torch.device(device)) > 1001) == compiles


@pytest.mark.parametrize("kernel", ["loss", "divergence", "scores"])
@pytest.mark.parametrize("chunk", [7, 1000])
def test_rows_of_zeros_change_no_loss(kernel: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    hidden = torch.randn(34, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(11, 5, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(11, dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, 11, (34,))
    for name in ("loss", "divergence", "scores"):
        monkeypatch.setattr(f"seqba.nn.kernels.{name}.chunk_rows", lambda like, columns, **options: chunk)

    def results(*, compiles: bool) -> list[torch.Tensor]:
        monkeypatch.setattr(recurring, "compiles_each_shape", lambda dtype, device: compiles)
        if kernel == "scores":
            return [target_log_probabilities(hidden, weight, target, bias=bias)]
        if kernel == "divergence":
            value, inputs = copy_divergence(hidden, weight, copies=2), (hidden, weight)
        else:
            value, nll = label_smoothed_cross_entropy(hidden, weight, target, bias=bias, smoothing=0.1)
            return [value, nll, *torch.autograd.grad(value, (hidden, weight, bias))]
        return [value, *torch.autograd.grad(value, inputs)]

    for ours, expected in zip(results(compiles=True), results(compiles=False), strict=True):
        torch.testing.assert_close(ours, expected)
