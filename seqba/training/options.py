"""Options of a training run, grouped by noun.

Names, meanings and defaults are fairseq's unless a line says otherwise, so that a fairseq command line means here what
it meant there.
"""

from __future__ import annotations

from dataclasses import dataclass

from seqba.errors import UserError, quoted
from seqba.options import OutOfRange, option, options
from seqba.training.copies import CopySchedule, copies_option, factor_option, power_of_copies, read_copies

PLANS = ("auto", "stacked", "looped")
"""Plans that have a name; `seqba.core.parse_plan` reads them."""


@options
class GridOptions:
    """Grid of an update, S micro-batches × M copies, and the seed of everything random."""

    seed: int = option(1, "seed of the weights, the order of the data and the noise", minimum=0, maximum=2**63 - 1)
    copies: int | str = option(
        1,
        "M, noisy views of each example per update (Batch Augmentation; not in fairseq); or a schedule: 1:0,4:2000 is "
        "1 copy from the beginning and 4 from update 2000 on",
        minimum=1,
        metavar="N or N:UPDATE,…",
        read=copies_option,
    )
    update_freq: tuple[int, ...] = option(
        (1,),
        "S, micro-batches (batches of distinct examples) per update for the whole job, whatever the hardware; "
        "a list gives one per epoch, the last one staying",
        minimum=1,
        metavar="N[,N]",
    )
    arm: str = option(
        "ba",
        "the paper's columns from one command line: baseline = 1 copy, fixed-samples = copies × update-freq distinct "
        "micro-batches and 1 copy, ba = as given; and large-batch = micro-batches of copies × their size and 1 copy "
        "(for what images and streams share: batch norm, weight masks), fixed-rows = 1/copies of the examples, at the "
        "baseline's cost. Epochs in options are the baseline's in every arm (not in fairseq)",
        choices=("baseline", "fixed-samples", "ba", "large-batch", "fixed-rows"),
    )
    plan: str = option(
        "auto",
        "where copies run: stacked (one pass), looped (one pass each), auto (as many per pass as memory suits), or a "
        "number of copies per pass; the gradient is the same (not in fairseq)",
        metavar="PLAN",
    )

    fork: str | None = option(
        None,
        "where in the model the copies begin; what is below is computed once for all of them, with one draw of its "
        "noise: encoder (behind it) or decoder-layer-N (before layer N) of a Transformer, layer-N of a language model, "
        "head of an AWD-LSTM, VGG or AlexNet (default: at the input; not in fairseq)",
        metavar="PLACE",
    )

    def __post_init__(self) -> None:
        """Refuses copies and a plan that are none."""
        try:
            read_copies(self.copies)
        except ValueError as error:
            raise UserError(f"--copies: {error}") from None
        if self.plan not in PLANS and not (self.plan.isdecimal() and int(self.plan) >= 1):
            raise UserError(f"--plan is {self.plan!r}; choose {', '.join(PLANS)}, or a number of copies per pass")

    @property
    def copy_schedule(self) -> CopySchedule:
        """M of each update."""
        return read_copies(self.copies)


