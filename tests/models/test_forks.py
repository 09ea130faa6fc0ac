"""Copies that begin inside the models, at every place: the plans agree, and without noise a fork changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from model_cases import CASES, COPIES, PAIRS, Case, small_classifier, transformer
from small_network import gradient_of, relative_error
from torch import Tensor, nn

import seqba
from seqba.models.builders import build_image_classifier
from seqba.models.classifier import ImageClassifier, average_head
from seqba.models.families import resolve_image_classifier
from seqba.models.forks import layer_of
from seqba.models.image_networks import NETWORKS
from seqba.models.options import ImageClassifierOptions

PLACES = [(name, place) for name, case in CASES.items() for place in case.places]


def gradient(case: Case, place: str | None, *, dropout: float, loss: Any = None, **options: Any) -> Tensor:
    torch.manual_seed(1)
    model: Any = case.build(dropout).double()
    model.fork_at(place)
    seqba.merged_gradient(
        model, case.batch, loss or case.loss, forked=place is not None, **{"copies": COPIES, "update": 2, **options}
    )
    return gradient_of(model)


@pytest.mark.parametrize(("name", "place"), PLACES)
def test_the_plans_agree_at_every_place(name: str, place: str) -> None:
    stacked = gradient(CASES[name], place, dropout=0.3, plan="stacked")
    for plan in ("looped", 2):
        assert relative_error(gradient(CASES[name], place, dropout=0.3, plan=plan), stacked) < 1e-12
    assert relative_error(gradient(CASES[name], None, dropout=0.3), stacked) > 1e-3


@pytest.mark.filterwarnings("ignore:nothing drew noise")
@pytest.mark.parametrize(("name", "place"), [pair for pair in PLACES if pair[0] != "classifier"])
@pytest.mark.parametrize("plan", ["stacked", "looped"])
def test_without_noise_a_fork_changes_nothing(name: str, place: str, plan: Any) -> None:
    plain = gradient(CASES[name], None, dropout=0.0, copies=1)
    assert relative_error(gradient(CASES[name], place, dropout=0.0, plan=plan), plain) < 1e-12


@pytest.mark.filterwarnings("ignore:nothing drew noise")
def test_without_noise_a_fork_at_the_head_changes_nothing() -> None:
    def loss(model: ImageClassifier, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, int]:
        logits, labels = model(batch[0]), seqba.per_copy(batch[1])
        return nn.functional.cross_entropy(logits, labels, reduction="sum"), len(labels)

    plain = gradient(CASES["classifier"], None, dropout=0.0, loss=loss, copies=1)
    for plan in ("stacked", "looped"):
        assert relative_error(gradient(CASES["classifier"], "head", dropout=0.0, loss=loss, plan=plan), plain) < 1e-12


@pytest.mark.parametrize("network", ["vgg16_bn", "alexnet"])
def test_the_networks_with_dropout_in_the_head_know_where_it_is(network: str) -> None:
    with torch.device("meta"):
        size = {"vgg16_bn": 32, "alexnet": 63}[network]
        config = resolve_image_classifier(network, ImageClassifierOptions())
        model = build_image_classifier(network, config, 10, size)
    assert model.first_dropout is not None
    below, above = model._split_last_stage(model.first_dropout)
    assert isinstance(above[0], seqba.nn.Dropout)
    assert not any(isinstance(module, seqba.nn.Dropout) for part in below for module in part.modules())
    assert NETWORKS[network].has_head_dropout
    assert {id(p) for part in (*below, *above) for p in part.parameters()} == {
        id(p) for p in model.stages[-1].parameters()
    }


def test_a_place_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(ValueError, match=r"'layer-0': a model of 2 layers has layer-1, layer-2"):
        layer_of("layer-0", 2)
    with pytest.raises(ValueError, match="decoder-layer-1, decoder-layer-2"):
        transformer(0.1, pre_norm=False).fork_at("decoder-layer-3")
    with pytest.raises(ValueError, match="has no dropout in its head"):
        ImageClassifier([average_head(3, 2)]).fork_at("head")
    with pytest.raises(ValueError, match="has head alone"):
        small_classifier(0.1).fork_at("encoder")


def test_a_fork_taken_back_is_no_fork() -> None:
    torch.manual_seed(1)
    model = transformer(0.3, pre_norm=False).double()
    model.fork_at("encoder")
    model.fork_at(None)
    seqba.merged_gradient(model, PAIRS, CASES["transformer"].loss, copies=COPIES, update=2)
    assert torch.equal(gradient_of(model), gradient(CASES["transformer"], None, dropout=0.3))
