"""The search against exhaustive enumeration, greedy loops and hand-made tables."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from table_model import TableModel
from torch import Tensor

from seqba.decoding.beam import beam_search
from seqba.decoding.hypothesis import Hypothesis, length_penalty
from seqba.decoding.options import SearchOptions
from seqba.errors import UserError

SOURCES = [[4, 5, 2], [5, 2], [4, 4, 4, 6, 2], [7, 2], [6, 6, 5, 2], [9, 5, 2], [3, 2]]


def batch(sentences: list[list[int]]) -> Tensor:
    longest = max(map(len, sentences))
    return torch.tensor([sentence + [1] * (longest - len(sentence)) for sentence in sentences])


def enumerate_all(model: TableModel, source: Tensor, max_length: int, penalty: float) -> dict[tuple[int, ...], float]:
    """Every sequence that ends within `max_length` words, with its score."""
    words = [word for word in range(model.start.size(1)) if word not in (0, 1, 2)]
    scored = {}
    for length in range(1, max_length + 1):
        for sequence in itertools.product(words, repeat=length):
            tokens = (*sequence, 2)
            total = float(model.log_probability(source, tokens).sum())
            scored[tokens] = total / length_penalty(len(tokens), penalty, "fairseq")
    return scored


@pytest.mark.parametrize("lenpen", [0.0, 0.6, 1.0, 1.8])
def test_a_wide_beam_equals_exhaustive_search(lenpen: float) -> None:
    model = TableModel(6, seed=3)
    options = SearchOptions(beam=60, lenpen=lenpen, max_len_b=3)
    for hypotheses, sentence in zip(beam_search(model, batch(SOURCES), options), SOURCES, strict=True):
        expected = enumerate_all(model, torch.tensor(sentence), 3, lenpen)
        found = {hypothesis.tokens: hypothesis.score for hypothesis in hypotheses}
        assert found.keys() == expected.keys()
        assert found == pytest.approx(expected, abs=1e-5)
        scores = [hypothesis.score for hypothesis in hypotheses]
        assert scores == sorted(scores, reverse=True)


def test_beam_one_is_greedy() -> None:
    model = TableModel(30, seed=5)
    options = SearchOptions(beam=1, max_len_b=12)
    for (best, *others), sentence in zip(beam_search(model, batch(SOURCES), options), SOURCES, strict=True):
        tokens: list[int] = []
        state = model.begin(torch.tensor([sentence]), 1)
        while not tokens or tokens[-1] != 2:
            logits = model.step(state, torch.tensor([[tokens[-1] if tokens else 2]]))[0, 0]
            logits[[0, 1]] = -torch.inf
            if not tokens:
                logits[2] = -torch.inf  # --min-len 1
            tokens.append(2 if len(tokens) == 12 else int(logits.argmax()))
        assert best.tokens == tuple(tokens)
        assert not others


@pytest.mark.parametrize(
    "options",
    [
        SearchOptions(beam=3, max_len_a=1.5, max_len_b=2),
        SearchOptions(beam=4, nbest=4, max_len_a=2, max_len_b=1, sampling=True, seed=3),
        SearchOptions(beam=4, nbest=4, max_len_a=2, max_len_b=1, sampling=True, sampling_topk=5),
        SearchOptions(beam=4, nbest=4, max_len_a=2, max_len_b=1, sampling=True, sampling_topp=0.7),
    ],
    ids=["beam", "sampling", "top-k", "top-p"],
)
def test_batching_changes_nothing(options: SearchOptions) -> None:
    model = TableModel(300, seed=7)
    # Sentence 1 is done after two words, while the others still follow theirs.
    prefix = torch.tensor([[9, 8, 7], [8, 2, 1], [1, 1, 1], [7, 6, 5], [1, 1, 1], [6, 9, 1], [5, 5, 5]])
    together = beam_search(model, batch(SOURCES), options, ids=range(7), prefix=prefix)
    for identifier, sentence in enumerate(SOURCES):
        row = prefix[identifier : identifier + 1]
        [alone] = beam_search(model, batch([sentence]), options, ids=[identifier], prefix=row)
        assert [hypothesis.tokens for hypothesis in alone] == [each.tokens for each in together[identifier]]
        for one, other in zip(alone, together[identifier], strict=True):
            assert one.score == pytest.approx(other.score, abs=1e-5)
    backwards = beam_search(model, batch(SOURCES[::-1]), options, ids=range(6, -1, -1), prefix=prefix.flip(0))
    assert [[each.tokens for each in hypotheses] for hypotheses in backwards[::-1]] == [
        [each.tokens for each in hypotheses] for hypotheses in together
    ]


def plain_beam_search(model: TableModel, source: Tensor, options: SearchOptions) -> list[tuple[float, tuple[int, ...]]]:
    """fairseq's search for one sentence, in lists: no batch, no cache, no tensors to reorder."""
    live: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    finished: list[tuple[float, tuple[int, ...]]] = []
    limit = int(options.max_len_b)
    for step in range(limit + 1):
        candidates = []
        for total, words in live:
            for word in range(2 if step else 3, model.start.size(1)):  # --min-len 1: no end at first
                if step < limit or word == 2:
                    tokens = (*words, word)
                    candidates.append((total + float(model.log_probability(source, tokens)[-1]), tokens))
        candidates.sort(reverse=True)
        candidates = candidates[: 2 * options.beam]
        for total, tokens in candidates[: options.beam]:
            if tokens[-1] == 2 and len(finished) < options.beam:
                finished.append((total / len(tokens) ** options.lenpen, tokens))
        live = [(total, tokens) for total, tokens in candidates if tokens[-1] != 2][: options.beam]
        if len(finished) == options.beam:
            break
    return sorted(finished, reverse=True)


