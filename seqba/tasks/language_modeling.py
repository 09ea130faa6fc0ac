"""Language modelling with a Transformer: a text cut into blocks, each token predicted from those before it."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from seqba.core import Carry
from seqba.data.blocks import BlockBatch, Blocks
from seqba.data.dictionary import Dictionary
from seqba.data.fingerprint import split_fingerprint
from seqba.data.monolingual import open_dictionary, open_monolingual, text_files
from seqba.data.splits import data_folders, name_rows
from seqba.errors import UserError
from seqba.nn import label_smoothed_cross_entropy
from seqba.nn.kernels.places import TokenCounts, places_of, without_padding
from seqba.noise.fork import copies_at_fork, per_copy
from seqba.tasks import Unit
from seqba.tasks.consistency import with_divergence
from seqba.tasks.monolingual import check_same_dictionary, vocabulary_state
from seqba.tasks.options import BatchOptions, CriterionOptions
from seqba.tasks.text_options import BlockOptions
from seqba.tasks.token_batches import PackedSplits, Packer, Planned

logger = logging.getLogger(__name__)


class LanguageModel(Protocol):
    """Interface of a model to the loss: hidden states at the places that are read, and the output embedding (V, D)."""

    output_weight: Tensor

    def features(self, previous: Tensor, tokens: int | None = ...) -> Tensor:
        """(N, D) hidden states of the places of `previous` (B, T) that aren't padding, row by row."""
        ...


class LanguageModeling:
    """Next-token prediction on blocks of text that stand for themselves.

    Args:
        data: the data-bin; several, separated by colons, take turns: epoch e trains on number (e - 1) mod n, and
            validation and the dictionary come from the first (as in fairseq).
        options: how the text is cut.
        batches: how blocks are grouped.
        criterion: what is minimised.
        seed: of the order.
        max_positions: longest row that the model takes.

    Attributes:
        dictionary: the symbols.

    Raises:
        UserError: for a data-bin that is missing or broken, or blocks that no batch or model can hold.
    """

    unit: Unit = "tokens"

    def __init__(
        self,
        data: str,
        options: BlockOptions,
        batches: BatchOptions,
        criterion: CriterionOptions,
        *,
        seed: int,
        max_positions: int,
    ) -> None:
        self.folders = data_folders(data)
        self.dictionary = open_dictionary(self.folders[0])
        self.options = options
        self.batches = batches
        self.smoothing = criterion.label_smoothing
        self.consistency = criterion.difference_weight
        self.sentence_avg = criterion.sentence_avg
        self.seed = seed
        packer = Packer(batches, (max_positions, max_positions), "line", _too_long)
        self._splits = PackedSplits(self.folders, packer, self._open_training, partial(self._open, self.folders[0]))
        self.carried: Carry | None = None
        self._check_sizes(max_positions)

    def resized(self, batches: BatchOptions) -> LanguageModeling:
        """The same text in micro-batches of another size; which lines fit into one may be others."""
        task = copy.copy(self)
        task.batches, task._splits = batches, self._splits.resized(batches)
        return task

    def state(self) -> dict[str, Any]:
        """Size and digest of the dictionary: another one would give the ids another meaning."""
        return vocabulary_state(self.dictionary)

    def fingerprint(self, subset: str) -> str:
        """Digest of a split's text, in all folders where it is learned from."""
        return split_fingerprint(self.folders, subset, self.batches.train_subset, text_files)

    def epoch(self, epoch: int, micro_batches_per_update: int = 1) -> Planned[Blocks]:
        """The micro-batches of the 1-based `epoch`, a function of (seed, epoch).

        Overlong lines are named once and skipped.

        Blocks stand for themselves, so that the micro-batches are the same however many make an update.
        """
        return self._splits.epoch(epoch, seed=self.seed)

    def validation(self, subset: str) -> Planned[Blocks]:
        """The batches of a validation split, shortest blocks first.

        Raises:
            UserError: for a missing split, or lines too long for the model that may not be skipped.
        """
        return self._splits.validation(subset)

    def loss(self, model: nn.Module, batch: BlockBatch) -> tuple[Tensor, float, Mapping[str, Tensor]]:
        """Summed loss in nats, its weight, and the summed negative log-likelihood; smoothing as for translation."""
        reader: LanguageModel = model  # type: ignore[assignment]
        hidden = reader.features(batch.previous, batch.tokens)  # (N, D)
        previous, targets = per_copy((batch.previous, batch.target))
        counts = TokenCounts(batch.tokens, batch.known_target_tokens).times(copies_at_fork())
        if self.options.add_bos_token:  # some places are read but not predicted
            read = places_of(previous != Dictionary.pad, counts.source)
            scored = (targets != Dictionary.pad).flatten().index_select(0, read)
            hidden = hidden.index_select(0, places_of(scored, counts.target))
        target = without_padding(targets, Dictionary.pad, counts.target)
        table = reader.output_weight  # (V, D)
        loss, nll = label_smoothed_cross_entropy(hidden, table, target, smoothing=self.smoothing)
        loss, sums = with_divergence(loss, nll, hidden, table, self.consistency)
        weight = targets.shape[0] if self.sentence_avg else target.shape[0]
        return loss, float(weight), sums

    def weight(self, batch: BlockBatch) -> float:
        """Predicted tokens, or blocks with `--sentence-avg`."""
        return float(batch.target.shape[0] if self.sentence_avg else self.count(batch))

    def count(self, batch: BlockBatch) -> int:
        """Predicted tokens, `</s>` included."""
        return batch.target_tokens

    def learning_rate_factor(self, batch: BlockBatch) -> float:
        """1: a batch's size is in its weight."""
        return 1.0

    def _open(self, folder: Path, split: str, *, combine: bool = False) -> Blocks:
        corpus = open_monolingual(folder, split, self.dictionary, combine=combine)
        return Blocks(
            corpus,
            self.options.tokens_per_sample,
            break_mode=self.options.sample_break_mode,
            add_bos=self.options.add_bos_token,
        )

    def _open_training(self, folder: Path) -> Blocks:
        check_same_dictionary(folder, self.folders[0], self.dictionary)
        return self._open(folder, self.batches.train_subset, combine=True)

    def _check_sizes(self, max_positions: int) -> None:
        """Refuses blocks that are too long as such; lines are looked at one by one."""
        if self.options.sample_break_mode == "eos":
            return
        batches = self.batches
        limits = {
            "--max-target-positions": max_positions,
            "--max-tokens": batches.max_tokens,
            "--max-tokens-valid": batches.max_tokens_valid,
        }
        longest = self.options.longest_row
        for flag, limit in limits.items():
            if limit is not None and longest > limit:
                bos = " and <s>" if self.options.add_bos_token else ""
                raise UserError(
                    f"--tokens-per-sample {self.options.tokens_per_sample}{bos} makes rows of {longest} tokens, more "
                    f"than {flag} {limit}: lower the one or raise the other"
                )


def _too_long(rows: npt.NDArray[np.int64], limits: tuple[int, int]) -> str:
    return f"{len(rows)} lines longer than {limits[0]} tokens (lines {name_rows(rows)}, from 0)"
