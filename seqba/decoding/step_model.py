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
        """Reads `source` (B, L) int64, right-padded, once; returns the state of a search with K = `beam_size`.

        Every row has a token at least (`check_sources`).
        """
        ...

    def step(self, state: Any, tokens: Tensor) -> Tensor:
        """Feeds the last token of each hypothesis, `tokens` (B, k) int64; returns logits (B, k, V) of the next one.

        The search overwrites them, so they are no part of what the model keeps.
        """
        ...

    def reorder(self, state: Any, sentences: Tensor, parents: Tensor) -> None:
        """Keeps some sentences and lets each of their hypotheses continue another one of the same sentence.

        Args:
            state: what `begin` returned; changed in place.
            sentences: (B',) int64, the rows to keep, in their new order; most keep their place.
            parents: (B', k') int64; hypothesis i of kept row b continues hypothesis `parents[b, i]` of that row.
        """
        ...


def check_sources(source: Tensor) -> Tensor:
    """Lengths (B,) int64 of the rows of `source` (B, L) int64, right-padded; end of sentence counted.

    Raises:
        ValueError: for a row of padding alone: there is nothing to attend to, so that all its scores would be NaN.
    """
    lengths = (source != PAD).sum(1)
    empty = (lengths == 0).nonzero()
    if len(empty):
        raise ValueError(f"source row {int(empty[0])} is padding alone: each row has its end of sentence at least")
    return lengths
