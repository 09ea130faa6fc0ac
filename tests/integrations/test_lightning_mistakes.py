"""What copies in Lightning's Trainer refuse."""

from __future__ import annotations

from typing import Any

import lightning
import pytest
import torch
from torch import Tensor
from toy_modules import (
    COPIES,
    OF_LIGHTNING,
    Toy,
    trained,
)

from seqba.integrations.lightning import BatchAugmentation

pytestmark = OF_LIGHTNING


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`:UserWarning")  # said once a process
def test_a_loss_for_some_copies_alone_is_refused() -> None:
    class Moody(Toy):
        def training_step(self, batch: Any, number: int) -> Any:
            loss = super().training_step(batch, number)
            return loss if len(self.batches) % COPIES else None

    with pytest.raises(ValueError, match="None for some copies"):
        trained(Moody())


def test_manual_optimization_is_refused() -> None:
    module = Toy()
    module.automatic_optimization = False
    with pytest.raises(
        ValueError, match=r"manual optimization: write them in training_step, for pass_ in seqba.copies"
    ):
        trained(module)


@pytest.mark.filterwarnings("ignore::lightning.pytorch.utilities.warnings.PossibleUserWarning")
def test_a_step_that_takes_its_batches_itself_is_refused() -> None:
    class Taking(Toy):
        def training_step(self, dataloader_iter: Any) -> Tensor:  # type: ignore[override]
            return self.loss(next(dataloader_iter)[0])

    with pytest.raises(ValueError, match="every copy would take another batch"):
        trained(Taking())


def test_lbfgs_is_refused() -> None:
    class Quadratic(Toy):
        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.LBFGS(self.parameters())

    with pytest.raises(ValueError, match="doesn't go together with LBFGS"):
        trained(Quadratic())


def test_a_strategy_that_accumulates_by_itself_is_refused() -> None:
    class Accumulating(lightning.pytorch.strategies.SingleDeviceStrategy):
        handles_gradient_accumulation = True

    with pytest.raises(ValueError, match="together with Accumulating, which counts backwards"):
        trained(Toy(), strategy=Accumulating("cpu"), accelerator="auto")


def test_two_callbacks_are_refused() -> None:
    with pytest.raises(ValueError, match="several BatchAugmentation callbacks"):
        trained(Toy(), callbacks=[BatchAugmentation(copies=2), BatchAugmentation(copies=3)])


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"copies": 0}, ValueError, "copies is 0"),
        ({"copies": "4"}, TypeError, "copies must be a whole number"),
        ({"copies": 4, "seed": 0.5}, TypeError, "seed must be a whole number"),
    ],
)
def test_wrong_arguments_are_refused(given: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        BatchAugmentation(**given)
