"""Attention written out on packed rows against torch's fused attention on padded ones."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import seqba.models.attention as attention
from seqba.models.attention import Attention
from seqba.models.unpadding import Packing
from seqba.nn.kernels import attention as kernel
from seqba.nn.kernels.attention import (
    LONGEST_KEYS,
    SHORT_ROWS,
    SHORTEST_KEYS,
    HeadLayout,
    packed_attention,
    suits_writing_out,
)
from seqba.nn.kernels.processor import Processor
from seqba.runtime.activations import SavedBytes

PAD, WIDTH, HEADS = 1, 12, 3
UNPADDED, PADDED, MEMORY = [5, 5, 5], [5, 2, 4], [4, 6, 1]
LONG, LONG_PADDED = [20, 20], [20, 17]


def packing(lengths: list[int]) -> Packing:
    tokens = torch.full((len(lengths), max(lengths)), PAD)
    for row, length in enumerate(lengths):
        tokens[row, :length] = 7
    return Packing(tokens, PAD)


def attended(module: Attention, queries: Packing, keys: Packing | None, *, causal: bool, dtype: torch.dtype) -> Tensor:
    """Outputs and all gradients of the module over random rows, one after the other."""
    torch.manual_seed(1)
    module.zero_grad()
    x = torch.randn(int(queries.mask.sum()), WIDTH, dtype=dtype, requires_grad=True)
    inputs = [x]
    if keys is None:
        output = module.attend_to_self(module.input_projection(x), queries, causal=causal)
    else:
        inputs.append(torch.randn(int(keys.mask.sum()), WIDTH, dtype=dtype, requires_grad=True))
        projected = module.memory_projection(inputs[1])
        output = module.attend_to_memory(module.query_projection(x), queries, projected, keys)
    (output * torch.randn(output.shape, dtype=dtype)).sum().backward()
    gradients = [tensor.grad for tensor in (*inputs, *module.parameters()) if tensor.grad is not None]
    return torch.cat([tensor.flatten() for tensor in (output.detach(), *gradients)])


@pytest.mark.parametrize(
    "lengths", [UNPADDED, PADDED, LONG, LONG_PADDED], ids=["short", "short padded", "long", "padded"]
)
@pytest.mark.parametrize("kind", ["self", "causal", "memory", "unpadded memory"])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_it_equals_the_fused_attention(
    kind: str, lengths: list[int], dtype: torch.dtype, bound: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    keys = {"memory": packing(MEMORY[: len(lengths)]), "unpadded memory": packing([18] * len(lengths))}.get(kind)
    module = Attention(WIDTH, HEADS, memory_dim=None if keys is None else WIDTH).to(dtype)
    results = []
    for is_written_out in (True, False):
        monkeypatch.setattr(attention, "suits_writing_out", lambda rows, keys, answer=is_written_out: answer)
        results.append(attended(module, packing(lengths), keys, causal=kind == "causal", dtype=dtype).double())
    assert (results[0] - results[1]).norm() < bound * results[1].norm()


def test_gradcheck_through_padding() -> None:
    torch.manual_seed(0)
    queries, keys = packing(PADDED), packing(MEMORY)
    layouts = queries.head_layout(HEADS), keys.head_layout(HEADS)
    query = torch.randn(11, 6, dtype=torch.float64, requires_grad=True)
    memory = torch.randn(11, 12, dtype=torch.float64, requires_grad=True)

    def attend(query: Tensor, memory: Tensor) -> Tensor:
        return packed_attention(query, memory, *layouts, causal=False)

    assert torch.autograd.gradcheck(attend, (query, memory))


def test_it_keeps_queries_keys_values_and_weights() -> None:
    layout = packing([SHORTEST_KEYS] * 3).head_layout(HEADS)
    rows = torch.randn(3 * SHORTEST_KEYS, 3 * WIDTH, requires_grad=True)
    saved = SavedBytes(nn.ModuleList())
    with saved.counting():
        packed_attention(rows, None, layout, layout, causal=True)
    assert saved.total == rows.nbytes + 4 * 3 * HEADS * SHORTEST_KEYS**2


@pytest.mark.parametrize("parts", [1, 3])
def test_heads_come_back_to_the_rows_that_they_were_spread_from(parts: int) -> None:
    places = packing(PADDED)
    layout = HeadLayout(places.mask, HEADS, places.index)
    rows = torch.randn(11, parts * WIDTH)
    grid = layout.spread(rows, parts)
    assert grid.shape == (parts, 3 * HEADS, SHORTEST_KEYS, WIDTH // HEADS)
    assert torch.equal(layout.gather(grid), rows)
    padded = places.pad(rows).view(3, 5, parts, HEADS, -1).permute(2, 0, 3, 1, 4)  # (parts, B, H, T, d)
    there = places.mask[None, :, None, :, None].expand_as(padded)
    spread = grid.view(parts, 3, HEADS, SHORTEST_KEYS, -1)[:, :, :, :5]
    assert torch.equal(spread[there], padded[there])


def test_it_is_for_bfloat16_on_a_cpu_and_rows_that_are_not_too_long() -> None:
    narrow = torch.empty(0, dtype=torch.bfloat16)
    assert suits_writing_out(narrow, LONGEST_KEYS)
    assert not suits_writing_out(narrow, LONGEST_KEYS + 1)
    assert not suits_writing_out(narrow.float(), 5)
    assert not suits_writing_out(narrow.to("meta"), 5)


@pytest.mark.parametrize(
    ("vendor", "feature", "is_for_short_rows"),
    [
        ("AuthenticAMD", "avx512f", True),
        ("AuthenticAMD", "avx2", False),
        ("GenuineIntel", "avx512f", True),
        ("GenuineIntel", "avx2", False),
    ],
)
def test_in_float32_it_is_for_short_rows_on_processors_with_avx512(
    vendor: str, feature: str, is_for_short_rows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "processor", lambda: Processor(vendor, frozenset([feature])))
    rows = torch.empty(1)
    assert (
        suits_writing_out(rows, SHORT_ROWS.start) is suits_writing_out(rows, SHORT_ROWS.stop - 1) is is_for_short_rows
    )
    assert not suits_writing_out(rows, SHORT_ROWS.start - 1)
    assert not suits_writing_out(rows, SHORT_ROWS.stop)
    assert not suits_writing_out(rows.double(), SHORT_ROWS.start)


def test_dropout_on_the_weights_and_evaluation_have_their_own_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "packed_attention", lambda *_, **__: pytest.fail("written out"))
    queries = packing(PADDED)
    rows = torch.randn(11, 3 * WIDTH, dtype=torch.bfloat16)
    dropping = Attention(WIDTH, HEADS, dropout=0.5).bfloat16()
    assert dropping.attend_to_self(rows, queries, causal=True).shape == (11, WIDTH)
    with torch.no_grad():
        Attention(WIDTH, HEADS).bfloat16().attend_to_self(rows, queries, causal=True)