@options
class OptimisationOptions:
    """Optimizer, what happens between gradient and step, and averages of the weights."""

    optimizer: str = option(
        "adam",
        "adam, sgd, or nt_asgd: SGD that averages the weights once validation stops improving (not in fairseq)",
        choices=("adam", "sgd", "nt_asgd"),
    )
    adam_betas: tuple[float, ...] = option((0.9, 0.999), "decay of Adam's two averages", minimum=0, below=1)
    adam_eps: float = option(1e-8, "added to Adam's denominator", above=0)
    momentum: float = option(0.0, "momentum of sgd", minimum=0, below=1)
    nonmono: int = option(
        5,
        "nt_asgd: average once a validation is worse than the best of all but the last so many before it",
        minimum=0,
    )
    weight_decay: float = option(
        0.0,
        "adam: weights shrink by lr × this per update (decoupled); sgd, nt_asgd: this × weight is added to the "
        "clipped gradient",
        minimum=0,
    )
    clip_norm: float = option(0.0, "scale gradients down to this norm; 0 = never", minimum=0)
    max_skipped_updates: int = option(
        10, "stop after this many updates in a row without a finite loss and gradient (not in fairseq)", minimum=1
    )
    weight_decay_on: str = option(
        "all",
        "all; weights: biases and norms don't decay; or weights-not-depthwise: depthwise convolutions' don't either, "
        "as in Batch Augmentation's MobileNet (not in fairseq)",
        choices=("all", "weights", "weights-not-depthwise"),
    )
    weight_decay_until: int | None = option(
        None,
        "weights decay in the first so many epochs or updates only (default: throughout; not in fairseq)",
        minimum=1,
    )
    weight_decay_unit: str = option(
        "epoch",
        "what --weight-decay-until counts: updates, or epochs of the arm baseline, so that all arms' decay ends at the "
        "same update (not in fairseq)",
        choices=("epoch", "update"),
    )
    bf16: bool = option(False, "compute in bfloat16 where it is safe (autocast); weights and optimizer stay float32")
    fp16: bool = option(
        False,
        "the same in float16, on a GPU, with losses scaled up so that small gradients aren't lost; bfloat16 on a CPU",
        aliases=("amp",),
    )
    fp16_init_scale: int = option(
        128, "fp16: what summed losses are multiplied by to begin with", minimum=1, aliases=("amp-init-scale",)
    )
    fp16_scale_window: int = option(
        2000,
        "fp16: the scale doubles after so many updates in a row without an overflow, which halves it and skips the "
        "update",
        minimum=1,
        aliases=("amp-scale-window",),
    )
    store_ema: bool = option(
        False,
        "keep an exponential moving average of the weights: validation and every command that reads a checkpoint see "
        "it, and training goes on with the weights themselves, which are kept beside it",
    )
    ema_decay: float = option(
        0.9999, "store-ema: its share of the average before, from update to update", minimum=0, below=1
    )
    ema_start_update: int = option(0, "store-ema: until this update it is the weights themselves", minimum=0)
    ema_update_freq: int = option(1, "store-ema: average after every so many updates", minimum=1)

    def __post_init__(self) -> None:
        """Refuses betas that aren't two, and two precisions."""
        if len(self.adam_betas) != 2:
            shown = ",".join(map(str, self.adam_betas))
            raise OutOfRange("adam_betas", shown, "it must be two numbers like 0.9,0.98")
        if self.fp16 and self.bf16:
            raise UserError("give --fp16 or --bf16, not both")


OWN_OPTIONS = {"adam": ("adam_betas", "adam_eps"), "sgd": ("momentum",), "nt_asgd": ("nonmono",)}
"""Options that one optimizer alone has."""


