"""Whether a tensor of initial weights was drawn from a distribution: its bound, its spread and its shape."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor


def assert_uniform(weight: Tensor, bound: float) -> None:
    """U(−bound, bound), by its largest value, its variance bound²/3 and the half of it that lies within bound/2."""
    values = weight.detach().double().flatten()
    count = values.numel()
    assert bound * (1 - 20 / count) < values.abs().max() <= bound * (1 + 1e-6)
    assert values.mean().abs() < 5 * bound / math.sqrt(3 * count)
    assert values.square().mean() == pytest.approx(bound**2 / 3, rel=5 * 0.9 / math.sqrt(count))
    assert (values.abs() < bound / 2).double().mean() == pytest.approx(0.5, abs=2.5 / math.sqrt(count))


def assert_normal(weight: Tensor, std: float) -> None:
    """N(0, std²), by its variance and the 68.3% of it that lie within one std."""
    values = weight.detach().double().flatten()
    count = values.numel()
    assert values.mean().abs() < 5 * std / math.sqrt(count)
    assert values.square().mean() == pytest.approx(std**2, rel=5 * math.sqrt(2 / count))
    assert (values.abs() < std).double().mean() == pytest.approx(0.6827, abs=2.5 / math.sqrt(count))


def xavier(weight: Tensor, gain: float = 1.0) -> float:
    """The bound of Xavier's uniform distribution: gain · √(6 / (inputs + outputs))."""
    outputs, inputs = weight.shape
    return gain * math.sqrt(6 / (inputs + outputs))


def check_transformer(model: torch.nn.Module, *, pad: int) -> set[str]:
    """Checks every parameter of a Transformer, with or without encoder; returns the kinds that it has.

    As in fairseq: Xavier uniform, queries, keys and values as matrices of their own with gain 1/√2; biases 0; norms 1
    and 0; embeddings N(0, 1/D) and zero for padding; an output of its own N(0, 1/D).
    """
    norms = {name for name, module in model.named_modules() if isinstance(module, torch.nn.LayerNorm)}
    kinds = set()
    for name, weight in model.named_parameters():
        module, _, last = name.rpartition(".")
        if module in norms:
            kind = "norm"
            assert torch.equal(weight, torch.full_like(weight, float(last == "weight"))), name
        elif last == "bias":
            kind = "bias"
            assert not weight.any(), name
        elif name.endswith("tokens.weight"):
            kind = "embedding"
            assert not weight[pad].any(), name
            others = torch.cat([weight[:pad], weight[pad + 1 :]])
            assert others.any(dim=1).all()
            assert_normal(others, weight.shape[1] ** -0.5)
        elif name == "output_projection":
            kind = "output"
            assert_normal(weight, weight.shape[1] ** -0.5)
        elif module.endswith(("input_projection", "query_projection", "memory_projection")):
            kind = module.rpartition(".")[2]
            outputs = model.get_submodule(module.rpartition(".")[0]).output_projection.weight.shape[0]
            parts = weight.split(outputs)
            assert len(parts) == {"input_projection": 3, "query_projection": 1, "memory_projection": 2}[kind]
            for part in parts:
                assert_uniform(part, xavier(part, 1 / math.sqrt(2)))
        else:
            kind = module.rpartition(".")[2]
            assert kind in ("output_projection", "expand", "contract"), name
            assert_uniform(weight, xavier(weight))
        kinds.add(kind)
    return kinds
