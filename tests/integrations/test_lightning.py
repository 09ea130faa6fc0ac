"""Copies in Lightning's Trainer: the gradient of merged_gradient, whatever the Trainer does around it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import MixedPrecision
from rank_groups import run_groups
from torch import Tensor, nn
from toy_modules import (
    CLIP,
    COPIES,
    OF_LIGHTNING,
    ByHand,
    Toy,
    distance,
    make_loader,
    make_trainer,
    trained,
    trained_on_processes,
    weights,
)

import seqba
from seqba.integrations.lightning import BatchAugmentation

pytestmark = OF_LIGHTNING

KEY = {"copies": COPIES, "plan": "stacked", "keyed": True, "seed": 5}


def by_hand(module: Toy, batches: list[Any], accumulated: int, max_norm: float | None = None) -> Toy:
    """What the Trainer's updates shall come to, by `merged_gradient`; five batches an epoch, the last one alone."""
    module.train()
    optimizer = module.configure_optimizers()
    update = 0
    for number, batch in enumerate(batches):
        place = number % 5
        key = {**KEY, "update": update + 1, "micro_batch": place % accumulated}
        seqba.merged_gradient(module, batch, lambda module, batch: module.loss(batch) / accumulated, **key)
        if place % accumulated == accumulated - 1 or place == 4:
            if max_norm:
                assert nn.utils.clip_grad_norm_(module.parameters(), max_norm) > max_norm
            optimizer.step()
            optimizer.zero_grad()
            update += 1
    return module


@pytest.mark.parametrize("accumulated", [1, 2])
@pytest.mark.parametrize("max_norm", [None, 0.05])
def test_updates_are_those_of_merged_gradient(accumulated: int, max_norm: float | None) -> None:
    module = Toy()
    trainer = trained(module, accumulate_grad_batches=accumulated, gradient_clip_val=max_norm)
    batches = module.batches[::COPIES]
    assert len(batches) == 10
    assert trainer.global_step == (10 if accumulated == 1 else 6)
    assert distance(module, by_hand(Toy(), batches, accumulated, max_norm)) < 1e-6
    assert distance(module, Toy()) > 1e-2


def test_passes_written_in_training_step_are_those_of_the_callback() -> None:
    module, by_hand = Toy(), ByHand()
    trained(module)
    trained(by_hand, copies=0)
    assert distance(module, by_hand) < 1e-7


class InPlace(Toy):
    """Changes its batch where it lies."""

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return super().loss((batch[0].mul_(2), batch[1]))


class Doubled(Toy):
    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return super().loss((batch[0] * 2, batch[1]))


def test_what_a_copy_changes_in_place_no_other_copy_sees() -> None:
    in_place, doubled = InPlace(), Doubled()
    trained(in_place)
    trained(doubled)
    assert distance(in_place, doubled) == 0


@dataclass(frozen=True)
class Pairs:
    x: Tensor
    y: Tensor


class OfFrozenBatches(InPlace):
    """Lightning's own functions make no frozen dataclass anew."""

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return Pairs(*batch)

    def loss(self, batch: Any) -> Tensor:
        return super().loss((batch.x, batch.y))


def test_a_frozen_batch_is_each_copys_own_too() -> None:
    frozen, doubled = OfFrozenBatches(), Doubled()
    trained(frozen)
    trained(doubled)
    assert distance(frozen, doubled) == 0


class Forked(Toy):
    """Copies begin behind the first layer and its dropout."""

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        hidden = seqba.fork(self.net[:2], batch[0])
        return nn.functional.cross_entropy(self.net[2:](nn.functional.dropout(hidden, 0.2)), seqba.per_copy(batch[1]))


@pytest.mark.parametrize("accumulated", [1, 2])
def test_copies_may_begin_inside_the_module(accumulated: int, monkeypatch: pytest.MonkeyPatch) -> None:
    module = Forked()
    trained(module, accumulate_grad_batches=accumulated, forked=True)
    monkeypatch.setitem(KEY, "forked", True)
    assert distance(module, by_hand(Forked(), module.batches[::COPIES], accumulated)) < 1e-6
    with pytest.raises(RuntimeError, match=r"pass forked=True to what makes the update .*BatchAugmentation"):
        trained(Forked())


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_mixed_precision_and_its_scaler_stay_lightnings(precision: str) -> None:
    def trained_with(**options: Any) -> Toy:
        module = Toy()
        trained(module, accumulate_grad_batches=2, gradient_clip_val=CLIP, **options)
        return module

    scaler = torch.amp.GradScaler("cpu") if precision == "16-mixed" else None
    mixed = trained_with(plugins=[MixedPrecision(precision, "cpu", scaler=scaler)])
    assert 0 < distance(mixed, trained_with()) < 1e-3


@pytest.mark.filterwarnings("ignore:nothing drew noise")
def test_copies_without_noise_change_nothing() -> None:
    modules = [Toy(dropout=0.0) for _ in range(3)]
    for module, copies in zip(modules, (COPIES, 1, 0), strict=True):
        trained(module, copies=copies, accumulate_grad_batches=2)
    assert distance(modules[0], modules[2]) < 1e-6
    assert distance(modules[1], modules[2]) == 0


def test_a_run_is_repeated_whatever_the_global_seed() -> None:
    modules = []
    for seed in (1, 2):
        modules.append(Toy())
        torch.manual_seed(seed)
        trained(modules[-1])
    assert distance(*modules) == 0


def test_the_seed_of_the_noise_is_seed_everythings_or_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PL_GLOBAL_SEED", "5")
    modules = [Toy() for _ in range(3)]
    for module, seed in zip(modules, (None, 5, 6), strict=True):
        trained(module, callbacks=[BatchAugmentation(copies=COPIES, seed=seed)])
    assert distance(modules[0], modules[1]) == 0
    assert distance(modules[0], modules[2]) > 1e-4


