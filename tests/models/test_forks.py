"""Copies that begin inside the models, at every place: the plans agree, and without noise a fork changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from small_network import gradient_of, relative_error
from torch import Tensor, nn

import seqba
from seqba.models.awd_lstm import AWDLSTM
from seqba.models.builders import build_image_classifier
from seqba.models.classifier import ImageClassifier, average_head, conv_norm_relu, convolution, sequence
from seqba.models.config import AWDLSTMConfig, DecoderConfig, TransformerConfig
from seqba.models.families import resolve_image_classifier
from seqba.models.forks import layer_of
from seqba.models.image_networks import NETWORKS
from seqba.models.options import ImageClassifierOptions
from seqba.models.transformer import Transformer
from seqba.models.transformer_lm import TransformerLM

PAD, VOCABULARY, COPIES = 1, 19, 3
F = nn.functional


def make_tokens(lengths: tuple[int, ...], seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(4, VOCABULARY, (len(lengths), max(lengths)), generator=generator)
    return tokens.masked_fill(torch.arange(max(lengths)) >= torch.tensor(lengths)[:, None], PAD)


@dataclass(frozen=True)
class Case:
    """A model, its batch and loss, and the places at which it forks."""

    build: Callable[[float], nn.Module]
    batch: Any
    loss: Callable[[Any, Any], tuple[Tensor, int]]
    places: tuple[str, ...]


def transformer(dropout: float, *, pre_norm: bool) -> Transformer:
    sizes = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in SIZES.items()}
    config = TransformerConfig(
        **sizes,  # type: ignore[arg-type]
        dropout=dropout,
        attention_dropout=dropout,
        activation_dropout=dropout,
        encoder_normalize_before=pre_norm,
        decoder_normalize_before=pre_norm,
        share_all_embeddings=True,
    )
    return Transformer(config, source_vocabulary=VOCABULARY, target_vocabulary=VOCABULARY)


SIZES = {"layers": 2, "embed_dim": 12, "ffn_embed_dim": 16, "attention_heads": 3}


def text_loss(hidden: Tensor, model: Any, target: Tensor) -> tuple[Tensor, int]:
    target = target[target != PAD]
    return F.cross_entropy(F.linear(hidden, model.output_weight), target, reduction="sum"), len(target)


def pair_loss(model: Transformer, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, int]:
    return text_loss(model.features(*batch), model, seqba.per_copy(batch[1]))


def block_loss(model: TransformerLM, batch: Tensor) -> tuple[Tensor, int]:
    return text_loss(model.features(batch), model, seqba.per_copy(batch))


def window_loss(model: AWDLSTM, batch: Tensor) -> tuple[Tensor, int]:
    window, target = model.window(batch), seqba.per_copy(batch).flatten()
    logits = F.linear(window.hidden, model.output_weight, model.output_bias).flatten(0, 1)
    loss = F.cross_entropy(logits, target, reduction="sum") + window.raw.square().sum()
    return loss, len(target)


def image_loss(model: ImageClassifier, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, int]:
    mixup = seqba.nn.Mixup(1.0, 3).train()
    mixing = mixup.draw(len(batch[0]), batch[0].device)
    logits, labels = model(batch[0], mixing), seqba.per_copy(batch[1])
    mixing = mixing.repeated(len(labels) // len(batch[1]))
    loss = mixing.loss(lambda labels: F.cross_entropy(logits, labels, reduction="none"), labels)
    return loss.sum(), len(labels)


def small_classifier(dropout: float) -> ImageClassifier:
    norm = seqba.nn.GhostBatchNorm2d
    stages = [sequence({"conv": conv_norm_relu(convolution(width, 4, 3), norm)}) for width in (3, 4)]
    head = {"flatten": nn.Flatten(), "linear1": nn.Linear(64, 16), "relu1": nn.ReLU(inplace=True)}
    head |= {"dropout1": seqba.nn.Dropout(dropout), "linear2": nn.Linear(16, 5)}
    last = sequence({"conv": conv_norm_relu(convolution(4, 4, 3), norm), "head": sequence(head)})
    return ImageClassifier([*stages, last], image_size=4, first_dropout="dropout1")


PAIRS = (make_tokens((6, 3, 5), 1), make_tokens((4, 6, 2), 2))
IMAGES = (torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(5)).double(), torch.tensor([0, 3, 1, 2]))
CASES = {
    "transformer": Case(
        lambda dropout: transformer(dropout, pre_norm=False),
        PAIRS,
        pair_loss,
        ("encoder", "decoder-layer-1", "decoder-layer-2"),
    ),
    "pre-norm transformer": Case(
        lambda dropout: transformer(dropout, pre_norm=True), PAIRS, pair_loss, ("encoder", "decoder-layer-2")
    ),
    "transformer_lm": Case(
        lambda dropout: TransformerLM(
            DecoderConfig(
                **{f"decoder_{name}": value for name, value in SIZES.items()},  # type: ignore[arg-type]
                dropout=dropout,
                attention_dropout=dropout,
            ),
            vocabulary=VOCABULARY,
        ),
        PAIRS[0],
        block_loss,
        ("layer-1", "layer-2"),
    ),
    "awd_lstm": Case(
        lambda dropout: AWDLSTM(
            AWDLSTMConfig(
                decoder_layers=3,
                decoder_embed_dim=8,
                decoder_hidden_size=10,
                **dict.fromkeys(
                    ("dropout", "input_dropout", "hidden_dropout", "embedding_dropout", "weight_dropout"), dropout
                ),
            ),
            vocabulary=VOCABULARY,
        ),
        make_tokens((7, 7), 3),
        window_loss,
        ("layer-1", "layer-2", "layer-3", "head"),
    ),
    "classifier": Case(small_classifier, IMAGES, image_loss, ("head",)),
}
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


@pytest.mark.parametrize(("name", "place"), [pair for pair in PLACES if pair[0] != "classifier"])
@pytest.mark.parametrize("plan", ["stacked", "looped"])
def test_without_noise_a_fork_changes_nothing(name: str, place: str, plan: Any) -> None:
    plain = gradient(CASES[name], None, dropout=0.0, copies=1)
    assert relative_error(gradient(CASES[name], place, dropout=0.0, plan=plan), plain) < 1e-12


def test_without_noise_a_fork_at_the_head_changes_nothing() -> None:
    def loss(model: ImageClassifier, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, int]:
        logits, labels = model(batch[0]), seqba.per_copy(batch[1])
        return F.cross_entropy(logits, labels, reduction="sum"), len(labels)

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
    seqba.merged_gradient(model, PAIRS, pair_loss, copies=COPIES, update=2)
    assert torch.equal(gradient_of(model), gradient(CASES["transformer"], None, dropout=0.3))
