"""Models for the benchmarks of forks, what they learn from, and the places at which their copies may begin."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from workload import SIZES, Size, build_ours, shifted, training_batches

import seqba
from seqba.data.dictionary import Dictionary
from seqba.data.pairs import PairBatch
from seqba.models.awd_lstm import AWDLSTM
from seqba.models.builders import build_image_classifier
from seqba.models.config import AWDLSTMConfig
from seqba.models.families import resolve_image_classifier
from seqba.models.options import ImageClassifierOptions
from seqba.nn import label_smoothed_cross_entropy

F = nn.functional


@dataclass(frozen=True)
class Case:
    """A model, what it learns from, and the forks that make sense in it.

    Attributes:
        build: makes it.
        batches: so many batches; single examples come from the first.
        loss: of the model and a batch: (sum, weight).
        forks: places, each with f, the share of multiplications below it.
        rows: a batch, and which rows of it are kept → these.
    """

    build: Callable[[], Any]
    batches: Callable[[int], list[Any]]
    loss: Callable[[Any, Any], tuple[Tensor, float]]
    forks: Mapping[str, float]
    rows: Callable[[Any, slice], Any]


def transformer(size: Size, *, vocabulary: int, max_tokens: int) -> Case:
    """A Transformer that repeats its source."""

    def batches(count: int) -> list[PairBatch]:
        drawn = training_batches(count, max_tokens=max_tokens, vocabulary=vocabulary)
        return [PairBatch(each.ids, each.source, shifted(each.source), each.source) for each in drawn]

    def loss(model: Any, batch: PairBatch) -> tuple[Tensor, float]:
        hidden, targets = model.features(batch.source, batch.previous), seqba.per_copy(batch.target)
        target = targets[targets != Dictionary.pad]
        total, _ = label_smoothed_cross_entropy(hidden, model.output_weight, target, smoothing=0.1)
        return total, float(len(target))

    square, wide, layers = size.embed_dim**2, size.embed_dim * size.ffn_dim, size.layers
    encoder, memory, decoder = 4 * square + 2 * wide, 2 * square, 6 * square + 2 * wide  # for each token and layer
    whole = layers * (encoder + memory + decoder) + size.embed_dim * vocabulary
    below = layers * (encoder + memory)
    places = {"encoder": below / whole, f"decoder-layer-{layers}": (below + (layers - 1) * decoder) / whole}
    return Case(
        lambda: build_ours(size, vocabulary=vocabulary),
        batches,
        loss,
        places,
        lambda batch, part: PairBatch(
            *(rows[part] for rows in (batch.ids, batch.source, batch.previous, batch.target))
        ),
    )


def awd_lstm(*, layers: int, embed_dim: int, hidden: int, vocabulary: int, rows: int, length: int) -> Case:
    """An AWD-LSTM on words that follow each other in a fixed order, with a fifth of them random."""

    def batches(count: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed(1)
        follower = torch.randperm(vocabulary, generator=generator)
        made = []
        for _ in range(count):
            text = torch.randint(vocabulary, (rows, length + 1), generator=generator)
            is_random = torch.rand(text.shape, generator=generator) < 0.2
            for place in range(1, length + 1):
                text[:, place] = torch.where(is_random[:, place], text[:, place], follower[text[:, place - 1]])
            made.append(text)
        return made

    def loss(model: AWDLSTM, text: Tensor) -> tuple[Tensor, float]:
        window, target = model.window(text[:, :-1]), seqba.per_copy(text[:, 1:]).flatten()
        total, _ = label_smoothed_cross_entropy(
            window.hidden.flatten(0, 1), model.output_weight, target, bias=model.output_bias
        )
        return total, float(len(target))

    sizes = [embed_dim, *[hidden] * (layers - 1), embed_dim]
    products = [4 * sizes[number + 1] * (sizes[number] + sizes[number + 1]) for number in range(layers)]
    whole = sum(products) + embed_dim * vocabulary
    below = {f"layer-{number + 1}": sum(products[:number]) / whole for number in range(layers)}
    return Case(
        lambda: AWDLSTM(
            AWDLSTMConfig(decoder_layers=layers, decoder_embed_dim=embed_dim, decoder_hidden_size=hidden),
            vocabulary=vocabulary,
        ),
        batches,
        loss,
        {**below, "head": sum(products) / whole},
        lambda text, part: text[part],
    )


def image_network(arch: str, *, side: int, rows: int) -> Case:
    """A network with dropout in its head, on random pictures with a colour for each class; views aren't drawn."""

    def build() -> Any:
        return build_image_classifier(arch, resolve_image_classifier(arch, ImageClassifierOptions()), 10, side)

    def batches(count: int) -> list[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(1)
        colours = torch.randn(10, 3, 1, 1, generator=generator)
        labels = [torch.randint(10, (rows,), generator=generator) for _ in range(count)]
        return [(colours[each] + torch.randn(rows, 3, side, side, generator=generator), each) for each in labels]

    def loss(model: Any, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, float]:
        logits, labels = model(batch[0]), seqba.per_copy(batch[1])
        return F.cross_entropy(logits, labels, reduction="sum"), float(len(labels))

    return Case(
        build,
        batches,
        loss,
        {"head": _share_below_head(build(), side)},
        lambda batch, part: (batch[0][part], batch[1][part]),
    )


def _share_below_head(model: Any, side: int) -> float:
    """Share of the multiplications that convolutions and linear layers make before the head's first dropout."""
    made = {True: 0, False: 0}
    below, _ = model._split_last_stage(model.first_dropout)
    lower = {id(module) for part in (*model.stages[:-1], *below) for module in part.modules()}

    def count(module: Any, _inputs: Any, output: Tensor) -> None:
        places = output[0, 0].numel() if output.dim() > 2 else 1
        made[id(module) in lower] += places * module.weight.numel()

    hooks = [
        module.register_forward_hook(count) for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Linear))
    ]
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, side, side))
    for hook in hooks:
        hook.remove()
    return made[True] / sum(made.values())


def case_of(name: str, *, quick: bool, max_tokens: int) -> Case:
    """The case of that name; tiny ones for a look whether it runs."""
    if name in SIZES:
        tiny = quick or name == "tiny"
        size = Size(layers=2, embed_dim=32, ffn_dim=64, heads=2) if tiny else SIZES[name]
        return transformer(
            size,
            vocabulary=100 if tiny else 32000 if name == "base" else 8000,
            max_tokens=128 if tiny else max_tokens,
        )
    if name == "awd_lstm_small":
        if quick:
            return awd_lstm(layers=2, embed_dim=8, hidden=12, vocabulary=50, rows=4, length=7)
        return awd_lstm(layers=3, embed_dim=200, hidden=400, vocabulary=5000, rows=20, length=35)
    if name == "awd_lstm":
        return awd_lstm(layers=3, embed_dim=400, hidden=1150, vocabulary=10000, rows=20, length=70)
    side = {"vgg16_bn": 32, "alexnet": 63 if quick else 224}[name]
    return image_network(name, side=side, rows=4 if quick else {"vgg16_bn": 32, "alexnet": 8}[name])
