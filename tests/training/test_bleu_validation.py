from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from reversal import LETTERS
from torch import Tensor, nn

from seqba.data.dictionary import Dictionary
from seqba.data.moses import Moses
from seqba.distributed import Ranks
from seqba.errors import UserError
from seqba.tasks.options import BatchOptions, CriterionOptions
from seqba.tasks.text_options import BleuOptions, TranslationOptions
from seqba.tasks.translation import Translation
from seqba.training.agreement import Interrupted, Status
from seqba.training.bleu_validation import BleuScorer


class Reverser(nn.Module):
    """Writes its source backwards; from the given place on, the letter a."""

    max_target_positions = 64

    def __init__(self, wrong_from: int = 99) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))
        self.wrong_from = wrong_from

    def begin(self, source: Tensor, beam_size: int) -> dict[str, Any]:
        rows = [[token for token in row.tolist() if token > 2][::-1] for row in source]
        return {"rows": rows, "place": 0, "beam": beam_size}

    def step(self, state: dict[str, Any], tokens: Tensor) -> Tensor:
        logits = torch.full((*tokens.shape, 4 + len(LETTERS)), -9.0)
        for number, row in enumerate(state["rows"]):
            word = row[state["place"]] if state["place"] < len(row) else 2
            logits[number, :, 4 if word != 2 and state["place"] >= self.wrong_from else word] = 9.0
        state["place"] += 1
        return logits

    def reorder(self, state: dict[str, Any], sentences: Tensor, parents: Tensor) -> None:
        state["rows"] = [state["rows"][number] for number in sentences.tolist()]


@pytest.fixture
def task(reversal: Path) -> Translation:
    return Translation(
        str(reversal),
        TranslationOptions(),
        BatchOptions(max_tokens=100),
        CriterionOptions(),
        seed=1,
        max_positions=(64, 64),
    )


def test_a_perfect_translator_has_100(task: Translation) -> None:
    scorer = BleuScorer(task, BleuOptions(eval_bleu=True, eval_bleu_args='{"beam": 2, "max_len_a": 1.5}'))
    assert scorer(Reverser(), "valid", lambda: False) == {"bleu": pytest.approx(100.0)}
    worse = scorer(Reverser(wrong_from=5), "valid", lambda: False)["bleu"]
    assert 0 < worse < 99


@dataclass(frozen=True)
class InTurn(Ranks):
    """Ranks that run one after the other and hear what each before them said; so only the last one hears all."""

    said: list[Any] = field(default_factory=list)

    def gather(self, value: Any) -> list[Any]:
        self.said.append(value)
        return [*self.said, *self.said[: self.size - len(self.said)]]


def test_ranks_translate_a_part_each_and_all_have_the_whole_score(task: Translation) -> None:
    options = BleuOptions(eval_bleu=True, eval_bleu_args='{"beam": 2, "max_len_a": 1.5}')
    alone = BleuScorer(task, options)(Reverser(wrong_from=5), "valid", lambda: False)
    said: list[Any] = []
    scores = [
        BleuScorer(task, options, InTurn(rank, 3, said=said))(Reverser(wrong_from=5), "valid", lambda: False)
        for rank in range(3)
    ]
    # Corpus BLEU doesn't depend on the order of the sentences.
    assert scores[-1] == {"bleu": pytest.approx(alone["bleu"], rel=1e-9)}
    sizes = [len(hypotheses) for (hypotheses, _), _ in said]
    assert sum(sizes) == len(task.validation("valid").batches.rows)
    assert max(sizes) - min(sizes) <= 1


def test_a_stop_on_one_rank_stops_the_translation_on_all(task: Translation) -> None:
    options = BleuOptions(eval_bleu=True, eval_bleu_args='{"beam": 1, "max_len_a": 1.5}')
    said: list[Any] = []
    with pytest.raises(Interrupted):
        BleuScorer(task, options, InTurn(0, 2, said=said))(Reverser(), "valid", lambda: True)
    assert [status for _, status in said] == [Status(stop=True)]
    with pytest.raises(Interrupted):
        BleuScorer(task, options, InTurn(1, 2, said=said))(Reverser(), "valid", lambda: False)


def test_what_one_rank_cannot_translate_ends_all_with_one_line_each(task: Translation) -> None:
    options = BleuOptions(eval_bleu=True, eval_bleu_args='{"beam": 1, "min_len": 500}')
    said: list[Any] = []
    with pytest.raises(UserError, match="min-len"):
        BleuScorer(task, options, InTurn(0, 2, said=said))(Reverser(), "valid", lambda: False)
    well = BleuOptions(eval_bleu=True, eval_bleu_args='{"beam": 1, "max_len_a": 1.5}')
    with pytest.raises(UserError, match="another rank"):
        BleuScorer(task, well, InTurn(1, 2, said=said))(Reverser(), "valid", lambda: False)


