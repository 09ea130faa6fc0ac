"""Copies in Hugging Face's Trainer: the gradient of merged_gradient, whatever the Trainer does around it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rank_groups import run_groups
from torch import Tensor, nn
from torch.nn import functional
from toy_trainers import (
    COPIES,
    SEED,
    UPDATES,
    Watched,
    distance,
    make_gpt2,
    make_marian,
    make_rows,
    make_trainer,
    trained,
    trained_on_processes,
    weights,
)

import seqba
from seqba.integrations.transformers import batch_augmented

Batch = dict[str, Tensor]


def model_loss(model: nn.Module, batch: Batch) -> Tensor:
    return model(**batch).loss


def smoothed_loss(model: nn.Module, batch: Batch) -> Tensor:
    logits, labels = model(**batch).logits, batch["labels"]
    return functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), label_smoothing=0.1)


def squared_loss(outputs: Any, labels: Tensor, num_items_in_batch: Tensor | None = None) -> Tensor:
    return outputs.logits.square().sum() / num_items_in_batch


def by_hand(
    model: nn.Module, batches: list[Batch], loss: Callable[[nn.Module, Batch], Tensor], max_norm: float
) -> nn.Module:
    """What the Trainer's updates shall come to, by `merged_gradient`."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    for update, batch in enumerate(batches, start=1):
        optimizer.zero_grad()
        seqba.merged_gradient(model, batch, loss, copies=COPIES, plan="stacked", keyed=True, update=update, seed=SEED)
        if max_norm:
            assert nn.utils.clip_grad_norm_(model.parameters(), max_norm) > max_norm
        optimizer.step()
    return model


@pytest.mark.parametrize(
    ("make_model", "loss", "options"),
    [
        (make_marian, model_loss, {}),
        (make_gpt2, model_loss, {}),
        (make_gpt2, model_loss, {"max_grad_norm": 0.5}),
        (make_marian, smoothed_loss, {"label_smoothing_factor": 0.1}),
        (
            make_marian,
            lambda model, batch: squared_loss(model(**batch), batch["labels"], batch["labels"].ne(-100).sum()),
            {"loss": squared_loss},
        ),
    ],
    ids=["Marian", "GPT-2", "clipping", "label smoothing", "compute_loss_func"],
)
def test_updates_are_those_of_merged_gradient(make_model: Any, loss: Any, options: Any, tmp_path: Path) -> None:
    model = make_model()
    trainer = trained(model, tmp_path, **options)
    batches = trainer.batches[::COPIES]
    assert len(batches) == UPDATES
    assert distance(model, by_hand(make_model(), batches, loss, options.get("max_grad_norm", 0))) < 2e-6
    assert distance(model, make_model()) > 1e-2


class ForkedEmbedding(nn.Module):
    """Copies begin behind it; it has no noise of its own."""

    def __init__(self, embedding: nn.Module) -> None:
        super().__init__()
        self.embedding = embedding

    @property
    def weight(self) -> Tensor:
        return self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return seqba.fork(self.embedding, tokens)


def test_copies_may_begin_inside_a_model_of_others(tmp_path: Path) -> None:
    """Behind layers without noise they are whole copies; where a fork isn't asked for, it is refused."""
    whole, forked = make_gpt2(), make_gpt2()
    trained(whole, tmp_path)
    forked.transformer.wte = ForkedEmbedding(forked.transformer.wte)
    trained(forked, tmp_path, forked=True)
    assert distance(whole, forked) < 2e-6
    with pytest.raises(RuntimeError, match=r"pass forked=True to what makes the update .*batch_augmented"):
        trained(forked, tmp_path)


