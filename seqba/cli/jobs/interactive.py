"""Translations of lines as they come, printed in their order."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import torch

from seqba.cli.jobs.translator import Translator, load_translator
from seqba.cli.options.interactive import InteractiveOptions
from seqba.cli.output import print_hypotheses, warn_on_stderr
from seqba.cli.translator_options import TranslatorChoices
from seqba.data.batching import plan_batches
from seqba.data.dictionary import Dictionary
from seqba.data.files import open_file
from seqba.data.limits import batch_tokens, refuse_or_leave_out
from seqba.data.lines import iterate_lines
from seqba.decoding.beam import beam_search
from seqba.decoding.hypothesis import Hypothesis
from seqba.decoding.options import SEARCH_MAX_TOKENS, SearchOptions


@dataclass(frozen=True)
class _Line:
    """A line of the input: its 0-based number and its ids, end of sentence included."""

    number: int
    ids: np.ndarray[tuple[int], np.dtype[np.int64]]

    @property
    def is_empty(self) -> bool:
        return len(self.ids) == 1


def translate_lines(data: str | None, choices: TranslatorChoices, options: InteractiveOptions) -> None:
    """Translates lines until the input ends.

    Args:
        data: the data-bin; None for the Marian folder of the model itself.
        choices: models, text and search.
        options: where lines come from, and how many are taken together.

    Raises:
        UserError: for files that can't be used, or a line that is too long.
    """
    translator = load_translator(data, choices)
    with _open_input(options.input) as file:
        if file.isatty():
            print("Type a sentence and press return; Ctrl-D ends.", file=sys.stderr)
        for lines in _buffers(file, translator, options):
            _translate(lines, translator, choices.search, options)
            sys.stdout.flush()


def _buffers(file: BinaryIO, translator: Translator, options: InteractiveOptions) -> Iterator[list[_Line]]:
    """Groups of lines that are translated together; lines that no model can take are refused or left out."""
    buffer: list[_Line] = []
    waiting = 0
    longest = translator.max_source_positions
    if options.max_tokens is not None:
        longest = min(longest, options.max_tokens)
    where = "standard input" if options.input == "-" else f"input {options.input}"
    for number, text in enumerate(iterate_lines(file, where)):
        line = _Line(number, _encode(text, translator))
        waiting += 1
        if len(line.ids) <= longest:
            buffer.append(line)
        else:
            complaint = f"line {number + 1} of the input is {len(line.ids)} tokens long; {longest} is the most"
            refuse_or_leave_out(
                complaint, leave_out=options.skip_invalid_size_inputs_valid_test, warn=warn_on_stderr, remedy="cut it"
            )
        if waiting >= options.buffer_size:
            yield buffer
            buffer, waiting = [], 0
    yield buffer


def _encode(text: str, translator: Translator) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    ids = translator.source.encode(text.strip())
    # A word that is spelt like padding is as unknown here as it is in a corpus.
    return np.where(ids == Dictionary.pad, Dictionary.unk, ids)


def _translate(lines: list[_Line], translator: Translator, search: SearchOptions, options: InteractiveOptions) -> None:
    """Translates a buffer in batches of like length, and prints it in the order of the input."""
    found: dict[int, tuple[list[Hypothesis], float]] = {
        line.number: ([Hypothesis((), 0.0, ())] * search.nbest, 0.0) for line in lines if line.is_empty
    }
    full = [line for line in lines if not line.is_empty]
    sizes = np.array([len(line.ids) for line in full], dtype=np.int64)
    batches = plan_batches(
        sizes,
        sizes,
        np.argsort(sizes, kind="stable"),
        max_tokens=batch_tokens(options.max_tokens, options.batch_size, SEARCH_MAX_TOKENS),
        max_rows=options.batch_size,
        multiple=1,
    )
    for number in range(len(batches)):
        batch = [full[row] for row in batches[number]]
        start = time.perf_counter()
        hypotheses = beam_search(
            translator.ensemble, _padded(batch).to(translator.device), search, ids=[line.number for line in batch]
        )
        seconds = (time.perf_counter() - start) / len(batch)
        found.update({line.number: (own, seconds) for line, own in zip(batch, hypotheses, strict=True)})
    for line in lines:
        hypotheses_of_line, seconds = found[line.number]
        print(f"S-{line.number}\t{translator.source.shown(line.ids)}")
        print(f"W-{line.number}\t{seconds:.3f}\tseconds")
        print_hypotheses(line.number, hypotheses_of_line[: search.nbest], translator.target, sys.stdout)


def _padded(lines: list[_Line]) -> torch.Tensor:
    """(B, L) int64, right-padded."""
    padded = np.full((len(lines), max(len(line.ids) for line in lines)), Dictionary.pad, dtype=np.int64)
    for row, line in zip(padded, lines, strict=True):
        row[: len(line.ids)] = line.ids
    return torch.from_numpy(padded)


@contextmanager
def _open_input(name: str) -> Iterator[BinaryIO]:
    if name == "-":
        yield sys.stdin.buffer
        return
    with open_file(name, "input") as file:
        yield file
