"""The mean of checkpoints: files that belong together → one checkpoint."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from seqba.checkpoints.averaging import average_weights
from seqba.checkpoints.file import model_options, read_checkpoint, write_checkpoint
from seqba.checkpoints.names import BEST_NAME, EPOCH_NAME, INTERVAL_NAME, RISING_METRICS
from seqba.cli.options.average_checkpoints import AverageOptions
from seqba.data.marian import is_marian_folder
from seqba.data.outputs import refuse_overwriting
from seqba.errors import UserError
from seqba.models.options import is_noise
from seqba.options import flag_of


def average(inputs: list[str], options: AverageOptions) -> None:
    """Averages checkpoints and prints their names.

    Raises:
        UserError: for files that can't be used, or that are of different models.
    """
    paths = _chosen(inputs, options)
    output = Path(str(options.output))
    refuse_overwriting(output, paths)
    first = _read(paths[0])
    write_checkpoint(output, {**first, "model": average_weights(_weights(paths, first))})
    print(f"Averaged {len(paths)} checkpoint(s) into {options.output}: {', '.join(_short_names(paths))}")


def _short_names(paths: Sequence[str | Path]) -> list[str]:
    """Names of the files, with their folders where these differ."""
    folders = {Path(path).parent for path in paths}
    return [Path(path).name if len(folders) == 1 else str(path) for path in paths]


def _read(path: str | Path) -> dict[str, Any]:
    """A checkpoint without the parts that belong to its raw weights alone."""
    state = read_checkpoint(path)
    for part in ("last_optimizer_state", "raw_model"):
        state.pop(part, None)
    if isinstance(state["extra_state"].get("trainer"), dict):
        state["extra_state"]["trainer"].update(carried=None, trigger=None)
    return state


def _weights(paths: Sequence[str | Path], first: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    """Names and weights, one file after the other: those of the first, and of others of the same model and data."""
    yield str(paths[0]), first["model"]
    for path in paths[1:]:
        state = _read(path)
        if state["task_state"] != first["task_state"]:
            raise UserError(
                f"{path} was trained on other data than {paths[0]} (task, languages or dictionaries differ): "
                "average checkpoints of one run"
            )
        _check_same_model(path, state, paths[0], first)
        yield str(path), state["model"]


def _check_same_model(
    path: str | Path, state: Mapping[str, Any], first_path: str | Path, first: Mapping[str, Any]
) -> None:
    """Refuses a model that makes something else of weights of the same shapes."""
    own, theirs = (model_options(each["cfg"]) for each in (state, first))
    for name in own:
        if name in theirs and not is_noise(name) and own[name] != theirs[name]:
            raise UserError(
                f"{path} and {first_path} are of different models: {flag_of(name)} {own[name]} in the one and "
                f"{theirs[name]} in the other"
            )


def _chosen(inputs: list[str], options: AverageOptions) -> Sequence[str | Path]:
    """The files to average: the given ones, or those of the folder that the options ask for, best or latest first."""
    if options.num_epoch_checkpoints is not None:
        return _latest(_folder(inputs), EPOCH_NAME, options.num_epoch_checkpoints, options.checkpoint_upper_bound)
    if options.num_update_checkpoints is not None:
        return _latest(_folder(inputs), INTERVAL_NAME, options.num_update_checkpoints, options.checkpoint_upper_bound)
    if options.num_best_checkpoints is not None:
        return _best(inputs, options.num_best_checkpoints)
    folders = [name for name in inputs if Path(name).is_dir() and not is_marian_folder(name)]
    if folders:
        raise UserError(f"{folders[0]} is a folder: add --num-epoch-checkpoints N (or -update-, or -best-)")
    return inputs


def _folder(inputs: list[str]) -> Path:
    if len(inputs) != 1 or not Path(inputs[0]).is_dir():
        raise UserError(f"--inputs takes one folder here, not {', '.join(inputs)}")
    return Path(inputs[0])


def _latest(folder: Path, pattern: re.Pattern[str], count: int, bound: int | None) -> list[Path]:
    numbered = [(int(match[1]), path) for path in folder.iterdir() if (match := pattern.fullmatch(path.name))]
    allowed = sorted(((number, path) for number, path in numbered if bound is None or number <= bound), reverse=True)
    return _enough([path for _, path in allowed], count, folder)


def _best(inputs: list[str], count: int) -> list[Path]:
    """The best of a folder, or of the given files (as in fairseq): by the metric's own sense of better."""
    given = [Path(name) for name in inputs]
    paths = list(given[0].iterdir()) if len(given) == 1 and given[0].is_dir() else given
    valued = [(match[1], float(match[2]), path) for path in paths if (match := BEST_NAME.fullmatch(path.name))]
    metrics = sorted({metric for metric, _, _ in valued})
    if len(metrics) > 1:
        raise UserError(f"the checkpoints are the best by different metrics ({', '.join(metrics)}): list files of one")
    sign = -1 if metrics and metrics[0] in RISING_METRICS else 1
    ranked = sorted(valued, key=lambda entry: (sign * entry[1], entry[2].name))
    return _enough([path for _, _, path in ranked], count, given[0])


def _enough(paths: list[Path], count: int, folder: Path) -> list[Path]:
    if len(paths) < count:
        raise UserError(f"{folder} has {len(paths)} such checkpoints, and {count} are asked for")
    return paths[:count]
