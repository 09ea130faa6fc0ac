"""Tiny Hugging Face models and Trainers over made-up rows, the same at every call."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, MarianConfig, MarianMTModel, Seq2SeqTrainer
from transformers import Seq2SeqTrainingArguments as Arguments

from seqba.distributed import Ranks
from seqba.integrations.transformers import batch_augmented

COPIES = 3
SEED = 3
UPDATES = 4


def make_marian(dropout: float = 0.3) -> MarianMTModel:
    torch.manual_seed(1)
    sizes = {"layers": 1, "attention_heads": 2, "ffn_dim": 32}
    return MarianMTModel(
        MarianConfig(
            vocab_size=40,
            d_model=16,
            max_position_embeddings=16,
            dropout=dropout,
            attention_dropout=dropout,
            pad_token_id=0,
            eos_token_id=1,
            decoder_start_token_id=0,
            forced_eos_token_id=None,
            **{f"{side}_{name}": size for side in ("encoder", "decoder") for name, size in sizes.items()},
        )
    )


def make_gpt2(dropout: float = 0.3) -> GPT2LMHeadModel:
    torch.manual_seed(1)
    sizes = {"vocab_size": 40, "n_positions": 16, "n_embd": 16, "n_layer": 2, "n_head": 2}
    drops = {"resid_pdrop": dropout, "embd_pdrop": dropout, "attn_pdrop": dropout}
    return GPT2LMHeadModel(GPT2Config(**sizes, **drops, bos_token_id=0, eos_token_id=1))


def make_rows(count: int = 24, length: int = 7) -> list[dict[str, Tensor]]:
    """Rows whose first and last labels count nothing: another number of tokens in every batch, shifted or not."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for number in range(count):
        tokens = torch.randint(2, 40, (length,), generator=generator)
        labels = tokens.roll(1)
        labels[0] = labels[length - number % 4 :] = -100
        rows.append({"input_ids": tokens, "decoder_input_ids": tokens.roll(2), "labels": labels})
    return rows


class Watched(Seq2SeqTrainer):
    """Notes what each of its training steps is given, and whether it ends in an exchange between processes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.batches: list[dict[str, Tensor]] = []
        self.exchanges: list[bool] = []

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any) -> Tensor:
        self.batches.append(dict(inputs))
        self.exchanges.append(self.accelerator.sync_gradients)
        return super().training_step(model, inputs, *args)


def make_arguments(folder: Path, **options: Any) -> Arguments:
    given: dict[str, Any] = {
        "per_device_train_batch_size": 4,
        "max_steps": UPDATES,
        "learning_rate": 0.2,
        "max_grad_norm": 0,
        "optim": "sgd",
        "lr_scheduler_type": "constant",
        "seed": SEED,
        "logging_steps": 1,
        "save_strategy": "no",
        "disable_tqdm": True,
        "report_to": "none",
        "use_cpu": True,
        "dataloader_pin_memory": False,
    }
    return Arguments(output_dir=str(folder), **{**given, **options})


def make_trainer(
    model: nn.Module,
    folder: Path,
    *,
    copies: int = COPIES,
    base: type[Seq2SeqTrainer] = Watched,
    rows: int = 24,
    forked: bool = False,
    loss: Callable[..., Tensor] | None = None,
    **options: Any,
) -> Any:
    """A Trainer that hasn't trained yet; `copies=0` is the plain one."""
    kind = batch_augmented(base, copies=copies, forked=forked) if copies else base
    dataset = make_rows(rows)
    return kind(
        model=model,
        args=make_arguments(folder, **options),
        train_dataset=dataset,
        eval_dataset=dataset[:8],
        compute_loss_func=loss,
    )


def trained(model: nn.Module, folder: Path, **options: Any) -> Any:
    trainer = make_trainer(model, folder, **options)
    trainer.train()
    return trainer


def weights(model: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def distance(one: nn.Module, other: nn.Module) -> float:
    return float((weights(one) - weights(other)).abs().max())


def trained_on_processes(ranks: Ranks) -> dict[str, Any]:
    """The weights after training on several processes, and what was logged and exchanged."""
    os.environ.update(RANK=str(ranks.rank), LOCAL_RANK=str(ranks.rank), WORLD_SIZE=str(ranks.size))
    os.environ.update(MASTER_ADDR="localhost", MASTER_PORT="0", LOCAL_WORLD_SIZE=str(ranks.size))
    found: dict[str, Any] = {}
    for copies in (COPIES, 0):
        model = make_marian()
        with tempfile.TemporaryDirectory() as folder:
            options = {"per_device_train_batch_size": 2, "ddp_backend": "gloo"}
            trainer = trained(model, Path(folder), copies=copies, **options)
        found[f"weights {copies}"] = weights(model)
        found[f"exchanges {copies}"] = trainer.exchanges
        found[f"log {copies}"] = trainer.state.log_history[UPDATES - 1]
        found["processes"] = trainer.accelerator.num_processes
    return found
