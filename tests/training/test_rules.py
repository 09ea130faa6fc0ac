"""Rules between options: each bad combination is refused by its words, before any file is read."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch_versions import SHARDS_PARAMETERS

from seqba.errors import UserError
from seqba.models.options import AWDLSTMOptions, ImageClassifierOptions, TransformerLMOptions, TransformerOptions
from seqba.tasks.image_options import ImageOptions
from seqba.tasks.options import BatchOptions, CriterionOptions
from seqba.tasks.text_options import BleuOptions, BlockOptions, StreamOptions, TranslationOptions
from seqba.training.config import RunConfig
from seqba.training.options import (
    CheckpointOptions,
    GridOptions,
    LogOptions,
    OptimisationOptions,
    RunOptions,
    ScheduleOptions,
    TrainingOptions,
    ValidationOptions,
)
from seqba.training.rules import validate_config

TRAINING = TrainingOptions(
    grid=GridOptions(),
    optimisation=OptimisationOptions(),
    schedule=ScheduleOptions(lr=0.1),
    run=RunOptions(),
    validation=ValidationOptions(),
    checkpoints=CheckpointOptions(),
    log=LogOptions(),
)
TRANSLATION = RunConfig(
    task="translation",
    data="nowhere",
    arch="transformer_tiny",
    task_options=TranslationOptions(),
    batches=BatchOptions(max_tokens=400),
    criterion=CriterionOptions(),
    model=TransformerOptions(),
    bleu=BleuOptions(),
    training=TRAINING,
)
BLOCKS = replace(
    TRANSLATION,
    task="language_modeling",
    arch="transformer_lm",
    task_options=BlockOptions(),
    model=TransformerLMOptions(),
)
STREAMS = replace(
    TRANSLATION,
    task="language_modeling",
    arch="awd_lstm",
    task_options=StreamOptions(),
    batches=BatchOptions(batch_size=20),
    model=AWDLSTMOptions(),
)
IMAGES = replace(
    TRANSLATION,
    task="image_classification",
    arch="resnet44",
    task_options=ImageOptions(),
    batches=BatchOptions(batch_size=64),
    model=ImageClassifierOptions(),
)
GOOD = {"translation": TRANSLATION, "blocks": BLOCKS, "streams": STREAMS, "images": IMAGES}
GROUPS = {field.name for field in fields(TrainingOptions)}


def changed(config: RunConfig, **groups: Any) -> RunConfig:
    """A configuration with other groups of options, whether of training or of the task."""
    training = {name: groups.pop(name) for name in GROUPS & groups.keys()}
    return replace(config, training=replace(config.training, **training), **groups)


STEP = {"lr_scheduler": "step", "lr": 0.1}
BLEU = ValidationOptions(best_checkpoint_metric="bleu", maximize_best_checkpoint_metric=True)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("translation", {"arch": "awd_lstm"}, "^--arch awd_lstm is not for --task translation"),
        (
            "streams",
            {"batches": BatchOptions(batch_size=20, max_tokens=400)},
            "--max-tokens has no effect on --task language_modeling --arch awd_lstm",
        ),
        ("images", {"criterion": CriterionOptions(sentence_avg=True)}, "--sentence-avg has no effect on"),
        ("blocks", {"bleu": BleuOptions(eval_bleu=True)}, "--eval-bleu has no effect on --task language_modeling"),
        (
            "translation",
            {"optimisation": OptimisationOptions(momentum=0.9)},
            "--momentum belongs to --optimizer sgd, not adam",
        ),
        ("blocks", {"grid": GridOptions(arm="large-batch", copies=2)}, "take --arm fixed-samples, which is the same"),
        ("translation", {"grid": GridOptions(arm="large-batch", copies=2)}, "take --arm fixed-samples"),
        (
            "translation",
            {"grid": GridOptions(arm="fixed-rows", copies=3)},
            "--copies 3 divides neither --update-freq 1 nor --max-tokens 400",
        ),
        ("translation", {"schedule": ScheduleOptions()}, "--lr-scheduler fixed needs --lr"),
        ("translation", {"schedule": ScheduleOptions(lr_scheduler="vaswani", lr=0.1)}, "--lr has no effect on"),
        (
            "translation",
            {"schedule": ScheduleOptions(lr_scheduler="vaswani", warmup_updates=0)},
            "--warmup-updates of at least 1",
        ),
        ("translation", {"schedule": ScheduleOptions(**STEP)}, "step needs --lr-drops in rising order"),
        ("translation", {"schedule": ScheduleOptions(**STEP, lr_drops=(5, 5))}, "--lr-drops in rising order"),
        (
            "translation",
            {"schedule": ScheduleOptions(**STEP, lr_drops=(5,), lr_shrink=(0.1, 0.2))},
            "--lr-shrink has 2 factors for 1 --lr-drops",
        ),
        ("translation", {"schedule": ScheduleOptions(lr=0.1, lr_drops=(5,))}, "--lr-drops belongs to"),
        ("translation", {"schedule": ScheduleOptions(lr=0.1, lr_shrink=(0.5,))}, "--lr-shrink belongs to"),
        (
            "translation",
            {"schedule": ScheduleOptions(lr=0.1, lr_factor="M^0.5"), "grid": GridOptions(copies="1:0,4:9")},
            r"--lr-factor M\^0.5 is a power of M, and --copies 1:0,4:9 has several",
        ),
        ("translation", {"schedule": ScheduleOptions(lr=0.1, warmup_init_lr=0.01)}, "--warmup-init-lr belongs to"),
        (
            "translation",
            {"schedule": ScheduleOptions(**STEP, lr_drops=(5,)), "grid": GridOptions(update_freq=(1, 2))},
            "--lr-drop-unit epoch needs one --update-freq",
        ),
        (
            "translation",
            {
                "optimisation": OptimisationOptions(weight_decay=0.1, weight_decay_until=5),
                "grid": GridOptions(update_freq=(1, 2)),
            },
            "--weight-decay-unit epoch needs one --update-freq",
        ),
        (
            "translation",
            {"optimisation": OptimisationOptions(weight_decay_unit="update")},
            "--weight-decay-unit belongs to --weight-decay-until",
        ),
        ("translation", {"optimisation": OptimisationOptions(weight_decay_until=5)}, "a decay that there isn't"),
        ("translation", {"batches": BatchOptions(max_tokens=400, valid_subset=",")}, "--valid-subset names no split"),
        (
            "translation",
            {"validation": ValidationOptions(best_checkpoint_metric="bleu"), "bleu": BleuOptions(eval_bleu=True)},
            "bleu needs --maximize-best-checkpoint-metric",
        ),
        (
            "translation",
            {"validation": ValidationOptions(maximize_best_checkpoint_metric=True)},
            "loss excludes --maximize-best-checkpoint-metric",
        ),
        ("translation", {"validation": BLEU}, "bleu needs --eval-bleu"),
        ("streams", {"validation": BLEU}, "bleu belongs to --task translation; take loss"),
        (
            "images",
            {"validation": ValidationOptions(best_checkpoint_metric="ppl")},
            "ppl belongs to --task translation or language_modeling; take loss",
        ),
        (
            "translation",
            {"bleu": BleuOptions(eval_bleu=True, eval_bleu_args="beam 4")},
            "--eval-bleu-args is not JSON",
        ),
        ("translation", {"checkpoints": CheckpointOptions(keep_interval_updates=2)}, "needs --save-interval-updates"),
        (
            "translation",
            {"checkpoints": CheckpointOptions(keep_last_epochs=2, no_epoch_checkpoints=True)},
            "--keep-last-epochs and --no-epoch-checkpoints exclude each other",
        ),
        (
            "translation",
            {"checkpoints": CheckpointOptions(finetune_from_model="a.pt", reset_meters=True)},
            "leave out --restore-file and --reset-",
        ),
        (
            "translation",
            {"checkpoints": CheckpointOptions(finetune_from_model="a.pt", restore_file="b.pt")},
            "leave out --restore-file and --reset-",
        ),
        (
            "translation",
            {"validation": ValidationOptions(disable_validation=True, validate_interval_updates=9)},
            "--validate-interval-updates needs validations",
        ),
        (
            "translation",
            {"validation": ValidationOptions(disable_validation=True, validate_interval=2)},
            "--validate-interval needs validations",
        ),
        ("translation", {"checkpoints": CheckpointOptions(save_dir="")}, "^--save-dir is empty"),
        (
            "translation",
            {"checkpoints": CheckpointOptions(no_save=True, keep_last_epochs=3)},
            "--keep-last-epochs and --no-save, which writes nothing, exclude each other",
        ),
        (
            "translation",
            {"optimisation": OptimisationOptions(weight_decay_on="weights")},
            "--weight-decay-on is of a decay that there isn't",
        ),
        ("translation", {"log": LogOptions(no_progress_bar=True, log_format="tqdm")}, "exclude each other"),
        ("translation", {"log": LogOptions(measure_every=50)}, "--measure-every sees no variance in a single pass"),
        ("images", {"optimisation": OptimisationOptions(optimizer="nt_asgd")}, "take sgd"),
        ("translation", {"log": LogOptions(report_project="x")}, "--report-project belongs to --report-to"),
        ("streams", {"run": RunOptions(checkpoint_activations=True)}, "--arch awd_lstm has none"),
        ("images", {"run": RunOptions(checkpoint_activations=True)}, "is for the layers of a Transformer"),
        ("streams", {"run": RunOptions(compile=True)}, "--compile is for the layers of a Transformer"),
        ("translation", {"run": RunOptions(compile=True, shard_params=True)}, "--compile excludes --shard-params"),
        ("translation", {"optimisation": OptimisationOptions(ema_decay=0.9)}, "--ema-decay belongs to --store-ema"),
        ("translation", {"optimisation": OptimisationOptions(ema_update_freq=2)}, "--ema-update-freq belongs to"),
        (
            "streams",
            {"optimisation": OptimisationOptions(optimizer="nt_asgd", store_ema=True)},
            "averages the weights, and so does --optimizer nt_asgd",
        ),
        ("images", {"batches": BatchOptions(batch_size=1)}, "^--batch-size 1 leaves batch normalisation one image"),
        (
            "images",
            {"batches": BatchOptions(batch_size=4), "grid": GridOptions(arm="fixed-rows", copies=4)},
            r"--batch-size 1 \(that of --arm fixed-rows with --copies 4\) leaves batch normalisation one image",
        ),
        ("images", {"model": ImageClassifierOptions(ghost_batch=1)}, "--ghost-batch 1 leaves"),
        ("images", {"model": ImageClassifierOptions(ghost_batch=24)}, "--ghost-batch 24 must divide --batch-size 64"),
    ],
)
def test_a_bad_combination_is_refused(kind: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        validate_config(changed(GOOD[kind], **changes))


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        *((kind, {}) for kind in GOOD),
        ("streams", {"grid": GridOptions(arm="large-batch", copies=2)}),
        ("streams", {"optimisation": OptimisationOptions(optimizer="nt_asgd")}),
        ("images", {"grid": GridOptions(arm="large-batch", copies=2)}),
        ("images", {"model": ImageClassifierOptions(ghost_batch=16)}),
        ("images", {"optimisation": OptimisationOptions(optimizer="sgd", momentum=0.9)}),
        ("blocks", {"criterion": CriterionOptions(sentence_avg=True)}),
        (
            "images",
            {"validation": ValidationOptions(best_checkpoint_metric="top1", maximize_best_checkpoint_metric=True)},
        ),
        ("translation", {"validation": BLEU, "bleu": BleuOptions(eval_bleu=True, eval_bleu_args='{"beam": 2}')}),
        (
            "translation",
            {
                "schedule": ScheduleOptions(**STEP, lr_drops=(5,), lr_drop_unit="update"),
                "grid": GridOptions(update_freq=(1, 2)),
            },
        ),
    ],
)
def test_a_good_combination_passes(kind: str, changes: dict[str, Any]) -> None:
    validate_config(changed(GOOD[kind], **changes))


@pytest.mark.parametrize(
    ("log", "package", "flag"),
    [
        (LogOptions(report_to="mlflow"), "mlflow", "--report-to mlflow"),
        (LogOptions(wandb_project="mine"), "wandb", "--report-to wandb"),
        (LogOptions(tensorboard_logdir="logs"), "tensorboard", "--tensorboard-logdir"),
    ],
)
def test_a_trackers_package_is_missed_before_any_file_is_read(
    log: LogOptions, package: str, flag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=f"^{flag} needs a package that isn't installed, {package}: pip install"):
        validate_config(changed(TRANSLATION, log=log))


TORCH_IS_TOO_OLD = pytest.raises(
    UserError, match=r"^--shard-params: sharded parameters need torch 2\.13 or later, and this is"
)


def test_parameters_in_parts_need_a_torch_that_can() -> None:
    with nullcontext() if SHARDS_PARAMETERS else TORCH_IS_TOO_OLD:
        validate_config(changed(TRANSLATION, run=RunOptions(shard_params=True)))


def test_a_torch_that_cant_is_told_before_any_file_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.distributed, "reduce_scatter_single", raising=False)  # as in torch 2.12 and earlier
    with TORCH_IS_TOO_OLD:
        validate_config(changed(TRANSLATION, run=RunOptions(shard_params=True)))
