"""Rules between the options of a run: no option without an effect, none with the opposite of what was meant."""

from __future__ import annotations

from dataclasses import fields

from seqba.checkpoints.names import RISING_METRICS
from seqba.errors import UserError
from seqba.extras import needed
from seqba.models.families import ARCHITECTURES
from seqba.models.options import ImageClassifierOptions
from seqba.models.timm_names import TIMM
from seqba.options import flag_of, is_given
from seqba.tasks.registry import TASKS, VARIANTS
from seqba.tasks.text_options import TranslationOptions
from seqba.training.arms import derive_grid
from seqba.training.bleu_validation import detokenizer, search_options
from seqba.training.config import RunConfig
from seqba.training.options import CheckpointOptions, OptimisationOptions, ScheduleOptions
from seqba.training.options.optimisation import OWN_OPTIONS


def validate_config(config: RunConfig) -> None:
    """Checks all rules between the options of a run, before any file is read.

    Ranges of single options are checked where they are made, and what depends on data, on the sizes of a model or on
    the number of processes where these are known. A command line also refuses an option without effect that is given
    its default value, which isn't seen here.

    Raises:
        UserError: for the first combination that is refused, naming its options and the way out.
    """
    _check_task(config)
    _check_optimizer(config.training.optimisation)
    _check_arm(config)
    _check_compared_copies(config)
    _check_fork(config)
    _check_layers(config)
    _check_subword_sampling(config)
    _check_epochs_that_options_count(config)
    _check_lr_factor(config)
    _check_schedule(config.training.schedule)
    _check_optimisation(config)
    _check_validation(config)
    _check_checkpoints(config.training.checkpoints)
    _check_log(config)
    if isinstance(config.model, ImageClassifierOptions):
        _check_batch_norm(config, config.model)
        _check_mixing(config)


def _check_task(config: RunConfig) -> None:
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


def _check_optimizer(optimisation: OptimisationOptions) -> None:
    """Refuses options of another optimizer."""
    for owner, names in OWN_OPTIONS.items():
        given = [flag_of(name) for name in names if is_given(optimisation, name)]
        if given and owner != optimisation.optimizer:
            raise UserError(f"{given[0]} belongs to --optimizer {owner}, not {optimisation.optimizer}")


def _check_arm(config: RunConfig) -> None:
    """Refuses an arm that would be another one under a dearer name, and one whose micro-batches can't be made."""
    grid = config.training.grid
    if grid.arm == "large-batch" and not config.family.rows_share:
        raise UserError(
            "--arm large-batch is for what the rows of a batch share (batch norm, weight masks), and a Transformer's "
            "share nothing: take --arm fixed-samples, which is the same there"
        )
    derived = derive_grid(grid)
    derived.resized(config.batches)
    if derived.schedule is not None and config.variant.carries:
        raise UserError(
            f"--copies {grid.copies} changes their number on the way, and those of --arch {config.arch} carry a state "
            "from update to update, which new ones don't have: give one number"
        )


def _check_compared_copies(config: RunConfig) -> None:
    """Refuses a comparison of copies where an example has one, and what doesn't go with it."""
    if not config.criterion.compares_copies:
        return
    grid, flag = config.training.grid, config.criterion.comparing_option
    if derive_grid(grid).fewest_copies < 2:
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


def _check_fork(config: RunConfig) -> None:
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


def _check_layers(config: RunConfig) -> None:
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


def _check_subword_sampling(config: RunConfig) -> None:
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


def _check_lr_factor(config: RunConfig) -> None:
    """Refuses a power of M where M changes."""
    factor, schedule = config.training.schedule.lr_factor, config.training.grid.copy_schedule
    if isinstance(factor, str) and not schedule.is_constant:
        raise UserError(f"--lr-factor {factor} is a power of M, and --copies {schedule} has several: give a number")


def _check_epochs_that_options_count(config: RunConfig) -> None:
    """Refuses options in epochs where epochs have different numbers of updates."""
    training = config.training
    if len(training.grid.update_freq) == 1:
        return
    schedule, optimisation = training.schedule, training.optimisation
    if schedule.lr_scheduler == "step" and schedule.lr_drop_unit == "epoch":
        raise UserError("--lr-drop-unit epoch needs one --update-freq for all epochs: give --lr-drops in updates")
    if optimisation.weight_decay_until is not None and optimisation.weight_decay_unit == "epoch":
        raise UserError("--weight-decay-unit epoch needs one --update-freq for all epochs: count in updates")