def test_the_temperature_of_a_sampling_validation_counts(task: Translation) -> None:
    def bleu(temperature: float) -> float:
        arguments = f'{{"sampling": true, "temperature": {temperature}, "max_len_a": 1.5, "beam": 1}}'
        scorer = BleuScorer(task, BleuOptions(eval_bleu=True, eval_bleu_args=arguments))
        return scorer(Reverser(), "valid", lambda: False)["bleu"]

    assert bleu(1.0) == pytest.approx(100.0, abs=1)
    assert bleu(50.0) < 20


def test_samples_are_shown(task: Translation, caplog: pytest.LogCaptureFixture) -> None:
    scorer = BleuScorer(task, BleuOptions(eval_bleu=True, eval_bleu_print_samples=True))
    with caplog.at_level(logging.INFO):
        scorer(Reverser(), "valid", lambda: False)
    shown = [record.getMessage().split(":", 1)[1].strip() for record in caplog.records]
    assert len(shown) == 2
    assert shown[0] == shown[1]


def test_a_stop_is_obeyed_between_batches(task: Translation) -> None:
    scorer = BleuScorer(task, BleuOptions(eval_bleu=True))
    answers = iter([False, True])
    with pytest.raises(Interrupted):
        scorer(Reverser(), "valid", lambda: next(answers))


def test_subwords_are_joined_on_request(task: Translation) -> None:
    scorer = BleuScorer(task, BleuOptions(eval_bleu=True, eval_bleu_remove_bpe="sentencepiece"))
    assert scorer.tokenizer == "13a"
    assert scorer.form.plain([4, 5, 6]) == "abc"
    tokenised = BleuOptions(eval_bleu=True, eval_bleu_remove_bpe="sentencepiece", eval_tokenized_bleu=True)
    assert BleuScorer(task, tokenised).tokenizer == "none"


@pytest.mark.parametrize(("letter", "flag"), [("a@@", "bpe joins"), ("▁a", "bpe sentencepiece joins")])
def test_a_score_of_subwords_is_told_once(
    letter: str, flag: str, task: Translation, caplog: pytest.LogCaptureFixture
) -> None:
    symbols = [(letter if symbol == "a" else symbol, 99 - rank) for rank, symbol in enumerate(LETTERS)]
    task.target_dictionary = Dictionary(symbols)
    scorer = BleuScorer(task, BleuOptions(eval_bleu=True))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            scorer(Reverser(), "valid", lambda: False)
    assert caplog.messages == [f"BLEU is of subwords, not words: --eval-bleu-remove-{flag} them"]


def test_moses_tokens_are_made_plain_text_on_request(task: Translation) -> None:
    task.target_dictionary = Dictionary([("it", 1), ("isn", 1), ("&apos;t", 1), (".", 1)])
    options = BleuOptions(eval_bleu=True, eval_bleu_detok="moses", eval_bleu_detok_args='{"target_lang": "en"}')
    scorer = BleuScorer(task, options)
    assert scorer.tokenizer == "13a"
    assert scorer.form.plain([4, 5, 6, 7]) == "it isn't."
    assert scorer.form.words == Moses("en")
    assert BleuScorer(task, BleuOptions(eval_bleu=True, eval_bleu_detok="moses")).form.words == Moses("yy")
    for text in ("[]", '{"lang": "de"}', '{"target_lang": 1}'):
        with pytest.raises(UserError, match="--eval-bleu-detok-args"):
            BleuScorer(task, BleuOptions(eval_bleu=True, eval_bleu_detok_args=text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("beam=4", "not JSON"),
        ("[4]", "no JSON object"),
        ('{"baem": 4}', "no option 'baem'"),
        ('{"beam": "4"}', "beam is '4'; it must be like 5"),
        ('{"beam": null}', "beam is None"),
        ('{"beam": 2.5}', "beam is 2.5"),
        ('{"sampling": 1}', "sampling is 1; it must be like False"),
        ('{"nbest": 2}', "BLEU is of the best: leave it out"),
        ('{"beam": 0}', "--beam is 0; it must be at least 1"),
    ],
)
def test_arguments_that_no_search_understands_are_told(text: str, message: str, task: Translation) -> None:
    with pytest.raises(UserError, match=message):
        BleuScorer(task, BleuOptions(eval_bleu=True, eval_bleu_args=text))
