from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
import torch
from sums import Line, Rows, SquaresTask
from torch import Tensor, nn

from seqba.training.agreement import Interrupted
from seqba.training.optimisation import Optimisation
from seqba.training.trainer import Trainer, UpdateRules
from seqba.training.validation import validate


def test_means_without_noise_over_the_whole_split() -> None:
    task, model = SquaresTask(), Line(dropout=0.5)
    rules = UpdateRules(copies=2, plan="stacked", seed=1)
    trainer = Trainer(task, Optimisation(model, torch.optim.SGD(model.parameters()), lambda _: 0.1), rules)
    metrics = validate(trainer, task.batches[:2], lambda: False)
    with torch.no_grad():
        errors = [(batch.values @ model.weight - batch.target).square().sum() for batch in task.batches[:2]]
    total = float(sum(errors))
    assert metrics["loss"] == pytest.approx(total / 8, rel=1e-5)
    assert metrics["nll"] == pytest.approx(total / 2 / 16, rel=1e-5)
    assert metrics["ppl"] == pytest.approx(math.exp(metrics["nll"]))
    assert model.weight.grad is None


@pytest.mark.parametrize("name", ["loss", "weight", "count", "stopped", "unread", "ppl", "extras"])
def test_a_tasks_further_sum_of_any_name_changes_nothing_else(name: str) -> None:
    class Named(SquaresTask):
        def loss(self, model: nn.Module, batch: Rows) -> tuple[Tensor, float, Mapping[str, Tensor]]:
            loss, weight, sums = super().loss(model, batch)
            return loss, weight, {**sums, name: torch.tensor(1000.0)}

    def metrics(task: SquaresTask) -> dict[str, float]:
        model = Line(dropout=0.5)
        rules = UpdateRules(copies=2, plan="stacked", seed=1)
        trainer = Trainer(task, Optimisation(model, torch.optim.SGD(model.parameters()), lambda _: 0.1), rules)
        return validate(trainer, task.batches[:2], lambda: False)

    expected, told = metrics(SquaresTask()), metrics(Named())
    assert {key: told[key] for key in expected} == expected
    assert [value for key, value in told.items() if key not in expected] == [125.0]  # 2 batches of 8 tokens


def test_a_stop_is_obeyed_between_batches() -> None:
    task, model = SquaresTask(), Line()
    rules = UpdateRules(copies=1, plan="stacked", seed=1)
    trainer = Trainer(task, Optimisation(model, torch.optim.SGD(model.parameters()), lambda _: 0.1), rules)
    answers = iter([False, True])
    with pytest.raises(Interrupted):
        validate(trainer, task.batches, lambda: next(answers))
