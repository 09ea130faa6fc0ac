"""The first lines of a run say what it will do."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from small_runs import make_options
from torch import nn

from seqba.models.attention import Attention
from seqba.models.unpadding import Packing
from seqba.nn.kernels.processor import Processor
from seqba.tasks.options import BatchOptions
from seqba.training.announcement import announce, describe_arithmetic
from seqba.training.arms import GridShape
from seqba.training.options.grid import read_copies


def lines(
    tmp_path: Any, *, micro_batches: tuple[int, ...] = (1,), copies: int | str = 1, ranks: int = 1, **changes: Any
) -> list[str]:
    return announce(
        arch="transformer_tiny",
        parameters=1234567,
        device=torch.device("cpu"),
        ranks=ranks,
        grid=GridShape(micro_batches, read_copies(copies)),
        batches=BatchOptions(max_tokens=4096),
        options=make_options(tmp_path, **changes),
    )


def test_a_run_is_announced_in_words(tmp_path: Any) -> None:
    model, update, end = lines(tmp_path, micro_batches=(2,), copies=4, ranks=3, max_update=2000, max_epoch=7)
    assert model.startswith("transformer_tiny: 1,234,567 parameters, on cpu with ")
    assert model.endswith(", 3 ranks")
    assert update == "an update: 2 micro-batches of at most 4,096 tokens × 4 copies (--arm ba, --plan auto)"
    assert end == f"until update 2,000 or baseline's epoch 7; checkpoints, config.toml and log.jsonl in {tmp_path}"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"micro_batches": (1,)}, "an update: 1 micro-batch of at most 4,096 tokens × 1 copy"),
        ({"micro_batches": (2, 3)}, "an update: 2, 3 (by epoch) micro-batches of"),
        (
            {"copies": "1:0,4:2000,8:5000"},
            "an update: 1 micro-batch of at most 4,096 tokens × 1 copy, 4 copies from update 2,000 on, 8 copies from "
            "update 5,000 on (--arm ba",
        ),
        ({"no_save": True, "stop_time_hours": 0.5}, "until hour 0.5; nothing is kept (--no-save)"),
        ({}, "until it is stopped; checkpoints"),
        ({"compile": True}, "layers are compiled: the first updates wait for it"),
        ({"measure_every": 50, "copies": 2}, "every 50 updates the variance of the gradient is measured"),
        ({"measure_every": 50}, "an update of this arm is a single pass, which shows no variance: --measure-every"),
    ],
)
def test_other_runs_are_told_as_they_are(tmp_path: Any, given: dict[str, Any], told: str) -> None:
    assert any(line.startswith(told) for line in lines(tmp_path, **given))


def test_updates_at_a_rate_of_zero_are_told(tmp_path: Any) -> None:
    fallen = {"lr_scheduler": "polynomial_decay", "total_num_update": 2000}
    told = "the learning rate is 0 from update 2,000 on (--total-num-update): --max-update 2000 ends the run there"
    for end in (0, 2001):
        assert told in lines(tmp_path, max_update=end, **fallen)
    assert told not in lines(tmp_path, max_update=2000, **fallen)
    assert told not in lines(tmp_path, end_learning_rate=1e-9, **fallen)
    assert told not in lines(tmp_path, max_update=2000, lr_scheduler="polynomial_decay")


def test_a_cpus_arithmetic_is_told() -> None:
    assert describe_arithmetic(None, attention_dropout=0.0).startswith("products in float32 by ")
    assert describe_arithmetic(torch.bfloat16, attention_dropout=0.0).startswith("products in bfloat16 by ")
    told = describe_arithmetic(None, attention_dropout=0.0, compiled=True)
    assert ", of compiled layers by torch.mm; attention is " in told
    assert "attention" not in describe_arithmetic(None, attention_dropout=None)  # of an LSTM, or an image network


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("feature", ["avx512f", "avx2"])
@pytest.mark.parametrize(
    ("dtype", "keys"),
    [*((torch.float32, keys) for keys in (11, 12, 64, 65)), (torch.bfloat16, 4), (torch.bfloat16, 513)],
)
def test_the_way_of_attention_is_the_one_that_is_told(
    dtype: torch.dtype, keys: int, dropout: float, feature: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Processor("GenuineIntel", frozenset([feature]))
    monkeypatch.setattr("seqba.nn.kernels.attention.processor", lambda: machine)
    attention = Attention(8, 1, dropout=dropout).to(dtype)
    packing = Packing(torch.full((1, keys), 7), pad=1)
    fused: list[bool] = []
    torchs = nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        nn.functional, "scaled_dot_product_attention", lambda *a, **k: (fused.append(True), torchs(*a, **k))[1]
    )
    attention.attend_to_self(torch.zeros(keys, 24, dtype=dtype, requires_grad=True), packing, causal=True)
    told = describe_arithmetic(dtype, attention_dropout=dropout).partition("; attention is ")[2]
    limits = re.search(r"over (?:up to|(\d+) to) (\d+) keys", told)
    is_within = limits is not None and int(limits[1] or 1) <= keys <= int(limits[2])
    assert bool(fused) == (told.endswith("torch's fused one") and not is_within), told
    assert (limits is None) == (dropout > 0 or (dtype, feature) == (torch.float32, "avx2"))