@options
class ScheduleOptions:
    """Learning rate of each update, and the noise that rises with it."""

    lr_scheduler: str = option(
        "fixed",
        "fixed, step: falls at each of --lr-drops, inverse_sqrt, cosine: falls to --min-lr, again in each period, "
        "polynomial_decay: falls to --end-learning-rate, or vaswani: d^-0.5 · min(t^-0.5, t · warmup^-1.5), which sets "
        "its own peak",
        choices=("fixed", "step", "inverse_sqrt", "cosine", "polynomial_decay", "vaswani"),
    )
    lr: float | None = option(None, "learning rate, the peak where there is a warm-up", above=0)
    lr_factor: float | str = option(
        1.0,
        "all learning rates of the schedule × this: a number, or a power of --copies like M^0.5, which is the same for "
        "all arms (the paper tried M^0.25, M^0.5, M and M^2 on fixed-samples; not in fairseq)",
        above=0,
        metavar="X or M^P",
        read=factor_option,
    )
    warmup_updates: int | None = option(
        None, "updates of linear warm-up (default: 4000 for inverse_sqrt and vaswani, 0 for the others)", minimum=0
    )
    warmup_init_lr: float = option(
        -1, "where the warm-up of inverse_sqrt or step (-1 = 0) or cosine (-1 = --min-lr) starts", minimum=-1
    )
    lr_drops: tuple[int, ...] = option(
        (),
        "step: the learning rate falls after so many epochs or updates each (not in fairseq)",
        minimum=1,
        metavar="N[,N]",
    )
    lr_drop_unit: str = option(
        "epoch",
        "what --lr-drops counts: updates, or epochs of the arm baseline, so that all arms fall at the same updates "
        "(not in fairseq)",
        choices=("epoch", "update"),
    )
    lr_shrink: tuple[float, ...] = option(
        (0.1,),
        "step: by this factor; a list has one for each drop; cosine: each period's rates are so much of those before",
        above=0,
        maximum=1,
        metavar="X[,X]",
    )
    min_lr: float | None = option(
        None,
        "cosine: the least learning rate of a period (default: 0); for the others the former name of --stop-min-lr",
        minimum=0,
    )
    lr_period_updates: int | None = option(
        None, "cosine: updates of the first period (default: those from the warm-up to --max-update)", minimum=1
    )
    t_mult: float = option(1.0, "cosine: each period is so much longer than the one before", minimum=1)
    total_num_update: int | None = option(
        None, "polynomial_decay: the update at which it has fallen (default: --max-update)", minimum=1
    )
    end_learning_rate: float = option(0.0, "polynomial_decay: what it falls to", minimum=0)
    power: float = option(1.0, "polynomial_decay: of the share of updates that are left; 1 is a line", above=0)
    drop_path_epochs: int | None = option(
        None,
        "--drop-path is reached after so many epochs of the arm baseline, from 0 in the first one on by equal steps "
        "(default: --max-epoch; not in fairseq)",
        minimum=1,
    )
    stop_min_lr: float = option(-1, "stop once the learning rate has fallen to this after its warm-up", minimum=-1)

    def __post_init__(self) -> None:
        """Refuses a factor that is none."""
        try:
            self.factor(1)
        except ValueError as error:
            raise UserError(f"--lr-factor: {error}") from None

    def factor(self, copies: int) -> float:
        """--lr-factor for so many copies."""
        factor = self.lr_factor
        return power_of_copies(factor, copies) if isinstance(factor, str) else factor

    @property
    def stops_below(self) -> float:
        """Learning rate at which the run ends; -1 for none."""
        has_floor = self.min_lr is not None and self.lr_scheduler != "cosine"
        return self.min_lr if has_floor and self.min_lr is not None else self.stop_min_lr


@options
class RunOptions:
    """Limits of the run, and the machines that it runs on."""

    max_update: int = option(0, "stop after this many updates; 0 = no limit", minimum=0)
    max_epoch: int = option(0, "stop after this many epochs; 0 = no limit", minimum=0)
    stop_time_hours: float = option(
        0, "stop after this many hours of training, earlier parts of a resumed run included; 0 = no limit", minimum=0
    )
    cpu: bool = option(False, "run on the CPU even where there is a GPU")
    distributed_timeout: float = option(
        1800, "under torchrun: seconds that a process waits for the others before it gives up (not in fairseq)", above=0
    )
    broadcast_batches: bool = option(
        False,
        "under torchrun: of the processes that have copies of a batch one reads it and sends it to the others, instead "
        "of each reading it: for slow or far disks (not in fairseq)",
    )
    shard_params: bool = option(
        False,
        "under torchrun: each process keeps a part of the weights, gradients and optimizer state, and gathers a layer "
        "only while it computes (FSDP): for models beyond one device; --plan auto is looped then, and --eval-bleu "
        "gathers all weights while it translates (not in fairseq)",
    )
    checkpoint_activations: bool = option(
        False,
        "of each Transformer layer keep only its input, and compute the rest again in the backward: the same gradient "
        "in less memory, for at most another forward",
    )
    compile: bool = option(
        False,
        "compile the layers of a Transformer (torch.compile), one graph for all that are alike and for batches of all "
        "shapes: the same masks, the gradient to rounding; the first updates wait for the compiler (not in fairseq)",
    )


@options
class ValidationOptions:
    """Intervals of validation, and the metric that decides what is best."""

    validate_interval: int = option(1, "validate every so many epochs", minimum=1)
    validate_interval_updates: int = option(0, "validate every so many updates as well; 0 = never", minimum=0)
    best_checkpoint_metric: str = option(
        "loss",
        "what checkpoint_best.pt and patience go by; of text also ppl, of translations bleu, of images top1 and top5",
        choices=("loss", "nll", "ppl", "bleu", "top1", "top5"),
    )
    maximize_best_checkpoint_metric: bool = option(
        False, "the metric's largest value is the best one (bleu, top1, top5)"
    )
    disable_validation: bool = option(False, "never validate; no checkpoint_best.pt is kept")
    patience: int = option(-1, "stop after this many validations in a row without a new best; -1 = never", minimum=-1)