@pytest.mark.parametrize("beam", [1, 2, 5])
@pytest.mark.parametrize("seed", [1, 2])
def test_the_search_is_fairseqs(beam: int, seed: int) -> None:
    model = TableModel(9, seed=seed)
    options = SearchOptions(beam=beam, max_len_b=5, lenpen=0.8)
    for hypotheses, sentence in zip(beam_search(model, batch(SOURCES), options), SOURCES, strict=True):
        expected = plain_beam_search(model, torch.tensor(sentence), options)
        assert [hypothesis.tokens for hypothesis in hypotheses] == [tokens for _, tokens in expected]
        assert [hypothesis.score for hypothesis in hypotheses] == pytest.approx([s for s, _ in expected], abs=1e-5)


def test_scores_are_sums_of_the_models_log_probabilities() -> None:
    model = TableModel(400, seed=1)
    options = SearchOptions(beam=4, lenpen=0.6, max_len_b=10)
    for hypotheses, sentence in zip(beam_search(model, batch(SOURCES), options), SOURCES, strict=True):
        assert 1 <= len(hypotheses) <= 4
        for hypothesis in hypotheses:
            expected = model.log_probability(torch.tensor(sentence), hypothesis.tokens)
            torch.testing.assert_close(torch.tensor(hypothesis.token_scores), expected, atol=1e-4, rtol=1e-4)
            assert hypothesis.score == pytest.approx(float(expected.sum()) / len(hypothesis.tokens) ** 0.6, abs=1e-4)
            assert not {0, 1} & set(hypothesis.tokens)
            assert hypothesis.tokens.index(2) == len(hypothesis.tokens) - 1


class FixedModel(TableModel):
    """The same next-token probabilities at every step, whatever came before."""

    def __init__(self, probabilities: dict[int, float], vocabulary: int = 8) -> None:
        super().__init__(vocabulary)
        self.logits = torch.full((vocabulary,), -20.0)
        for token, probability in probabilities.items():
            self.logits[token] = math.log(probability)

    def step(self, state: object, tokens: Tensor) -> Tensor:
        return self.logits.expand(*tokens.shape, -1).clone()


def search(model: TableModel, **options: object) -> list[Hypothesis]:
    [hypotheses] = beam_search(model, torch.tensor([[4, 2]]), SearchOptions(**options))  # type: ignore[arg-type]
    return hypotheses


