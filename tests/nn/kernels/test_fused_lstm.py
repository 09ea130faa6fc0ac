"""The LSTM of a GPU, on the CPU: Triton's kernels in its interpreter against torch's form of the same layer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from seqba.nn.kernels.fused_lstm import has_fused_cell

ROOT = Path(__file__).resolve().parents[3]

WORLD = """
import torch
from seqba.nn.kernels import fused_lstm, lstm_cell, masked_lstm as kernel
from seqba.nn.kernels.casts import shared_casts

def arguments(copies, rows, length, inputs, size, dtype=torch.float32):
    generator = torch.Generator().manual_seed(7)
    shapes = (copies * rows, length, inputs), (copies * rows, size), (copies * rows, size), (4 * size, inputs), (
        4 * size, size), (4 * size,)
    drawn = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    kept = (torch.rand(copies, 4 * size, size, generator=generator) > 0.4).to(torch.int8)
    return [tensor.to(dtype).requires_grad_() for tensor in drawn], kept

def run(fused, tensors, kept):
    kernel.has_fused_cell = lambda device: fused
    x, h, c, *weights = tensors
    y, last = kernel.masked_lstm(x, (h, c), *weights, kept, 1 / 0.6)
    return y, *last

def gradients(outputs, tensors):
    generator = torch.Generator().manual_seed(1)
    drawn = [torch.randn(part.shape[::-1], generator=generator).to(part.dtype) for part in outputs]
    upstream = [part.permute(tuple(range(part.dim()))[::-1]) for part in drawn]  # as of a transposed state
    return torch.autograd.grad(outputs, tensors, upstream, retain_graph=True)
"""

AGREE = """
for sizes, dtype, tolerance in (
    ((3, 2, 5, 4, 6), torch.float64, 1e-12),
    ((1, 3, 1, 2, 5), torch.float32, 1e-5),
    ((2, 1, 2, 5, 300), torch.float32, 1e-4),
):
    tensors, kept = arguments(*sizes, dtype)
    before = [tensor.clone() for tensor in tensors]
    one, other = run(True, tensors, kept), run(False, tensors, kept)
    first = gradients(one, tensors)
    for got, expected in zip((*one, *first), (*other, *gradients(other, tensors)), strict=True):
        assert got.dtype == dtype
        torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)
    assert all(map(torch.equal, first, gradients(one, tensors))), "a second backward finds something else"
    assert all(map(torch.equal, tensors, before)), "an argument was written to"
    assert all(map(torch.equal, run(True, tensors, kept), one)), "not repeatable"
"""

BFLOAT16 = """
tensors, kept = arguments(2, 3, 4, 5, 40)
exact = run(True, tensors, kept)
with shared_casts(), torch.autocast("cpu", torch.bfloat16):
    narrow = run(True, tensors, kept)
    other = run(False, tensors, kept)
torch.autograd.grad(narrow[0].sum(), tensors, retain_graph=True)  # one number, seen from every place
for got, near, expected in zip(
    (*narrow, *gradients(narrow, tensors)),
    (*other, *gradients(other, tensors)),
    (*exact, *gradients(exact, tensors)),
    strict=True,
):
    assert got.dtype == torch.float32
    assert 0 < (got - expected).norm() < 0.1 * expected.norm()
    assert (got - expected).norm() < 1.5 * (near - expected).norm()
c = narrow[2]
assert (c != c.bfloat16().float()).float().mean() > 0.9, "the cell's state was rounded"
"""

MEMORY = """
copies, rows, length, inputs, size = 2, 3, 5, 4, 6
tensors, kept = arguments(copies, rows, length, inputs, size)
stores = {}

def note(tensor):
    stores[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    return tensor

with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
    run(True, tensors, kept)
weights = sum(tensor.untyped_storage().nbytes() for tensor in tensors[3:5]) + kept.numel()
tokens, states = copies * rows * length * (6 * size + inputs), 2 * copies * rows * size
assert sum(stores.values()) == weights + 4 * (tokens + states), stores
"""


def test_tritons_cell_is_torchs() -> None:
    """Outputs and gradients agree, in sizes that no block divides; a token leaves 6H + I numbers for the backward."""
    pytest.importorskip("triton", reason="the kernels are Triton's; pip install triton")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    code = WORLD + AGREE + BFLOAT16 + MEMORY
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_a_cpu_computes_as_before() -> None:
    assert not has_fused_cell(torch.device("cpu"))
