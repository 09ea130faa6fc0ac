"""Options of a training run: optimizer, what happens between gradient and step, and averages of the weights."""

from __future__ import annotations

from seqba.errors import UserError
from seqba.options import OutOfRange, option, options


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
