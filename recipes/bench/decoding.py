"""Beam search against Hugging Face's generate, for the same weights.

    python recipes/bench/decoding.py [--size small] [--sentences 400] [--rounds 5] [--json FILE]

Needs the extra `bench` (pip install -e .[bench]).

Beam 4 with the small model (256/1024, 4 heads, 3+3 layers, vocabulary 8,000) over sentences with the lengths of
Multi30k's test_2016_flickr, sorted by length. Weights are random and the same on both sides: ours are copied into a
MarianMTModel. So that translations have realistic lengths, both sides must end each one where its source ends, not
before: the logit of </s> is lowered by 100 (a wrapper here, `final_logits_bias` there), and at that length only </s>
is allowed (max_len_a = 1 here, a logits processor there). Sentences of a batch thus end at different steps, as real
ones do.

Each side first tries all batch sizes on all sentences and goes on with its fastest; then both measure in turns.
"agree" is the share of sentences with the same translation on both sides; the two sum in different orders, so ties
may fall otherwise.

Expectation: at least 4x the sentences per second of Hugging Face, agreement above 0.98.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from harness import Row, median_ratio, parse_options, report, seconds, serve, take_turns
from marian import build_marian, copy_weights
from transformers import LogitsProcessor, LogitsProcessorList
from workload import SIZES, TEST_LENGTHS, build_ours, lengths, random_rows

from seqba.data.dictionary import Dictionary
from seqba.decoding.beam import beam_search
from seqba.decoding.options import SearchOptions
from seqba.models import Transformer

BEAM = 4
LOWERED = 100.0
STRIDE = 37  # through the 100 lengths, so that a few sentences are of all lengths too
Translations = list[list[int]]


class Lowered:
    """A step model whose </s> is unlikely, so that only the greatest length ends a translation."""

    def __init__(self, model: Transformer) -> None:
        self.model = model
        self.max_target_positions = model.max_target_positions
        self.begin = model.begin
        self.reorder = model.reorder

    def step(self, state: Any, tokens: torch.Tensor) -> torch.Tensor:
        """The model's logits, (B, K, V)."""
        logits = self.model.step(state, tokens)
        logits[:, :, Dictionary.eos] -= LOWERED
        return logits


class EndAt(LogitsProcessor):
    """Allows nothing but </s> where a translation is as long as its source, </s> not counted."""

    def __init__(self, source: torch.Tensor) -> None:
        self.limits = (source != Dictionary.pad).sum(1).repeat_interleave(BEAM)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores (B·K, V) of hypotheses that all have the same length; the first token started the decoder."""
        ending = (input_ids.shape[1] - 1 >= self.limits).nonzero().squeeze(1)
        if len(ending):
            kept = scores[ending, Dictionary.eos]
            scores[ending] = -torch.inf
            scores[ending, Dictionary.eos] = kept
        return scores


def sentences(count: int) -> list[torch.Tensor]:
    """`count` sources (L,), shortest first."""
    source, _ = lengths(TEST_LENGTHS)
    drawn = source[torch.arange(count).numpy() * STRIDE % len(source)]
    drawn.sort()
    rows = random_rows(drawn, 8000, torch.Generator().manual_seed(1))
    return [row[:length] for row, length in zip(rows, drawn.tolist(), strict=True)]


def batched(rows: list[torch.Tensor], size: int) -> list[torch.Tensor]:
    """(B, L) batches of at most `size` rows, in order."""
    pad = torch.nn.utils.rnn.pad_sequence
    parts = [rows[start : start + size] for start in range(0, len(rows), size)]
    return [pad(part, batch_first=True, padding_value=Dictionary.pad) for part in parts]


def our_search(ours: Transformer) -> Callable[[torch.Tensor], Translations]:
    """Batch → translations, by seqba."""
    options = SearchOptions(beam=BEAM, max_len_a=1.0, max_len_b=0.0)
    model = Lowered(ours)
    return lambda source: [list(found[0].tokens[:-1]) for found in beam_search(model, source, options)]


def their_search(ours: Transformer, size: str) -> Callable[[torch.Tensor], Translations]:
    """Batch → translations, by generate."""
    marian = build_marian(SIZES[size]).eval()
    copy_weights(ours, marian)
    marian.final_logits_bias[0, Dictionary.eos] = -LOWERED
    # What our search never says either.
    marian.final_logits_bias[0, [Dictionary.bos, Dictionary.pad]] = -torch.inf

    @torch.inference_mode()
    def search(source: torch.Tensor) -> Translations:
        found = marian.generate(
            input_ids=source,
            attention_mask=(source != Dictionary.pad).long(),
            num_beams=BEAM,
            do_sample=False,
            length_penalty=1.0,
            early_stopping=True,
            max_new_tokens=source.shape[1] + 1,
            logits_processor=LogitsProcessorList([EndAt(source)]),
        )
        specials = (Dictionary.eos, Dictionary.pad)
        return [[word for word in row if word not in specials] for row in found[:, 1:].tolist()]

    return search


def build_side(spec: Mapping[str, Any]) -> Callable[[int], Any]:
    """A child's measurements: number 0 finds the fastest batch size, the others time it."""
    torch.manual_seed(1)
    ours = build_ours(SIZES[spec["size"]]).eval()
    search = our_search(ours) if spec["search"] == "seqba" else their_search(ours, spec["size"])
    rows = sentences(spec["sentences"])
    chosen = spec["batch_sizes"][0]

    def run(size: int) -> Translations:
        return [translation for batch in batched(rows, size) for translation in search(batch)]

    def measure(number: int) -> Any:
        nonlocal chosen
        if number == 0:
            search(batched(rows, chosen)[0])
            times = {size: seconds(lambda size=size: run(size)) for size in spec["batch_sizes"]}
            chosen = min(times, key=times.__getitem__)
            return None
        translations: Translations = []
        elapsed = seconds(lambda: translations.extend(run(chosen)))
        return {"seconds": elapsed, "batch": chosen, "translations": translations}

    return measure


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures both sides and compares what they say."""
    options = parse_options(__doc__, arguments, size="small", sentences=400, batch_sizes=[8, 16, 32, 64, 128], rounds=5)
    if options.side:
        serve(options.side, build_side)
        return 0
    if options.quick:
        options.size, options.sentences, options.batch_sizes, options.rounds = "tiny", 8, [4], 1
    spec = {name: getattr(options, name) for name in ("size", "sentences", "batch_sizes", "threads")}
    sides = ("Hugging Face", "seqba")
    specs = {side: {**spec, "search": side, "keep_memory": True} for side in sides}
    answers, _ = take_turns(__file__, specs, options.rounds)
    times = {side: [answer["seconds"] for answer in answers[side]] for side in sides}
    said = {side: answers[side][-1]["translations"] for side in sides}
    same = sum(a == b for a, b in zip(said["seqba"], said["Hugging Face"], strict=True)) / options.sentences
    rows: list[Row] = [
        {
            "search": side,
            "batch": answers[side][-1]["batch"],
            "sentences/s": options.sentences / statistics.median(times[side]),
            "x Hugging Face": median_ratio(times["Hugging Face"], times[side]),
            "words": sum(map(len, said[side])) / options.sentences,
        }
        for side in sides
    ]
    report("Beam search, beam 4", rows, options, agree=round(same, 4))
    return 0


if __name__ == "__main__":
    sys.exit(main())
