"""Beam search against CTranslate2, for the same weights: float32 and int8 of both, and ours in bfloat16.

    pip install -e .[bench,export] ctranslate2
    python recipes/bench/decoding_ctranslate2.py [--size small] [--sentences 200] [--rounds 3] [--json FILE]

Random weights make the whole way that docs/marian.md describes: seqba-preprocess (up to 8,000 pieces of made-up
words), seqba-train for one update, seqba-export --to transformers, CTranslate2's converter. The sentences are random
pieces with the lengths of Multi30k's test_2016_flickr, in groups of 64 whose references have similar lengths; beam 4,
and translations have as many pieces as the group's references on average, which is the least and the greatest length on
both sides. Ours reads the model once more, for the end of the sentence, where CTranslate2 stops without one.

Each side is a process of its own and measures the processor's seconds, on which other programs tell less. It tries all
batch sizes first and goes on with its fastest; then the sides measure in turns. "x float32" is the median over rounds
of the speed over CTranslate2's in float32, "x int8" over its int8; "agree" the share of sentences whose four hypotheses
are the same four as those of ours in float32.

Expectation, with AMX: bfloat16 is 1.3 (small) and 1.8 (base) times as fast as CTranslate2's float32 and as fast as its
int8, float32 somewhat slower than its float32 (the goals were 1.5 and 1.0 times). Without AMX, at the small size:
float32 0.84 times its float32, bfloat16 and int8 1.3 times it and 0.7 times its int8 (AMD's Zen 4); int8 as fast as its
float32 and 0.7 times its int8, bfloat16 slower than float32 (Intel with VNNI). docs/benchmarks.md has what was reached,
and where.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch
from harness import Row, median_ratio, parse_options, report, serve, take_turns
from searches import BEAM, Ending, measure_fastest
from workload import SIZES, TEST_LENGTHS, Size, lengths, random_rows

from seqba.checkpoints.model import load_model
from seqba.cli.command import run as run_command
from seqba.cli.export import main as export
from seqba.cli.preprocess import main as preprocess
from seqba.cli.train import main as train
from seqba.data.dictionary import Dictionary
from seqba.decoding.beam import beam_search
from seqba.decoding.options import SearchOptions
from seqba.models.prepared import prepared, quantized
from seqba.models.transformer import Transformer

GROUP = 64
SIDES = {
    "seqba float32": {"program": "seqba", "dtype": "float32"},
    "seqba bfloat16": {"program": "seqba", "dtype": "bfloat16"},
    "seqba int8": {"program": "seqba", "dtype": "int8"},
    "CTranslate2 float32": {"program": "CTranslate2", "dtype": "float32"},
    "CTranslate2 int8": {"program": "CTranslate2", "dtype": "int8"},
}
Translations = list[list[list[str]]]  # of each sentence its hypotheses


def write_models(folder: Path, size: Size, pieces: int) -> None:
    """A data-bin, a checkpoint of random weights, and the same as a Marian folder and for CTranslate2."""
    import ctranslate2.converters  # here: not in our sides' processes

    made_up = np.random.default_rng(1)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = np.array(["".join(made_up.choice(letters, made_up.integers(4, 12))) for _ in range(3 * pieces)])
    for language in ("en", "de"):
        lines = map(" ".join, made_up.choice(words, (pieces, 12)))
        (folder / f"train.{language}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    prefix, data = str(folder / "train"), str(folder / "data-bin")
    joint = ["--joined-dictionary", "--sentencepiece", str(pieces)]
    _call(preprocess, "-s", "en", "-t", "de", "--trainpref", prefix, "--validpref", prefix, "--destdir", data, *joint)
    sizes = {"layers": size.layers, "embed-dim": size.embed_dim, "ffn-embed-dim": size.ffn_dim}
    sizes["attention-heads"] = size.heads
    flags = [f"--{side}-{name}={value}" for side in ("encoder", "decoder") for name, value in sizes.items()]
    saved = ["--save-dir", str(folder), "--disable-validation"]
    one = ["--max-update", "1", "--max-tokens", "256", "--optimizer", "adam", "--lr", "1e-6"]
    _call(train, data, "--arch", "transformer", "--share-all-embeddings", *flags, *one, *saved)
    checkpoint, marian = str(folder / "checkpoint_last.pt"), str(folder / "marian")
    _call(export, checkpoint, "--to", "transformers", "--data", data, "--output", marian)
    ctranslate2.converters.TransformersConverter(marian).convert(str(folder / "ctranslate2"))


def _call(command: Callable[[Sequence[str]], int], *arguments: str) -> None:
    if run_command(command, list(arguments)) != 0:
        sys.exit(f"{command.__module__} failed")


def read_sentences(folder: Path, count: int) -> list[tuple[int, list[list[str]]]]:
    """Random pieces in the lengths of the test set, </s> not counted: (length of the translations, sentences)."""
    dictionary = Dictionary.load(folder / "data-bin" / "dict.en.txt")
    source, target = lengths(TEST_LENGTHS)
    places = np.arange(count) * 37 % len(source)
    places = places[np.lexsort((source[places], target[places]))]
    rows = random_rows(source[places], len(dictionary), torch.Generator().manual_seed(1)).tolist()
    sentences = [[dictionary.symbols[i] for i in row[: row.index(Dictionary.eos)]] for row in rows]
    starts = range(0, count, GROUP)
    words = [round(target[places[start : start + GROUP]].mean()) - 1 for start in starts]
    return [(length, sentences[start : start + GROUP]) for length, start in zip(words, starts, strict=True)]


def our_search(folder: Path, dtype: str) -> Callable[[list[list[str]], int], Translations]:
    """Sentences and the length of their translations → the hypotheses of each, by seqba as seqba-generate has it."""
    dictionary = Dictionary.load(folder / "data-bin" / "dict.en.txt")
    loaded = load_model(folder / "checkpoint_last.pt").model.eval()
    assert isinstance(loaded, Transformer)
    model = quantized(loaded) if dtype == "int8" else prepared(loaded.to(getattr(torch, dtype)))

    def search(sentences: list[list[str]], words: int) -> Translations:
        rows = [torch.from_numpy(dictionary.encode(sentence)) for sentence in sentences]
        source = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=Dictionary.pad)
        ending = Ending(model, torch.full((len(rows),), words))
        found = beam_search(ending, source, SearchOptions(beam=BEAM, max_len_a=0, max_len_b=words))
        return [[dictionary.decode(one.tokens) for one in hypotheses] for hypotheses in found]

    return search


def their_search(folder: Path, dtype: str, threads: int) -> Callable[[list[list[str]], int], Translations]:
    """The same by CTranslate2."""
    import ctranslate2

    model = ctranslate2.Translator(
        str(folder / "ctranslate2"), device="cpu", compute_type=dtype, inter_threads=1, intra_threads=threads
    )

    def search(sentences: list[list[str]], words: int) -> Translations:
        found = model.translate_batch(
            [[*sentence, "</s>"] for sentence in sentences],
            beam_size=BEAM,
            num_hypotheses=BEAM,
            min_decoding_length=words,
            max_decoding_length=words,
            suppress_sequences=[["<s>"]],  # what our search never says either
        )
        return [result.hypotheses for result in found]

    return search


def build_side(spec: Mapping[str, Any]) -> Callable[[int], Any]:
    """A child's measurements: number 0 finds the fastest batch size, the others time it."""
    folder = Path(spec["folder"])
    ours = spec["program"] == "seqba"
    search = our_search(folder, spec["dtype"]) if ours else their_search(folder, spec["dtype"], spec["threads"])
    sentences = read_sentences(folder, spec["sentences"])

    def translate(size: int) -> Translations:
        found: Translations = []
        for words, group in sentences:
            for start in range(0, len(group), size):
                found += search(group[start : start + size], words)
        return found

    return measure_fastest(translate, spec["batch_sizes"], process_time)


