"""Layers that are computed again in the backward: the same gradient to the bit, in every plan, and less is kept."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from model_cases import CASES, COPIES, transformer
from small_network import gradient_of, relative_error

import seqba
from seqba.models.layers import DecoderLayer, SelfAttentionLayer, recompute_layers
from seqba.runtime.activations import SavedBytes

MODELS = ["transformer", "pre-norm transformer", "transformer_lm"]


def gradient(name: str, *, recompute: bool, place: str | None = None, loss: Any = None, **options: Any) -> torch.Tensor:
    torch.manual_seed(1)
    case = CASES[name]
    model: Any = case.build(0.3).double()
    model.fork_at(place)
    if recompute:
        recompute_layers(model)
    seqba.merged_gradient(
        model, case.batch, loss or case.loss, forked=place is not None, copies=COPIES, update=2, **options
    )
    return gradient_of(model)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("plan", ["stacked", "looped", 2, "auto"])
def test_the_gradient_is_the_same_to_the_bit_with_the_noise_on(name: str, plan: Any) -> None:
    torch.testing.assert_close(
        gradient(name, recompute=True, plan=plan), gradient(name, recompute=False, plan=plan), rtol=0, atol=0
    )
    assert relative_error(gradient(name, recompute=True, plan=plan), gradient(name, recompute=True)) < 1e-12


@pytest.mark.parametrize(
    ("name", "place"), [(name, place) for name in MODELS for place in CASES[name].places if place != "layer-1"]
)
@pytest.mark.parametrize("plan", ["stacked", "looped"])
def test_copies_may_begin_inside(name: str, place: str, plan: Any) -> None:
    recomputed = gradient(name, recompute=True, place=place, plan=plan)
    assert torch.equal(recomputed, gradient(name, recompute=False, place=place, plan=plan))


def test_copies_may_be_compared() -> None:
    def loss(model: Any, batch: Any) -> tuple[torch.Tensor, int]:
        hidden = model.features(*batch).unflatten(0, (COPIES, -1))
        return (hidden - hidden.mean(0)).square().sum(), hidden.shape[1]

    one, other = (gradient("transformer", recompute=value, loss=loss, plan="stacked") for value in (True, False))
    assert torch.equal(one, other)
    assert other.norm() > 0.1


@pytest.mark.parametrize("name", MODELS)
def test_a_layer_keeps_its_input_alone_and_a_plan_sees_it(name: str) -> None:
    """Of N rows of width D a layer keeps N·D numbers; the encoder's output is kept once for all decoder layers."""
    kept = {}
    for recompute in (False, True):
        model: Any = CASES[name].build(0.3)
        layers = [module for module in model.modules() if isinstance(module, (DecoderLayer, SelfAttentionLayer))]
        if recompute:
            recompute_layers(model)
        assert [layer.recomputes for layer in layers] == [recompute] * len(layers)
        inputs: list[int] = []
        for layer in layers:
            layer.register_forward_pre_hook(lambda _, given, seen=inputs: seen.append(given[0].x.nbytes))
        saved = SavedBytes(model)
        with seqba.core.noise_context(seqba.core.Noise(1, 1, 0, [0])), saved.counting():
            CASES[name].loss(model, CASES[name].batch)
        kept[recompute] = saved.total
        assert saved.total >= sum(inputs)
    assert kept[True] < kept[False] / 2


def test_without_gradients_nothing_is_kept_or_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model = transformer(0.1, pre_norm=False)
    recompute_layers(model)
    monkeypatch.setattr("seqba.models.layers.checkpoint", None)
    with torch.no_grad():
        model(*CASES["transformer"].batch)
