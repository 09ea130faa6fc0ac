"""Steps of the weights: decay, clipping, scaled losses."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from small_trainers import make_trainer, update
from sums import Line, Rows, SquaresTask
from torch import Tensor, nn

from seqba.training.averages import MovingAverage
from seqba.training.optimisation import Optimisation
from seqba.training.optimizers import build_optimizer
from seqba.training.options import OptimisationOptions
from seqba.training.trainer import Trainer, UpdateRules


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
@pytest.mark.parametrize("end", [None, 2])
def test_weights_decay_until_they_shall_not(kind: type[torch.optim.Optimizer], end: int | None) -> None:
    task, model = SquaresTask(), Line()
    model.weight.data.fill_(8.0)
    optimizer = kind(model.parameters(), lr=123.0, weight_decay=0.5)  # type: ignore[call-arg]
    seen = []
    optimizer.register_step_pre_hook(lambda optimizer, *_: seen.append(optimizer.param_groups[0]["weight_decay"]))
    optimisation = Optimisation(model, optimizer, lambda _: 1e-3, decay_updates=end)
    trainer = Trainer(task, optimisation, UpdateRules(copies=1, plan="stacked", seed=1))
    for _ in range(4):
        update(trainer, task.batches[:1])
    assert seen == ([0.5] * 4 if end is None else [0.5, 0.5, 0, 0])


def test_clipping_reports_the_norm_before_it() -> None:
    task, free, clipped = SquaresTask(), Line(), Line()
    start = free.weight.detach().clone()
    norm = update(make_trainer(task, free), task.batches[:1]).grad_norm
    report = update(make_trainer(task, clipped, clip_norm=norm / 4), task.batches[:1])
    assert report.clipped
    assert report.grad_norm == norm
    assert torch.allclose(clipped.weight - start, (free.weight - start) / 4, rtol=1e-4)
    assert not update(make_trainer(task, Line(), clip_norm=2 * norm), task.batches[:1]).clipped


class Overflowing(SquaresTask):
    """Gradients overflow while losses are scaled by more than `bearable`; `scales` are those that were seen."""

    def __init__(self, bearable: float) -> None:
        super().__init__()
        self.bearable = bearable
        self.scales: list[float] = []

    def loss(self, model: nn.Module, batch: Rows) -> tuple[Tensor, float, Mapping[str, Tensor]]:
        loss, weight, sums = super().loss(model, batch)
        loss = loss * 1.0
        loss.register_hook(self._overflow)
        return loss, weight, sums

    def _overflow(self, gradient: Tensor) -> Tensor:
        scale = float(gradient)  # of the sum over four rows
        self.scales.append(scale)
        return gradient if scale <= self.bearable else gradient * torch.inf


def scaled_trainer(task: SquaresTask, model: Line, scale: float, window: int = 2000) -> Trainer[Rows]:
    trainer = make_trainer(task, model)
    trainer.optimisation.scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=window)
    return trainer


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_scaled_losses_make_the_same_update(kind: str) -> None:
    expected, model = Line(), Line()
    plain, scaled = make_trainer(SquaresTask(), expected), scaled_trainer(SquaresTask(), model, 128.0)
    for trainer in (plain, scaled):
        trainer.optimisation.optimizer = build_optimizer(
            trainer.model.parameters(), OptimisationOptions(optimizer=kind)
        )
    for number in range(3):
        reports = [update(trainer, trainer.task.batches[number : number + 2]) for trainer in (plain, scaled)]
        assert torch.equal(expected.weight, model.weight)  # a power of two: no rounding
        assert reports[0] == reports[1]


def test_an_overflow_halves_the_scale_and_skips_the_update() -> None:
    task, model = Overflowing(bearable=40.0), Line()
    before = model.weight.detach().clone()
    trainer = scaled_trainer(task, model, 128.0)
    reports = [update(trainer, task.batches[:1]) for _ in range(2)]
    assert [report.skipped for report in reports] == [True, True]
    assert torch.equal(model.weight, before)
    report = update(trainer, task.batches[:1])
    assert not report.skipped
    assert trainer.updates == 1
    assert task.scales == [128, 64, 32]
    expected = Line()
    assert report.grad_norm == update(make_trainer(SquaresTask(), expected), task.batches[:1]).grad_norm
    assert torch.equal(model.weight, expected.weight)


def test_the_scale_grows_after_its_window_and_is_resumed() -> None:
    task, model = Overflowing(bearable=1e9), Line()
    trainer = scaled_trainer(task, model, 8.0, window=2)
    for _ in range(3):
        update(trainer, task.batches[:1])
    other = scaled_trainer(task, model, 128.0, window=2)
    other.load_state_dict(trainer.state_dict(), keep_plan=True, keep_carried=True)
    for _ in range(2):
        update(other, task.batches[:1])
    assert task.scales == [8, 8, 16, 16, 32]


class Counting(Line):
    """Counts its updates in a buffer, as batch norm moves its running statistics: once the passes are through."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("finished", torch.zeros(()))

    def gathered(self) -> list[Tensor]:
        return []

    def finish_update(self, *, keep: bool) -> None:
        self.finished += float(keep)


def test_the_average_takes_what_modules_gathered_in_the_same_update() -> None:
    task, model = SquaresTask(), Counting()
    trainer = make_trainer(task, model)
    trainer.optimisation.average = MovingAverage(model, decay=0.0)  # the weights themselves
    for number in range(1, 4):
        update(trainer, task.batches[:1])
        averaged = dict(
            zip(model.state_dict(), [kept for _, kept in trainer.optimisation.average.pairs()], strict=True)
        )
        assert averaged["finished"] == model.finished == number
        assert torch.equal(averaged["weight"], model.weight)