def test_a_resumed_run_ends_as_the_whole_one(tmp_path: Path) -> None:
    def callbacks() -> list[lightning.Callback]:
        keeping = ModelCheckpoint(tmp_path, every_n_train_steps=3, save_top_k=-1, filename="{step}")
        return [BatchAugmentation(copies=COPIES, seed=5), keeping]

    whole, resumed = Toy(), Toy()
    options = {"accumulate_grad_batches": 2, "enable_checkpointing": True, "default_root_dir": tmp_path}
    trained(whole, callbacks=callbacks(), **options)
    torch.manual_seed(99)
    trainer = trained(resumed, callbacks=callbacks(), path=tmp_path / "step=3.ckpt", **options)
    assert trainer.global_step == 6
    assert len(resumed.batches) == 5 * COPIES
    assert distance(whole, resumed) == 0


class ResumableLoader:
    """A loader that says where it is, which Lightning needs to go on within an epoch."""

    def __init__(self) -> None:
        self.batches = list(make_loader())
        self.taken = self.skipped = 0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        first, self.skipped = self.skipped, 0
        for number, batch in enumerate(self.batches[first:], start=first):
            self.taken = number + 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        return {"taken": self.taken}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.skipped = state["taken"]


@pytest.mark.parametrize("accumulated", [1, 2])
def test_a_run_resumed_within_an_epoch_ends_as_the_whole_one(accumulated: int, tmp_path: Path) -> None:
    def callbacks() -> list[lightning.Callback]:
        keeping = ModelCheckpoint(tmp_path, every_n_train_steps=1, save_top_k=-1, filename="{step}")
        return [BatchAugmentation(copies=COPIES, seed=5), keeping]

    whole, resumed = Toy(), Toy()
    options = {"accumulate_grad_batches": accumulated, "enable_checkpointing": True, "default_root_dir": tmp_path}
    trained(whole, callbacks=callbacks(), loader=ResumableLoader(), **options)
    torch.manual_seed(99)
    path = tmp_path / "step=2.ckpt"
    trained(resumed, callbacks=callbacks(), loader=ResumableLoader(), path=path, **options)
    assert len(resumed.batches) == (10 - 2 * accumulated) * COPIES
    assert distance(whole, resumed) == 0


def test_logged_means_are_over_the_copies() -> None:
    module = Toy()
    trainer = trained(module, max_epochs=1)
    assert len(module.losses) == 5 * COPIES
    assert trainer.callback_metrics["loss_epoch"] == pytest.approx(sum(module.losses) / len(module.losses))
    assert trainer.callback_metrics["loss_step"] == pytest.approx(module.losses[-1])


def test_callbacks_are_given_the_mean_loss_of_the_copies() -> None:
    class Losses(lightning.Callback):
        def __init__(self) -> None:
            self.found: list[float] = []

        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *args: Any) -> None:
            self.found.append(float(outputs["loss"]))

    losses, module = Losses(), Toy()
    trained(module, max_epochs=1, callbacks=[BatchAugmentation(copies=COPIES), losses])
    assert losses.found == pytest.approx(torch.tensor(module.losses).view(-1, COPIES).mean(1).tolist())


def test_the_trainers_loop_is_given_back() -> None:
    trainer = make_trainer()
    before = trainer.fit_loop.epoch_loop.automatic_optimization
    trainer.fit(Toy(), make_loader())
    assert trainer.fit_loop.epoch_loop.automatic_optimization is before
    assert trainer.global_step == 10


def test_a_fit_after_an_interrupted_one_has_copies_once() -> None:
    class Broken(Toy):
        def training_step(self, batch: Any, number: int) -> Tensor:
            raise OSError("no more rows")

    trainer = make_trainer()
    before = trainer.fit_loop.epoch_loop.automatic_optimization
    with pytest.raises(OSError, match="no more rows"):
        trainer.fit(Broken(), make_loader())
    module = Toy()
    trainer.fit(module, make_loader())
    assert len(module.batches) == 10 * COPIES
    assert trainer.fit_loop.epoch_loop.automatic_optimization is before


@pytest.mark.filterwarnings("ignore:nothing drew noise")
@pytest.mark.filterwarnings("ignore:`training_step` returned `None`:UserWarning")
def test_batches_without_a_loss_are_left_out() -> None:
    class Choosy(Toy):
        def training_step(self, batch: Any, number: int) -> Any:
            return None if number == 1 else super().training_step(batch, number)

    module = Choosy()
    trained(module)
    assert len(module.batches) == 8 * COPIES


@pytest.mark.slow
def test_two_processes_are_one_with_two_accumulated_batches(tmp_path: Path) -> None:
    apart = {}
    first, second = run_groups(trained_on_processes, [2], tmp_path).values()
    assert first["processes"] == second["processes"] == 2
    for copies in (COPIES, 0):
        module = Toy()
        trainer = trained(
            module, loader=make_loader(2), copies=copies, accumulate_grad_batches=2, gradient_clip_val=CLIP
        )
        assert torch.equal(first[f"weights {copies}"], second[f"weights {copies}"])
        assert first[f"steps {copies}"] == trainer.global_step == 10
        apart[copies] = float((first[f"weights {copies}"] - weights(module)).abs().max())
    assert first[f"exchanges {COPIES}"] == 10 * [*(COPIES - 1) * [False], True]
    assert apart[COPIES] < 1e-7
    assert apart[0] > 1e-4
    assert first["by hand"] < 1e-7
