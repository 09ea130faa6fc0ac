"""Beginning of a run: new weights, or a checkpoint and the parts that are taken from it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from seqba.checkpoints.file import read_checkpoint
from seqba.errors import UserError
from seqba.training.folder import LAST
from seqba.training.options import CheckpointOptions


@dataclass(frozen=True)
class Resets:
    """Parts of a checkpoint that are not restored."""

    optimizer: bool = False
    lr_scheduler: bool = False
    meters: bool = False
    dataloader: bool = False

    @property
    def position(self) -> bool:
        """Whether nothing is taken of where the run was: its updates, its counts, its place in the data."""
        return self.lr_scheduler and self.meters and self.dataloader


@dataclass(frozen=True)
class Start:
    """Checkpoint that a run begins with.

    Attributes:
        path: its file.
        state: its content.
        resets: what is not taken from it.
        is_named: whether the command names it; it was found in the save-dir otherwise.
    """

    path: Path
    state: dict[str, Any]
    resets: Resets
    is_named: bool = False

    @property
    def way_out(self) -> str:
        """Advice for a run that can't go on from it."""
        return "take another checkpoint" if self.is_named else "take another --save-dir"


def command_origin(options: CheckpointOptions) -> dict[str, Any]:
    """Options by which a command begins; a checkpoint keeps them, to know the same command again."""
    return {
        "restore_file": options.restore_file,
        "finetune_from_model": options.finetune_from_model,
        **{f"reset_{name}": value for name, value in asdict(_resets(options)).items()},
    }


def find_start(options: CheckpointOptions) -> Start | None:
    """Checkpoint that this command begins with; None for new weights.

    The same command run again goes on from `checkpoint_last.pt` of its save-dir and resets nothing a second time, even
    where it says `--restore-file` or `--reset-*`: those describe how the run began, and it has begun.

    Raises:
        UserError: for a named checkpoint that isn't there or can't be read, or a fine-tuning into another run's folder.
    """
    last = Path(options.save_dir) / LAST
    names_default = options.restore_file == LAST
    if last.exists():
        state = read_checkpoint(last)
        if state["extra_state"].get("origin") == command_origin(options):
            return Start(last, state, Resets())
        if options.finetune_from_model is not None:
            raise UserError(
                f"{options.save_dir} already holds a run that did not begin with --finetune-from-model "
                f"{options.finetune_from_model}: choose another --save-dir, or leave it out to go on with that run"
            )
        if names_default:
            return Start(last, state, _resets(options))
    if options.finetune_from_model is not None:
        named = options.finetune_from_model
        return Start(Path(named), read_checkpoint(named), Resets(True, True, True, True), is_named=True)
    if names_default:
        return None
    return Start(Path(options.restore_file), read_checkpoint(options.restore_file), _resets(options), is_named=True)


def _resets(options: CheckpointOptions) -> Resets:
    return Resets(options.reset_optimizer, options.reset_lr_scheduler, options.reset_meters, options.reset_dataloader)
