"""Small models in which copies may begin: each with a batch, a loss, and the places for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import seqba
from seqba.models.awd_lstm import AWDLSTM
from seqba.models.classifier import ImageClassifier, conv_norm_relu, convolution, sequence
from seqba.models.config import AWDLSTMConfig, DecoderConfig, TransformerConfig
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
