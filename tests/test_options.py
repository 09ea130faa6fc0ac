from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest

from seqba.errors import UserError
from seqba.models.options import TransformerLMOptions, TransformerOptions
from seqba.options import option, options
from seqba.tasks.image_options import ImageOptions
from seqba.tasks.options import CriterionOptions
from seqba.training.options import GridOptions, OptimisationOptions


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GridOptions(copies=-3, seed=-1), "--seed is -1; it must be at least 0"),
        (lambda: GridOptions(copies=-3), "--copies is -3; it must be at least 1"),
        (lambda: GridOptions(update_freq=(2, 0)), "--update-freq is 0; it must be at least 1"),
        (lambda: GridOptions(arm="bananas"), "--arm is 'bananas'; choose one of: baseline"),
        (lambda: replace(GridOptions(), copies=2**40), "--copies is 1099511627776; it must be at most 2147483647"),
        (lambda: CriterionOptions("label_smoothed_cross_entropy", 7.0), "--label-smoothing is 7; it must be less than"),
        (lambda: OptimisationOptions(weight_decay=float("nan")), "--weight-decay is nan; it must be a finite number"),
        (lambda: TransformerLMOptions(dropout=1.0), "--dropout is 1; it must be less than 1"),  # a field inherited
        (lambda: TransformerOptions(encoder_layers=0), "--encoder-layers is 0; it must be at least 1"),
        (lambda: ImageOptions(mixup=-1.0), "--mixup is -1; it must be at least 0"),
    ],
)
def test_options_out_of_their_range_can_not_be_made(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()


def test_ranges_come_before_what_no_single_option_can_say() -> None:
    @options
    class Pair:
        low: int = option(0, "the lower", minimum=0)
        high: int = option(9, "the higher", minimum=0)

        def __post_init__(self) -> None:
            if self.low > self.high:
                raise UserError("--low is more than --high")

    with pytest.raises(UserError, match="--high is -1; it must be at least 0"):
        Pair(high=-1)
    with pytest.raises(UserError, match="--low is more than --high"):
        Pair(low=10)
    with pytest.raises(FrozenInstanceError):
        Pair().low = 3