def test_length_penalties_by_hand() -> None:
    # End 0.5, word 4 0.5: "4 </s>" has probability 1/4, "4 4 </s>" 1/8, so that lengths 2 and 3 (end counted) give:
    model = FixedModel({2: 0.5, 4: 0.5})
    two, three = 2 * math.log(0.5), 3 * math.log(0.5)

    def scores(**options: object) -> list[float]:
        found = {h.tokens: h.score for h in search(model, beam=2, max_len_b=2, **options)}
        return [found[4, 2], found[4, 4, 2]]

    assert scores(lenpen=0.6) == pytest.approx([two / 2**0.6, three / 3**0.6], abs=1e-5)
    assert scores(lenpen=0.6, lenpen_form="gnmt") == pytest.approx(
        [two / (7 / 6) ** 0.6, three / (8 / 6) ** 0.6], abs=1e-5
    )
    assert scores(unnormalized=True) == pytest.approx([two, three], abs=1e-5)
    assert length_penalty(1, 0.7, "gnmt") == 1.0
    assert length_penalty(4, 0.5, "fairseq") == 2.0
    with pytest.raises(ValueError, match="gnmt"):
        length_penalty(4, 0.5, "marian")


def test_lenpen_decides_between_short_and_long() -> None:
    model = FixedModel({2: 0.4, 4: 0.6})
    assert len(search(model, beam=2, max_len_b=6, lenpen=0.0)[0].tokens) == 2
    assert len(search(model, beam=2, max_len_b=3, lenpen=3.0)[0].tokens) > 2


def test_min_and_max_length() -> None:
    model = FixedModel({2: 0.9, 4: 0.1})
    assert search(model, beam=1)[0].tokens == (4, 2)
    assert search(model, beam=1, min_len=0)[0].tokens == (2,)
    assert search(model, beam=1, min_len=3)[0].tokens == (4, 4, 4, 2)
    endless = FixedModel({2: 1e-6, 4: 0.9})
    assert search(endless, beam=1, max_len_b=5)[0].tokens == (4,) * 5 + (2,)
    # Source length 2, end counted: 1.5 * 2 + 1.
    assert search(endless, beam=1, max_len_a=1.5, max_len_b=1)[0].tokens == (4,) * 4 + (2,)
    endless.max_target_positions = 4
    assert search(endless, beam=1)[0].tokens == (4,) * 3 + (2,)
    with pytest.raises(UserError, match=r"--min-len 9 is more than the 3 words"):
        search(endless, min_len=9)


def test_a_sentence_is_done_when_beam_hypotheses_are() -> None:
    # The end is always the likeliest: every step finishes a hypothesis, and two of them are all that is asked.
    model = FixedModel({2: 0.6, 4: 0.4})
    hypotheses = search(model, beam=2, max_len_b=50)
    assert [hypothesis.tokens for hypothesis in hypotheses] == [(4, 2), (4, 4, 2)]


def test_done_sentences_leave_the_batch() -> None:
    model = TableModel(50, seed=2)
    sizes, beams = [], []

    class Watched(TableModel):
        def step(self, state: object, tokens: Tensor) -> Tensor:
            sizes.append(tokens.size(0))
            beams.append(tokens.size(1))
            return super().step(state, tokens)  # type: ignore[arg-type]

    watched = Watched(50, seed=2)
    beam_search(watched, batch(SOURCES), SearchOptions(beam=2, max_len_a=2, max_len_b=0))
    assert sizes[0] == 7
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 7
    assert beams == [1] + [2] * (len(beams) - 1)  # all hypotheses are the same empty one at first
    assert model.steps == 0


def test_unknown_word_penalty() -> None:
    model = FixedModel({2: 0.1, 3: 0.5, 4: 0.4})
    assert search(model, beam=1, max_len_b=1)[0].tokens == (3, 2)
    penalised = search(model, beam=2, max_len_b=1, unkpen=1.0)
    assert [hypothesis.tokens for hypothesis in penalised] == [(4, 2), (3, 2)]
    assert penalised[1].token_scores[0] == pytest.approx(math.log(0.5) - 1.0, abs=1e-4)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_no_ngram_comes_twice(size: int) -> None:
    model = FixedModel({2: 1e-4, 4: 0.5, 5: 0.3, 6: 0.2})
    plain = search(model, beam=1, max_len_b=8)[0].tokens
    assert plain == (4,) * 8 + (2,)
    for hypothesis in search(model, beam=3, max_len_b=8, no_repeat_ngram_size=size):
        words = hypothesis.tokens[:-1]
        grams = [words[i : i + size] for i in range(len(words) - size + 1)]
        assert len(grams) == len(set(grams))
    if size == 2:
        assert search(model, beam=1, max_len_b=5, no_repeat_ngram_size=2)[0].tokens == (4, 4, 5, 4, 6, 2)


