from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from small_trainers import make_trainer, update
from sums import Line, Rows, SquaresTask, poison
from torch import Tensor, nn

from seqba.errors import UserError
from seqba.nn.kernels.casts import shared_cast
from seqba.training.agreement import Status
from seqba.training.options import OptimisationOptions
from seqba.training.precision import build_scaler, choose_precision


@pytest.mark.parametrize(("micro_batches", "copies"), [(3, 2), (1, 3), (3, 1), (1, 1)])
def test_measured_updates_are_the_looped_ones_and_tell_their_variance(micro_batches: int, copies: int) -> None:
    task = SquaresTask()
    plain, measured = Line(dropout=0.5), Line(dropout=0.5)
    looped = make_trainer(task, plain, copies=copies, plan="looped")
    trainer = make_trainer(task, measured, copies=copies, plan="looped", measure_every=2)
    reports = []
    for number in range(4):
        batches = task.batches[number : number + micro_batches]
        update(looped, batches)
        reports.append(update(trainer, batches))
        assert torch.equal(plain.weight, measured.weight)
    assert [report.split is None for report in reports] == [True, micro_batches * copies == 1] * 2
    for report in reports[1::2]:
        if report.split is not None:
            known = (report.split.signal, report.split.between, report.split.noise, report.split.total)
            expected = (micro_batches > 1, micro_batches > 1 < copies, copies > 1, micro_batches > 1)
            assert tuple(value is not None for value in known) == expected


def test_measuring_changes_no_other_plans_gradient_beyond_rounding() -> None:
    task = SquaresTask()
    plain, measured = Line(dropout=0.5), Line(dropout=0.5)
    for model, every in ((plain, 0), (measured, 1)):
        trainer = make_trainer(task, model, copies=3, plan="stacked", measure_every=every)
        for number in range(3):
            update(trainer, task.batches[number : number + 2])
    torch.testing.assert_close(measured.weight, plain.weight, rtol=1e-5, atol=1e-6)


def merged(batches: list[Rows]) -> Rows:
    return Rows(torch.cat([batch.values for batch in batches]), torch.cat([batch.target for batch in batches]))


def test_a_step_by_hand() -> None:
    task, model = SquaresTask(), Line()
    before = model.weight.detach().clone()
    batch = task.batches[0]
    errors = batch.values @ before - batch.target
    gradient = 2 * errors @ batch.values / 4
    report = update(make_trainer(task, model), [batch])
    assert torch.allclose(model.weight, before - 0.1 * gradient, rtol=1e-5)
    assert report.loss == pytest.approx(float(errors.square().mean()), rel=1e-5)
    assert report.means["nll"] == pytest.approx(report.loss / 4, rel=1e-6)  # half the loss, over two tokens a row
    assert report.grad_norm == pytest.approx(float(gradient.norm()), rel=1e-5)
    assert (report.update, report.lr, report.unique, report.weight) == (1, 0.1, 8, 4)


@pytest.mark.filterwarnings("ignore:nothing drew noise")
@pytest.mark.parametrize("copies", [1, 3])
def test_micro_batches_times_copies_equal_one_large_batch(copies: int) -> None:
    task = SquaresTask()
    micro_batches = [task.batches[0], Rows(task.batches[1].values[:1], task.batches[1].target[:1]), task.batches[2]]
    apart, together = Line(), Line()
    many = update(make_trainer(task, apart, copies=copies), micro_batches)
    one = update(make_trainer(task, together), [merged(micro_batches)])
    assert torch.allclose(apart.weight, together.weight, rtol=1e-5)
    assert many.loss == pytest.approx(one.loss, rel=1e-5)
    assert many.means["nll"] == pytest.approx(one.means["nll"], rel=1e-5)
    assert many.unique == one.unique
    assert many.processed == copies * one.unique


