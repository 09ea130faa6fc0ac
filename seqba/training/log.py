"""Log of a run: one JSON line per interval, plain lines, or a progress bar."""

from __future__ import annotations

import importlib
import json
import math
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

import torch

from seqba.core import Group
from seqba.data.files import naming_file
from seqba.data.names import ESCAPED, name_text
from seqba.errors import UserError
from seqba.extras import needed, progress_bar
from seqba.runtime.memory import peak_memory_mb
from seqba.tasks import Unit
from seqba.training.log_file import RunLog
from seqba.training.log_window import LogWindow
from seqba.training.metrics import display_metrics
from seqba.training.options import LogOptions
from seqba.training.progress import Progress
from seqba.training.reports import Trackers
from seqba.training.update_report import UpdateReport


class TrainingLog:
    """Writes the metrics of updates and validations in the chosen format; all other messages are for `logging`.

    JSON and simple lines go to stdout, the bar to stderr; nowhere in a process that has neither.

    Args:
        options: the format and where else lines go.
        device: whose peak memory is reported.
        max_update: for the bar and the remaining time; 0 if unknown.
        unit: what is predicted and counted.
        run_log: the log that the run keeps in its save-dir, whatever the format; None for none.
        trackers: that get the numbers of every line.
        best_metric: what the best value so far, which validations tell, is a value of.

    Raises:
        UserError: for a log file that can't be opened, or TensorBoard without its package.
    """

    def __init__(
        self,
        options: LogOptions,
        device: torch.device,
        *,
        max_update: int = 0,
        unit: Unit = "tokens",
        run_log: RunLog | None = None,
        trackers: Trackers | None = None,
        best_metric: str = "loss",
    ) -> None:
        self.format = _format(options)
        self.interval = options.log_interval
        self.device = device
        self.max_update = max_update
        self.unit = unit
        self.best_metric = best_metric
        self._window = LogWindow()
        self._unwritten: tuple[UpdateReport, Progress, int] | None = None
        self._bar: Any = None
        self._above_the_bar = ExitStack()
        self._board = _open_board(options.tensorboard_logdir)
        self._run_log = run_log
        self._trackers = trackers or Trackers()
        self._file = None if run_log is not None and run_log.is_at(options.log_file) else _open_log(options.log_file)

    def update(self, report: UpdateReport, progress: Progress, skipped: int, seconds: float) -> None:
        """Adds an update to the window; writes a line every `log_interval` updates."""
        self._window.add(report, seconds)
        self._unwritten = (report, replace(progress), skipped)  # the loop goes on to the next epoch with its own
        if self.format == "tqdm" and _is_open(sys.stderr):
            self._advance_bar(report)
        if report.update % self.interval == 0 and not report.skipped:
            self._write_window(report, progress, skipped)

    def validation(self, subset: str, metrics: dict[str, float], progress: Progress, update: int) -> None:
        """Writes a validation's metrics and the best so far."""
        line = {"event": "valid", "subset": subset, "epoch": progress.epoch, "update": update, **metrics}
        self._write({**line, "best": progress.best, "best_of": self.best_metric, "unit": "nats"})
        self._write_board(f"valid/{name_text(subset)}", metrics, update)

    def write_rest(self) -> None:
        """Writes a line for the updates since the last one, where there are any."""
        if self._unwritten is not None:
            self._write_window(*self._unwritten)

    def close(self) -> None:
        """Writes what `write_rest` does, and closes the bar and the files."""
        self.write_rest()
        self._above_the_bar.close()
        if self._bar is not None:
            self._bar.close()
        if self._board is not None:
            self._board.close()
        self._trackers.close()
        if self._run_log is not None:
            self._run_log.close()
        if self._file is not None:
            with naming_file(self._file.name):
                self._file.close()

    def _write_window(self, report: UpdateReport, progress: Progress, skipped: int) -> None:
        window, self._window, self._unwritten = self._window, LogWindow(), None
        means = window.means(self.unit)
        rate = window.updates / window.seconds if window.seconds and window.updates else None
        remaining = max(0, self.max_update - report.update)
        self._write(
            {
                "event": "train",
                "epoch": progress.epoch,
                "update": report.update,
                "lr": report.lr,
                **means,
                "unit": "nats",
                "copies": report.copies,
                f"unique_{self.unit}": progress.unique,
                f"processed_{self.unit}": progress.processed,
                f"unique_{self.unit}_per_s": window.unique / window.seconds if window.seconds else None,
                f"processed_{self.unit}_per_s": window.processed / window.seconds if window.seconds else None,
                "seconds_per_update": 1 / rate if rate else None,
                "eta_s": remaining / rate if rate and self.max_update else None,
                "memory_mb": peak_memory_mb(self.device),
                "skipped": skipped,
            }
        )
        numbers = {name: value for name, value in means.items() if value is not None}
        self._write_board("train", {**numbers, "lr": report.lr}, report.update)

    def _write(self, line: dict[str, Any]) -> None:
        rounded = {key: _rounded(value) for key, value in line.items()}
        as_json = json.dumps(rounded, allow_nan=False)
        if self._run_log is not None:
            self._run_log.write(as_json)
        if self._file is not None:
            with naming_file(self._file.name):
                self._file.write(as_json + "\n")
                self._file.flush()
        self._trackers.log(rounded)
        if self.format in ("json", "simple") and _is_open(sys.stdout):
            sys.stdout.write((as_json if self.format == "json" else _simple(rounded)) + "\n")
            sys.stdout.flush()
        elif self.format == "tqdm" and line["event"] == "valid" and _is_open(sys.stderr):
            progress_bar().write(_simple(rounded), file=sys.stderr)

    def _advance_bar(self, report: UpdateReport) -> None:
        if self._bar is None:
            total = self.max_update or None
            self._bar = progress_bar()(
                total=total, initial=report.update - 1, unit="update", file=sys.stderr, dynamic_ncols=True
            )
            messages = needed("tqdm.contrib.logging", "a progress bar").logging_redirect_tqdm()
            self._above_the_bar.enter_context(messages)  # they would be written over the bar
        self._bar.update(0 if report.skipped else 1)
        shown = {
            name: f"{value:.2f}" for name, value in display_metrics(report.means, self.unit).items() if name != "nll"
        }
        self._bar.set_postfix({"loss": f"{report.loss:.3f}", **shown, "lr": f"{report.lr:.2e}"}, refresh=False)

    def _write_board(self, prefix: str, values: dict[str, float], update: int) -> None:
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(f"{prefix}/{name}", value, update)


