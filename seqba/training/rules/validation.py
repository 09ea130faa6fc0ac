"""Rules of validation, checkpoints and log."""

from __future__ import annotations

from seqba.checkpoints.names import RISING_METRICS
from seqba.errors import UserError
from seqba.extras import needed
from seqba.options import flag_of, is_given
from seqba.tasks.registry import TASKS
from seqba.training.bleu_validation import detokenizer, search_options
from seqba.training.config import RunConfig
from seqba.training.options import CheckpointOptions


def check_validation(config: RunConfig) -> None:
    """Refuses a deciding metric that validation doesn't have, or whose worst value would be taken for the best."""
    if config.training.validation.disable_validation:
        _check_unvalidated(config)
    if not any(config.batches.valid_subset.split(",")):
        raise UserError("--valid-subset names no split: write it like valid or valid,valid1")
    validation = config.training.validation
    metric = validation.best_checkpoint_metric
    rises = metric in RISING_METRICS
    if validation.maximize_best_checkpoint_metric != rises:
        verb = "needs" if rises else "excludes"
        raise UserError(
            f"--best-checkpoint-metric {metric} {verb} --maximize-best-checkpoint-metric; "
            "the worst checkpoint would be kept as the best"
        )
    if metric not in TASKS[config.task].metrics:
        owners = [task for task, spec in TASKS.items() if metric in spec.metrics]
        raise UserError(f"--best-checkpoint-metric {metric} belongs to --task {' or '.join(owners)}; take loss")
    if metric == "bleu" and not config.bleu.eval_bleu:
        raise UserError("--best-checkpoint-metric bleu needs --eval-bleu")
    search_options(config.bleu.eval_bleu_args)
    if detokenizer(config.bleu, "") is not None:
        needed("sacremoses", "--eval-bleu-detok moses")


def _check_unvalidated(config: RunConfig) -> None:
    """Refuses what needs a validation where there is none."""
    training = config.training
    needing = {
        "--patience": training.validation.patience > 0,
        "--best-checkpoint-metric": is_given(training.validation, "best_checkpoint_metric"),
        "--validate-interval": is_given(training.validation, "validate_interval"),
        "--validate-interval-updates": training.validation.validate_interval_updates > 0,
        "--keep-best-checkpoints": training.checkpoints.keep_best_checkpoints > 0,
        "--optimizer nt_asgd": training.optimisation.optimizer == "nt_asgd",
        "--eval-bleu": config.bleu.eval_bleu,
    }
    for option, is_asked in needing.items():
        if is_asked:
            raise UserError(f"{option} needs validations, and --disable-validation excludes them: leave one out")


def check_checkpoints(checkpoints: CheckpointOptions) -> None:
    """Refuses to keep what isn't written, and a beginning in two ways."""
    if not checkpoints.save_dir:
        raise UserError("--save-dir is empty (a variable that isn't set?): name a folder, . for this one")
    for name in ("keep_interval_updates", "keep_last_epochs", "keep_best_checkpoints"):
        if checkpoints.no_save and is_given(checkpoints, name):
            raise UserError(f"{flag_of(name)} and --no-save, which writes nothing, exclude each other")
    if checkpoints.keep_interval_updates > 0 and not checkpoints.save_interval_updates:
        raise UserError("--keep-interval-updates needs --save-interval-updates")
    if checkpoints.keep_last_epochs > 0 and checkpoints.no_epoch_checkpoints:
        raise UserError("--keep-last-epochs and --no-epoch-checkpoints exclude each other")
    if checkpoints.finetune_from_model is not None:
        resets = (
            checkpoints.reset_optimizer,
            checkpoints.reset_lr_scheduler,
            checkpoints.reset_meters,
            checkpoints.reset_dataloader,
        )
        if checkpoints.restore_file != "checkpoint_last.pt" or any(resets):
            raise UserError("--finetune-from-model starts anew by itself: leave out --restore-file and --reset-*")


def check_log(config: RunConfig) -> None:
    """Refuses a format in two ways, a tracker without its package, a project alone, and measuring of no variance."""
    log = config.training.log
    if log.no_progress_bar and log.log_format == "tqdm":
        raise UserError("--no-progress-bar and --log-format tqdm exclude each other")
    if is_given(log, "report_project") and log.report_to is None:
        raise UserError("--report-project belongs to --report-to, which isn't given")
    for tracker in log.trackers:
        needed(tracker, f"--report-to {tracker}")
    if log.tensorboard_logdir is not None:
        needed("tensorboard", "--tensorboard-logdir")
    grid = config.training.grid
    if log.measure_every and grid.copy_schedule.most == 1 and max(grid.update_freq) == 1:
        raise UserError(
            "--measure-every sees no variance in a single pass: give --copies or --update-freq of at least 2"
        )
