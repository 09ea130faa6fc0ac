"""Translations of a split: models and sentences → fairseq's lines and BLEU."""

from __future__ import annotations

import collections
import contextlib
import sys
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TextIO

import numpy as np
import numpy.typing as npt

from seqba.cli.jobs.translator import Translator, load_translator
from seqba.cli.options.generate import GenerateOptions, refuse_references
from seqba.cli.output import print_hypotheses, warn_on_stderr
from seqba.cli.translator_options import TranslatorChoices
from seqba.core import ALONE, Group
from seqba.data.batching import fitting
from seqba.data.files import atomic_text, make_folder
from seqba.data.limits import batch_tokens, longest_sides, refuse_or_leave_out
from seqba.data.outputs import missing_folders, remove_empty
from seqba.data.pair_files import open_pairs
from seqba.data.pairs import PairBatch, PairCorpus
from seqba.data.splits import name_rows
from seqba.decoding.hypothesis import Hypothesis
from seqba.decoding.options import SEARCH_MAX_TOKENS, SearchOptions
from seqba.decoding.reference import score_references
from seqba.decoding.translation import plan_translation, translate_batches
from seqba.distributed.launch import joined_ranks
from seqba.errors import UserError
from seqba.evaluation.bleu import joining_option, tokenised_bleu
from seqba.evaluation.text_metrics import sacre_bleu
from seqba.extras import progress_bar
from seqba.runtime.devices import to_device

Rows = npt.NDArray[np.int64]
RANKS_TIMEOUT_S = 1800.0
"""How long a rank waits for the batch of another one."""

TranslatedBatch = tuple[PairBatch, list[list[Hypothesis]]]
Translated = Iterator[TranslatedBatch]


def generate(data: str, choices: TranslatorChoices, options: GenerateOptions, given: Collection[str]) -> None:
    """Translates a split of the data-bin `data`, and prints the translations and their BLEU.

    Args:
        data: the folder.
        choices: models, text and search.
        options: sentences and output.
        given: names of the options that were given.

    Raises:
        UserError: for files that can't be used, or options that the split has no use for.
    """
    translator, search = load_translator(data, choices), choices.search
    corpus = open_pairs(
        data,
        options.gen_subset,
        translator.languages,
        (translator.source.dictionary, translator.target.dictionary),
        needs_target=False,
    )
    if not corpus.has_references:
        refuse_references(given, options)
    with joined_ranks(translator.device, RANKS_TIMEOUT_S) as ranks:
        batches = _plan(corpus, translator, options, warns=ranks.is_first)
        own = batches[ranks.rank :: ranks.size]
        translated = _in_order(_translate(corpus, own, translator, search, options), ranks, batches)
        if not ranks.is_first:
            collections.deque(translated, maxlen=0)  # what this rank translates, the first one prints
            return
        printer = _Printer(translator, search, options, has_references=corpus.has_references)
        printer.print_all(_bar(translated, batches, options))


class _Printer:
    """Prints translations as they come, and their BLEU at the end.

    Args:
        translator: says how ids become text.
        search: how many translations of a sentence are printed.
        options: the form of the output.
        has_references: whether there is a target side to compare with.
    """

    def __init__(
        self, translator: Translator, search: SearchOptions, options: GenerateOptions, *, has_references: bool
    ) -> None:
        self._source, self._target = translator.source, translator.target
        self._search = search
        self._options = options
        self._has_references = has_references
        self._hypotheses: list[str] = []
        self._references: list[str] = []
        self._tokens = 0

    def print_all(self, translated: Translated) -> None:
        """Prints all batches, BLEU where there are references, and the speed on stderr."""
        start = time.perf_counter()
        with _open_output(self._options) as file:
            for batch, found in translated:
                self._print_batch(batch, found, file)
            elapsed_s = time.perf_counter() - start
            lines = self._score_lines() if self._has_references else []
            for line in lines:
                print(line, file=file)
        if self._options.results_path is not None:
            for line in lines:
                print(line)
        count = len(self._hypotheses)
        print(
            f"Translated {count} sentences ({self._tokens} tokens) in {elapsed_s:.1f} s "
            f"({count / elapsed_s:.2f} sentences/s, {self._tokens / elapsed_s:.2f} tokens/s)",
            file=sys.stderr,
        )

    def _print_batch(self, batch: PairBatch, found: list[list[Hypothesis]], file: TextIO) -> None:
        rows = zip(batch.ids.tolist(), batch.source.tolist(), batch.target.tolist(), found, strict=True)
        for row, words, reference, hypotheses in rows:
            reference_text = self._target.plain(reference, reference=True)
            self._hypotheses.append(self._target.plain(hypotheses[0].tokens))
            self._references.append(reference_text)
            self._tokens += len(hypotheses[0].tokens)
            if not self._options.quiet:
                print(f"S-{row}\t{self._source.plain(words)}", file=file)
                if self._has_references:
                    print(f"T-{row}\t{reference_text}", file=file)
                print_hypotheses(row, hypotheses[: self._search.nbest], self._target, file)

    def _score_lines(self) -> list[str]:
        """The sacreBLEU score with its signature where there is plain text, and fairseq's last line."""
        options, hypotheses, references = self._options, self._hypotheses, self._references
        prefix = f"Generate {options.gen_subset} with beam={self._search.beam}: "
        asked = options.sacrebleu or options.scoring == "sacrebleu"
        if (joining := joining_option(references)) is not None:
            warn_on_stderr(f"BLEU is of subwords, not words: add {joining}")
        if options.num_shards > 1:
            warn_on_stderr(f"scores are of shard {options.shard_id} of {options.num_shards} alone")
        lines = []
        sacre = sacre_bleu(hypotheses, references)
        if asked or self._target.is_plain:
            lines.append(f"sacreBLEU {options.gen_subset}: {sacre}")
        if asked:
            return [*lines, prefix + sacre.details]
        bleu = tokenised_bleu(hypotheses, references, tokenize=self._target.bleu_tokenizer)
        return [*lines, f"{prefix}{bleu}"]


