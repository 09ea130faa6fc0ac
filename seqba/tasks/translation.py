"""Translation: sentence pairs of a data-bin → token-budget micro-batches → summed (label-smoothed) cross-entropy."""

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
from seqba.data.dictionary import Dictionary, dictionary_digest
from seqba.data.fingerprint import split_fingerprint
from seqba.data.limits import longest_sides
from seqba.data.merges import load_merges
from seqba.data.pair_files import choose_languages, open_pairs, pair_files
from seqba.data.pairs import PairBatch, PairCorpus
from seqba.data.sampled_pairs import PairSampler, SampledSide
from seqba.data.splits import data_folders, name_rows
from seqba.errors import UserError
from seqba.nn import label_smoothed_cross_entropy
from seqba.nn.kernels.places import TokenCounts, without_padding
from seqba.noise.fork import copies_at_fork, per_copy
from seqba.tasks import Unit
from seqba.tasks.consistency import with_divergence
from seqba.tasks.options import BatchOptions, CriterionOptions
from seqba.tasks.text_options import TranslationOptions
from seqba.tasks.token_batches import Copied, PackedSplits, Packer, Planned

logger = logging.getLogger(__name__)


class TranslationModel(Protocol):
    """Interface of a model to the loss: hidden states at the predicted positions, and the output projection.

    Its weight is (V, D), its bias (V,).
    """

    output_weight: Tensor
    output_bias: Tensor | None

    def features(self, source: Tensor, previous: Tensor, tokens: TokenCounts = ...) -> Tensor:
        """(N, D) hidden states of the target positions that aren't padding, row by row.

        `tokens` are those of both sides that aren't padding, where the host knows.
        """
        ...


