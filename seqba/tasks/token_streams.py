"""Language modelling over running text: streams read window by window, the hidden state carried along."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from seqba.core import Carry
from seqba.data.fingerprint import split_fingerprint
from seqba.data.monolingual import open_dictionary, open_monolingual, text_files
from seqba.data.splits import data_folders
from seqba.data.stream import StreamBatch, Streams, TokenSource, Windows, fixed_windows, random_windows
from seqba.errors import UserError
from seqba.nn import label_smoothed_cross_entropy
from seqba.noise.fork import per_copy
from seqba.tasks import Unit
from seqba.tasks.consistency import with_distance
from seqba.tasks.monolingual import check_same_dictionary, vocabulary_state
from seqba.tasks.options import BatchOptions, CriterionOptions
from seqba.tasks.text_options import StreamOptions


class ReadWindow(Protocol):
    """Outputs of a model over a window; see `seqba.models.awd_lstm.WindowOutput`."""

    hidden: Tensor
    raw: Tensor
    state: tuple[Tensor, ...]


class RecurrentModel(Protocol):
    """Interface of a model to the loss."""

    output_weight: Tensor
    output_bias: Tensor

    def window(self, tokens: Tensor, state: Sequence[Tensor] | None = None) -> ReadWindow:
        """Reads tokens (R, T) int64 from the state that the window before ended with."""
        ...


class StreamLanguageModeling:
    """Next-word prediction over streams of text.

    An update reads the same window of S micro-batches of B streams each. Every (micro-batch, copy) carries its own
    hidden state from window to window; an epoch begins with zeros.

        loss = Σ −log p(word) + α/D · Σ hidden² + β·T/((T−1)·D) · Σ_t (raw_{t+1} − raw_t)²

    and with --consistency κ the distance between copies (`seqba.tasks.consistency.with_distance`),

    over R rows of T words, so that loss / (R·T) is the mean negative log-likelihood plus α and β times means over all
    elements, whatever copies are stacked. Evaluation has no regularisers.

    Args:
        data: the data-bin; several, separated by colons, take turns by epoch.
        options: the windows and the regularisers.
        batches: --batch-size is B.
        criterion: label smoothing, and the weight of the distance between copies.
        seed: of the windows' lengths.

    Attributes:
        dictionary: the words.
        carried: the hidden states, by (micro-batch, copy).

    Raises:
        UserError: for a data-bin that is missing or broken, or without a number of streams.

    Source: Merity et al. 2018, section 4; regularisers as in the released code.
    """

    unit: Unit = "tokens"

    def __init__(
        self, data: str, options: StreamOptions, batches: BatchOptions, criterion: CriterionOptions, *, seed: int
    ) -> None:
        if batches.batch_size is None:
            raise UserError("a recurrent model reads streams: give --batch-size, how many of them (20, say)")
        self.folders = data_folders(data)
        self.dictionary = open_dictionary(self.folders[0])
        self.options = options
        self.batches = batches
        self.rows: int = batches.batch_size
        self.smoothing = criterion.label_smoothing
        self.consistency = criterion.difference_weight
        self.seed = seed
        self.carried = Carry()
        self._training: dict[Path, TokenSource] = {}
        self._validation: dict[str, Windows] = {}

    def resized(self, batches: BatchOptions) -> StreamLanguageModeling:
        """The same text in micro-batches of another number of streams; the hidden states are carried for both tasks."""
        task = copy.copy(self)
        task.batches, task.rows = batches, batches.batch_size or self.rows
        return task

    def state(self) -> dict[str, Any]:
        """Size and digest of the dictionary: another one would give the ids another meaning."""
        return vocabulary_state(self.dictionary)

    def fingerprint(self, subset: str) -> str:
        """Digest of a split's text, in all folders where it is learned from."""
        return split_fingerprint(self.folders, subset, self.batches.train_subset, text_files)

    def epoch(self, epoch: int, micro_batches_per_update: int) -> Windows:
        """The windows of the 1-based `epoch`, S micro-batches of the same window to an update; S·B streams in all."""
        folder = self.folders[(epoch - 1) % len(self.folders)]
        if folder not in self._training:
            check_same_dictionary(folder, self.folders[0], self.dictionary)
            self._training = {folder: self._open(folder, self.batches.train_subset, combine=True)}
        streams = Streams(
            self._training[folder],
            micro_batches_per_update * self.rows,
            name=f"the split {self.batches.train_subset} in {folder}",
            remedy="lower --batch-size, and --update-freq or --copies where --arm fixed-samples or large-batch "
            "multiplies by them",
        )
        starts = random_windows(streams.length, self.options.bptt, seed=self.seed, epoch=epoch)
        return Windows(streams, starts, micro_batches_per_update)

    def validation(self, subset: str) -> Windows:
        """A validation split as --batch-size-valid streams (default: --batch-size), in windows of --bptt tokens."""
        if subset not in self._validation:
            corpus = self._open(self.folders[0], subset)
            streams = Streams(
                corpus,
                self.batches.batch_size_valid or self.rows,
                name=f"the split {subset} in {self.folders[0]}",
                remedy="lower --batch-size-valid (default: --batch-size)",
            )
            self._validation[subset] = Windows(streams, fixed_windows(streams.length, self.options.bptt))
        return self._validation[subset]

    def loss(self, model: nn.Module, batch: StreamBatch) -> tuple[Tensor, float, Mapping[str, Tensor]]:
        """Summed loss, its weight, and the sums nll and, with --consistency, distance.

        Reads and writes the carried state.
        """
        reader: RecurrentModel = model  # type: ignore[assignment]
        if batch.is_first:
            self.carried.forget()
        window = reader.window(batch.tokens, self.carried.read())
        self.carried.write(window.state)
        target = per_copy(batch.target).flatten()
        hidden = window.hidden.flatten(0, 1)  # (R·T, D)
        loss, nll = label_smoothed_cross_entropy(
            hidden, reader.output_weight, target, bias=reader.output_bias, smoothing=self.smoothing
        )
        if model.training:
            loss = loss + self._regularisers(window)
        loss, sums = with_distance(loss, nll, hidden, reader.output_weight, self.consistency)
        return loss, float(len(target)), sums

    def weight(self, batch: StreamBatch) -> float:
        """Predicted tokens."""
        return float(batch.size)

    def count(self, batch: StreamBatch) -> int:
        """Predicted tokens."""
        return batch.size

    def learning_rate_factor(self, batch: StreamBatch) -> float:
        """Length of the window / --bptt: a short window's gradient is the mean over fewer words."""
        return batch.tokens.shape[1] / self.options.bptt

    def _open(self, folder: Path, split: str, *, combine: bool = False) -> TokenSource:
        return open_monolingual(folder, split, self.dictionary, combine=combine)

    def _regularisers(self, window: ReadWindow) -> Tensor:
        """α/D · Σ hidden² + β·T/((T−1)·D) · Σ_t (raw_{t+1} − raw_t)², 0-dim, in float32 or wider."""
        _, length, width = window.raw.shape
        total = self.options.activation_regularization / width * _wide(window.hidden).square().sum()
        if length > 1:
            changes = window.raw[:, 1:] - window.raw[:, :-1]
            factor = self.options.temporal_activation_regularization * length / ((length - 1) * width)
            total = total + factor * _wide(changes).square().sum()
        return total


def _wide(x: Tensor) -> Tensor:
    """The tensor in float32 or wider: squares of bfloat16 aren't to be added up as such."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
