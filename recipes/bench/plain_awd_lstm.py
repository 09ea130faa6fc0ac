"""A plain reading of the released AWD-LSTM: what a careful port to today's torch computes, kept to compare with.

nn.LSTM layers, DropConnect by F.dropout on the recurrent weights through functional_call, embedding dropout by masking
the embedding matrix, locked dropout by masks over time, full logits and F.cross_entropy, AR and TAR. M copies are M
times as many rows, as in the released code's batch of 200: weight masks are shared by all rows.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

State = list[tuple[Tensor, Tensor]]


class PlainAWDLSTM(nn.Module):
    """Layers of D → H → … → D between tied embeddings, with the dropouts of the released PTB command."""

    def __init__(self, vocabulary: int, layers: int, embed_dim: int, hidden_size: int) -> None:
        super().__init__()
        self.encoder = nn.Embedding(vocabulary, embed_dim)
        sizes = [embed_dim, *[hidden_size] * (layers - 1), embed_dim]
        self.rnns = nn.ModuleList(nn.LSTM(sizes[n], sizes[n + 1], batch_first=True) for n in range(layers))
        self.decoder_bias = nn.Parameter(torch.zeros(vocabulary))
        nn.init.uniform_(self.encoder.weight, -0.1, 0.1)

    def forward(self, tokens: Tensor, state: State | None) -> tuple[Tensor, Tensor, Tensor, State]:
        """(B, T) tokens → logits, the last layer's output before and after dropout, and the new state."""
        rows = functional.dropout(self.encoder.weight.new_ones(len(self.encoder.weight), 1), 0.1)
        x = locked(functional.embedding(tokens, self.encoder.weight * rows), 0.4)
        last: State = []
        raw = x
        for number, rnn in enumerate(self.rnns):
            weights = dict(rnn.named_parameters())
            weights["weight_hh_l0"] = functional.dropout(weights["weight_hh_l0"], 0.5)
            before = None if state is None else state[number]
            raw, after = torch.func.functional_call(rnn, weights, (x,) if before is None else (x, before))
            last.append((after[0].detach(), after[1].detach()))
            x = locked(raw, 0.25 if number < len(self.rnns) - 1 else 0.4)
        return functional.linear(x, self.encoder.weight, self.decoder_bias), raw, x, last


def locked(x: Tensor, p: float) -> Tensor:
    """One mask per row, held over time."""
    return x * functional.dropout(x.new_ones(x.shape[0], 1, x.shape[2]), p)


def plain_loss(
    model: PlainAWDLSTM, tokens: Tensor, target: Tensor, state: State | None
) -> tuple[Tensor, Tensor, State]:
    """Mean cross-entropy plus twice the mean square of the output and once that of its changes; the first alone."""
    logits, raw, output, state = model(tokens, state)
    nll = functional.cross_entropy(logits.flatten(0, 1), target.flatten())
    return nll + 2 * output.pow(2).mean() + (raw[:, 1:] - raw[:, :-1]).pow(2).mean(), nll.detach(), state