@pytest.mark.parametrize("plan", ["looped", "2", "auto"])
def test_noise_does_not_depend_on_the_plan(plan: str) -> None:
    task = SquaresTask()
    expected, model = Line(dropout=0.5), Line(dropout=0.5)
    for trained, chosen in ((expected, "stacked"), (model, plan)):
        trainer = make_trainer(task, trained, copies=3, plan=chosen)
        for number in range(3):
            update(trainer, task.batches[number : number + 2])
    assert torch.allclose(expected.weight, model.weight, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:nothing drew noise")
def test_names_of_sums_are_free() -> None:
    names = ("loss", "weight", "count", "unique", "processed", "unread")

    class Named(SquaresTask):
        def loss(self, model: nn.Module, batch: Rows) -> tuple[Tensor, float, Mapping[str, Tensor]]:
            loss, weight, sums = super().loss(model, batch)
            return loss, weight, {**sums, **dict.fromkeys(names, torch.tensor(24.0))}

    batches = SquaresTask().batches[:2]
    expected = update(make_trainer(SquaresTask(), Line(), copies=3), batches)
    report = update(make_trainer(Named(), Line(), copies=3), batches, Status(True, True, 5.0))
    assert report.status == Status(True, True, 5.0)
    for name in ("loss", "weight", "unique", "processed"):
        assert getattr(report, name) == getattr(expected, name)
    assert report.means == {**expected.means, **dict.fromkeys(names, 1.0)}  # 24 for 3 copies of 4 rows of two tokens


def test_the_noise_is_keyed_by_the_update() -> None:
    task = SquaresTask()
    losses = []
    for updates in (0, 0, 1):
        trainer = make_trainer(task, Line(dropout=0.5), copies=2)
        trainer.updates = updates
        losses.append(update(trainer, task.batches[:1]).loss)
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_never_reaches_the_weights(value: float) -> None:
    task, model = SquaresTask(), Line()
    trainer = make_trainer(task, model, clip_norm=1.0)
    before = model.weight.detach().clone()
    report = update(trainer, [task.batches[0], poison(task.batches[1], value)])
    assert report.skipped
    assert (trainer.updates, trainer.skipped) == (0, 1)
    assert torch.equal(model.weight, before)
    good = update(trainer, task.batches[:1])
    assert (good.update, good.skipped, trainer.updates, trainer.skipped) == (1, False, 1, 1)
    assert torch.isfinite(model.weight).all()


def test_an_infinite_loss_with_a_finite_gradient_is_skipped_too() -> None:
    class Offset(SquaresTask):
        def loss(self, model: torch.nn.Module, batch: Rows) -> Any:
            total, weight, extras = super().loss(model, batch)
            return total + math.inf, weight, extras

    task, model = Offset(), Line()
    assert update(make_trainer(task, model), task.batches[:1]).skipped


def test_too_many_in_a_row_end_the_run() -> None:
    task = SquaresTask()
    trainer = make_trainer(task, Line(), max_skipped_updates=3)
    bad = [poison(task.batches[0])]
    update(trainer, bad)
    update(trainer, bad)
    update(trainer, task.batches[:1])  # a good one starts the count anew
    update(trainer, bad)
    update(trainer, bad)
    with pytest.raises(UserError, match="no finite loss and gradient for 3 updates in a row"):
        update(trainer, bad)


@pytest.mark.filterwarnings("ignore:nothing drew noise")
def test_state_comes_back() -> None:
    task = SquaresTask()
    trainer = make_trainer(task, Line(), copies=4, plan="auto")
    update(trainer, task.batches[:1])
    state = trainer.state_dict()
    assert (state["updates"], state["skipped"], state["skipped_in_a_row"]) == (1, 0, 0)
    assert state["copies_per_pass"] >= 4  # as many as memory suits, not as there were
    other = make_trainer(task, Line(), copies=4, plan="auto")
    other.load_state_dict(state, keep_plan=True, keep_carried=True)
    assert other.state_dict() == state
    other = make_trainer(task, Line(), copies=4, plan="looped")
    other.load_state_dict(state, keep_plan=False, keep_carried=True)
    assert other.state_dict()["copies_per_pass"] == 1


def test_bf16_keeps_float32_weights_and_gradients() -> None:
    task, model = SquaresTask(), Line()
    plain = Line()
    report = update(make_trainer(task, model, autocast=torch.bfloat16), task.batches[:1])
    expected = update(make_trainer(task, plain), task.batches[:1])
    assert model.weight.dtype == torch.float32
    assert report.loss != expected.loss
    assert report.loss == pytest.approx(expected.loss, rel=0.05)


@pytest.mark.filterwarnings("ignore:nothing drew noise")
def test_weights_are_cast_once_for_all_passes_of_an_update(monkeypatch: pytest.MonkeyPatch) -> None:
    task, model = SquaresTask(), Line()
    seen: list[Tensor | None] = []
    task_loss = task.loss

    def loss(model: nn.Module, batch: Rows) -> tuple[Tensor, float, Mapping[str, Tensor]]:
        assert isinstance(model, Line)
        seen.append(shared_cast(model.weight, torch.bfloat16))
        return task_loss(model, batch)

    monkeypatch.setattr(task, "loss", loss)
    trainer = make_trainer(task, model, copies=3, plan="looped", autocast=torch.bfloat16)
    update(trainer, task.batches[:1])
    update(trainer, task.batches[:1])
    assert seen[0] is not None
    assert seen[0] is seen[1] is seen[2]
    assert seen[3] is seen[4] is seen[5] is not seen[0]
    assert shared_cast(model.weight, torch.bfloat16) is None


def test_precision_depends_on_the_device() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    half = OptimisationOptions(fp16=True, fp16_init_scale=4, fp16_scale_window=9)
    assert [choose_precision(half, device) for device in (cpu, gpu)] == [torch.bfloat16, torch.float16]
    assert choose_precision(OptimisationOptions(bf16=True), gpu) == torch.bfloat16
    assert choose_precision(OptimisationOptions(), gpu) is None
    assert build_scaler(half, torch.bfloat16, cpu) is None
    scaler = build_scaler(half, torch.float16, cpu)
    assert scaler is not None
    assert (scaler.get_scale(), scaler.get_growth_interval()) == (4.0, 9)
