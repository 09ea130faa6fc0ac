from __future__ import annotations

import math

import pytest

from seqba.training.metrics import perplexity, readable


def test_tokens_have_a_perplexity() -> None:
    assert readable({"nll": 2.0}, "tokens") == {"nll": 2.0, "ppl": pytest.approx(math.exp(2))}


def test_images_have_accuracies_in_percent() -> None:
    assert readable({"nll": 2.0, "top1": 0.25, "top5": 1.0}, "images") == {"nll": 2.0, "top1": 25.0, "top5": 100.0}


def test_a_perplexity_beyond_floats_is_infinite() -> None:
    assert perplexity(0.0) == 1.0
    assert perplexity(1e6) == math.inf