def test_nothing_left_to_say_is_an_error() -> None:
    model = FixedModel({2: 0.1, 4: 0.5, 5: 0.4}, vocabulary=6)
    with pytest.raises(UserError, match="no word is left"):
        search(model, min_len=5, no_repeat_ngram_size=1)


def test_prefix_is_kept_and_scored() -> None:
    model = TableModel(40, seed=9)
    source = batch(SOURCES[:3])
    prefix = torch.tensor([[8, 9], [7, 1], [1, 1]])
    free = beam_search(model, source, SearchOptions(beam=3, max_len_b=6))
    forced = beam_search(model, source, SearchOptions(beam=3, max_len_b=6), prefix=prefix)
    assert {hypothesis.tokens[:2] for hypothesis in forced[0]} == {(8, 9)}
    assert {hypothesis.tokens[0] for hypothesis in forced[1]} == {7}
    assert len({hypothesis.tokens for hypothesis in forced[1]}) == 3
    assert forced[2] == free[2]
    expected = model.log_probability(source[0], forced[0][0].tokens)
    torch.testing.assert_close(torch.tensor(forced[0][0].token_scores), expected, atol=1e-4, rtol=1e-4)


def test_a_prefix_that_ends_is_the_whole_translation() -> None:
    model = TableModel(40, seed=9)
    prefix = torch.tensor([[8, 8, 8, 2]])
    options = SearchOptions(beam=3, min_len=10, no_repeat_ngram_size=1)
    [hypotheses] = beam_search(model, batch(SOURCES[:1]), options, prefix=prefix)
    assert [hypothesis.tokens for hypothesis in hypotheses] == [(8, 8, 8, 2)]


def test_a_beam_wider_than_the_vocabulary() -> None:
    model = FixedModel({2: 0.2, 4: 0.5, 5: 0.3}, vocabulary=6)
    hypotheses = search(model, beam=20, max_len_b=1, unkpen=1e4)
    assert hypotheses[0].tokens == (4, 2)
    assert len(hypotheses) == 3  # 3, 4 or 5, then the end


def test_scores_that_are_not_numbers_are_an_error() -> None:
    model = FixedModel({2: 0.5})
    model.logits[5] = math.nan
    with pytest.raises(UserError, match="diverged"):
        search(model)


@pytest.mark.parametrize("sampling", [False, True])
def test_a_source_of_padding_alone_is_an_error(sampling: bool) -> None:
    options = SearchOptions(sampling=sampling, nbest=5 if sampling else 1)
    with pytest.raises(ValueError, match="source row 1 is padding alone"):
        beam_search(TableModel(9), torch.tensor([[4, 2], [1, 1]]), options)


class RememberingModel(TableModel):
    """A table that keeps a copy of the logits that it gave, of a size that searches look at in parts."""

    def __init__(self) -> None:
        super().__init__(300, seed=4)
        self.given: list[Tensor] = []

    def step(self, state: object, tokens: Tensor) -> Tensor:
        logits = super().step(state, tokens)  # type: ignore[arg-type]
        self.given.append(logits.clone())
        return logits


@pytest.mark.parametrize("numbers", [1, 2000, 10**6])
def test_parts_of_a_batch_are_normalised_as_the_whole(numbers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    options = SearchOptions(beam=2, max_len_b=5, no_repeat_ngram_size=2, unkpen=0.5)
    expected = beam_search(TableModel(300, seed=4), batch(SOURCES), options)
    monkeypatch.setattr("seqba.decoding.beam.CACHED_NUMBERS", numbers)
    model = RememberingModel()
    assert beam_search(model, batch(SOURCES), options) == expected
    first = torch.log_softmax(model.given[0], dim=2)
    assert all(found[0].token_scores[0] in first[place].flatten().tolist() for place, found in enumerate(expected))


def test_an_empty_batch() -> None:
    assert beam_search(TableModel(9), torch.empty(0, 3, dtype=torch.int64), SearchOptions()) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sampling": True}, "--nbest equal to --beam"),
        ({"nbest": 6}, "--nbest 6 is more than --beam 5"),
        ({"sampling_topk": 3}, "need --sampling"),
        ({"sampling": True, "nbest": 5, "sampling_topk": 3, "sampling_topp": 0.5}, "not both"),
    ],
)
def test_contradicting_options(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        SearchOptions(**settings)  # type: ignore[arg-type]
