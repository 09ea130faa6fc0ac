from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import pytest

from seqba.core import parse_plan
from seqba.errors import UserError
from seqba.tasks.options import BatchOptions, CriterionOptions
from seqba.tasks.text_options import BleuOptions
from seqba.training.options import GridOptions, OptimisationOptions
from seqba.training.options.schedule import rate_option


@pytest.mark.parametrize("plan", ["sideways", "0", "-1", ""])
def test_a_plan_that_is_none_is_refused(plan: str) -> None:
    with pytest.raises(UserError, match="--plan is"):
        GridOptions(plan=plan)


@pytest.mark.parametrize("plan", ["auto", "stacked", "looped", "1", "7", "0", "-1", "1.5", "²", "sideways", ""])
def test_a_plan_of_the_command_line_is_one_of_the_core(plan: str) -> None:
    """Options are read without torch, and so without the core's own reader."""
    with nullcontext() if accepts(lambda: parse_plan(plan)) else pytest.raises(UserError, match="--plan is"):
        GridOptions(plan=plan)


def accepts(read: Callable[[], object]) -> bool:
    try:
        read()
    except ValueError:
        return False
    return True


def test_adam_has_two_betas() -> None:
    with pytest.raises(UserError, match=r"--adam-betas is 0\.9; it must be two numbers"):
        OptimisationOptions(adam_betas=(0.9,))


def test_task_options_without_effect_are_refused() -> None:
    with pytest.raises(UserError, match="how large is a micro-batch"):
        BatchOptions()
    with pytest.raises(UserError, match="--label-smoothing has no effect on cross_entropy"):
        CriterionOptions(label_smoothing=0.1)
    with pytest.raises(UserError, match="need --eval-bleu"):
        BleuOptions(eval_bleu_args='{"beam": 2}')


def test_a_rate_is_one_number_and_a_list_of_several_names_its_options() -> None:
    assert rate_option("1e-3") == rate_option("[0.001]") == rate_option("(1e-3,)") == 1e-3
    same = r"'\[1e-3, 5e-4,1e-4\]' are rates of one epoch after another: the same are --lr 1e-3 "
    with pytest.raises(ValueError, match=same + "--lr-scheduler step --lr-drops 1,2 --lr-shrink 0.5,0.2"):
        rate_option("[1e-3, 5e-4,1e-4]")
    for rising in ("1e-3,2e-3", "0,1", "1,nan"):
        with pytest.raises(ValueError, match="one epoch after another: take one, and an --lr-scheduler"):
            rate_option(rising)
    for none in ("", "many", "1,many", "[]"):
        with pytest.raises(ValueError, match="is not a number"):
            rate_option(none)
