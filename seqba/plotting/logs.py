"""Logs of training runs, read back: JSON lines and, where it lies beside them, what `run.json` says of the run.

A record of a run, as recipes write them, has its curves in one JSON object: arm, copies, seed, and under `curves` the
columns of its `train` and of its `valid` lines, thinned.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seqba.data.files import read_lines
from seqba.errors import UserError
from seqba.options import flag_of

LOG, RECORD = "log.jsonl", "run.json"
NO_SETTINGS = frozenset({"seed", "arm", "copies", "plan", "valid_subset", "max_tokens_valid", "batch_size_valid"})
"""Options of these groups in which seeds of one arm may differ, or that tell arms apart by themselves."""

Line = Mapping[str, Any]


@dataclass(frozen=True)
class RunLines:
    """The log of one run.

    Attributes:
        name: the name of its folder or file.
        arm: the arm as `run.json` names it, None where there is no such file beside the log.
        copies: M, likewise; the largest of a schedule.
        seed: the seed, likewise.
        lines: of training and validation, in order, each update's once.
        settings: options that say what is learned and how, as `run.json` has them, by their flags; none without it.
        schedule: of M, as --copies took it, where it changed.
        unit: "tokens" or "images", where a record says it; a log's lines tell.
    """

    name: str
    arm: str | None
    copies: int
    seed: int | None
    lines: tuple[Line, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    schedule: str | None = None
    unit: str | None = None

    def of(self, event: str, subset: str | None = None) -> list[Line]:
        """Lines of `train`, or those of `valid` of a split; None for the first split of the log."""
        lines = [line for line in self.lines if line["event"] == event]
        if event == "valid" and lines:
            subset = subset or lines[0].get("subset")
            lines = [line for line in lines if line.get("subset") == subset]
        return lines


def read_run(given: str) -> RunLines:
    """Reads a run.

    Args:
        given: a save-dir; a file of JSON lines: `log.jsonl`, a `--log-file`, or what `--log-format json` printed; or a
            record, whose name ends in `.json`.

    Raises:
        UserError: if there is no such file, or it is no log.
    """
    path = Path(given)
    if path.suffix == ".json":
        return _read_curves(path)
    log = path / LOG if path.is_dir() else path
    if path.is_dir() and not log.exists():
        raise UserError(f"{given} has no {LOG}: name the save-dir of a run, or a file of its JSON lines")
    record = _read_record(log)
    return RunLines(
        name=log.parent.resolve().name if log.name == LOG else log.stem,
        arm=record.get("arm"),
        copies=record.get("copies", 1),
        seed=record.get("seed"),
        lines=_parse(read_lines(log, "log"), log),
        settings=_settings(record),
        schedule=record.get("copy_schedule"),
    )


def _read_record(log: Path) -> Mapping[str, Any]:
    """Content of `run.json`, beside the log or in a folder of the log's name."""
    for folder in (log.parent,) if log.name == LOG else (log.with_suffix(""),):
        path = folder / RECORD
        if path.is_file():
            try:
                record = json.loads("\n".join(read_lines(path, "record of a run")))
            except ValueError:
                raise UserError(f"{path} is not JSON: move it away, or train again") from None
            if isinstance(record, dict):
                return record
    return {}


def _read_curves(path: Path) -> RunLines:
    """Curves of a record, as the lines that they are the columns of."""
    text = "\n".join(read_lines(path, "record of a run"))
    try:
        record = json.loads(text)
        lines = [
            {"event": event, **dict(zip(columns, values, strict=True))}
            for event, columns in record["curves"].items()
            for values in zip(*columns.values(), strict=True)
        ]
        {name: kind(record[name]) for name, kind in {"arm": str, "copies": int, "seed": int, "unit": str}.items()}
        if lines and all(isinstance(line["update"], int) for line in lines):
            arm, copies, seed = str(record["arm"]), int(record["copies"]), int(record["seed"])
            return RunLines(path.stem, arm, copies, seed, tuple(lines), unit=record.get("unit"))
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise UserError(f"{path} is no record of a run with its curves: give one, a save-dir, or a file of JSON lines")


def _settings(record: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the task, the model and its training, from a `run.json`, which may be that of an older version."""
    task, model, training = (_group(record, name) for name in ("task", "model", "training"))
    groups: list[Mapping[str, Any]] = [each for each in task.values() if isinstance(each, dict)]
    groups += [_group(training, name) for name in ("grid", "optimisation", "schedule")]
    groups += [{"arch": model.get("arch")}, _group(model, "options")]
    return {flag_of(name): value for group in groups for name, value in group.items() if name not in NO_SETTINGS}


def _group(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    group = record.get(name)
    return group if isinstance(group, dict) else {}


def _parse(texts: list[str], path: Path) -> tuple[Line, ...]:
    """Lines of training and validation; of updates that were made again the later ones.

    Messages between them are left out, and so is a last line that a kill has cut short.
    """
    kept: dict[tuple[Any, ...], Line] = {}
    for number, text in enumerate(texts, start=1):
        if not text.startswith("{"):
            continue
        try:
            line = json.loads(text)
        except ValueError:
            if number == len(texts):
                break
            raise UserError(f"log {path}, line {number} is not JSON: give a file of JSON lines") from None
        if line.get("event") not in ("train", "valid") or not isinstance(line.get("update"), int):
            continue
        while kept and next(reversed(kept.values()))["update"] > line["update"]:
            kept.popitem()
        kept[line["event"], line.get("subset"), line["update"]] = line
    if not kept:
        raise UserError(f"log {path} has no lines of training: give what --log-format json or --log-file wrote")
    return tuple(kept.values())
