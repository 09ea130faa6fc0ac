"""seqba-average-checkpoints: several checkpoints → one whose weights are their mean."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from seqba.checkpoints.averaging import average_weights
from seqba.checkpoints.file import model_options, read_checkpoint, write_checkpoint
from seqba.checkpoints.names import BEST_NAME, EPOCH_NAME, INTERVAL_NAME, RISING_METRICS
from seqba.cli.arguments import Parser, read_options
from seqba.cli.command import run
from seqba.data.files import check_folder
from seqba.data.marian import is_marian_folder
from seqba.errors import UserError
from seqba.models.options import is_noise
from seqba.options import flag_of, option, options


@options
class AverageOptions:
    """Options of seqba-average-checkpoints: the checkpoints of a folder, and where the mean goes."""

    output: str | None = option(None, "the checkpoint to write", metavar="FILE")
    num_epoch_checkpoints: int | None = option(None, "average the last N checkpointE.pt of the folder", minimum=1)
    num_update_checkpoints: int | None = option(None, "average the last N checkpoint_E_U.pt of the folder", minimum=1)
    num_best_checkpoints: int | None = option(
        None, "average the best N checkpoint.best_METRIC_VALUE.pt of the folder", minimum=1
    )
    checkpoint_upper_bound: int | None = option(
        None, "leave out epochs (or updates) later than this, with --num-epoch- or --num-update-checkpoints", minimum=1
    )

    def __post_init__(self) -> None:
        """Refuses combinations of options."""
        if self.output is None:
            raise UserError("--output is missing: where shall the averaged checkpoint go?")
        by_number = (self.num_epoch_checkpoints, self.num_update_checkpoints)
        if sum(number is not None for number in (*by_number, self.num_best_checkpoints)) > 1:
            raise UserError("give one of --num-epoch-checkpoints, --num-update-checkpoints, --num-best-checkpoints")
        if self.checkpoint_upper_bound is not None and by_number == (None, None):
            raise UserError("--checkpoint-upper-bound needs --num-epoch-checkpoints or --num-update-checkpoints")


def main(arguments: Sequence[str] | None = None) -> int:
    """Averages checkpoints and prints their names."""
    parser = Parser(
        "seqba-average-checkpoints",
        "Writes a checkpoint whose weights are the mean of others'. Everything else comes from the first of them, "
        "but for the optimizer's state, which belongs to no average: the result is for evaluating and fine-tuning, "
        "not for going on with a run.",
    )
    parser.add_argument(
        "--inputs", nargs="+", required=True, metavar="FILE", help="checkpoints, or one folder with one of --num-*"
    )
    parser.add_options(AverageOptions, "what is averaged")
    namespace = parser.parse(arguments)
    options = read_options(namespace, AverageOptions)
    paths = _chosen(namespace.inputs, options)
    output = Path(str(options.output))
    check_folder(output, f"--output {output}")
    first = _read(paths[0])
    write_checkpoint(output, {**first, "model": average_weights(_weights(paths, first))})
    print(f"Averaged {len(paths)} checkpoint(s) into {options.output}: {', '.join(Path(path).name for path in paths)}")
    return 0


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


def entry() -> None:
    """The `seqba-average-checkpoints` command."""
    sys.exit(run(main))
