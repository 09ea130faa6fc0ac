"""Beam search against Hugging Face's generate, for the same weights.

    python recipes/bench/decoding.py [--size small] [--sentences 400] [--rounds 5] [--json FILE]
    python recipes/bench/decoding.py --checkpoint checkpoint_best.pt --data data-bin --sentences 1000

Needs the extra `bench` (pip install -e .[bench]).

Beam 4, length penalty 1, on weights that are copied from our model into a MarianMTModel. Three sides, each in its
own process, freed memory kept for all:

    Hugging Face            generate, a plain loop over the sentences in the order of the test set
    Hugging Face, sorted    the same, but somebody has sorted them by source length first
    seqba                   beam_search, which gets them sorted, as seqba-generate does

Each side first tries all batch sizes on all sentences and goes on with its fastest; then they measure in turns.

Without a checkpoint the model is the small one (256/1024, 4 heads, 3+3 layers, vocabulary 8,000) with random
weights, and the sentences have the lengths of Multi30k's test_2016_flickr. So that translations have realistic
lengths, all sides must end each one where its reference would end, not before and not after: see `searches.Ending`.
With a checkpoint (of a post-norm model with --share-all-embeddings) the test split of the data-bin is translated,
and the model ends as it likes; both stop at 1.2 L + 10 words, L being the longest source of the batch for Hugging
Face.

"agree" is the share of sentences with the same translation on both sides. They sum in different orders, so ties may
fall otherwise; and with a checkpoint the rules differ about which finished hypotheses to keep.

Reached on two AVX-512 cores, 2026-11-25, --sentences 200 --rounds 3 --batch-sizes 32 64 128: 4.0x the sentences per
second of Hugging Face in the order of the test set, 2.6x of it sorted, agreement 1.00. With
--threads 1 it is 3.5x: Hugging Face gains less from the second core. Two thirds of our time are float32 products at 200
GFLOP/s (torch.profiler), near the best of the machine; attention is a tenth, log_softmax 4%.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any

import torch
from harness import Row, median_ratio, parse_options, report, serve, take_turns
from searches import measure_fastest, our_search, random_sentences, read_model, read_sentences, their_search

from seqba.cli.command import run as run_command

SIDES = {
    "Hugging Face": {"search": "marian", "by_length": False},
    "Hugging Face, sorted": {"search": "marian", "by_length": True},
    "seqba": {"search": "seqba", "by_length": True},
}


def build_side(spec: Mapping[str, Any]) -> Callable[[int], Any]:
    """A child's measurements: number 0 finds the fastest batch size, the others time it."""
    torch.manual_seed(1)
    ours = read_model(spec["checkpoint"], spec["size"])
    search = {"seqba": our_search, "marian": their_search}[spec["search"]](ours)
    sentences = read_sentences(spec["data"], spec["sentences"]) if spec["data"] else random_sentences(spec["sentences"])

    def translate(size: int) -> list[list[int]]:
        found: dict[int, list[int]] = {}
        for places, source, words in sentences.batches(size, by_length=spec["by_length"]):
            found.update(zip(places, search(source, words), strict=True))
        return [found[place] for place in range(len(found))]

    return measure_fastest(translate, spec["batch_sizes"], perf_counter)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures all sides and compares what they say."""
    options = parse_options(
        __doc__,
        arguments,
        size="small",
        checkpoint="",
        data="",
        sentences=400,
        batch_sizes=[8, 16, 32, 64, 128],
        rounds=5,
    )
    if options.side:
        serve(options.side, build_side)
        return 0
    if bool(options.checkpoint) != bool(options.data):
        sys.exit("--checkpoint and --data belong together: give both or neither")
    if options.quick:
        options.size, options.sentences, options.batch_sizes, options.rounds = "tiny", 8, [4], 1
    names = ("size", "checkpoint", "data", "sentences", "batch_sizes", "threads")
    spec = {name: getattr(options, name) for name in names}
    specs = {name: {**spec, **side, "keep_memory": True} for name, side in SIDES.items()}
    answers, _ = take_turns(__file__, specs, options.rounds)
    times = {name: [answer["seconds"] for answer in answers[name]] for name in SIDES}
    said = {name: answers[name][-1]["translations"] for name in SIDES}
    count = len(said["seqba"])
    rows: list[Row] = [
        {
            "search": name,
            "batch": answers[name][-1]["batch"],
            "sentences/s": count / statistics.median(times[name]),
            "x Hugging Face": median_ratio(times["Hugging Face"], times[name]),
            "words": sum(map(len, said[name])) / count,
            "agree": sum(a == b for a, b in zip(said["seqba"], said[name], strict=True)) / count,
        }
        for name in SIDES
    ]
    report(f"Beam search, beam 4, {count} sentences", rows, options)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
