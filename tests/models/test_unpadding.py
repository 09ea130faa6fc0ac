"""Spare rows: products of many batches have few shapes, and nothing else changes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from model_cases import CASES, COPIES, Case
from small_network import gradient_of, relative_error
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from toy_transformer import PAD, VOCABULARY, make_batch, make_model

import seqba
from seqba.core import Noise, noise_context
from seqba.data.batching import plan_epoch
from seqba.models import unpadding
from seqba.models.unpadding import Packing
from seqba.nn.kernels import recurring

PLACES = [
    (name, place)
    for name in ("transformer", "pre-norm transformer", "transformer_lm")
    for place in (None, *CASES[name].places)
]


@contextmanager
def spare_rows(monkeypatch: pytest.MonkeyPatch, *, enabled: bool) -> Iterator[None]:
    """Inside, every dtype gets spare rows, or none does."""
    with monkeypatch.context() as patch:
        for module in (recurring, unpadding):
            patch.setattr(module, "compiles_each_shape", lambda dtype, device: enabled)
        yield


class ProductShapes(TorchDispatchMode):
    """Records the shapes of all products of two matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[Any, ...]] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.overloadpacket.__name__ in ("mm", "addmm", "_linear_pointwise"):
            self.seen.add((function, *(tuple(each.shape) for each in args if isinstance(each, Tensor))))
        return function(*args, **(kwargs or {}))


def test_numbers_of_rows_recur_in_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(1)
    target = generator.normal(15, 5, 30_000).round().clip(2, 60).astype(np.int32)
    source = (target + generator.integers(-4, 5, len(target))).clip(1).astype(np.int32)
    plan = plan_epoch(source, target, seed=1, epoch=1, max_tokens=4096)
    lengths = [torch.from_numpy(source[plan[number]]) for number in range(len(plan))]

    def row_counts(*, enabled: bool) -> int:
        with spare_rows(monkeypatch, enabled=enabled):
            counts = set()
            for rows in lengths:
                tokens = torch.where(torch.arange(int(rows.max())) < rows[:, None], 7, PAD)
                counts.add(len(Packing(tokens, PAD, dtype=torch.float64).positions))
        return len(counts)

    assert 2 * row_counts(enabled=True) < row_counts(enabled=False)


@pytest.mark.parametrize("enabled", [True, False])
def test_products_of_another_batch_have_the_shapes_of_the_first(enabled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In updates, the loss included: 28 and 30 source tokens, 29 and 30 target tokens. Without spare rows none has."""

    def loss(model: Any, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, int]:
        hidden, target = model.features(*batch), batch[1][batch[1] != PAD]
        return seqba.nn.label_smoothed_cross_entropy(hidden, model.output_weight, target)[0], len(target)

    def shapes(lengths: list[tuple[int, int]]) -> set[Any]:
        model = make_model(share_all_embeddings=True, dropout=0.1)
        with spare_rows(monkeypatch, enabled=enabled), ProductShapes() as products:
            seqba.merged_gradient(model, make_batch(lengths), loss, copies=2, plan="looped")
        return products.seen

    first, second = shapes([(12, 12), (9, 8), (7, 9)]), shapes([(12, 12), (10, 8), (8, 10)])
    assert (first == second) if enabled else not first & second


@pytest.mark.parametrize(("name", "place"), PLACES)
@pytest.mark.parametrize("plan", ["stacked", "looped"])
def test_spare_rows_change_no_gradient(
    name: str, place: str | None, plan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same draws for the same tokens, and no part in the loss, in all plans and forks."""
    case: Case = CASES[name]

    def gradient(*, enabled: bool) -> Tensor:
        torch.manual_seed(1)
        model: Any = case.build(0.3).double()
        model.fork_at(place)
        with spare_rows(monkeypatch, enabled=enabled):
            seqba.merged_gradient(
                model, case.batch, case.loss, copies=COPIES, update=2, plan=plan, forked=place is not None
            )
        return gradient_of(model)

    assert relative_error(gradient(enabled=True), gradient(enabled=False)) < 1e-12


def test_they_change_nothing_of_copies_with_rows_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """As subword sampling makes them: each copy has its own spare rows, behind its own tokens."""
    model = make_model(dropout=0.3, attention_dropout=0.1)
    source, previous = make_batch([(12, 12), (9, 8), (7, 9), (12, 11)])  # 21 + 19 and 20 + 20 tokens
    names = {id(module): name for name, module in model.named_modules()}

    def features(*, enabled: bool) -> Tensor:
        noise = Noise(0, 0, 0, (0, 1), names, copies_differ=True)
        with spare_rows(monkeypatch, enabled=enabled), noise_context(noise):
            features: Tensor = model.features(source, previous)
        return features

    torch.testing.assert_close(features(enabled=True), features(enabled=False))


def test_spare_rows_stand_behind_the_tokens_of_their_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = torch.tensor([[5, 6, PAD, PAD], [7, PAD, PAD, PAD], [PAD, PAD, PAD, PAD]])
    with spare_rows(monkeypatch, enabled=True), noise_context(Noise(0, 0, 0, (0, 1))):
        packing = Packing(tokens.repeat(2, 1), PAD, dtype=torch.float64)
    assert packing.index is not None
    # Rows without a token have nothing to attend to, and the grid has no more than five places in the others.
    assert packing.index.tolist() == [0, 1, 4, 2, 3, 5, 6, 7, 12, 13, 16, 14, 15, 17, 18, 19]
    rows = torch.arange(16.0).unsqueeze(1)
    assert packing.without_spare(rows).flatten().tolist() == [0, 1, 2, 8, 9, 10]


def test_rows_that_are_no_copies_of_the_pass_are_one_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """A teacher's, say, which reads in the loss what it likes: three rows in a pass of two copies."""
    tokens = torch.tensor([[5, 6, PAD, PAD], [7, PAD, PAD, PAD], [8, 9, 7, PAD]])
    with spare_rows(monkeypatch, enabled=True), noise_context(Noise(0, 0, 0, (0, 1))):
        packing = Packing(tokens, PAD, dtype=torch.float64)
    assert packing.index is not None
    assert packing.index.tolist() == [0, 1, 4, 8, 9, 10, 2, 3, 5, 6, 7, 11]


@pytest.mark.parametrize("keys", [3, 20])
def test_attention_takes_them_written_out_and_fused(keys: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both branches, for outputs of tokens alone: rows of more and of fewer keys than a vector has."""
    model = make_model()
    tokens = torch.randint(4, VOCABULARY, (3, keys), generator=torch.Generator().manual_seed(2))
    tokens[1, keys // 2 :] = tokens[2, 1:] = PAD

    def features(*, written_out: bool, enabled: bool) -> Tensor:
        monkeypatch.setattr("seqba.models.attention.suits_writing_out", lambda rows, keys: written_out)
        with spare_rows(monkeypatch, enabled=enabled):
            return model.features(tokens, tokens)

    expected = features(written_out=False, enabled=False)
    for written_out in (True, False):
        torch.testing.assert_close(features(written_out=written_out, enabled=True), expected)
