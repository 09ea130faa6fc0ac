"""Options of a training run: checkpoints that are written and kept, and the one that a run starts from."""

from __future__ import annotations

from seqba.options import option, options


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
