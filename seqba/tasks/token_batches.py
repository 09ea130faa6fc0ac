"""Packing of independent examples into batches of a token budget, and their order in an epoch."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from seqba.data.batching import Batches, fitting, plan_batches, plan_epoch
from seqba.data.limits import longest_sides, refuse_or_leave_out
from seqba.data.mixing import mixed_count, mixed_rows, times_before
from seqba.errors import UserError
from seqba.options import number_text
from seqba.tasks.options import BatchOptions

ExamplesT = TypeVar("ExamplesT", bound="Examples")
Rows = npt.NDArray[np.int64]

logger = logging.getLogger(__name__)


class Examples(Protocol):
    """N examples with two sides (of a text alone, both are the same), cut from a memory map when asked for."""

    @property
    def source_sizes(self) -> npt.NDArray[np.integer]:
        """(N,) tokens of each source."""
        ...

    @property
    def target_sizes(self) -> npt.NDArray[np.integer]:
        """(N,) tokens of each target."""
        ...

    @property
    def text_ends(self) -> Rows:
        """(K,) int64, number of the example at which each of K texts (`train`, `train1`, …) ends."""
        ...

    def batch(self, rows: Rows) -> Any:
        """The examples of the given numbers (n,), in that order."""
        ...


@dataclass(frozen=True)
class Planned(Generic[ExamplesT]):
    """The batches of an epoch or a split, each made when it is asked for."""

    examples: ExamplesT
    batches: Batches

    def __len__(self) -> int:
        """Number of batches."""
        return len(self.batches)

    def __getitem__(self, number: int) -> Any:
        """Batch `number`, counting from 0."""
        return self.examples.batch(self.batches[number])


@dataclass(frozen=True)
class Copied(Planned[ExamplesT]):
    """Planned batches of an epoch, of which copies are cut into subwords anew.

    Attributes:
        cut: rows (n,), how often each has come before in the epoch (n,) and a number of copies → the batch of their
            copies.
    """

    cut: Callable[[Rows, Rows, int], Any]

    def copied(self, number: int, copies: int) -> Any:
        """Batch `number` as so many copies, copy-major."""
        return self.cut(self.batches[number], Batches(self._times_before, self.batches.offsets)[number], copies)

    @functools.cached_property
    def _times_before(self) -> Rows:
        return times_before(self.batches.rows)


@dataclass(frozen=True)
class Packer:
    """Packs examples into batches of a token budget, as fairseq does.

    Attributes:
        options: the budget.
        max_positions: longest source and target that the model takes.
        what: an example, as a complaint calls it ("pair").
        too_long: rows (n,) and the limits → "3 pairs longer than …".
    """

    options: BatchOptions
    max_positions: tuple[int, int]
    what: str
    too_long: Callable[[Rows, tuple[int, int]], str]

    def training_rows(self, examples: Examples, where: str) -> Rows:
        """The examples that fit the model and a batch; the others are named in a warning.

        Raises:
            UserError: if none fits.
        """
        rows, dropped = self._fitting(examples, self.options.max_tokens)
        if len(dropped):
            logger.warning(f"{self.too_long(dropped, self._limits(self.options.max_tokens))} in {where}: skipped")
        if not len(rows):
            raise UserError(f"{where} has no training {self.what} that fits the model and --max-tokens")
        if self.options.weights:
            self._announce_weights(examples, rows, where)
        return rows

    def epoch(self, examples: ExamplesT, rows: Rows, *, seed: int, epoch: int) -> Planned[ExamplesT]:
        """The batches of the 1-based `epoch`, a function of (seed, epoch)."""
        if self.options.weights:
            rows = mixed_rows(rows, examples.text_ends, self.options.weights, seed=seed, epoch=epoch)
        if not len(rows):
            raise UserError(f"epoch {epoch} has no {self.what}: raise --weights")
        batches = plan_epoch(
            examples.source_sizes,
            examples.target_sizes,
            seed=seed,
            epoch=epoch,
            max_tokens=self.options.max_tokens,
            max_rows=self.options.batch_size,
            multiple=self.options.required_batch_size_multiple,
            rows=rows,
        )
        return Planned(examples, batches)

    def validation(self, examples: ExamplesT, subset: str, where: str) -> Planned[ExamplesT]:
        """The batches of a validation split, shortest targets first.

        Raises:
            UserError: for examples that are too long and may not be skipped, or if none is left.
        """
        max_tokens = self.options.max_tokens_valid or self.options.max_tokens
        rows, dropped = self._fitting(examples, max_tokens)
        if len(dropped):
            complaint = f"{self.too_long(dropped, self._limits(max_tokens))} of {subset} in {where}"
            refuse_or_leave_out(
                complaint, leave_out=self.options.skip_invalid_size_inputs_valid_test, warn=logger.warning
            )
        if not len(rows):
            raise UserError(f"the split {subset} in {where} has no {self.what} to validate on")
        batches = plan_batches(
            examples.source_sizes,
            examples.target_sizes,
            rows[np.lexsort((examples.source_sizes[rows], examples.target_sizes[rows]))],
            max_tokens=max_tokens,
            max_rows=self.options.batch_size_valid or self.options.batch_size,
            multiple=self.options.required_batch_size_multiple,
        )
        return Planned(examples, batches)

    def _announce_weights(self, examples: Examples, rows: Rows, where: str) -> None:
        """Says what an epoch has of each text; refuses weights of another number of texts."""
        weights, ends, split = self.options.weights, examples.text_ends, self.options.train_subset
        names = [f"{split}{number or ''}" for number in range(len(ends))]
        if len(weights) != len(names):
            raise UserError(
                f"--weights {','.join(map(number_text, weights))} are of {len(weights)} texts, and {where} has "
                f"{len(names)}: {', '.join(names)}; give a weight for each"
            )
        counts = np.diff(np.searchsorted(rows, ends), prepend=0).tolist()
        told = (
            f"{number_text(mixed_count(count, weight))} of {name} ({count} × {number_text(weight)})"
            for name, count, weight in zip(names, counts, weights, strict=True)
        )
        logger.info("an epoch's %ss from %s: %s", self.what, where, ", ".join(told))

    def _limits(self, max_tokens: int | None) -> tuple[int, int]:
        return longest_sides(self.max_positions, max_tokens)

    def _fitting(self, examples: Examples, max_tokens: int | None) -> tuple[Rows, Rows]:
        return fitting(examples.source_sizes, examples.target_sizes, *self._limits(max_tokens))


class PackedSplits(Generic[ExamplesT]):
    """Splits of data-bins in batches: those of training, one data-bin at a time, and those of validation.

    Args:
        folders: the data-bins; epoch e trains on number (e - 1) mod n, and validation is the first one's.
        packer: makes batches of examples.
        open_training: a data-bin → its training examples.
        open_validation: name of a split → its examples, in the first data-bin.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        packer: Packer,
        open_training: Callable[[Path], ExamplesT],
        open_validation: Callable[[str], ExamplesT],
    ) -> None:
        self._folders = folders
        self._packer = packer
        self._open_training = open_training
        self._open_validation = open_validation
        self._training: dict[Path, tuple[ExamplesT, Rows]] = {}
        self._validation: dict[str, Planned[ExamplesT]] = {}

    def resized(self, batches: BatchOptions) -> PackedSplits[ExamplesT]:
        """The same splits in batches of another size; which examples fit into one may be others."""
        packer = replace(self._packer, options=batches)
        return PackedSplits(self._folders, packer, self._open_training, self._open_validation)

    def epoch(self, epoch: int, *, seed: int) -> Planned[ExamplesT]:
        """The batches of the 1-based `epoch`, a function of (seed, epoch); overlong examples are left out."""
        folder = self._folders[(epoch - 1) % len(self._folders)]
        if folder not in self._training:
            examples = self._open_training(folder)
            self._training = {folder: (examples, self._packer.training_rows(examples, str(folder)))}
        return self._packer.epoch(*self._training[folder], seed=seed, epoch=epoch)

    def validation(self, subset: str) -> Planned[ExamplesT]:
        """The batches of a validation split, the same at every call.

        Raises:
            UserError: for a missing split, or examples too long for the model that may not be skipped.
        """
        if subset not in self._validation:
            examples = self._open_validation(subset)
            self._validation[subset] = self._packer.validation(examples, subset, str(self._folders[0]))
        return self._validation[subset]
