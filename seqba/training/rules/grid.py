"""Rules of the grid of an update: its arm, what copies share and compare, where they begin."""

from __future__ import annotations

from seqba.errors import UserError
from seqba.tasks.text_options import TranslationOptions
from seqba.training.arms import derive_grid
from seqba.training.config import RunConfig


def check_arm(config: RunConfig) -> None:
    """Refuses an arm that would be another one under a dearer name, and one whose micro-batches can't be made."""
    grid = config.training.grid
    if grid.arm == "large-batch" and not config.family.rows_share:
        raise UserError(
            "--arm large-batch is for what the rows of a batch share (batch norm, weight masks), and a Transformer's "
            "share nothing: take --arm fixed-samples, which is the same there"
        )
    derived = derive_grid(grid)
    derived.resized(config.batches)
    if not derived.copies.is_constant and config.variant.carries:
        raise UserError(
            f"--copies {grid.copies} changes their number on the way, and those of --arch {config.arch} carry a state "
            "from update to update, which new ones don't have: give one number"
        )


def check_compared_copies(config: RunConfig) -> None:
    """Refuses a comparison of copies where an example has one, and what doesn't go with it."""
    if not config.criterion.compares_copies:
        return
    grid, flag = config.training.grid, config.criterion.comparing_option
    if derive_grid(grid).copies.least < 2:
        raise UserError(
            f"{flag} compares the copies of an example, and --arm {grid.arm} with --copies {grid.copies} has "
            "one: give --copies 2"
        )
    if config.training.log.measure_every:
        raise UserError(
            f"--measure-every compares the gradients of single copies, which {flag} makes depend on each other: leave "
            "one out"
        )
    if config.training.run.shard_params:
        raise UserError(
            f"{flag} excludes --shard-params: processes would gather the parameters for different numbers of passes"
        )


def check_fork(config: RunConfig) -> None:
    """Refuses a place that the model doesn't have, and what doesn't go with a fork."""
    training = config.training
    place = training.grid.fork
    if place is None:
        return
    if training.grid.copy_schedule.most == 1:
        raise UserError(f"--fork {place} is where copies begin, and there is one: give --copies of at least 2")
    places = config.family.fork_places(config.arch, config.family.resolve(config.arch, config.model))
    if not places:
        raise UserError(
            f"--fork {place} has no place in --arch {config.arch}, whose noise is at the input or throughout: leave it "
            "out (of the image networks vgg16_bn and alexnet have one, the head, with --dropout above 0)"
        )
    if place not in places:
        raise UserError(f"--fork {place} has no place in --arch {config.arch}: choose one of {', '.join(places)}")
    if training.run.shard_params:
        raise UserError(
            "--fork excludes --shard-params: processes would gather the layers below the fork at different times"
        )
    if training.log.measure_every and derive_grid(training.grid).fork is not None:
        raise UserError(
            "--fork excludes --measure-every: below a fork the gradients of the copies are one, not to be told apart"
        )


def check_subword_sampling(config: RunConfig) -> None:
    """Refuses what needs copies of the same tokens, where each has its own."""
    options = config.task_options
    if not isinstance(options, TranslationOptions) or not options.subword_sampling:
        return
    if config.criterion.compares_copies:
        raise UserError(
            "--subword-sampling gives the copies of a sentence different tokens, and "
            f"{config.criterion.comparing_option} compares them token by token: leave one out"
        )
    if config.training.grid.fork is not None:
        raise UserError(
            "--subword-sampling gives the copies of a sentence different tokens, so that they begin at the input, and "
            "--fork has them begin inside the model: leave one out"
        )
