"""Reports to experiment trackers: wandb, MLflow and trackio, each by its own package.

A tracker gets the numbers of every line of `log.jsonl` under the names that they have there. What fails in it (a
network, a service) ends its reports with one line of the log; training goes on.
"""

from __future__ import annotations

import json
import logging
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from seqba.core import Group
from seqba.data.files import atomic_text
from seqba.data.names import name_text
from seqba.extras import needed
from seqba.training.record import RunRecord

logger = logging.getLogger(__name__)

REPORTS_FILE = "reports.json"
PARAMS_OF_A_BATCH = 100
"""The most parameters that MLflow takes at once."""


class TrackedRun(Protocol):
    """Interface of a run in a tracker.

    Attributes:
        identity: by which a resumed run finds it again.
    """

    identity: str

    def log(self, values: Mapping[str, float], update: int) -> None:
        """Sends numbers of an update, by their names."""
        ...

    def close(self) -> None:
        """Sends what is left and ends the run there."""
        ...


@dataclass(frozen=True)
class NewRun:
    """What a tracker is told of a run when it begins there.

    Attributes:
        project: the run's project, or experiment.
        name: of the run.
        options: all options of the run, by name.
        identity: of the run there that this one goes on with; None for a new one.
    """

    project: str
    name: str
    options: Mapping[str, Any]
    identity: str | None


class WandbRun:
    """A run in Weights & Biases; `WANDB_MODE=offline` keeps it in `./wandb`.

    Updates are a metric, not wandb's steps: these may only rise, and a resumed run makes some of its updates again.
    """

    def __init__(self, new: NewRun) -> None:
        wandb = needed("wandb", "--report-to wandb")
        self.identity = new.identity or uuid.uuid4().hex[:8]
        self._run = wandb.init(
            project=new.project, name=new.name, id=self.identity, resume="allow", config=dict(new.options)
        )
        self._run.define_metric("*", step_metric="update")

    def log(self, values: Mapping[str, float], update: int) -> None:
        """Sends numbers of an update."""
        self._run.log({**values, "update": update})

    def close(self) -> None:
        """Sends what is left."""
        self._run.finish()


class MlflowRun:
    """A run in MLflow; `MLFLOW_TRACKING_URI` says where, a server or a local database."""

    def __init__(self, new: NewRun) -> None:
        self._mlflow = needed("mlflow", "--report-to mlflow")
        self._mlflow.set_experiment(new.project)
        run = self._mlflow.start_run(run_id=new.identity, run_name=None if new.identity else new.name)
        self.identity = str(run.info.run_id)
        if new.identity is None:
            options = iter(new.options.items())
            while batch := dict(islice(options, PARAMS_OF_A_BATCH)):
                self._mlflow.log_params(batch)

    def log(self, values: Mapping[str, float], update: int) -> None:
        """Sends numbers of an update."""
        self._mlflow.log_metrics(dict(values), step=update)

    def close(self) -> None:
        """Ends the run there."""
        self._mlflow.end_run()


class TrackioRun:
    """A run in trackio, which keeps it on this machine (`TRACKIO_DIR`) unless its settings say otherwise."""

    def __init__(self, new: NewRun) -> None:
        self._trackio = needed("trackio", "--report-to trackio")
        self.identity = new.identity or f"{new.name}-{uuid.uuid4().hex[:8]}"
        self._trackio.init(project=new.project, name=self.identity, resume="allow", config=dict(new.options))

    def log(self, values: Mapping[str, float], update: int) -> None:
        """Sends numbers of an update."""
        self._trackio.log(dict(values), step=update)

    def close(self) -> None:
        """Sends what is left."""
        self._trackio.finish()


OPENERS: dict[str, Callable[[NewRun], TrackedRun]] = {
    "wandb": WandbRun,
    "mlflow": MlflowRun,
    "trackio": TrackioRun,
}
"""Every tracker by its name, which is its package's too."""


class Trackers:
    """The trackers that a run reports to; one that fails is told of once and left.

    Args:
        runs: this run in each of them by the trackers' names.
    """

    def __init__(self, runs: Mapping[str, TrackedRun] | None = None) -> None:
        self._runs = dict(runs or {})

    def log(self, line: Mapping[str, Any]) -> None:
        """Sends the numbers of a line of the log: `train/loss`, and `valid/loss` of a split of that name."""
        prefix = "train" if line["event"] == "train" else name_text(line["subset"])
        skipped = ("update", "event", "unit", "subset")
        values = {f"{prefix}/{name}": value for name, value in line.items() if name not in skipped}
        numbers = {name: value for name, value in values.items() if isinstance(value, (int, float))}
        for name, run in list(self._runs.items()):
            with _leaving(name, self._runs):
                run.log(numbers, line["update"])

    def close(self) -> None:
        """Ends the run in every tracker."""
        for name, run in list(self._runs.items()):
            with _leaving(name, self._runs):
                run.close()
        self._runs.clear()


def open_trackers(record: RunRecord, ranks: Group, *, resumed: bool) -> Trackers:
    """Begins the run in the trackers that its options name, or goes on with it there.

    What it is called there is kept in `reports.json` beside the checkpoints.

    Args:
        record: the run.
        ranks: its processes, of which the first one alone reports.
        resumed: whether it goes on from updates that were made before.

    Raises:
        UserError: for a tracker whose package isn't installed.
    """
    options, checkpoints = record.training.log, record.training.checkpoints
    if not options.trackers or not ranks.is_first:
        return Trackers()
    folder = Path(checkpoints.save_dir)
    known = _read_identities(folder / REPORTS_FILE) if resumed else {}
    runs: dict[str, TrackedRun] = {}
    for name in options.trackers:
        needed(name, f"--report-to {name}")
        project = options.wandb_project if name == "wandb" and options.wandb_project else options.report_project
        new = NewRun(project, name_text(folder.resolve().name), record.options(), known.get(name))
        with _leaving(name, runs):
            runs[name] = OPENERS[name](new)
    if not checkpoints.no_save:
        with atomic_text(folder / REPORTS_FILE) as file:
            json.dump({**known, **{name: run.identity for name, run in runs.items()}}, file)
    return Trackers(runs)


def _read_identities(path: Path) -> dict[str, str]:
    """Names of the run in trackers, as an earlier process wrote them; none where there is no such file."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {name: value for name, value in values.items() if isinstance(value, str)} if isinstance(values, dict) else {}


@contextmanager
def _leaving(name: str, runs: dict[str, TrackedRun]) -> Iterator[None]:
    """Leaves a tracker whose call fails inside; what it prints goes to stderr, because stdout has the log's lines."""
    try:
        with redirect_stdout(sys.stderr):
            yield
    except Exception as error:  # whatever a service or its package comes up with
        runs.pop(name, None)
        reason = str(error).strip().partition("\n")[0]
        logger.warning("%s gets no more reports, and training goes on: %s", name, reason or type(error).__name__)
