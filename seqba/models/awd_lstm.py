"""The AWD-LSTM of Merity et al. 2018: weight-dropped LSTM layers between tied embeddings."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from seqba.models.config import AWDLSTMConfig
from seqba.nn import LockedDropout, WeightDroppedLSTM, WordDropout

INITIAL_RANGE = 0.1


@dataclass(frozen=True)
class WindowOutput:
    """Outputs of the model over a window of text.

    Attributes:
        hidden: (R, T, D), the last layer's output after dropout: what the output projection reads.
        raw: (R, T, D), the same before dropout.
        state: h and c of each layer after the window, [h₁, c₁, h₂, c₂, …], each (R, H).
    """

    hidden: Tensor
    raw: Tensor
    state: tuple[Tensor, ...]


class AWDLSTM(nn.Module):
    """Word embedding, LSTM layers with every dropout of the AWD-LSTM, and an output projection tied to the embedding.

    Sizes run D → H → … → H → D. Where the noise acts, and which rows share a draw:

        embedding_dropout   whole word types, one draw for each word and copy
        input_dropout       on the embedded words; each row its own mask, held over time
        weight_dropout      on the hidden-to-hidden weights; each copy its own mask, held over rows and time
        hidden_dropout      between layers; each row its own mask, held over time
        dropout             on the last layer's output; each row its own mask, held over time

    Args:
        config: sizes and dropouts.
        vocabulary: V.

    Raises:
        ValueError: for fewer than one layer, or a probability outside [0, 1).

    Source: Merity, Keskar, Socher 2018, "Regularizing and Optimizing LSTM Language Models", and its released code.
    """

    def __init__(self, config: AWDLSTMConfig, *, vocabulary: int) -> None:
        super().__init__()
        layers, embed_dim, shared = config.decoder_layers, config.decoder_embed_dim, config.weight_noise == "shared"
        if layers < 1:
            raise ValueError(f"an LSTM has at least one layer, not {layers}")
        self.embedding = nn.Embedding(vocabulary, embed_dim)
        nn.init.uniform_(self.embedding.weight, -INITIAL_RANGE, INITIAL_RANGE)
        self.output_bias = nn.Parameter(torch.zeros(vocabulary))
        self._sizes = [embed_dim, *[config.decoder_hidden_size] * (layers - 1), embed_dim]
        self.layers = nn.ModuleList(
            WeightDroppedLSTM(inputs, outputs, weight_dropout=config.weight_dropout, shared=shared)
            for inputs, outputs in itertools.pairwise(self._sizes)
        )
        self.embedding_dropout = WordDropout(config.embedding_dropout, vocabulary, shared=shared)
        self.input_dropout = LockedDropout(config.input_dropout)
        self.hidden_dropout = LockedDropout(config.hidden_dropout)
        self.output_dropout = LockedDropout(config.dropout)

    @property
    def output_weight(self) -> Tensor:
        """(V, D): the output projection, which is the embedding."""
        return self.embedding.weight

    def window(self, tokens: Tensor, state: Sequence[Tensor] | None = None) -> WindowOutput:
        """Reads a window of text.

        Args:
            tokens: (R, T) int64; R rows go on where the rows of the window before ended.
            state: what the window before ended with; None for zeros.

        Raises:
            ValueError: for a state of other rows or layers.
        """
        state = self._zeros(tokens) if state is None else tuple(state)
        if len(state) != 2 * len(self.layers) or any(part.shape[0] != tokens.shape[0] for part in state):
            shapes = [tuple(part.shape) for part in state]
            raise ValueError(f"{tokens.shape[0]} rows through {len(self.layers)} layers, but the state is {shapes}")
        x = self.input_dropout(self.embedding_dropout(self.embedding(tokens), tokens))
        raw, last = x, []
        for number, layer in enumerate(self.layers):
            raw, (h, c) = layer(x, (state[2 * number], state[2 * number + 1]))
            last += [h, c]
            x = self.hidden_dropout(raw) if number < len(self.layers) - 1 else self.output_dropout(raw)
        return WindowOutput(hidden=x, raw=raw, state=tuple(last))

    def forward(self, tokens: Tensor, state: Sequence[Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Tokens (R, T) int64 → logits of the next words (R, T, V), and the state after the window."""
        window = self.window(tokens, state)
        return nn.functional.linear(window.hidden, self.output_weight, self.output_bias), window.state

    def _zeros(self, tokens: Tensor) -> tuple[Tensor, ...]:
        weight = self.embedding.weight
        return tuple(weight.new_zeros(tokens.shape[0], size) for size in self._sizes[1:] for _ in ("h", "c"))
