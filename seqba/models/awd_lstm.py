"""The AWD-LSTM of Merity et al. 2018: weight-dropped LSTM layers between tied embeddings."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from seqba.models.config import AWDLSTMConfig
from seqba.models.forks import HEAD, layer_of
from seqba.nn import LockedDropout, WeightDroppedLSTM, WordDropout
from seqba.noise.fork import copies_at_fork, fork

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

    Attributes:
        layers_below: layers below the place where copies begin, in an update that forks (`seqba.fork`); None for copies
            from the beginning.

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
        self.layers_below: int | None = None
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

    def fork_at(self, place: str | None) -> None:
        """Has copies begin at `layer-N`, before layer N from 1 on; at `head`, behind the last; or nowhere, at None.

        The dropout on what a layer reads, and on the output, is above the fork before it.

        Raises:
            ValueError: for a place that isn't there.
        """
        layers = len(self.layers)
        if place is None or place == HEAD:
            self.layers_below = None if place is None else layers
        else:
            self.layers_below = layer_of(place, layers) - 1

    @property
    def output_weight(self) -> Tensor:
        """(V, D): the output projection, which is the embedding."""
        return self.embedding.weight

    def window(self, tokens: Tensor, state: Sequence[Tensor] | None = None) -> WindowOutput:
        """Reads a window of text.

        Args:
            tokens: (R, T) int64; R rows go on where the rows of the window before ended.
            state: what the window before ended with; None for zeros. In an update that forks it has the rows of the
                copies in the pass, as has the output: (k·R, H).

        Raises:
            ValueError: for a state of other rows or layers.
        """
        rows = tokens.shape[0] * copies_at_fork()
        state = self._zeros(rows) if state is None else tuple(state)
        if len(state) != 2 * len(self.layers) or any(part.shape[0] != rows for part in state):
            shapes = [tuple(part.shape) for part in state]
            raise ValueError(f"{rows} rows through {len(self.layers)} layers, but the state is {shapes}")
        if self.layers_below is None:
            raw, last = self._read(self._embed(tokens), range(len(self.layers)), state)
        else:
            raw, below = fork(self._below, tokens, state, self.layers_below)
            raw, above = self._read(raw, range(self.layers_below, len(self.layers)), state)
            last = below + above
        return WindowOutput(hidden=self.output_dropout(raw), raw=raw, state=tuple(last))

    def _below(self, tokens: Tensor, state: Sequence[Tensor], layers: int) -> tuple[Tensor, list[Tensor]]:
        """Part that copies share: the output of so many layers before dropout, and the states after them.

        All copies have the same states of these layers; those of the first are read.
        """
        return self._read(self._embed(tokens), range(layers), [part[: tokens.shape[0]] for part in state])

    def _embed(self, tokens: Tensor) -> Tensor:
        embedded: Tensor = self.embedding_dropout(self.embedding(tokens), tokens)
        return embedded

    def _read(self, raw: Tensor, layers: range, state: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Input of the first layer → output of the last, both before dropout; the states after them."""
        last = []
        for number in layers:
            x = self.input_dropout(raw) if number == 0 else self.hidden_dropout(raw)
            raw, (h, c) = self.layers[number](x, (state[2 * number], state[2 * number + 1]))
            last += [h, c]
        return raw, last

    def forward(self, tokens: Tensor, state: Sequence[Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Tokens (R, T) int64 → logits of the next words (R, T, V), and the state after the window."""
        window = self.window(tokens, state)
        return nn.functional.linear(window.hidden, self.output_weight, self.output_bias), window.state

    def _zeros(self, rows: int) -> tuple[Tensor, ...]:
        weight = self.embedding.weight
        return tuple(weight.new_zeros(rows, size) for size in self._sizes[1:] for _ in ("h", "c"))
