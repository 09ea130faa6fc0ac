"""The LSTM with dropped recurrent weights: against nn.LSTM, gradcheck, and one mask for each copy."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import seqba
from seqba.core import Noise, noise_context
from seqba.nn.kernels.masked_lstm import masked_lstm

COPIES, ROWS, LENGTH, INPUTS, HIDDEN = 3, 2, 5, 4, 6


def make_inputs(dtype: torch.dtype = torch.float64) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(7)
    rows = COPIES * ROWS
    x = torch.randn(rows, LENGTH, INPUTS, generator=generator, dtype=torch.float64)
    h, c = torch.randn(2, rows, HIDDEN, generator=generator, dtype=torch.float64)
    return x.to(dtype), (h.to(dtype), c.to(dtype))


def make_layer(
    p: float = 0.4, *, shared: bool = False, dtype: torch.dtype = torch.float64
) -> seqba.nn.WeightDroppedLSTM:
    torch.manual_seed(3)
    return seqba.nn.WeightDroppedLSTM(INPUTS, HIDDEN, weight_dropout=p, shared=shared).to(dtype)


def make_masks() -> Tensor:
    return (torch.rand(COPIES, 4 * HIDDEN, HIDDEN, generator=torch.Generator().manual_seed(5)) > 0.4).to(torch.int8)


def reference(layer: nn.Module, x: Tensor, state: tuple[Tensor, Tensor], mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """nn.LSTM with the same weights, the recurrent ones dropped by hand."""
    lstm = nn.LSTM(INPUTS, HIDDEN, batch_first=True, dtype=x.dtype)
    weights = dict(layer.named_parameters())
    weights = {**weights, "weight_hh_l0": weights["weight_hh_l0"] * mask * (1 / 0.6)}
    hidden = (state[0].unsqueeze(0), state[1].unsqueeze(0))
    y, (h, c) = torch.func.functional_call(lstm, weights, (x, hidden))
    return y, h[0], c[0]


def test_evaluation_is_nn_lstm() -> None:
    layer, (x, state) = make_layer().eval(), make_inputs()
    y, (h, c) = layer(x, state)
    ones = torch.full((4 * HIDDEN, HIDDEN), 0.6, dtype=torch.float64)  # undoes the scale of the reference
    for ours, theirs in zip((y, h, c), reference(layer, x, state, ones), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-12)


def test_the_weights_are_named_as_in_nn_lstm() -> None:
    layer = make_layer()
    nn.LSTM(INPUTS, HIDDEN).load_state_dict(layer.state_dict())
    assert all(parameter.abs().max() <= HIDDEN**-0.5 for parameter in layer.parameters())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_stacked_copies_are_nn_lstm_with_each_copy_s_weights_outputs_and_gradients(
    dtype: torch.dtype, tolerance: float
) -> None:
    layer, (x, state), masks = make_layer(dtype=dtype), make_inputs(dtype), make_masks()
    inputs = [tensor.requires_grad_() for tensor in (x, *state)]
    weights = [layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0, layer.bias_hh_l0]
    bias = layer.bias_ih_l0 + layer.bias_hh_l0
    y, (h, c) = masked_lstm(x, state, layer.weight_ih_l0, layer.weight_hh_l0, bias, masks, 1 / 0.6)
    parts = [
        reference(layer, *(x.chunk(COPIES)[m], (state[0].chunk(COPIES)[m], state[1].chunk(COPIES)[m]), masks[m]))
        for m in range(COPIES)
    ]
    expected = [torch.cat(tensors) for tensors in zip(*parts, strict=True)]
    for ours, theirs in zip((y, h, c), expected, strict=True):
        assert torch.allclose(ours, theirs, rtol=tolerance, atol=tolerance)
    upstream = [
        torch.randn(t.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
        for t in expected
    ]
    ours = torch.autograd.grad((y, h, c), [*inputs, *weights], upstream)
    theirs = torch.autograd.grad(expected, [*inputs, *weights], upstream)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other, rtol=10 * tolerance, atol=10 * tolerance)


def test_gradcheck_of_the_batched_copies() -> None:
    layer, (x, (h, c)), masks = make_layer(), make_inputs(), make_masks()
    bias = (layer.bias_ih_l0 + layer.bias_hh_l0).detach()
    arguments = [t.detach().requires_grad_() for t in (x, h, c, layer.weight_ih_l0, layer.weight_hh_l0, bias)]

    def run(x: Tensor, h: Tensor, c: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
        y, last = masked_lstm(x, (h, c), weight_ih, weight_hh, bias, masks, 1 / 0.6)
        return y, *last

    assert torch.autograd.gradcheck(run, arguments)


def keyed(layer: nn.Module, copies: tuple[int, ...]) -> Tensor:
    """The layer's output for some of the copies of one micro-batch, whose rows are all the same."""
    x, (h, c) = make_inputs()
    rows = [tensor[:ROWS].repeat(len(copies), *[1] * (tensor.dim() - 1)) for tensor in (x, h, c)]
    with noise_context(Noise(0, 0, 0, copies, {id(module): name for name, module in layer.named_modules()})):
        y, _ = layer(rows[0], (rows[1], rows[2]))
    return y.view(len(copies), ROWS, LENGTH, HIDDEN)


def test_copies_go_through_their_own_weights_in_any_company() -> None:
    layer = make_layer()
    together = keyed(layer, (0, 1, 2))
    assert not torch.allclose(together[0], together[1])
    for copy in range(3):
        assert torch.allclose(together[copy], keyed(layer, (copy,))[0], rtol=1e-12)


def test_shared_noise_takes_all_copies_through_the_same_weights() -> None:
    together = keyed(make_layer(shared=True), (0, 1, 2))
    assert torch.allclose(together[0], together[1], rtol=1e-12)
    assert not torch.allclose(together[0], keyed(make_layer(p=0.0), (0,))[0])


def test_both_ways_of_stacked_copies_agree() -> None:
    """On a CPU torch's LSTM runs copy after copy; what a GPU does must be the same."""
    layer, (x, state) = make_layer(), make_inputs()
    names = {id(module): name for name, module in layer.named_modules()}
    with noise_context(Noise(0, 0, 0, range(COPIES), names)):
        y, _ = layer(x, state)
    with noise_context(Noise(0, 0, 0, range(COPIES), names)):
        kept = layer.weight_dropout(layer.weight_hh_l0)
        assert kept is not None
        batched, _ = layer._batched(x, state, kept)
    assert torch.allclose(y, batched, rtol=1e-12)


def test_batched_copies_compute_in_bfloat16_under_autocast() -> None:
    layer, (x, state), masks = make_layer(dtype=torch.float32), make_inputs(torch.float32), make_masks()
    bias = layer.bias_ih_l0 + layer.bias_hh_l0
    arguments = (x, state, layer.weight_ih_l0, layer.weight_hh_l0, bias, masks, 1 / 0.6)
    exact, _ = masked_lstm(*arguments)
    kept: list[Tensor] = []
    with (
        torch.autocast("cpu", torch.bfloat16),
        torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor),
    ):
        y, _ = masked_lstm(*arguments)
    (gates,) = (tensor for tensor in kept if tensor.shape == (LENGTH, COPIES * ROWS, 4 * HIDDEN))
    assert (gates != gates.bfloat16().float()).float().mean() > 0.9  # activations are float32 all the same
    y.square().sum().backward()
    assert y.dtype == torch.float32
    assert 1e-4 < (y - exact).abs().max() < 3e-2
    assert layer.weight_hh_l0.grad is not None
    assert layer.weight_hh_l0.grad.isfinite().all()
