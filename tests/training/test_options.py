from __future__ import annotations

import pytest

from seqba.errors import UserError
from seqba.tasks.options import BatchOptions, CriterionOptions
from seqba.tasks.text_options import BleuOptions
from seqba.training.options import GridOptions, OptimisationOptions


@pytest.mark.parametrize("plan", ["sideways", "0", "-1", ""])
def test_a_plan_that_is_none_is_refused(plan: str) -> None:
    with pytest.raises(UserError, match="--plan is"):
        GridOptions(plan=plan)


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