def measure(options: Any, folder: Path) -> list[Row]:
    """The rows of the models in a folder."""
    names = ("sentences", "batch_sizes", "threads")
    common = {"folder": str(folder), "keep_memory": True, **{name: getattr(options, name) for name in names}}
    answers, peaks = take_turns(__file__, {name: {**common, **side} for name, side in SIDES.items()}, options.rounds)
    work = {name: [answer["seconds"] for answer in answers[name]] for name in SIDES}
    said = {name: [sorted(found) for found in answers[name][-1]["translations"]] for name in SIDES}
    count = len(said["seqba float32"])
    return [
        {
            "search": name,
            "batch": answers[name][-1]["batch"],
            "sentences/s of work": count / statistics.median(work[name]),
            "x float32": median_ratio(work["CTranslate2 float32"], work[name]),
            "x int8": median_ratio(work["CTranslate2 int8"], work[name]),
            "agree": sum(a == b for a, b in zip(said["seqba float32"], said[name], strict=True)) / count,
            "peak MB": peaks[name],
        }
        for name in SIDES
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures all sides and compares what they say."""
    options = parse_options(__doc__, arguments, size="small", sentences=200, batch_sizes=[16, 32, 64], rounds=3)
    if options.side:
        serve(options.side, build_side)
        return 0
    if options.quick:
        options.size, options.sentences, options.batch_sizes, options.rounds = "tiny", 8, [4], 1
    with tempfile.TemporaryDirectory() as folder:
        with redirect_stdout(sys.stderr):  # the table has standard output to itself
            write_models(Path(folder), SIZES[options.size], 60 if options.quick else 8000)
        rows = measure(options, Path(folder))
    report(f"Beam search, beam {BEAM}, {options.sentences} sentences, {options.size}", rows, options)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