def test_accumulated_batches_are_the_micro_batches_of_a_grid(tmp_path: Path) -> None:
    model = make_gpt2()
    trainer = trained(model, tmp_path, rows=20, gradient_accumulation_steps=2)
    batches = trainer.batches[::COPIES]
    windows = [batches[0:2], batches[2:4], batches[4:5], batches[5:7]]  # five batches an epoch: the last one is alone
    assert len(batches) == 7

    def summed_loss(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        tokens = batch["labels"][:, 1:].ne(-100).sum()
        return model(**batch).loss * tokens, tokens

    other = make_gpt2().train()
    optimizer = torch.optim.SGD(other.parameters(), lr=0.2)
    for update, window in enumerate(windows, start=1):
        optimizer.zero_grad()
        tokens = sum(int(batch["labels"][:, 1:].ne(-100).sum()) for batch in window)
        key = {"update": update, "seed": SEED}
        seqba.grid_gradient(other, window, summed_loss, copies=COPIES, weight=COPIES * tokens, keyed=True, **key)
        optimizer.step()
    assert distance(model, other) < 2e-6


def test_mixed_precision_stays_the_trainers(tmp_path: Path) -> None:
    mixed, model = make_marian(), make_marian()
    trained(mixed, tmp_path, bf16=True)
    trained(model, tmp_path)
    assert 0 < distance(mixed, model) < 1e-3


@pytest.mark.filterwarnings("ignore:nothing drew noise")
def test_copies_without_noise_change_nothing(tmp_path: Path) -> None:
    one, plain = make_marian(dropout=0.0), make_marian(dropout=0.0)
    losses = [
        [line["loss"] for line in trained(model, tmp_path, copies=copies).state.log_history[:UPDATES]]
        for model, copies in ((one, COPIES), (plain, 0))
    ]
    assert distance(one, plain) < 1e-6
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_one_copy_without_noise_is_the_plain_trainer_bit_for_bit(tmp_path: Path) -> None:
    one, plain = make_marian(dropout=0.0), make_marian(dropout=0.0)
    trained(one, tmp_path, copies=1)
    trained(plain, tmp_path, copies=0)
    assert distance(one, plain) == 0


def test_copies_see_noise_of_their_own_and_the_global_seed_changes_nothing(tmp_path: Path) -> None:
    def one_update(copies: int, **options: Any) -> nn.Module:
        model = make_marian()
        trained(model, tmp_path, copies=copies, max_steps=1, **options)
        return model

    assert distance(one_update(1), one_update(2)) > 1e-4
    assert distance(one_update(2), one_update(2)) == 0


def test_the_seed_of_the_noise_is_that_of_the_arguments_or_its_own(tmp_path: Path) -> None:
    found = []
    for seed in (None, SEED, SEED + 1):
        trainer = make_trainer(make_marian(), tmp_path, copies=0)
        kind = batch_augmented(Watched, copies=2, seed=seed)
        trainer = kind(model=make_marian(), args=trainer.args, train_dataset=make_rows())
        trainer.train()
        found.append(trainer.model)
    assert distance(found[0], found[1]) == 0
    assert distance(found[0], found[2]) > 1e-4


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing:FutureWarning")  # renamed, but not in the oldest release
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("make_model", [make_marian, make_gpt2])
def test_recomputed_layers_change_nothing(make_model: Any, reentrant: bool, tmp_path: Path) -> None:
    plain, recomputed = make_model(), make_model()
    trained(plain, tmp_path)
    checkpointing = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": reentrant}}
    trained(recomputed, tmp_path, **checkpointing)
    assert distance(plain, recomputed) == 0


@pytest.mark.parametrize("with_callbacks", [False, True])
def test_a_resumed_run_ends_as_the_whole_one(with_callbacks: bool, tmp_path: Path) -> None:
    whole, resumed = make_marian(), make_marian()
    options = {"save_strategy": "steps", "save_steps": 2, "gradient_accumulation_steps": 2}
    trainer = trained(whole, tmp_path, **options)
    again = make_trainer(resumed, tmp_path, restore_callback_states_from_checkpoint=with_callbacks, **options)
    (tmp_path / "checkpoint-2" / "rng_state.pth").unlink()
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert len(again.batches) == len(trainer.batches) // 2
    assert distance(whole, resumed) == 0
    seen = [[line["processed_tokens"] for line in one.state.log_history] for one in (trainer, again)]
    assert seen[0] == seen[1]


def test_a_plain_trainers_run_goes_on_with_copies(tmp_path: Path) -> None:
    trained(make_marian(), tmp_path, copies=0, max_steps=2, save_strategy="steps", save_steps=2)
    trainer = make_trainer(make_marian(), tmp_path, save_strategy="steps", save_steps=2)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert len(trainer.batches) == 2 * COPIES
    assert (tmp_path / "checkpoint-4").is_dir()


def test_the_log_says_how_many_tokens_were_seen(tmp_path: Path) -> None:
    trainer = trained(make_marian(), tmp_path, eval_strategy="steps", eval_steps=2)
    counted = [int(batch["labels"].ne(-100).sum()) for batch in trainer.batches[::COPIES]]
    lines = [line for line in trainer.state.log_history if "loss" in line]
    assert [line["distinct_tokens"] for line in lines] == torch.tensor(counted).cumsum(0).tolist()
    assert all(line["processed_tokens"] == COPIES * line["distinct_tokens"] for line in lines)
    assert all("distinct_tokens" not in line for line in trainer.state.log_history if "eval_loss" in line)
    trainer.train()
    assert trainer.state.log_history[0]["distinct_tokens"] < 2 * counted[0]


def test_evaluation_is_the_plain_trainers(tmp_path: Path) -> None:
    augmented, plain = (
        trained(make_marian(), tmp_path, copies=copies, learning_rate=0.0, eval_strategy="steps", eval_steps=UPDATES)
        for copies in (COPIES, 0)
    )
    of_training = [
        [line["eval_loss"] for line in trainer.state.log_history if "eval_loss" in line]
        for trainer in (augmented, plain)
    ]
    assert of_training[0] == of_training[1] != []
    assert augmented.evaluate()["eval_loss"] == plain.evaluate()["eval_loss"]


def test_only_the_last_pass_of_an_update_ends_in_an_exchange(tmp_path: Path) -> None:
    trainer = trained(make_marian(), tmp_path, max_steps=2, gradient_accumulation_steps=2)
    assert trainer.exchanges == 2 * [*(2 * COPIES - 1) * [False], True]


@pytest.mark.slow
def test_two_processes_are_one_with_two_accumulated_batches(tmp_path: Path) -> None:
    apart = {}
    first, second = run_groups(trained_on_processes, [2], tmp_path).values()
    assert first["processes"] == second["processes"] == 2
    for copies in (COPIES, 0):
        model = make_marian()
        options = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
        trainer = trained(model, tmp_path, copies=copies, **options)
        assert torch.equal(first[f"weights {copies}"], second[f"weights {copies}"])
        apart[copies] = float((first[f"weights {copies}"] - weights(model)).abs().max())
        if copies:
            assert first[f"exchanges {copies}"] == UPDATES * [*(copies - 1) * [False], True]
            line = trainer.state.log_history[UPDATES - 1]
            for name in ("distinct_tokens", "processed_tokens"):
                assert first[f"log {copies}"][name] == line[name]
    assert apart[COPIES] < 1e-7
    assert apart[0] > 1e-4


def with_own_loss(base: Any) -> Any:
    class Own(base):
        def compute_loss(self, model: nn.Module, inputs: Any, return_outputs: bool = False, **kwargs: Any) -> Any:
            outputs = model(**inputs)
            return (outputs.loss, outputs) if return_outputs else outputs.loss

    return Own


@pytest.mark.filterwarnings("ignore:nothing drew noise")
def test_a_loss_of_ones_own_is_divided(tmp_path: Path) -> None:
    given, derived, model = (make_marian(dropout=0.0) for _ in range(3))
    trained(given, tmp_path, base=with_own_loss(Watched))
    trained(derived, tmp_path, copies=0, base=with_own_loss(batch_augmented(Watched, copies=COPIES)))
    trained(model, tmp_path, copies=0)
    assert distance(given, model) < 1e-6
    assert distance(derived, model) < 1e-6


def with_penalty(base: Any) -> Any:
    """A class derived from `base`, which adds a term of its own to the loss."""

    class Penalised(base):
        def compute_loss(self, model: nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            penalty = sum(parameter.square().sum() for parameter in model.parameters())
            return super().compute_loss(model, inputs, *args, **kwargs) + 0.1 * penalty

    return Penalised


@pytest.mark.filterwarnings("ignore:nothing drew noise")
@pytest.mark.parametrize("accumulated", [1, 2])
def test_terms_that_a_derived_class_adds_are_divided(accumulated: int, tmp_path: Path) -> None:
    """It came M times before: the Trainer's own loss alone was divided."""
    derived, given, plain = (make_marian(dropout=0.0) for _ in range(3))
    options = {"gradient_accumulation_steps": accumulated, "rows": 48}
    logs = []
    for model, kind in (
        (derived, with_penalty(batch_augmented(Watched, copies=COPIES))),
        (given, batch_augmented(with_penalty(Watched), copies=COPIES)),
        (plain, with_penalty(Watched)),
    ):
        trainer = trained(model, tmp_path, copies=0, base=kind, **options)
        logs.append([line["loss"] for line in trainer.state.log_history if "loss" in line])
    assert distance(derived, plain) < 2e-6
    assert distance(given, plain) < 2e-6
    assert logs[0] == pytest.approx(logs[2], rel=1e-3)
    assert logs[1] == pytest.approx(logs[2], rel=1e-3)


def test_a_trainer_may_take_things_out_of_a_batch(tmp_path: Path) -> None:
    class Taking(Watched):
        def training_step(self, model: nn.Module, inputs: Any, *args: Any) -> Tensor:
            return super().training_step(model, {"labels": inputs.pop("labels"), **inputs}, *args)

    taking, model = make_marian(), make_marian()
    trained(taking, tmp_path, base=Taking)
    trained(model, tmp_path)
    assert distance(taking, model) == 0


def test_what_a_copy_changes_in_place_no_other_copy_sees(tmp_path: Path) -> None:
    class Shifting(Watched):
        def compute_loss(self, model: nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            inputs["input_ids"].add_(1).remainder_(inputs["input_ids"].max())
            return super().compute_loss(model, inputs, *args, **kwargs)

    class Careful(Watched):
        def compute_loss(self, model: nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            ids = inputs["input_ids"] + 1
            return super().compute_loss(model, {**inputs, "input_ids": ids % ids.max()}, *args, **kwargs)

    shifting, careful = make_marian(), make_marian()
    trained(shifting, tmp_path, base=Shifting)
    trained(careful, tmp_path, base=Careful)
    assert distance(shifting, careful) == 0