def _in_order(translated: Translated, ranks: Group, batches: list[Rows]) -> Translated:
    """Every batch that the ranks translate in turns, in the order of the split, on all of them."""
    if ranks is ALONE:
        yield from translated
        return
    for _ in range(-(-len(batches) // ranks.size)):
        yield from (part for part in ranks.gather(next(translated, None)) if part is not None)


def _plan(corpus: PairCorpus, translator: Translator, options: GenerateOptions, *, warns: bool) -> list[Rows]:
    """The batches of this shard, without the sentences that no model can take."""
    max_tokens = batch_tokens(options.max_tokens, options.batch_size, SEARCH_MAX_TOKENS)
    limits = longest_sides((translator.max_source_positions, translator.max_target_positions), max_tokens)
    rows, dropped = fitting(corpus.source_sizes, corpus.target_sizes, *limits)
    if len(dropped):
        complaint = (
            f"{len(dropped)} pairs of {options.gen_subset} are longer than {limits[0]} source or {limits[1]} target "
            f"tokens (lines {name_rows(dropped)}, from 0)"
        )
        refuse_or_leave_out(
            complaint, leave_out=options.skip_invalid_size_inputs_valid_test, warn=warn_on_stderr if warns else _silent
        )
    if not len(rows):
        raise UserError(f"the split {options.gen_subset} has no sentence that the model can take")
    batches = plan_translation(
        corpus,
        rows,
        max_tokens=max_tokens,
        max_rows=options.batch_size,
        multiple=options.required_batch_size_multiple,
    )
    shard = [batches[number] for number in range(options.shard_id, len(batches), options.num_shards)]
    if not shard:
        raise UserError(
            f"--num-shards {options.num_shards} is more than the {len(batches)} batches there are: shard "
            f"{options.shard_id} has none; take fewer, or a smaller --max-tokens"
        )
    return shard


def _silent(_line: str) -> None:
    """Prints nothing: another rank does."""


def _translate(
    corpus: PairCorpus, batches: list[Rows], translator: Translator, search: SearchOptions, options: GenerateOptions
) -> Translated:
    if not options.score_reference:
        yield from translate_batches(
            translator.ensemble, corpus, batches, search, device=translator.device, prefix_size=options.prefix_size
        )
        return
    for rows in batches:
        batch = corpus.batch(rows)
        there = to_device(batch, translator.device)
        scored = score_references(translator.models, there.source, there.previous, there.target, search)
        yield batch, [[hypothesis] for hypothesis in scored]


@contextlib.contextmanager
def _open_output(options: GenerateOptions) -> Iterator[TextIO]:
    if options.results_path is None:
        yield sys.stdout
        return
    created = missing_folders(options.results_path)
    make_folder(options.results_path, f"--results-path {options.results_path}")
    # Shards of one split may share the folder: none takes the place of another.
    shard = f".{options.shard_id}-of-{options.num_shards}" if options.num_shards > 1 else ""
    try:
        with atomic_text(Path(options.results_path) / f"generate-{options.gen_subset}{shard}.txt") as file:
            yield file
    finally:
        remove_empty(created)  # where nothing came of it


def _bar(translated: Translated, batches: list[Rows], options: GenerateOptions) -> Translated:
    """Adds a progress bar on stderr, if that is a terminal which the lines do not go to."""
    lines_on_terminal = sys.stdout.isatty() and options.results_path is None and not options.quiet
    with progress_bar()(
        total=sum(map(len, batches)),
        desc=f"Generate {options.gen_subset}",
        unit="sent",
        leave=False,
        disable=True if options.no_progress_bar or lines_on_terminal else None,
    ) as bar:
        for batch, found in translated:
            yield batch, found
            bar.update(len(found))
