"""How long it takes until the first batch of a WMT-sized epoch is known: opening the data folder and planning.

    python recipes/bench/batch_planning.py [--pairs 4500000] [--max-tokens 4096] [--repeats 3] [--json FILE]

Writes a data folder of generated sentence lengths (log-normal, about 30 subwords a sentence, as in WMT16 En-De with 32k
subwords) to a temporary place, 0.65 GB for 4.5 million pairs, and then measures wall time, best of the repeats:

    open        both dictionaries, both corpora; sizes against file lengths, every id against its dictionary, every
                row's end; against reading the same bytes and doing nothing (both from the page cache)
    plan        plan_epoch: shuffle, sort in windows, cut into batches, shuffle; against np.lexsort of the same
                lengths, and against fairseq's rule as a plain Python loop over rows (on a sample, scaled up)

`open_and_plan_cpu_s` is the processor time of both, which other work on the machine does not stretch as much.

Expectation: open + plan under 3 s for 4.5 million pairs on two cores.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from seqba.cli.command import run as run_command
from seqba.data.batching import Batches, plan_epoch
from seqba.data.dictionary import Dictionary
from seqba.data.indexed_writer import IndexedWriter
from seqba.data.pair_files import open_pairs
from seqba.data.pairs import PairCorpus

VOCABULARY = 32_768
ROWS_AT_ONCE = 100_000
SAMPLE_ROWS = 200_000
LONGEST = 250

Sizes = npt.NDArray[np.int64]


def generate_sizes(pairs: int, seed: int = 1) -> tuple[Sizes, Sizes]:
    """Lengths of both sides, correlated as those of translations are; `</s>` included."""
    random = np.random.default_rng(seed)
    source = np.exp(random.normal(3.15, 0.62, pairs))
    target = source * np.exp(random.normal(0.03, 0.21, pairs))
    return tuple(np.clip(np.round(side), 1, LONGEST).astype(np.int64) + 1 for side in (source, target))


def write_corpus(folder: Path, sizes: dict[str, Sizes]) -> None:
    """A data folder with these lengths and random words."""
    dictionary = Dictionary.build({f"word{n}": VOCABULARY - n for n in range(VOCABULARY - 4)})
    random = np.random.default_rng(2)
    words = random.integers(4, VOCABULARY, ROWS_AT_ONCE * (LONGEST + 1), dtype=np.uint16)
    for language, lengths in sizes.items():
        dictionary.save(folder / f"dict.{language}.txt")
        with IndexedWriter(folder / f"train.en-de.{language}", len(dictionary)) as writer:
            for start in range(0, len(lengths), ROWS_AT_ONCE):
                rows = lengths[start : start + ROWS_AT_ONCE]
                ids = words[: rows.sum()].copy()
                ids[np.cumsum(rows) - 1] = Dictionary.eos
                writer.add_rows(ids, rows)


def open_corpus(folder: Path) -> PairCorpus:
    """What a training run does before it can plan."""
    english, german = (Dictionary.load(folder / f"dict.{language}.txt") for language in ("en", "de"))
    return open_pairs(folder, "train", ("en", "de"), (english, german))


def read_everything(folder: Path) -> int:
    """Reads the same files in the same stretches and looks at nothing."""
    buffer = bytearray(1 << 24)
    count = 0
    for path in folder.iterdir():
        with path.open("rb", buffering=0) as file:
            while read := file.readinto(buffer):
                count += read
    return count


def python_loop(longest: list[int], max_tokens: int, multiple: int) -> int:
    """fairseq's batch_by_size as one would write it in Python; returns the number of batches."""
    batches, batch, width = 0, [], 0
    for length in longest:
        if batch and (len(batch) + 1) * max(width, length) > max_tokens:
            keep = len(batch) - len(batch) % multiple if len(batch) > multiple else len(batch)
            batch = batch[keep:]
            width = max(batch, default=0)
            batches += 1
        batch.append(length)
        width = max(width, length)
    return batches + bool(batch)


def best_of(repeats: int, work: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> tuple[float, Any]:
    """Least time of some repeats, in seconds, and the last result."""
    times = []
    for _ in range(repeats):
        begin = clock()
        result = work()
        times.append(clock() - begin)
    return min(times), result


def padding_share(batches: Batches, sizes: npt.NDArray[np.int32]) -> float:
    """Share of a padded batch that is padding, over the epoch."""
    widest = np.maximum.reduceat(sizes[batches.rows], batches.offsets[:-1])
    return 1 - float(sizes.sum()) / float((np.diff(batches.offsets) * widest).sum())


def measure(folder: Path, max_tokens: int, repeats: int) -> dict[str, float]:
    """All figures; times in seconds."""
    open_s, corpus = best_of(repeats, lambda: open_corpus(folder))
    read_s, read_bytes = best_of(repeats, lambda: read_everything(folder))
    source, target = corpus.source_sizes, corpus.target_sizes

    def plan() -> Batches:
        return plan_epoch(source, target, seed=1, epoch=1, max_tokens=max_tokens)

    plan_s, batches = best_of(repeats, plan)
    cpu_s = sum(best_of(repeats, work, time.process_time)[0] for work in (lambda: open_corpus(folder), plan))
    longest = np.maximum(source, target)
    lexsort_s, order = best_of(repeats, lambda: np.lexsort((source, longest)))
    sample = longest[order[:: -(-len(order) // SAMPLE_ROWS)]].tolist()
    loop_s, _ = best_of(repeats, lambda: python_loop(sample, max_tokens, 8))
    loop_s *= len(order) / len(sample)
    return {
        "pairs": len(corpus),
        "read_gigabytes": read_bytes / 1e9,
        "open_s": open_s,
        "plan_s": plan_s,
        "open_and_plan_s": open_s + plan_s,
        "open_and_plan_cpu_s": cpu_s,
        "reading_only_s": read_s,
        "lexsort_only_s": lexsort_s,
        "python_loop_s_scaled_up": loop_s,
        "open_over_reading": open_s / read_s,
        "plan_over_lexsort": plan_s / lexsort_s,
        "python_loop_over_plan": loop_s / plan_s,
        "batches": len(batches),
        "target_tokens_per_batch": float(target.sum()) / len(batches),
        "source_padding_share": padding_share(batches, source),
        "target_padding_share": padding_share(batches, target),
        "peak_memory_gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the corpus, measures, prints the table and the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=4_500_000, help="sentence pairs (%(default)s)")
    parser.add_argument("--max-tokens", type=int, default=4096, help="tokens of a batch (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="the best of so many counts (%(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        print(f"writing {options.pairs:,} pairs ...", file=sys.stderr)
        write_corpus(Path(name), dict(zip(("en", "de"), generate_sizes(options.pairs), strict=True)))
        figures = measure(Path(name), options.max_tokens, options.repeats)
    for key, value in figures.items():
        print(f"{key:26} {value:>14,.3f}" if isinstance(value, float) else f"{key:26} {value:>14,}")
    if options.json:
        machine = {"python": platform.python_version(), "numpy": np.__version__, "processor": platform.machine()}
        options.json.write_text(json.dumps({"machine": machine, "figures": figures}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
