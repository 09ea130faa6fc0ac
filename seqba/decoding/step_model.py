"""Interface of a model to a search: begin, one step, reorder."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from seqba.data.dictionary import Dictionary

BOS, PAD, EOS, UNK = Dictionary.bos, Dictionary.pad, Dictionary.eos, Dictionary.unk


class StepModel(Protocol):
    """A model that extends the hypotheses of B sentences by one token at a time, with what it computed in a state.

    B sentences, at most K hypotheses each and k of them now, V words, L source positions. A search begins with k = 1,
    the empty hypothesis. `seqba.models.transformer.Transformer` is a step model; a table of logits is one too.
    """

    max_target_positions: int
    """How many tokens a hypothesis may have, end of sentence included."""

    def begin(self, source: Tensor, beam_size: int) -> Any:
        """Reads `source` (B, L) int64, right-padded, once; returns the state of a search with K = `beam_size`."""
        ...

    def step(self, state: Any, tokens: Tensor) -> Tensor:
        """Feeds the last token of each hypothesis, `tokens` (B, k) int64; returns logits (B, k, V) of the next one."""
        ...

    def reorder(self, state: Any, sentences: Tensor, parents: Tensor) -> None:
        """Keeps some sentences and lets each of their hypotheses continue another one of the same sentence.

        Args:
            state: what `begin` returned; changed in place.
            sentences: (B',) int64, the rows to keep, in their new order; most keep their place.
            parents: (B', k') int64; hypothesis i of kept row b continues hypothesis `parents[b, i]` of that row.
        """
        ...
