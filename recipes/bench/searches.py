"""Both sides of the decoding benchmark: the same sentences and weights, ours and Hugging Face's search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from harness import seconds
from marian import build_marian, copy_weights
from transformers import LogitsProcessor, LogitsProcessorList
from workload import SIZES, TEST_LENGTHS, Size, build_ours, lengths, random_rows

from seqba.checkpoints.model import load_model
from seqba.data.dictionary import Dictionary
from seqba.data.pair_files import find_languages, open_pairs
from seqba.decoding.beam import beam_search
from seqba.decoding.options import SearchOptions
from seqba.models.transformer import Transformer

BEAM = 4
LOWERED = 100.0
NEVER = [Dictionary.bos, Dictionary.pad]
LONGEST_A, LONGEST_B = 1.2, 10.0
Translations = list[list[int]]
Search = Callable[[torch.Tensor, "torch.Tensor | None"], Translations]


def measure_fastest(
    translate: Callable[[int], list[Any]], batch_sizes: Sequence[int], clock: Callable[[], float]
) -> Callable[[int], Any]:
    """A side's measurements of a search: number 0 finds the fastest batch size, the others time it.

    Args:
        translate: batch size → the translations of all sentences, as JSON has them.
        batch_sizes: those that are tried.
        clock: `time.perf_counter`, or `time.process_time`.
    """
    chosen = batch_sizes[0]

    def measure(number: int) -> Any:
        nonlocal chosen
        if number == 0:
            times = {size: seconds(lambda size=size: translate(size), clock) for size in batch_sizes}
            chosen = min(times, key=times.__getitem__)
            return None
        translations: list[Any] = []
        elapsed = seconds(lambda: translations.extend(translate(chosen)), clock)
        return {"seconds": elapsed, "batch": chosen, "translations": translations}

    return measure


@dataclass(frozen=True)
class Sentences:
    """What is translated, in the order of the test set.

    Attributes:
        sources: int64 (L,) each, </s> included.
        words: how many words each translation is made to have, </s> not counted; None where the model may end it.
    """

    sources: list[torch.Tensor]
    words: list[int] | None

    def batches(self, size: int, *, by_length: bool) -> list[tuple[list[int], torch.Tensor, torch.Tensor | None]]:
        """(places in the test set, sources (B, L) padded on the right, words (B,)) of at most `size` rows each."""
        places = list(range(len(self.sources)))
        if by_length:
            places.sort(key=lambda place: len(self.sources[place]))
        parts = [places[start : start + size] for start in range(0, len(places), size)]
        return [(part, self._padded(part), self._words(part)) for part in parts]

    def _padded(self, places: list[int]) -> torch.Tensor:
        rows = [self.sources[place] for place in places]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=Dictionary.pad)

    def _words(self, places: list[int]) -> torch.Tensor | None:
        return None if self.words is None else torch.tensor([self.words[place] for place in places])


def random_sentences(count: int) -> Sentences:
    """Random words; lengths of sources and references as in test_2016_flickr, in random order."""
    source, target = lengths(TEST_LENGTHS)
    drawn = np.random.default_rng(1).permutation(np.arange(count) * 37 % len(source))
    rows = random_rows(source[drawn], 8000, torch.Generator().manual_seed(1))
    sources = [row[:length] for row, length in zip(rows, source[drawn].tolist(), strict=True)]
    return Sentences(sources, [length - 1 for length in target[drawn].tolist()])


def read_sentences(data: str, count: int) -> Sentences:
    """The first `count` sources of the test split of a data-bin."""
    languages = find_languages(data)
    source, target = (Dictionary.load(f"{data}/dict.{language}.txt") for language in languages)
    corpus = open_pairs(data, "test", languages, (source, target))
    return Sentences(
        [torch.from_numpy(corpus.source[i].astype(np.int64)) for i in range(min(count, len(corpus)))], None
    )


def read_model(checkpoint: str, size: str) -> Transformer:
    """The checkpoint's model, or random weights of that size where the checkpoint is empty."""
    return load_model(checkpoint).model if checkpoint else build_ours(SIZES[size]).eval()


class Ending:
    """A step model whose translations end after a given number of words, and not before.

    The logit of </s> is lowered by 100; once the words are there, it is raised by as much. What is never said has no
    part in the softmax, as on the other sides.
    """

    def __init__(self, model: Transformer, words: torch.Tensor) -> None:
        self.model = model
        self.words = words
        self.fed = 0
        self.max_target_positions = model.max_target_positions
        self.begin = model.begin

    def step(self, state: Any, tokens: torch.Tensor) -> torch.Tensor:
        """The model's logits, (B, K, V)."""
        logits = self.model.step(state, tokens)
        logits[:, :, NEVER] = -torch.inf
        logits[:, :, Dictionary.eos] += torch.where(self.fed >= self.words, LOWERED, -LOWERED).unsqueeze(1)
        self.fed += 1
        return logits

    def reorder(self, state: Any, sentences: torch.Tensor, parents: torch.Tensor) -> None:
        """As the model's."""
        self.words = self.words[sentences]
        self.model.reorder(state, sentences, parents)


class EndingProcessor(LogitsProcessor):
    """The same for generate, on log-probabilities: the model's `final_logits_bias` does the lowering."""

    def __init__(self, words: torch.Tensor) -> None:
        self.words = words.repeat_interleave(BEAM)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores (B·K, V) of hypotheses that all have the same length; their first token started the decoder."""
        ending = (input_ids.shape[1] - 1 >= self.words).nonzero().squeeze(1)
        if len(ending):
            scores[ending] = -torch.inf
            scores[ending, Dictionary.eos] = 0.0
        return scores


def our_search(ours: Transformer) -> Search:
    """Batch → translations, by seqba."""
    options = SearchOptions(beam=BEAM, max_len_a=LONGEST_A, max_len_b=LONGEST_B)

    def search(source: torch.Tensor, words: torch.Tensor | None) -> Translations:
        model = ours if words is None else Ending(ours, words)
        return [list(found[0].tokens[:-1]) for found in beam_search(model, source, options)]

    return search


def their_search(ours: Transformer, device: torch.device | str = "cpu") -> Search:
    """Batch → translations, by generate on a MarianMTModel with our weights, on a device."""
    layer = ours.decoder_layers[0]
    width, inner = ours.output_weight.shape[1], layer.feed_forward.expand.out_features
    size = Size(len(ours.decoder_layers), width, inner, layer.attention.heads)
    marian = build_marian(size, vocabulary=ours.output_weight.shape[0]).eval()
    copy_weights(ours, marian)
    marian.to(device)
    specials = {Dictionary.eos, Dictionary.pad}

    @torch.inference_mode()
    def search(source: torch.Tensor, words: torch.Tensor | None) -> Translations:
        marian.final_logits_bias[0, NEVER] = -torch.inf
        marian.final_logits_bias[0, Dictionary.eos] = 0.0 if words is None else -LOWERED
        found = marian.generate(
            input_ids=source,
            attention_mask=(source != Dictionary.pad).long(),
            num_beams=BEAM,
            do_sample=False,
            length_penalty=1.0,
            early_stopping=True,
            max_new_tokens=int(LONGEST_A * source.shape[1] + LONGEST_B) + 1,
            logits_processor=LogitsProcessorList([] if words is None else [EndingProcessor(words)]),
        )
        return [[word for word in row if word not in specials] for row in found[:, 1:].tolist()]

    return search
