from __future__ import annotations

import math

import pytest

from seqba.training.metrics import display_metrics, perplexity


def test_tokens_have_a_perplexity() -> None:
    assert display_metrics({"nll": 2.0}, "tokens") == {"nll": 2.0, "ppl": pytest.approx(math.exp(2))}


def test_images_have_accuracies_in_percent() -> None:
    assert display_metrics({"nll": 2.0, "top1": 0.25, "top5": 1.0}, "images") == {
        "nll": 2.0,
        "top1": 25.0,
        "top5": 100.0,
    }


def test_a_perplexity_beyond_floats_is_infinite() -> None:
    assert perplexity(0.0) == 1.0
    assert perplexity(1e6) == math.inf


def test_a_name_that_the_log_needs_is_told_as_the_tasks() -> None:
    told = display_metrics({"nll": 0.0, "loss": 3.0, "task_loss": 4.0, "top1": 0.5, "entropy": 2.0}, "tokens")
    assert told == {"nll": 0.0, "ppl": 1.0, "task_task_loss": 3.0, "task_loss": 4.0, "top1": 50.0, "entropy": 2.0}
