"""One run of a study: training, evaluation, and the record of both that goes to recipes/results/.

The commands are those that a user types, called in this process: their imports and the start of a GPU cost more than
many an evaluation.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from prepare import REFERENCE
from record import ADVICE, SPLIT, Scores, write_record
from study import Run

from seqba.cli.command import run as run_command

BEST, LAST = "checkpoint_best.pt", "checkpoint_last.pt"
STOPPED = 128 + 15


@dataclass(frozen=True)
class Places:
    """Where things are.

    Attributes:
        data: the prepared folder of the run's study.
        runs: folder of checkpoints and logs, one folder for each run.
        results: folder of records.
        cpu: whether to compute on the processor even where there is a GPU.
    """

    data: Path
    runs: Path
    results: Path
    cpu: bool

    @property
    def device(self) -> list[str]:
        """Option of all commands that compute."""
        return ["--cpu"] if self.cpu else []


class Failed(Exception):
    """A command's exit status other than 0."""

    def __init__(self, status: int) -> None:
        self.status = status


def make_run(run: Run, places: Places) -> int:
    """Trains, or goes on with it, and evaluates; writes the record, of an unfinished run as well.

    Returns:
        0; 143 for a training that was stopped; that of a command that failed (its output is in the folder).
    """
    folder = places.runs / run.name
    folder.mkdir(parents=True, exist_ok=True)
    data, save_dir = str(places.data), str(folder)
    command = ["seqba-train", data, "--save-dir", save_dir, *run.options, *places.device]
    try:
        _call(command, folder / "train.out")
    except Failed as failed:
        if (folder / LAST).exists():
            write_record(run, places.data, folder, places.results, command)
        return failed.status
    write_record(run, places.data, folder, places.results, command, trained=True)  # the evaluation may be cut short
    try:
        scores = EVALUATIONS[run.study.kind](run, places, folder)
        if run.is_measured:
            _measure(run, places, folder)
    except Failed as failed:
        return failed.status
    write_record(run, places.data, folder, places.results, command, trained=True, scores=scores)
    return 0


def _call(command: Sequence[str], output: Path) -> str:
    """Runs a command of seqba here, its output going to the end of a file.

    Returns:
        What it printed.

    Raises:
        Failed: if it does.
    """
    main = importlib.import_module("seqba.cli." + command[0].removeprefix("seqba-").replace("-", "_")).main
    before = output.stat().st_size if output.exists() else 0
    with _output_to(output):
        print("$", shlex.join(command), file=sys.stderr, flush=True)
        try:
            status = run_command(main, command[1:])
        except SystemExit as left:
            status = left.code if isinstance(left.code, int) else 1
    if status:
        raise Failed(status)
    return output.read_bytes()[before:].decode(errors="replace")


@contextlib.contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """Both standard streams go to a file."""
    kept = [os.dup(number) for number in (1, 2)]
    with path.open("ab") as file:
        sys.stdout.flush()
        sys.stderr.flush()
        for number in (1, 2):
            os.dup2(file.fileno(), number)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, former in zip((1, 2), kept, strict=True):
                os.dup2(former, number)
                os.close(former)


def _number(pattern: str, text: str) -> float:
    """The last number that the pattern finds."""
    return float(re.findall(pattern, text)[-1])


def _language(run: Run, places: Places, folder: Path) -> Scores:
    """Perplexity of the best checkpoint on both texts, in one stream."""
    scores = {}
    for split in ("valid", "test"):
        output = _call(
            ["seqba-eval-lm", str(places.data), "--path", str(folder / BEST), "--gen-subset", split, *places.device],
            folder / f"{split}.out",
        )
        scores[f"{split}_ppl"] = _number(r"Perplexity: *([\d.]+)", output)
    return scores


def _translation(run: Run, places: Places, folder: Path) -> Scores:
    """BLEU and chrF of the best checkpoint on the test text, beam 4."""
    search = ["--beam", "4", "--lenpen", "0.6", "--max-len-a", "1.5", "--max-len-b", "20"]
    generate = ["seqba-generate", str(places.data), "--path", str(folder / BEST), "--gen-subset", "test", *search]
    output = _call([*generate, *places.device], folder / "test.out")
    lines = [line.split("\t", 2) for line in output.splitlines() if line.startswith("D-")]
    hypotheses = folder / "test.de"
    ordered = sorted((int(number[2:]), text) for number, _, text in lines)
    hypotheses.write_text("".join(text + "\n" for _, text in ordered), encoding="utf-8")
    score = ["seqba-score", "--sys", str(hypotheses), "--ref", str(places.data / REFERENCE), "--metrics", "bleu,chrf"]
    output = _call(score, folder / "score.out")
    return {"bleu": _number(r"BLEU\S* = ([\d.]+)", output), "chrf": _number(r"chrF\S* = ([\d.]+)", output)}


def _images(run: Run, places: Places, folder: Path) -> Scores:
    """Top-1 of the last checkpoint on the test pictures, in one view and over ten."""
    scores = {}
    for name, views in (("top1", []), ("tta_top1", ["--tta", "10", "--seed", str(run.seed)])):
        evaluate = ["seqba-eval-image", str(places.data), "--path", str(folder / LAST), "--gen-subset", "test", *views]
        output = _call([*evaluate, *places.device], folder / f"{name}.out")
        scores[name] = _number(r"Top-1: *([\d.]+)%", output)
    return scores


def _measure(run: Run, places: Places, folder: Path) -> None:
    """The variance of the last checkpoint's gradient in two parts, and what follows from it for the study's M.

    Few examples, and a single update of each M is timed: beside other runs no time is exact.
    """
    split, copies = folder / SPLIT, sorted({arm.copies for arm in run.study.arms if arm.name == "ba"})
    measure = ["seqba-measure", str(places.data), "--path", str(folder / LAST), "--examples", "40", "--pairs", "0"]
    _call([*measure, *run.study.measure, "--json", str(split), "--quiet", *places.device], folder / "measure.out")
    advise = ["seqba-advise", str(split), "--copies", ",".join(map(str, copies)), "--timed-updates", "1", "--quiet"]
    _call([*advise, *places.device, "--json", str(folder / ADVICE)], folder / "advise.out")


EVALUATIONS = {"language": _language, "translation": _translation, "images": _images}
