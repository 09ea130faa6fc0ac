"""An LSTM layer whose recurrent weights are dropped per copy, also when the copies are stacked in one pass."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from seqba.nn.kernels.masked_lstm import State, masked_lstm, suits_prepacking
from seqba.nn.kernels.products import product_dtype
from seqba.nn.weight_noise import WeightDropout
from seqba.random.masks import drop, kept_scale


class WeightDroppedLSTM(nn.Module):
    """One LSTM layer with DropConnect on its hidden-to-hidden weights.

        i, f, o = σ(W x_t + U h_{t−1} + b);  g = tanh(…);  c_t = f·c_{t−1} + i·g;  h_t = o·tanh(c_t)
        U = W_hh·mask / (1 − p)

    The mask is fixed over time and rows, and each copy of a pass has its own (`seqba.nn.WeightDropout`). Where one mask
    serves all rows (one copy, `shared` noise, evaluation), torch's own LSTM computes the layer, or `masked_lstm` where
    that is faster: a large layer on few rows, on a CPU. A CPU computes stacked copies in the same way, one after
    the other. On a GPU `masked_lstm` batches the recurrent product over the copies, with the rest of a time step in one
    kernel, and everything that the masks don't touch is one product for all of them.

    Args:
        input_size: I.
        hidden_size: H.
        weight_dropout: probability of dropping an element of W_hh.
        shared: whether copies share the mask.

    Attributes:
        weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0: as in `nn.LSTM`, gates in the order i, f, g, o.

    Source: Hochreiter & Schmidhuber 1997; Merity et al. 2018, section 2.
    """

    def __init__(self, input_size: int, hidden_size: int, *, weight_dropout: float = 0.0, shared: bool = False) -> None:
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.weight_ih_l0 = nn.Parameter(torch.empty(4 * hidden_size, input_size))
        self.weight_hh_l0 = nn.Parameter(torch.empty(4 * hidden_size, hidden_size))
        self.bias_ih_l0 = nn.Parameter(torch.empty(4 * hidden_size))
        self.bias_hh_l0 = nn.Parameter(torch.empty(4 * hidden_size))
        self.weight_dropout = WeightDropout(weight_dropout, shared=shared)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -1 / math.sqrt(hidden_size), 1 / math.sqrt(hidden_size))

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Rows x (k·B, T, I) from state (h, c), each (k·B, H) → hidden states (k·B, T, H), and the last (h, c)."""
        kept = self.weight_dropout(self.weight_hh_l0)
        if kept is None or kept.shape[0] == 1:
            return self._one_mask(x, state, kept)
        if x.device.type == "cpu":
            return self._copy_after_copy(x, state, kept)
        return self._batched(x, state, kept)

    def _batched(self, x: Tensor, state: State, kept: Tensor) -> tuple[Tensor, State]:
        """Runs all copies through time together."""
        bias = self.bias_ih_l0 + self.bias_hh_l0
        scale = kept_scale(self.weight_dropout.p)
        return masked_lstm(x, state, self.weight_ih_l0, self.weight_hh_l0, bias, kept, scale)

    def _copy_after_copy(self, x: Tensor, state: State, kept: Tensor) -> tuple[Tensor, State]:
        """Runs one copy at a time: a CPU is busy with it, and its weights stay in the cache for all time steps."""
        copies = kept.shape[0]
        rows = zip(x.chunk(copies), state[0].chunk(copies), state[1].chunk(copies), kept.chunk(copies), strict=True)
        parts = [self._one_mask(x, (h, c), mask) for x, h, c, mask in rows]
        y, h, c = (torch.cat(tensors) for tensors in zip(*((y, *last) for y, last in parts), strict=True))
        return y, (h, c)

    def _one_mask(self, x: Tensor, state: State, kept: Tensor | None) -> tuple[Tensor, State]:
        """The layer with the same weights for all rows; the states keep their dtype under autocast."""
        weight: Tensor = self.weight_hh_l0
        if kept is not None and torch.is_grad_enabled() and suits_prepacking(x, weight):
            bias = self.bias_ih_l0 + self.bias_hh_l0
            return masked_lstm(x, state, self.weight_ih_l0, weight, bias, kept, kept_scale(self.weight_dropout.p))
        if kept is not None:
            weight = drop(weight, kept[0], self.weight_dropout.p)
        dtype = product_dtype(x)
        parameters = [part.to(dtype) for part in (self.weight_ih_l0, weight, self.bias_ih_l0, self.bias_hh_l0)]
        hidden = tuple(part.unsqueeze(0).to(dtype) for part in state)
        # cuDNN's own rule for autocast is float16, whatever autocast says.
        with torch.autocast(x.device.type, enabled=False), _quiet_about_pieces(x.device):
            y, h, c = torch.lstm(x.to(dtype), hidden, parameters, True, 1, 0.0, self.training, False, True)
        return y, (h[0].to(state[0].dtype), c[0].to(state[1].dtype))


@contextmanager
def _quiet_about_pieces(device: torch.device) -> Iterator[None]:
    """Suppresses cuDNN's remark that the weights don't lie in one piece of memory; dropped ones never do."""
    if device.type != "cuda":
        yield
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "RNN module weights are not part of single contiguous chunk of memory")
        yield
