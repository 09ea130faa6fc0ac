"""Rules between the options of a run: no option without an effect, none with the opposite of what was meant."""

from __future__ import annotations

from seqba.training.config import RunConfig
from seqba.training.rules.grid import check_arm, check_compared_copies, check_fork, check_subword_sampling
from seqba.training.rules.model import check_layers, check_pictures, check_sharding, check_task
from seqba.training.rules.optimisation import check_optimisation, check_optimizer
from seqba.training.rules.schedule import check_epochs_that_options_count, check_lr_factor, check_schedule
from seqba.training.rules.validation import check_checkpoints, check_log, check_validation


def validate_config(config: RunConfig) -> None:
    """Checks all rules between the options of a run, before any file is read.

    Ranges of single options are checked where they are made, and what depends on data, on the sizes of a model or on
    the number of processes where these are known. A command line also refuses an option without effect that is given
    its default value, which isn't seen here.

    Raises:
        UserError: for the first combination that is refused, naming its options and the way out.
    """
    check_task(config)
    check_optimizer(config.training.optimisation)
    check_arm(config)
    check_compared_copies(config)
    check_fork(config)
    check_layers(config)
    check_subword_sampling(config)
    check_epochs_that_options_count(config)
    check_lr_factor(config)
    check_schedule(config.training.schedule)
    check_optimisation(config)
    check_validation(config)
    check_checkpoints(config.training.checkpoints)
    check_log(config)
    check_pictures(config)
    check_sharding(config.training.run)
