"""Rules between a model and its task, and of what single families of models can do."""

from __future__ import annotations

from dataclasses import fields

from seqba.distributed.sharding import check_torch
from seqba.errors import UserError
from seqba.models.families import ARCHITECTURES
from seqba.models.options import ImageClassifierOptions
from seqba.models.timm_names import TIMM
from seqba.options import flag_of, is_given
from seqba.tasks.registry import TASKS, VARIANTS
from seqba.training.arms import derive_grid
from seqba.training.config import RunConfig
from seqba.training.options import RunOptions


def check_task(config: RunConfig) -> None:
    """Refuses an architecture that can't do the task, and options that would do nothing for the two."""
    if (config.task, ARCHITECTURES[config.arch]) not in VARIANTS:
        raise UserError(f"--arch {config.arch} is not for --task {config.task}")
    excluded = config.variant.excluded_options
    for options in (config.batches, config.criterion):
        for field in fields(options):
            if field.name in excluded and is_given(options, field.name):
                raise UserError(f"{flag_of(field.name)} has no effect on --task {config.task} --arch {config.arch}")
    if config.bleu.eval_bleu and "bleu" not in TASKS[config.task].metrics:
        raise UserError(f"--eval-bleu has no effect on --task {config.task}")


def check_layers(config: RunConfig) -> None:
    """Refuses to compute layers again, or to compile them, in a model that has none which can be."""
    run = config.training.run
    if run.checkpoint_activations and not config.family.has_layers:
        raise UserError(
            f"--checkpoint-activations is for the layers of a Transformer, and --arch {config.arch} has none: leave it "
            "out; --plan looped takes the least memory"
        )
    if run.compile and not config.family.has_layers:
        raise UserError(
            f"--compile is for the layers of a Transformer, and --arch {config.arch} has none: leave it out"
        )
    if run.compile and run.shard_params:
        raise UserError("--compile excludes --shard-params, whose weights come and go with the layer: leave one out")


def check_sharding(run: RunOptions) -> None:
    """Refuses parameters in parts with a torch that can't do it yet."""
    if run.shard_params:
        try:
            check_torch()
        except ValueError as error:
            raise UserError(f"--shard-params: {error}") from None


def check_pictures(config: RunConfig) -> None:
    """Refuses what image networks can't do."""
    if isinstance(config.model, ImageClassifierOptions):
        _check_batch_norm(config, config.model)
        _check_mixing(config)


def _check_batch_norm(config: RunConfig, model: ImageClassifierOptions) -> None:
    """Refuses what batch normalisation can't do."""
    grid = config.training.grid
    rows = derive_grid(grid).resized(config.batches).batch_size
    arm = "" if rows == config.batches.batch_size else f" (that of --arm {grid.arm} with --copies {grid.copies})"
    if config.training.optimisation.optimizer == "nt_asgd":
        raise UserError(
            "--optimizer nt_asgd averages weights, but not what batch normalisation has gathered under each of them: "
            "take sgd"
        )
    if rows == 1 or model.ghost_batch == 1:
        raise UserError(
            f"{f'--batch-size 1{arm}' if rows == 1 else '--ghost-batch 1'} leaves batch normalisation one image, which "
            "has no variance where a network has come to a single place: take at least 2"
        )
    if model.ghost_batch and rows and rows % model.ghost_batch:
        raise UserError(
            f"--ghost-batch {model.ghost_batch} must divide --batch-size {rows}{arm}, so that groups are the same in "
            "every plan"
        )


def _check_mixing(config: RunConfig) -> None:
    """Refuses mixing inside of a network that is only known from without."""
    if config.arch.startswith(TIMM) and config.task_options.manifold_mixup:
        raise UserError(
            f"--manifold-mixup mixes at places that --arch {config.arch} doesn't have: give --mixup, or one of seqba's "
            "own networks"
        )
