"""What the benchmarks run on: model sizes, batches with the lengths of Multi30k, and the operations they cost.

The lengths stand here as numbers, so that no benchmark needs the corpus. Words are drawn at random: no timing
depends on them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from seqba.core import per_copy
from seqba.data.batching import plan_epoch
from seqba.data.dictionary import Dictionary
from seqba.data.pairs import PairBatch
from seqba.models.builders import build_transformer
from seqba.models.families import resolve_transformer
from seqba.models.options import TransformerOptions
from seqba.models.transformer import Transformer
from seqba.nn import label_smoothed_cross_entropy
from seqba.nn.kernels.places import TokenCounts, without_padding
from seqba.noise.fork import copies_at_fork

T = TypeVar("T")
VOCABULARY = 8000
SMOOTHING = 0.1
DROPOUT = 0.1
FIRST_WORD = 4
PAIRS = 1 << 15

# source:target pieces of English-German Multi30k, </s> counted, under a joint SentencePiece BPE of 8,000 trained on
# its training text: every 145th pair of the 29,000 sorted by target length, then every 10th of test_2016_flickr's
# 1,000 sorted likewise.
TRAINING_LENGTHS = """
10:6 8:7 7:8 8:8 9:8 9:8 10:8 12:8 8:9 9:9 9:9 10:9 10:9 11:9 11:9 12:9 17:9 9:10 9:10 10:10 10:10 10:10 11:10
11:10 11:10 12:10 12:10 13:10 15:10 9:11 10:11 10:11 11:11 11:11 11:11 11:11 12:11 12:11 12:11 12:11 13:11 13:11
14:11 17:11 10:12 10:12 11:12 11:12 11:12 12:12 12:12 12:12 12:12 13:12 13:12 13:12 14:12 14:12 15:12 16:12 9:13
10:13 11:13 11:13 12:13 12:13 12:13 13:13 13:13 13:13 13:13 14:13 14:13 14:13 15:13 15:13 16:13 17:13 10:14
11:14 12:14 12:14 13:14 13:14 13:14 14:14 14:14 14:14 14:14 15:14 15:14 15:14 16:14 17:14 18:14 11:15 12:15
13:15 13:15 14:15 14:15 14:15 15:15 15:15 15:15 16:15 16:15 16:15 17:15 18:15 21:15 12:16 13:16 14:16 14:16
14:16 15:16 15:16 16:16 16:16 16:16 17:16 18:16 18:16 20:16 12:17 13:17 14:17 15:17 15:17 16:17 16:17 17:17
17:17 18:17 18:17 19:17 22:17 13:18 14:18 15:18 16:18 16:18 17:18 18:18 18:18 19:18 20:18 22:18 14:19 15:19
16:19 17:19 18:19 18:19 19:19 20:19 22:19 13:20 16:20 17:20 18:20 19:20 20:20 21:20 22:20 15:21 17:21 18:21
19:21 21:21 22:21 25:21 17:22 19:22 20:22 21:22 23:22 15:23 19:23 21:23 23:23 12:24 20:24 22:24 25:24 19:25
22:25 26:25 21:26 24:26 19:27 25:27 23:28 20:29 31:29 30:30 24:32 28:34 32:39
"""
TEST_LENGTHS = """
9:7 8:8 9:8 11:8 8:9 9:9 10:9 11:9 13:9 10:10 10:10 10:10 11:10 12:10 12:10 16:10 10:11 11:11 11:11 11:11 12:11
12:11 12:11 13:11 11:12 12:12 12:12 13:12 13:12 13:12 14:12 14:12 16:12 10:13 11:13 12:13 13:13 13:13 13:13
14:13 15:13 15:13 17:13 11:14 12:14 13:14 14:14 14:14 15:14 15:14 16:14 11:15 13:15 14:15 14:15 15:15 15:15
16:15 18:15 13:16 14:16 15:16 16:16 17:16 17:16 18:16 20:16 14:17 15:17 16:17 17:17 17:17 18:17 21:17 14:18
16:18 17:18 18:18 20:18 16:19 17:19 19:19 22:19 16:20 19:20 20:20 14:21 20:21 28:21 19:22 22:22 25:22 22:23
22:24 21:25 19:27 24:28 24:30 30:32 34:36
"""


@dataclass(frozen=True)
class Size:
    """A Transformer's sizes, the same on both sides."""

    layers: int
    embed_dim: int
    ffn_dim: int
    heads: int


SIZES = {
    "base": Size(layers=6, embed_dim=512, ffn_dim=2048, heads=8),
    "small": Size(layers=3, embed_dim=256, ffn_dim=1024, heads=4),
    "tiny": Size(layers=1, embed_dim=32, ffn_dim=64, heads=2),
}


def lengths(table: str) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """A table above → source lengths and target lengths."""
    pairs = np.array([pair.split(":") for pair in table.split()], dtype=np.int32)
    return pairs[:, 0].copy(), pairs[:, 1].copy()


