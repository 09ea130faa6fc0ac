"""Blocks of text: worked by hand, and against a plain reading of fairseq's rules."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seqba.data.blocks import Blocks
from seqba.data.indexed import IndexedCorpus, JoinedCorpus
from seqba.data.indexed_writer import IndexedWriter

BOS, PAD, EOS = 0, 1, 2
TEXT = [[4, 5, 2], [6, 7, 8, 2], [9, 2], [10, 11, 12, 2]]


def write(prefix: Path, rows: Sequence[Sequence[int]]) -> IndexedCorpus:
    with IndexedWriter(prefix, 100) as writer:
        for row in rows:
            writer.add(row)
    return IndexedCorpus(prefix)


def rows_of(blocks: Blocks, rows: Sequence[int] | None = None) -> tuple[list[list[int]], list[list[int]]]:
    batch = blocks.batch(np.arange(len(blocks)) if rows is None else np.array(rows))
    return batch.previous.tolist(), batch.target.tolist()


def test_blocks_of_running_text_worked_by_hand(tmp_path: Path) -> None:
    blocks = Blocks(write(tmp_path / "x", TEXT), 5)
    assert blocks.sizes.tolist() == blocks.predicted.tolist() == [5, 5, 3]
    previous, target = rows_of(blocks)
    assert previous == [[2, 4, 5, 2, 6], [7, 8, 2, 9, 2], [10, 11, 12, 1, 1]]
    assert target == [[4, 5, 2, 6, 7], [8, 2, 9, 2, 10], [11, 12, 2, 1, 1]]


def test_lines_worked_by_hand(tmp_path: Path) -> None:
    blocks = Blocks(write(tmp_path / "x", TEXT), 3, break_mode="eos")
    assert blocks.sizes.tolist() == [3, 4, 2, 4]  # whole, however long
    previous, target = rows_of(blocks, [2, 1])
    assert previous == [[2, 9, 1, 1], [2, 6, 7, 8]]
    assert target == [[9, 2, 1, 1], [6, 7, 8, 2]]


def test_a_bos_is_read_and_not_predicted(tmp_path: Path) -> None:
    blocks = Blocks(write(tmp_path / "x", TEXT), 5, add_bos=True)
    assert (blocks.sizes.tolist(), blocks.predicted.tolist()) == ([6, 6, 4], [5, 5, 3])
    previous, target = rows_of(blocks, [2, 0])
    assert previous == [[0, 10, 11, 12, 1, 1], [0, 2, 4, 5, 2, 6]]
    assert target == [[1, 11, 12, 2, 1, 1], [1, 4, 5, 2, 6, 7]]


def test_context_is_read_again_and_not_predicted(tmp_path: Path) -> None:
    blocks = Blocks(write(tmp_path / "x", TEXT), 5, context=2)
    assert blocks.sizes.tolist() == [5, 7, 5]  # nothing comes before the first
    previous, target = rows_of(blocks)
    assert previous == [[2, 4, 5, 2, 6, 1, 1], [2, 6, 7, 8, 2, 9, 2], [9, 2, 10, 11, 12, 1, 1]]
    assert target == [[4, 5, 2, 6, 7, 1, 1], [1, 1, 8, 2, 9, 2, 10], [1, 1, 11, 12, 2, 1, 1]]


def test_bos_stands_before_the_context(tmp_path: Path) -> None:
    previous, target = rows_of(Blocks(write(tmp_path / "x", TEXT), 5, context=1, add_bos=True), [2])
    assert (previous, target) == ([[0, 2, 10, 11, 12]], [[1, 1, 11, 12, 2]])


def test_context_of_lines_is_what_the_longest_row_leaves_room_for(tmp_path: Path) -> None:
    blocks = Blocks(write(tmp_path / "x", TEXT), 5, break_mode="eos", context=3, longest=5)
    assert blocks.sizes.tolist() == [3, 5, 5, 5]
    previous, target = rows_of(blocks, [3])
    assert (previous, target) == ([[9, 2, 10, 11, 12]], [[1, 10, 11, 12, 2]])
    over = Blocks(write(tmp_path / "x", TEXT), 5, break_mode="eos", context=3, longest=2)
    assert over.sizes.tolist() == [3, 4, 2, 4]


def test_parts_are_cut_apart(tmp_path: Path) -> None:
    parts = [write(tmp_path / "a", TEXT[:1]), write(tmp_path / "b", TEXT[1:])]
    blocks = Blocks(JoinedCorpus(parts), 5)
    assert blocks.sizes.tolist() == [3, 5, 5]
    previous, target = rows_of(blocks)
    assert previous == [[2, 4, 5, 1, 1], [2, 6, 7, 8, 2], [9, 2, 10, 11, 12]]
    assert target == [[4, 5, 2, 1, 1], [6, 7, 8, 2, 9], [2, 10, 11, 12, 2]]


def test_the_word_pad_is_no_padding(tmp_path: Path) -> None:
    previous, target = rows_of(Blocks(write(tmp_path / "x", [[4, 1, 5, 2]]), 4))
    assert (previous, target) == ([[2, 4, 3, 5]], [[4, 3, 5, 2]])


def reference(rows: list[list[int]], size: int, break_mode: str, context: int) -> list[tuple[list[int], list[int]]]:
    """fairseq's three data sets, one token after the other: (source, target) of each block, context in front."""
    text = [token for row in rows for token in row]
    if break_mode == "none":
        slices = [(start, min(start + size, len(text))) for start in range(0, len(text), size)]
    else:
        ends = np.cumsum([len(row) for row in rows]).tolist()
        slices = list(zip([0, *ends[:-1]], ends, strict=True))
    found, seen = [], []  # type: ignore[var-annotated]
    for start, end in slices:
        source = [EOS, *text][start:end]
        seen = seen[max(0, len(seen) + len(source) - (size + context)) :]
        found.append((seen + source, [PAD] * len(seen) + text[start:end]))
        seen = (seen + source)[-context:] if context else []
    return found


