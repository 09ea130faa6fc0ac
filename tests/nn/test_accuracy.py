from __future__ import annotations

import torch

from seqba.nn.accuracy import count_right


def test_right_answers_by_hand() -> None:
    scores = torch.tensor([[0.0, 9, 1, 2, 3, 4, 5], [7.0, 1, 2, 3, 4, 5, 6], [1.0, 2, 3, 4, 5, 6, 7]])
    right = count_right(scores, torch.tensor([1, 3, 0]))  # the likeliest; the fifth; the last
    assert (int(right["top1"]), int(right["top5"])) == (1, 2)


def test_with_few_classes_every_label_is_among_the_five() -> None:
    right = count_right(torch.tensor([[0.0, 1.0], [0.0, 1.0]]), torch.tensor([0, 1]))
    assert (int(right["top1"]), int(right["top5"])) == (1, 2)