def training_batches(count: int, *, max_tokens: int, vocabulary: int = VOCABULARY) -> list[PairBatch]:
    """The first `count` batches of an epoch as seqba-train plans it: similar lengths together, in random order.

    Both sides of a comparison get these; sorting by length leaves little padding, which favours whoever pays for it.
    """
    source, target = lengths(TRAINING_LENGTHS)
    drawn = np.random.default_rng(1).integers(len(source), size=PAIRS)
    source, target = source[drawn], target[drawn]
    plan = plan_epoch(source, target, seed=1, epoch=1, max_tokens=max_tokens)
    generator = torch.Generator().manual_seed(1)
    rows = [plan[number] for number in range(count)]
    return [pair_batch(source[part], target[part], vocabulary, generator) for part in rows]


def pair_batch(
    source_lengths: NDArray[np.int32], target_lengths: NDArray[np.int32], vocabulary: int, generator: torch.Generator
) -> PairBatch:
    """Random words in rows of these lengths, </s> counted."""
    source = random_rows(source_lengths, vocabulary, generator)
    target = random_rows(target_lengths, vocabulary, generator)
    counts = source_lengths.tolist(), target_lengths.tolist()
    return PairBatch(torch.arange(len(source)), source, shifted(target), target, *counts)


def random_rows(row_lengths: NDArray[np.int32], vocabulary: int, generator: torch.Generator) -> torch.Tensor:
    """(B, L) int64: random words, </s>, padding on the right."""
    tokens = torch.randint(FIRST_WORD, vocabulary, (len(row_lengths), int(row_lengths.max())), generator=generator)
    last = torch.from_numpy(row_lengths.astype(np.int64) - 1).unsqueeze(1)
    column = torch.arange(tokens.shape[1])
    return tokens.masked_fill_(column == last, Dictionary.eos).masked_fill_(column > last, Dictionary.pad)


def shifted(target: torch.Tensor) -> torch.Tensor:
    """What the decoder reads while it learns to say `target`: </s> y1 … yn."""
    previous = target.roll(1, dims=1)
    previous[:, 0] = Dictionary.eos
    return previous.masked_fill_(target == Dictionary.pad, Dictionary.pad)


def build_ours(size: Size, *, vocabulary: int = VOCABULARY, dropout: float = DROPOUT) -> Transformer:
    """seqba's post-norm Transformer of this size, one matrix for all embeddings."""
    options = TransformerOptions(
        encoder_layers=size.layers,
        decoder_layers=size.layers,
        encoder_embed_dim=size.embed_dim,
        encoder_ffn_embed_dim=size.ffn_dim,
        encoder_attention_heads=size.heads,
        decoder_attention_heads=size.heads,
        dropout=dropout,
        share_all_embeddings=True,
    )
    return build_transformer(resolve_transformer("transformer_wmt_en_de", options), vocabulary, vocabulary)


def cut(batch: PairBatch, parts: int) -> list[PairBatch]:
    """The rows of a batch as several smaller ones, each padded to its own longest row."""
    pieces = zip(*(rows.chunk(parts) for rows in (batch.ids, batch.source, batch.previous, batch.target)), strict=True)
    return [PairBatch(ids, _trimmed(source), _trimmed(prev), _trimmed(target)) for ids, source, prev, target in pieces]


def _trimmed(tokens: torch.Tensor) -> torch.Tensor:
    return tokens[:, : int((tokens != Dictionary.pad).sum(1).max())]


def fused_loss(model: torch.nn.Module, batch: PairBatch) -> tuple[torch.Tensor, float]:
    """The translation task's loss: a sum and the target tokens that it runs over."""
    assert isinstance(model, Transformer)
    tokens = TokenCounts(batch.source_tokens, batch.known_target_tokens)
    hidden = model.features(batch.source, batch.previous, tokens)
    targets = per_copy(batch.target)
    target = without_padding(targets, Dictionary.pad, tokens.times(copies_at_fork()).target)
    loss, _ = label_smoothed_cross_entropy(hidden, model.output_weight, target, smoothing=SMOOTHING)
    return loss, float(len(target))


def under_autocast(loss: Callable[..., T], dtype: torch.dtype | None, device: str = "cpu") -> Callable[..., T]:
    """A loss whose forward runs under autocast in `dtype`; itself for None."""
    return loss if dtype is None else torch.autocast(device, dtype)(loss)


def training_flops(size: Size, batch: PairBatch, *, vocabulary: int = VOCABULARY) -> float:
    """Operations in the products of one forward and backward over the batch, none of them on padding.

    6 per token and parameter (2 forward, 4 backward), for the parameters that multiply this token: the decoder's key
    and value matrices of the source multiply source tokens. Attention's two products per pair of positions that see
    each other, T·(T+1)/2 of them in the decoder, come on top. Everything else (norms, dropout, softmax, the optimizer)
    counts as nothing.
    """
    width, layers = size.embed_dim, size.layers
    source = (batch.source != Dictionary.pad).sum(1).double()
    target = (batch.target != Dictionary.pad).sum(1).double()
    feed_forward = 2 * width * size.ffn_dim
    per_source = layers * (4 * width**2 + feed_forward + 2 * width**2)
    per_target = layers * (6 * width**2 + feed_forward) + width * vocabulary
    pairs = (source**2 + target * (target + 1) / 2 + source * target).sum()
    products = source.sum() * per_source + target.sum() * per_target
    return float(6 * products + 12 * layers * width * pairs)
