"""What a search asks of a model: begin, one step, reorder."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from seqba.data.dictionary import Dictionary

BOS, PAD, EOS, UNK = Dictionary.bos, Dictionary.pad, Dictionary.eos, Dictionary.unk


class StepModel(Protocol):
    """A model that extends B × K hypotheses by one token at a time and keeps what it computed in an opaque state.

    B sentences, K hypotheses each, V words, L source positions. `seqba.models.Transformer` is one; a table of logits is
    one too.
    """

    max_target_positions: int
    """How many tokens a hypothesis may have, end of sentence included."""

    def begin(self, source: Tensor, beam_size: int) -> Any:
        """Reads `source` (B, L) int64, right-padded, once; returns the state of a search with K = `beam_size`."""
        ...

    def step(self, state: Any, tokens: Tensor) -> Tensor:
        """Feeds the last token of each hypothesis, `tokens` (B, K) int64; returns logits (B, K, V) of the next one."""
        ...

    def reorder(self, state: Any, sentences: Tensor, parents: Tensor) -> None:
        """Keeps some sentences and lets each of their hypotheses continue another one of the same sentence.

        Args:
            state: what `begin` returned; changed in place.
            sentences: (B',) int64, the rows to keep, ascending.
            parents: (B', K) int64; hypothesis k of kept row b continues hypothesis `parents[b, k]` of that row.
        """
        ...
