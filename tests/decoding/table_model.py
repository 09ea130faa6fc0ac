"""A step model whose logits come from a table: for tests that know every probability."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class State:
    source: Tensor  # (B, L): rows as they were given
    history: Tensor  # (B, k, t)


class TableModel:
    """Logits of the next token are a function of (sum of the source, position, last token, the tokens before it).

    Logits depend on the whole history, so that a search which continues the wrong hypothesis is found out.
    """

    def __init__(self, vocabulary: int, *, seed: int = 0, positions: int = 64, spread: float = 2.0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.table = torch.randn(positions, vocabulary, vocabulary, generator=generator) * spread
        self.start = torch.randn(11, vocabulary, generator=generator) * spread
        self.max_target_positions = positions
        self.steps = 0

    def begin(self, source: Tensor, beam_size: int) -> State:
        return State(source, torch.empty(source.size(0), beam_size, 0, dtype=torch.int64))

    def step(self, state: State, tokens: Tensor) -> Tensor:
        self.steps += 1
        state.history = torch.cat([state.history[:, : tokens.size(1)], tokens.unsqueeze(2)], dim=2)
        real = torch.where(state.source == 1, 0, state.source).sum(1) % 11  # padding must not count
        position = state.history.size(2) - 1
        trail = state.history[:, :, 1:].sum(2) % self.table.size(0)
        return self.table[trail, tokens] + self.table[position, tokens] + self.start[real].unsqueeze(1)

    def reorder(self, state: State, sentences: Tensor, parents: Tensor) -> None:
        rows = sentences.unsqueeze(1)
        state.source = state.source[sentences]
        state.history = state.history[rows, parents]

    def log_probability(self, source: Tensor, tokens: tuple[int, ...]) -> Tensor:
        """Log-probability of each token, (T,), by feeding them one by one."""
        state = self.begin(source.unsqueeze(0), 1)
        previous, scores = 2, []
        for token in tokens:
            logits = self.step(state, torch.tensor([[previous]]))
            scores.append(torch.log_softmax(logits[0, 0], dim=0)[token])
            previous = token
        return torch.stack(scores)
