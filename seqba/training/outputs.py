"""Everything that a run writes to, looked at before its data are read."""

from __future__ import annotations

from pathlib import Path

from seqba.core import Group
from seqba.data.outputs import check_appended_file, check_new_folder
from seqba.errors import UserError
from seqba.training.agreement import refuse_on_all
from seqba.training.log_file import RUN_LOG, check_run_log
from seqba.training.options import CheckpointOptions, LogOptions


def check_outputs(checkpoints: CheckpointOptions, log: LogOptions, ranks: Group) -> None:
    """Refuses, before any long work and on all ranks, what the first of them couldn't write to. Nothing is made.

    Args:
        checkpoints: the save-dir.
        log: further files and folders.
        ranks: the processes of the run.

    Raises:
        UserError: naming the option, and why.
    """
    refusal = None
    if ranks.is_first:
        try:
            _check(checkpoints, log)
        except UserError as error:
            refusal = str(error)
    refuse_on_all(refusal, ranks)


def _check(checkpoints: CheckpointOptions, log: LogOptions) -> None:
    if not checkpoints.no_save:
        check_new_folder(checkpoints.save_dir, f"--save-dir {checkpoints.save_dir}")
        check_run_log(Path(checkpoints.save_dir) / RUN_LOG)
    if log.log_file is not None:
        check_appended_file(log.log_file, f"--log-file {log.log_file}")
    folder = log.tensorboard_logdir
    if folder is not None and "://" not in folder:  # TensorBoard writes to other places than file systems too
        check_new_folder(folder, f"--tensorboard-logdir {folder}")