@options
class CheckpointOptions:
    """Checkpoints that are written and kept, and the one that a run starts from."""

    save_dir: str = option("checkpoints", "folder of the checkpoints", metavar="DIR")
    restore_file: str = option(
        "checkpoint_last.pt",
        "checkpoint to start from (the default one is looked for in save-dir); the same command run again goes on from "
        "save-dir/checkpoint_last.pt",
        metavar="FILE",
    )
    finetune_from_model: str | None = option(
        None,
        "take only the weights of this checkpoint (of seqba, fairseq or a Marian folder) and begin anew; without "
        "--arch its model's options as well",
        metavar="PATH",
    )
    reset_optimizer: bool = option(
        False,
        "start with the restored weights (averaged ones where there are any) and forget all else of the optimizer",
    )
    reset_lr_scheduler: bool = option(False, "count updates from 1 again, so that the schedule starts over")
    reset_meters: bool = option(False, "forget the restored run's best value, patience, times and counts")
    reset_dataloader: bool = option(False, "start with epoch 1 of the data again")
    save_interval: int = option(1, "keep checkpointE.pt every so many epochs", minimum=1)
    save_interval_updates: int = option(
        0, "validate and keep checkpoint_E_U.pt every so many updates as well; 0 = never", minimum=0
    )
    keep_interval_updates: int = option(-1, "keep the last so many checkpoint_E_U.pt; -1 = all", minimum=-1)
    keep_last_epochs: int = option(-1, "keep the last so many checkpointE.pt; -1 = all", minimum=-1)
    keep_best_checkpoints: int = option(
        -1, "keep the best so many as checkpoint.best_METRIC_VALUE.pt; -1 = none of these", minimum=-1
    )
    no_epoch_checkpoints: bool = option(False, "write no checkpointE.pt, only last, best and interval ones")
    no_save: bool = option(False, "write nothing at all")


TRACKERS = ("wandb", "mlflow", "trackio")
"""What a run may report to; also the names of their packages."""


@options
class LogOptions:
    """Format and places of the log."""

    log_format: str | None = option(
        None,
        "json (a line per log-interval), simple, tqdm (a bar) or none; default: a bar on a terminal, else json",
        choices=("json", "simple", "tqdm", "none"),
    )
    log_interval: int = option(100, "updates per line", minimum=1)
    log_file: str | None = option(
        None, "append the JSON lines to this file as well; log.jsonl in --save-dir has them anyway", metavar="FILE"
    )
    no_progress_bar: bool = option(False, "no bar: simple lines on a terminal")
    measure_every: int = option(
        0,
        "every so many updates, log the variance of the gradient: that of the noise (needs 2 copies), that between "
        "examples (needs 2 micro-batches), from the passes of that update, which are looped; 0 = never (not in "
        "fairseq)",
        minimum=0,
    )
    tensorboard_logdir: str | None = option(
        None, "write TensorBoard events there (needs the tensorboard package)", metavar="DIR"
    )
    report_to: str | None = option(
        None,
        "report the numbers of the log to wandb, mlflow or trackio, by their packages; several separated by commas "
        "(not in fairseq)",
        metavar="NAME[,NAME]",
    )
    report_project: str = option("seqba", "report-to: the project, or experiment, there (not in fairseq)")
    wandb_project: str | None = option(None, "report to wandb, as a run of this project", metavar="NAME")

    def __post_init__(self) -> None:
        """Refuses a tracker that there is none of."""
        for name in self.trackers:
            if name not in TRACKERS:
                hint = "; TensorBoard's is --tensorboard-logdir" if name == "tensorboard" else ""
                raise UserError(f"--report-to is {quoted(name)}; choose among: {', '.join(TRACKERS)}{hint}")

    @property
    def trackers(self) -> tuple[str, ...]:
        """Names of what a run reports to, each once."""
        named = [] if self.report_to is None else self.report_to.split(",")
        if self.wandb_project is not None:
            named.append("wandb")
        return tuple(dict.fromkeys(named))


@dataclass(frozen=True)
class TrainingOptions:
    """All options of a run but those of its task and model."""

    grid: GridOptions
    optimisation: OptimisationOptions
    schedule: ScheduleOptions
    run: RunOptions
    validation: ValidationOptions
    checkpoints: CheckpointOptions
    log: LogOptions