OF_SCHEDULES = {
    "lr_drops": ("step",),
    "lr_drop_unit": ("step",),
    "lr_shrink": ("step", "cosine"),
    "warmup_init_lr": ("step", "inverse_sqrt", "cosine"),
    "lr_period_updates": ("cosine",),
    "t_mult": ("cosine",),
    "total_num_update": ("polynomial_decay",),
    "end_learning_rate": ("polynomial_decay",),
    "power": ("polynomial_decay",),
}
"""Options that some schedules alone have."""


def _check_schedule(schedule: ScheduleOptions) -> None:
    name = schedule.lr_scheduler
    if name == "vaswani":
        if schedule.lr is not None:
            raise UserError(
                "--lr has no effect on --lr-scheduler vaswani, whose peak is (d · warmup)^-0.5: leave it out"
            )
    elif schedule.lr is None:
        raise UserError(f"--lr-scheduler {name} needs --lr (5e-4, say)")
    for option, owners in OF_SCHEDULES.items():
        if is_given(schedule, option) and name not in owners:
            raise UserError(f"{flag_of(option)} belongs to --lr-scheduler {' or '.join(owners)}, not {name}")
    if name == "step":
        _check_drops(schedule)
    if name == "cosine":
        _check_cosine(schedule)
    if schedule.warmup_updates == 0 and name in ("inverse_sqrt", "vaswani"):
        raise UserError(f"--lr-scheduler {name} needs --warmup-updates of at least 1")
    if schedule.min_lr is not None and name != "cosine" and is_given(schedule, "stop_min_lr"):
        raise UserError(f"--min-lr is the former name of --stop-min-lr with --lr-scheduler {name}: leave one out")


def _check_cosine(schedule: ScheduleOptions) -> None:
    if len(schedule.lr_shrink) != 1:
        raise UserError(f"--lr-scheduler cosine takes one --lr-shrink, not {len(schedule.lr_shrink)}")
    if schedule.min_lr is not None and schedule.lr is not None and schedule.min_lr >= schedule.lr:
        raise UserError(
            f"--min-lr {schedule.min_lr:g} is the least rate of --lr-scheduler cosine, and must be below its peak, "
            f"--lr {schedule.lr:g}"
        )


def _check_drops(schedule: ScheduleOptions) -> None:
    drops, factors = schedule.lr_drops, schedule.lr_shrink
    if not drops or list(drops) != sorted(set(drops)):
        raise UserError(f"--lr-scheduler step needs --lr-drops in rising order (81,122 say), not {drops or 'none'}")
    if len(factors) not in (1, len(drops)):
        raise UserError(
            f"--lr-shrink has {len(factors)} factors for {len(drops)} --lr-drops: give one, or one for each"
        )


SWITCHED = {
    "fp16": ("fp16_init_scale", "fp16_scale_window"),
    "store_ema": ("ema_decay", "ema_start_update", "ema_update_freq"),
    "weight_decay_until": ("weight_decay_unit",),
}
"""Options of the optimisation that do nothing without another one."""


def _check_optimisation(config: RunConfig) -> None:
    """Refuses options without the one that they belong to, and pairs that exclude each other."""
    optimisation = config.training.optimisation
    for owner, names in SWITCHED.items():
        for name in names:
            if is_given(optimisation, name) and not is_given(optimisation, owner):
                raise UserError(f"{flag_of(name)} belongs to {flag_of(owner)}, which isn't given")
    if optimisation.fp16 and config.training.run.shard_params:
        raise UserError("--fp16 scales losses, which --shard-params excludes: take --bf16")
    if optimisation.fp16 and config.training.log.measure_every:
        raise UserError("--fp16 scales gradients, which --measure-every would measure: take --bf16")
    if optimisation.store_ema and optimisation.optimizer == "nt_asgd":
        raise UserError("--store-ema averages the weights, and so does --optimizer nt_asgd: leave one out")
    for name in ("weight_decay_until", "weight_decay_on"):
        if is_given(optimisation, name) and not optimisation.weight_decay:
            raise UserError(f"{flag_of(name)} is of a decay that there isn't: give --weight-decay")


def _check_validation(config: RunConfig) -> None:
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


def _check_checkpoints(checkpoints: CheckpointOptions) -> None:
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


def _check_log(config: RunConfig) -> None:
    log = config.training.log
    if log.no_progress_bar and log.log_format == "tqdm":
        raise UserError("--no-progress-bar and --log-format tqdm exclude each other")
    if is_given(log, "report_project") and log.report_to is None:
        raise UserError("--report-project belongs to --report-to, which isn't given")
    grid = config.training.grid
    if log.measure_every and grid.copy_schedule.most == 1 and max(grid.update_freq) == 1:
        raise UserError(
            "--measure-every sees no variance in a single pass: give --copies or --update-freq of at least 2"
        )


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
