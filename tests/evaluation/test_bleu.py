"""BLEU against numbers worked by hand and against sacrebleu's own defaults."""

from __future__ import annotations

import math

import pytest
from sacrebleu import corpus_bleu

from seqba.errors import UserError
from seqba.evaluation.bleu import (
    compound_split_bleu,
    looks_tokenised,
    sentence_bleu,
    split_compounds,
    tokenised_bleu,
)
from seqba.evaluation.text_metrics import sacre_bleu

HYPOTHESES = ["the cat sat on the mat .", "a well-known dog barks , loudly ."]
REFERENCES = ["the cat is on the mat .", "the well-known dog barks loudly ."]


def test_by_hand() -> None:
    # 7 tokens against 7. 1-grams: all but "sat" match, 6/7; 2-grams: "the cat", "on the", "the mat", "mat .": 4/6;
    # 3-grams: "on the mat", "the mat .": 2/5; 4-grams: "on the mat .": 1/4.
    found = tokenised_bleu(HYPOTHESES[:1], REFERENCES[:1])
    assert found.score == pytest.approx(100 * (6 / 7 * 4 / 6 * 2 / 5 * 1 / 4) ** 0.25)
    assert found.precisions == pytest.approx((600 / 7, 400 / 6, 40, 25))
    assert (found.brevity_penalty, found.hypothesis_length, found.reference_length) == (1.0, 7, 7)
    assert str(found) == "BLEU4 = 48.89, 85.7/66.7/40.0/25.0 (BP=1.000, ratio=1.000, syslen=7, reflen=7)"


def test_clipping_and_brevity_by_hand() -> None:
    # "the the the" against "the cat the dog": 2 of 3 count; no second "the the". Short by one: exp(1 - 4/3).
    found = tokenised_bleu(["the the the"], ["the cat the dog"], order=1)
    assert found.score == pytest.approx(100 * 2 / 3 * math.exp(1 - 4 / 3))
    assert str(found).startswith("BLEU1 = 47.77, 66.7 (BP=0.717, ratio=0.750,")
    # No smoothing: an order without a match makes the score 0, as multi-bleu has it.
    assert tokenised_bleu(["the the the"], ["the cat the dog"], order=2).score == 0
    assert tokenised_bleu([""], ["the"]).score == 0


def test_counts_are_of_the_corpus_not_of_its_sentences() -> None:
    # 6 of 7 1-grams match in the first sentence, 5 of 7 in the second ("a" and "," do not): one fraction, 11 of 14.
    found = tokenised_bleu(HYPOTHESES, REFERENCES, order=1)
    assert found.precisions == pytest.approx((100 * 11 / 14,))


def test_compound_split() -> None:
    assert split_compounds("a well-known dog - and a-b-c") == (
        "a well ##AT##-##AT## known dog - and a ##AT##-##AT## b-c"  # as Perl: the b is used up
    )
    split = [line.replace("well-known", "well ##AT##-##AT## known") for line in (*HYPOTHESES, *REFERENCES)]
    assert compound_split_bleu(HYPOTHESES, REFERENCES) == tokenised_bleu(split[:2], split[2:])
    assert compound_split_bleu(HYPOTHESES, REFERENCES).score > tokenised_bleu(HYPOTHESES, REFERENCES).score


def test_plain_text_is_tokenised_before_it_is_split() -> None:
    plain = ["A well-known dog, barks."]
    assert compound_split_bleu(plain, plain, tokenize="13a").hypothesis_length == 8
    assert tokenised_bleu(plain, plain, tokenize="13a").hypothesis_length == 6
    assert tokenised_bleu(plain, plain).hypothesis_length == 4


def test_sacrebleu_is_sacrebleus_default() -> None:
    found = sacre_bleu(HYPOTHESES, REFERENCES)
    expected = corpus_bleu(HYPOTHESES, [REFERENCES], force=True)
    assert found.score == pytest.approx(expected.score)
    assert found.details == str(expected)
    assert found.signature.startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert str(found).startswith(f"BLEU|{found.signature} = {found.score:.2f} ")


def test_case() -> None:
    upper = [line.upper() for line in REFERENCES]
    assert tokenised_bleu(upper, REFERENCES).score == 0
    assert tokenised_bleu(upper, REFERENCES, ignore_case=True).score == pytest.approx(100)
    assert compound_split_bleu(upper, REFERENCES, ignore_case=True).score == pytest.approx(100)
    assert sacre_bleu(upper, REFERENCES, ignore_case=True).score == pytest.approx(100)
    assert "case:lc" in sacre_bleu(upper, REFERENCES, ignore_case=True).signature
    assert sentence_bleu(upper[0], REFERENCES[0], ignore_case=True).score == pytest.approx(100)


def test_sentence_bleu_adds_one() -> None:
    # 1-grams 6/7 as they are; then (4+1)/(6+1), (2+1)/(5+1), (1+1)/(4+1).
    found = sentence_bleu(HYPOTHESES[0], REFERENCES[0])
    assert found.score == pytest.approx(100 * (6 / 7 * 5 / 7 * 3 / 6 * 2 / 5) ** 0.25)
    assert sentence_bleu("a b", "a b").score == pytest.approx(100)
    assert sentence_bleu("x", "a b").score == 0


def test_what_cannot_be_scored() -> None:
    for metric in (tokenised_bleu, compound_split_bleu, sacre_bleu):
        with pytest.raises(UserError, match="2 translations and 1 references"):
            metric(HYPOTHESES, REFERENCES[:1])
        with pytest.raises(UserError, match="nothing to score"):
            metric([], [])


def test_tokenised_text_is_recognised() -> None:
    assert looks_tokenised(REFERENCES) is True
    assert looks_tokenised(["A dog barks.", "Does it?", "no end", "It does !"]) is False
    assert looks_tokenised(["no end", "none here"]) is None
    assert looks_tokenised([]) is None