class Translation:
    """Translation of the sentence pairs in a data-bin.

    Args:
        data: the data-bin; several, separated by colons, take turns: epoch e trains on number (e - 1) mod n, and
            validation and dictionaries come from the first (as in fairseq).
        options: the languages.
        batches: how pairs are grouped.
        criterion: what is minimised.
        seed: of the order.
        max_positions: longest source and target line that the model takes, `</s>` included.

    Attributes:
        source_lang: source language.
        target_lang: target language.
        source_dictionary: source symbols.
        target_dictionary: target symbols.

    Raises:
        UserError: for a data-bin that is missing or broken.
    """

    unit: Unit = "tokens"

    def __init__(
        self,
        data: str,
        options: TranslationOptions,
        batches: BatchOptions,
        criterion: CriterionOptions,
        *,
        seed: int,
        max_positions: tuple[int, int],
    ) -> None:
        self.folders = data_folders(data)
        self.source_lang, self.target_lang = choose_languages(self.folders[0], options.source_lang, options.target_lang)
        self.source_dictionary = Dictionary.load(self.folders[0] / f"dict.{self.source_lang}.txt")
        self.target_dictionary = Dictionary.load(self.folders[0] / f"dict.{self.target_lang}.txt")
        self.batches = batches
        self.smoothing = criterion.label_smoothing
        self.consistency = criterion.difference_weight
        self.sentence_avg = criterion.sentence_avg
        self.seed = seed
        packer = Packer(batches, max_positions, "pair", _too_long)
        self._splits = PackedSplits(self.folders, packer, self._open_training, partial(self._open, self.folders[0]))
        self.carried: Carry | None = None
        longest = longest_sides(max_positions, batches.max_tokens)
        self._sampler = self._open_sampler(options.subword_sampling, longest) if options.subword_sampling else None

    def resized(self, batches: BatchOptions) -> Translation:
        """The same pairs in micro-batches of another size; which lines fit into one may be others."""
        task = copy.copy(self)
        task.batches, task._splits = batches, self._splits.resized(batches)
        return task

    def state(self) -> dict[str, Any]:
        """Languages, and size and digest of both dictionaries: other ones would give the ids another meaning."""
        return {
            "task": "translation",
            "source_lang": self.source_lang,
            "target_lang": self.target_lang,
            "source_vocabulary": len(self.source_dictionary),
            "target_vocabulary": len(self.target_dictionary),
            "source_dictionary_sha256": dictionary_digest(self.source_dictionary),
            "target_dictionary_sha256": dictionary_digest(self.target_dictionary),
        }

    def fingerprint(self, subset: str) -> str:
        """Digest of a split's pairs, in all folders where it is learned from."""
        files = partial(pair_files, languages=(self.source_lang, self.target_lang))
        return split_fingerprint(self.folders, subset, self.batches.train_subset, files)

    def epoch(self, epoch: int, micro_batches_per_update: int = 1) -> Planned[PairCorpus]:
        """The micro-batches of the 1-based `epoch`, a function of (seed, epoch).

        Overlong lines are named once and skipped.

        Pairs stand for themselves, so that the micro-batches are the same however many make an update. With
        --subword-sampling they have the subwords of the corpus, and `copied` cuts them anew.
        """
        planned = self._splits.epoch(epoch, seed=self.seed)
        if self._sampler is None:
            return planned
        return Copied(planned.examples, planned.batches, partial(self._sampler.batch, planned.examples, epoch))

    def validation(self, subset: str) -> Planned[PairCorpus]:
        """The batches of a validation split, shortest lines first.

        Raises:
            UserError: for a missing split, or lines too long for the model that may not be skipped.
        """
        return self._splits.validation(subset)

    def loss(self, model: nn.Module, batch: PairBatch) -> tuple[Tensor, float, Mapping[str, Tensor]]:
        """Summed loss in nats, its weight, and the summed negative log-likelihood.

        Label smoothing as in fairseq: 1 - ε on the target, ε / (V - 1) on each other word. The term of
        --consistency is `seqba.tasks.consistency`'s.
        """
        translator: TranslationModel = model  # type: ignore[assignment]
        tokens = TokenCounts(batch.source_tokens, batch.known_target_tokens)
        hidden = translator.features(batch.source, batch.previous, tokens)  # (N, D)
        targets = per_copy(batch.target)
        target = without_padding(targets, Dictionary.pad, tokens.times(copies_at_fork()).target)  # (N,)
        table, bias = translator.output_weight, translator.output_bias  # (V, D), (V,) or None
        loss, nll = label_smoothed_cross_entropy(hidden, table, target, bias=bias, smoothing=self.smoothing)
        loss, sums = with_divergence(loss, nll, hidden, table, self.consistency, bias=bias)
        weight = targets.shape[0] if self.sentence_avg else target.shape[0]
        return loss, float(weight), sums

    def weight(self, batch: PairBatch) -> float:
        """Target tokens, `</s>` included, or sentences with `--sentence-avg`."""
        return float(batch.target.shape[0] if self.sentence_avg else self.count(batch))

    def count(self, batch: PairBatch) -> int:
        """Target tokens, `</s>` included."""
        return int(batch.target_tokens)

    def learning_rate_factor(self, batch: PairBatch) -> float:
        """1: a batch's size is in its weight."""
        return 1.0

    def _open(self, folder: Path, split: str, *, combine: bool = False) -> PairCorpus:
        languages, dictionaries = (self.source_lang, self.target_lang), (self.source_dictionary, self.target_dictionary)
        return open_pairs(folder, split, languages, dictionaries, combine=combine)

    def _open_training(self, folder: Path) -> PairCorpus:
        for language, ours in ((self.source_lang, self.source_dictionary), (self.target_lang, self.target_dictionary)):
            if folder != self.folders[0] and Dictionary.load(folder / f"dict.{language}.txt") != ours:
                raise UserError(
                    f"{folder}/dict.{language}.txt differs from the one in {self.folders[0]}: preprocess all parts "
                    "with the same dictionaries (--srcdict, --tgtdict)"
                )
        corpus = self._open(folder, self.batches.train_subset, combine=True)
        if self._sampler is not None:
            self._sampler.check(corpus, str(folder))
        return corpus

    def _open_sampler(self, probability: float, longest: tuple[int, int]) -> PairSampler:
        """What cuts the pairs of an epoch anew, by the merges in the first folder."""
        languages = (self.source_lang, self.source_dictionary), (self.target_lang, self.target_dictionary)
        source, target = (
            SampledSide(language, load_merges(self.folders[0], language, dictionary), dictionary, most)
            for (language, dictionary), most in zip(languages, longest, strict=True)
        )
        return PairSampler(source, target, probability, seed=self.seed)


def _too_long(rows: npt.NDArray[np.int64], limits: tuple[int, int]) -> str:
    return (
        f"{len(rows)} pairs longer than {limits[0]} source or {limits[1]} target tokens (lines {name_rows(rows)}, "
        "from 0)"
    )
