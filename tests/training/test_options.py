from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from seqba.errors import UserError
from seqba.tasks.options import BatchOptions, CriterionOptions
from seqba.tasks.translation import BleuOptions
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

PLAIN = TrainingOptions(
    grid=GridOptions(),
    optimisation=OptimisationOptions(),
    schedule=ScheduleOptions(lr=0.1),
    run=RunOptions(),
    validation=ValidationOptions(),
    checkpoints=CheckpointOptions(),
    log=LogOptions(),
)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": ScheduleOptions()}, "--lr-scheduler fixed needs --lr"),
        ({"schedule": ScheduleOptions(lr_scheduler="vaswani", lr=0.1)}, "--lr has no effect on --lr-scheduler vaswani"),
        ({"schedule": ScheduleOptions(lr_scheduler="vaswani", warmup_updates=0)}, "--warmup-updates of at least 1"),
        ({"schedule": ScheduleOptions(lr_scheduler="step", lr=0.1)}, "step needs --lr-drops in rising order"),
        ({"schedule": ScheduleOptions(lr_scheduler="step", lr=0.1, lr_drops=(5, 5))}, "--lr-drops in rising order"),
        (
            {"schedule": ScheduleOptions(lr_scheduler="step", lr=0.1, lr_drops=(5,), lr_shrink=(0.1, 0.2))},
            "--lr-shrink has 2 factors for 1 --lr-drops",
        ),
        ({"schedule": ScheduleOptions(lr=0.1, lr_drops=(5,))}, "--lr-drops belongs to --lr-scheduler step, not fixed"),
        ({"schedule": ScheduleOptions(lr=0.1, lr_shrink=(0.5,))}, "--lr-shrink belongs to --lr-scheduler step"),
        (
            {
                "schedule": ScheduleOptions(lr_scheduler="step", lr=0.1, lr_drops=(5,)),
                "grid": GridOptions(update_freq=(1, 2)),
            },
            "--lr-drop-unit epoch needs one --update-freq",
        ),
        ({"schedule": ScheduleOptions(lr=0.1, warmup_init_lr=0.01)}, "--warmup-init-lr belongs to"),
        ({"optimisation": OptimisationOptions(adam_betas=(0.9,))}, "--adam-betas takes two numbers"),
        ({"validation": ValidationOptions(best_checkpoint_metric="bleu")}, "needs --maximize-best-checkpoint-metric"),
        (
            {"validation": ValidationOptions(maximize_best_checkpoint_metric=True)},
            "excludes --maximize-best-checkpoint-metric",
        ),
        ({"checkpoints": CheckpointOptions(keep_interval_updates=2)}, "needs --save-interval-updates"),
        ({"checkpoints": CheckpointOptions(keep_last_epochs=2, no_epoch_checkpoints=True)}, "exclude each other"),
        ({"checkpoints": CheckpointOptions(finetune_from_model="a.pt", reset_meters=True)}, "leave out"),
        ({"checkpoints": CheckpointOptions(finetune_from_model="a.pt", restore_file="b.pt")}, "leave out"),
        ({"log": LogOptions(no_progress_bar=True, log_format="tqdm")}, "exclude each other"),
    ],
)
def test_options_without_the_meant_effect_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        replace(PLAIN, **changes)


def test_task_options_without_effect_are_refused() -> None:
    with pytest.raises(UserError, match="how large is a micro-batch"):
        BatchOptions()
    with pytest.raises(UserError, match="--label-smoothing has no effect on cross_entropy"):
        CriterionOptions(label_smoothing=0.1)
    with pytest.raises(UserError, match="need --eval-bleu"):
        BleuOptions(eval_bleu_args='{"beam": 2}')
