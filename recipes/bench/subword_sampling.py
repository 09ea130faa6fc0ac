"""What --subword-sampling costs in reading: lines a second, against reading them as they are and SentencePiece's own.

    python recipes/bench/subword_sampling.py DATA-BIN [--copies 4] [--max-tokens 4096] [--batches 40] [--json FILE]

DATA-BIN is one of seqba-preprocess --sentencepiece. Batches of its first epoch are made three ways, in turns, and timed
in processor time of one thread:

    plain          as the data-bin has them, once for all copies
    sampled        cut anew for each copy, as in training
    sentencepiece  the same lines by SentencePiece's own sampling, from the text, its generator seeded for each line

A line is one side of a pair in one copy. `tokens` is how many subwords come out, against the data-bin's.

Expectation: tens of thousands of lines a second; half of SentencePiece's speed in large batches, a third in small ones.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import sentencepiece

from seqba.cli.command import run as run_command
from seqba.data.dictionary import Dictionary
from seqba.tasks.options import BatchOptions, CriterionOptions
from seqba.tasks.token_batches import Copied
from seqba.tasks.translation import Translation, TranslationOptions


def open_epoch(data: str, max_tokens: int, probability: float) -> tuple[Translation, Copied[Any]]:
    """The sampled batches of an epoch."""
    task = Translation(
        data,
        TranslationOptions(subword_sampling=probability),
        BatchOptions(max_tokens=max_tokens),
        CriterionOptions(),
        seed=1,
        max_positions=(1024, 1024),
    )
    epoch = task.epoch(1)
    assert isinstance(epoch, Copied)
    return task, epoch


def count_tokens(batch: Any) -> int:
    """Subwords of both sides."""
    return int((batch.source != Dictionary.pad).sum() + (batch.target != Dictionary.pad).sum())


def processor_seconds(make: Callable[[], object]) -> float:
    """Processor time of one call."""
    started = time.process_time()
    make()
    return time.process_time() - started


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Lines a second of each way, medians over batches."""
    task, epoch = open_epoch(options.data, options.max_tokens, options.probability)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(Path(options.data) / "sentencepiece.model"))
    dictionaries = (task.source_dictionary, task.target_dictionary)

    def sampled_by_sentencepiece(texts: list[str]) -> None:
        for number, text in enumerate(texts):
            sentencepiece.set_random_generator_seed(number)
            processor.encode(text, out_type=int, enable_sampling=True, alpha=options.probability, nbest_size=-1)

    speeds: dict[str, list[float]] = {"plain": [], "sampled": [], "sentencepiece": []}
    plain_tokens, sampled_tokens = 0, 0
    for number in range(min(options.batches, len(epoch))):
        batch = epoch[number]
        lines = 2 * len(batch.ids) * options.copies
        texts = [
            "".join(dictionary.decode(row)).replace("▁", " ").strip()
            for dictionary, side in zip(dictionaries, (batch.source, batch.target), strict=True)
            for row in side.tolist()
        ] * options.copies
        plain_tokens += options.copies * count_tokens(batch)
        sampled_tokens += count_tokens(epoch.copied(number, options.copies))
        ways: dict[str, Callable[[], object]] = {
            "plain": lambda number=number: epoch[number],
            "sampled": lambda number=number: epoch.copied(number, options.copies),
            "sentencepiece": lambda texts=texts: sampled_by_sentencepiece(texts),
        }
        for way, make in ways.items():
            speeds[way].append(lines / processor_seconds(make))
    median = {way: statistics.median(found) for way, found in speeds.items()}
    return [
        {
            "way": way,
            "lines/s": round(speed),
            "ms a batch": round(1000 * lines_of(epoch, options) / speed, 2),
            "tokens": round(sampled_tokens / plain_tokens, 3) if way == "sampled" else "",
        }
        for way, speed in median.items()
    ]


def lines_of(epoch: Copied[Any], options: argparse.Namespace) -> float:
    """Lines of a batch with all its copies, on average."""
    return 2 * options.copies * len(epoch.batches.rows) / len(epoch)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="data-bin with a sentencepiece.model")
    parser.add_argument("--copies", type=int, default=4, help="M (%(default)s)")
    parser.add_argument("--max-tokens", type=int, default=4096, help="of a micro-batch (%(default)s)")
    parser.add_argument("--probability", type=float, default=0.1, help="of dropping a merge (%(default)s)")
    parser.add_argument("--batches", type=int, default=40, help="that are measured (%(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    options = parser.parse_args(arguments)
    rows = measure(options)
    title = f"M = {options.copies}, --max-tokens {options.max_tokens}, {platform.machine()}, one thread"
    print(title)
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items() if value != ""))
    if options.json is not None:
        options.json.write_text(json.dumps({"title": title, "rows": rows}, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