def _format(options: LogOptions) -> str:
    if options.log_format is not None:
        return options.log_format
    if not all(_is_open(stream) and stream.isatty() for stream in (sys.stderr, sys.stdout)):
        return "json"  # what is printed goes to a file or a program
    return "simple" if options.no_progress_bar else "tqdm"


def _is_open(stream: TextIO | None) -> bool:
    """Whether a standard stream takes lines: a process without a terminal (pythonw, a daemon) may have none."""
    return stream is not None and not getattr(stream, "closed", False)  # what replaces one may be but a writer


def _open_log(path: str | None) -> TextIO | None:
    if path is None:
        return None
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        return open(path, "a", encoding="utf-8", errors=ESCAPED)
    except OSError as error:
        raise UserError(f"--log-file {path} can't be written to: {error.strerror}") from None


def _open_board(folder: str | None) -> Any:
    if folder is None:
        return None
    try:
        board = importlib.import_module("torch.utils.tensorboard")
    except ImportError:
        raise UserError(
            "--tensorboard-logdir needs a package that isn't installed: pip install tensorboard (seqba[tensorboard])"
        ) from None
    return board.SummaryWriter(folder)


def _rounded(value: Any) -> Any:
    """Number with six digits, enough to read; None for what JSON has no number for."""
    if not isinstance(value, float):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _simple(line: dict[str, Any]) -> str:
    """Line for a terminal; the best value so far under the name of its metric: best_bleu, as in fairseq."""
    hidden = ("event", "best_of")
    shown = {key: value for key, value in line.items() if key not in hidden and value is not None}
    names = {"best": f"best_{line.get('best_of')}"}
    return f"{line['event']} | " + " | ".join(f"{names.get(key, key)} {value}" for key, value in shown.items())


def log_options_of_rank(options: LogOptions, ranks: Group) -> LogOptions:
    """Log options of this process: only the first rank writes anything."""
    if ranks.is_first:
        return options
    return replace(options, log_format="none", log_file=None, tensorboard_logdir=None, no_progress_bar=False)
