from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from sums import Line, Rows, SquaresTask, poison
from torch import Tensor, nn

from seqba.errors import UserError
from seqba.nn.kernels.casts import shared_cast
from seqba.training.agreement import Status
from seqba.training.batches import UpdateBatch
from seqba.training.optimisation import Optimisation
from seqba.training.optimizers import build_optimizer
from seqba.training.options import OptimisationOptions
from seqba.training.precision import build_scaler, choose_precision
from seqba.training.trainer import Trainer, UpdateRules
from seqba.training.update_report import UpdateReport


def make_trainer(
    task: SquaresTask, model: Line, lr: float = 0.1, clip_norm: float = 0.0, **rules: Any
) -> Trainer[Rows]:
    optimizer = torch.optim.SGD(model.parameters(), lr=123.0)
    optimisation = Optimisation(model, optimizer, lambda update: lr / update, clip_norm=clip_norm)
    values: dict[str, Any] = {"copies": 1, "plan": "stacked", "seed": 1, **rules}
    return Trainer(task, optimisation, UpdateRules(**values))


def update(trainer: Trainer[Rows], micro_batches: list[Rows], *more: Any) -> UpdateReport:
    return trainer.update(UpdateBatch.of(micro_batches, trainer.rules.copies), *more)


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


def test_clipping_reports_the_norm_before_it() -> None:
    task, free, clipped = SquaresTask(), Line(), Line()
    start = free.weight.detach().clone()
    norm = update(make_trainer(task, free), task.batches[:1]).grad_norm
    report = update(make_trainer(task, clipped, clip_norm=norm / 4), task.batches[:1])
    assert report.clipped
    assert report.grad_norm == norm
    assert torch.allclose(clipped.weight - start, (free.weight - start) / 4, rtol=1e-4)
    assert not update(make_trainer(task, Line(), clip_norm=2 * norm), task.batches[:1]).clipped


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