@pytest.mark.parametrize("break_mode", ["none", "eos"])
@pytest.mark.parametrize("context", [0, 1, 7])
@pytest.mark.parametrize("size", [1, 4, 9, 64])
def test_blocks_are_those_of_fairseq(break_mode: str, context: int, size: int, tmp_path: Path) -> None:
    random = np.random.default_rng(size + context)
    text: list[list[int]] = [[*random.integers(4, 50, random.integers(0, 12)).tolist(), EOS] for _ in range(40)]
    blocks = Blocks(write(tmp_path / "x", text), size, break_mode=break_mode, context=context, longest=size + context)
    expected = reference(text, size, break_mode, context)
    assert len(blocks) == len(expected)
    assert blocks.sizes.tolist() == [len(source) for source, _ in expected]
    order = random.permutation(len(blocks))
    batch = blocks.batch(order)
    assert batch.ids.tolist() == order.tolist()
    for row, previous, target in zip(order, batch.previous.tolist(), batch.target.tolist(), strict=True):
        source, goal = expected[row]
        filling = [PAD] * (len(previous) - len(source))
        assert (previous, target) == (source + filling, goal + filling)


@pytest.mark.parametrize("options", [{}, {"break_mode": "eos"}, {"context": 3}, {"add_bos": True}])
def test_every_token_is_predicted_once(options: dict[str, Any], tmp_path: Path) -> None:
    blocks = Blocks(write(tmp_path / "x", TEXT), 5, **options)
    batch = blocks.batch(np.arange(len(blocks)))
    assert batch.target[batch.target != PAD].tolist() == [token for row in TEXT for token in row]
    assert batch.target_tokens == int(blocks.predicted.sum()) == 13
    assert int((batch.previous != PAD).sum()) == int(blocks.sizes.sum())
    assert {tensor.dtype for tensor in (batch.ids, batch.previous, batch.target)} == {torch.int64}


def test_another_break_mode_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="break_mode is 'complete'"):
        Blocks(write(tmp_path / "x", TEXT), 5, break_mode="complete")
