"""What copies in Hugging Face's Trainer refuse."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import Tensor, nn
from toy_trainers import (
    COPIES,
    UPDATES,
    Watched,
    make_marian,
    make_trainer,
    trained,
)
from transformers import Seq2SeqTrainer

from seqba.integrations.transformers import batch_augmented


def test_several_gpus_in_one_process_are_refused(tmp_path: Path) -> None:
    trainer = make_trainer(make_marian(), tmp_path)
    trainer.args._n_gpu = 2
    with pytest.raises(ValueError, match=r"^2 GPUs in one process .*torchrun --nproc-per-node 2"):
        trainer.train()


@pytest.mark.parametrize("optim", ["lomo", "adalomo", "galore_adamw_layerwise", "apollo_adamw_layerwise"])
def test_an_optimizer_that_steps_within_the_backward_is_refused(optim: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{optim} steps within the backward"):
        trained(make_marian(), tmp_path, optim=optim)


def test_a_trainer_whose_steps_take_rows_from_a_buffer_is_refused(tmp_path: Path) -> None:
    """As TRL's GRPOTrainer, which counts its training steps."""

    class Buffering(Watched):
        _buffered_inputs = None

    with pytest.raises(ValueError, match=r"^BatchAugmentedBuffering takes rows from a buffer in each training_step"):
        trained(make_marian(), tmp_path, base=Buffering)
    assert trained(make_marian(), tmp_path, base=Buffering, copies=1)


def test_a_training_step_past_the_copies_is_told_of(tmp_path: Path) -> None:
    class Own(batch_augmented(Watched, copies=2)):
        def training_step(self, model: nn.Module, inputs: Any, *args: Any) -> Tensor:
            loss = self.compute_loss(model, inputs)
            self.accelerator.backward(loss)
            return loss.detach()

    trainer = make_trainer(make_marian(), tmp_path, base=Own, copies=0)
    with pytest.warns(UserWarning, match=r"^no copies ran in this update: a training_step .* super\(\)") as told:
        trainer.train()
    assert len(told) == 1


@pytest.mark.parametrize("kind", ["tp", "cp", "sp"])
def test_other_parallelism_is_refused(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer(make_marian(), tmp_path)
    monkeypatch.setattr(trainer, f"get_{kind}_size", lambda: 2)
    with pytest.raises(ValueError, match=r"parallelism .here 2.: take DDP or FSDP"):
        trainer.train()


def test_untried_company_is_told_of(tmp_path: Path) -> None:
    trainer = make_trainer(make_marian(), tmp_path)
    trainer.args.use_liger_kernel = True
    with pytest.warns(UserWarning, match="Liger kernels weren't tried"), suppress(ImportError):  # they aren't installed
        trainer.train()


def test_a_backward_past_the_accelerator_is_refused(tmp_path: Path) -> None:
    class Own(Watched):
        def training_step(self, model: nn.Module, inputs: Any, *args: Any) -> Tensor:
            loss: Tensor = model(**inputs).loss
            loss.backward()
            return loss.detach()

    with pytest.raises(TypeError, match=r"^BatchAugmentedOwn computes its gradient without accelerator.backward"):
        trained(make_marian(), tmp_path, base=Own)


def test_a_training_step_may_leave_a_batch_out(tmp_path: Path) -> None:
    class Careful(Watched):
        def training_step(self, model: nn.Module, inputs: Any, *args: Any) -> Tensor:
            if self.state.global_step == 1:  # a loss that isn't finite, say
                return self.compute_loss(model, inputs).detach()
            return super().training_step(model, inputs, *args)

    trainer = trained(make_marian(), tmp_path, base=Careful)
    assert trainer.state.global_step == UPDATES
    assert len(trainer.batches) == COPIES * (UPDATES - 1)
    trainer.accelerator = SimpleNamespace(backward=lambda loss: None, num_processes=2)
    refused = pytest.raises(TypeError, match=r"left a batch out, .* let every training_step call it")
    with refused, trainer._divided_backward(nn.Module()):
        pass


@pytest.mark.parametrize(
    ("kind", "copies", "error", "message"),
    [
        (nn.Module, 4, TypeError, "must be transformers.Trainer"),
        (3, 4, TypeError, "not 3 .a int."),
        (Seq2SeqTrainer, 0, ValueError, "copies is 0"),
        (Seq2SeqTrainer, 2.5, TypeError, "copies must be a whole number"),
        (batch_augmented(Seq2SeqTrainer, copies=2), 4, ValueError, "has 2 copies already"),
    ],
)
def test_wrong_arguments_are_refused(kind: Any, copies: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        batch_augmented(kind, copies=copies)
