"""Options of a training run: limits of a run, its machines, and its validations."""

from __future__ import annotations

from seqba.options import option, options


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
