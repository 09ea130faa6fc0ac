"""How many of seqba's files an update goes through, and how often it moves from one to another.

    python recipes/bench/moves.py [--copies 2] [--micro-batches 1] [--plan looped] [--pairs 0] [--json FILE]

`seqba-train` trains a Transformer of one layer each, with dropout of sublayers and of attention, on lines of letters.
One of its updates is traced: all from the end of the update before to its own end, reading and logging included. A move
is a call of a function that lies in another file than the function of seqba that called it, whatever of torch or of
Python is in between (a module's forward is called by the module before it, a backward by what asked for the gradient).
A generator that is resumed is called again. "outside the model" are the moves that neither begin nor end in seqba/nn or
seqba/models, whose own number grows with the layers. --pairs N names the N pairs of files with the most moves.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from harness import Row, parse_options, report

import seqba
from seqba.cli.command import run as run_command
from seqba.cli.preprocess import main as preprocess
from seqba.cli.train import main as train
from seqba.training.trainer import Trainer

PACKAGE = str(Path(seqba.__file__).parent) + os.sep
MODEL = ("nn", "models")
UPDATES = 6
TRACED = 4

Move = tuple[str, str]

SIZES = {
    **{f"--{side}-layers": "1" for side in ("encoder", "decoder")},
    **{f"--{side}-embed-dim": "32" for side in ("encoder", "decoder")},
    **{f"--{side}-ffn-embed-dim": "64" for side in ("encoder", "decoder")},
    **{f"--{side}-attention-heads": "2" for side in ("encoder", "decoder")},
    **{f"--{name}": "0.1" for name in ("dropout", "attention-dropout")},
}


class Trace:
    """The moves of each update, by what Python tells of calls (`sys.setprofile`).

    Attributes:
        files: of one update each: the files whose functions were called.
        moves: of one update each: (from, to) → how often.
    """

    def __init__(self) -> None:
        self.files: list[set[str]] = [set()]
        self.moves: list[Counter[Move]] = [Counter()]

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        if event == "return" and frame.f_code is Trainer.update.__code__:
            self.files.append(set())
            self.moves.append(Counter())
        if event != "call" or not _is_ours(frame):
            return
        caller = frame.f_back
        while caller is not None and not _is_ours(caller):
            caller = caller.f_back
        self.files[-1].add(_name(frame))
        if caller is not None and caller.f_code.co_filename != frame.f_code.co_filename:
            self.moves[-1][_name(caller), _name(frame)] += 1


def _is_ours(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(PACKAGE)


def _name(frame: FrameType) -> str:
    return frame.f_code.co_filename.removeprefix(PACKAGE)


def trace_update(copies: int, micro_batches: int, plan: str) -> tuple[set[str], Counter[Move]]:
    """The files and the moves of update number `TRACED`."""
    trace = Trace()
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(io.StringIO()):
        folder = Path(name)
        write_reversed_letters(folder)
        texts = ["--source-lang", "src", "--target-lang", "tgt", "--trainpref", f"{folder}/train"]
        preprocess([*texts, "--validpref", f"{folder}/valid", "--destdir", f"{folder}/data", "--workers", "1"])
        sizes = [word for option in SIZES.items() for word in option]
        grid = ["--copies", str(copies), "--update-freq", str(micro_batches), "--plan", plan, "--max-tokens", "200"]
        run = ["--lr", "1e-3", "--clip-norm", "1", "--max-update", str(UPDATES), "--no-save", "--log-format", "none"]
        sys.setprofile(trace)
        try:
            train([f"{folder}/data", "--save-dir", f"{folder}/run", "--cpu", *sizes, *grid, *run])
        finally:
            sys.setprofile(None)
    return trace.files[TRACED - 1], trace.moves[TRACED - 1]


def write_reversed_letters(folder: Path) -> None:
    """Lines of letters, and the same backwards."""
    draw = random.Random(1)  # noqa: S311
    for split, lines in (("train", 400), ("valid", 20)):
        words = [draw.choices("abcdefghij", k=draw.randint(3, 8)) for _ in range(lines)]
        for language, order in (("src", 1), ("tgt", -1)):
            text = "".join(" ".join(line[::order]) + "\n" for line in words)
            (folder / f"{split}.{language}").write_text(text, encoding="utf-8")


def is_of_the_model(file: str) -> bool:
    """Whether a file is one of layers or models."""
    return Path(file).parts[0] in MODEL


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_options(__doc__, arguments, copies=2, micro_batches=1, plan="looped", pairs=0)
    logging.disable(logging.INFO)
    files, moves = trace_update(options.copies, options.micro_batches, options.plan)
    outside = {move: count for move, count in moves.items() if not any(map(is_of_the_model, move))}
    rows: list[Row] = [
        {"moves of an update": "all", "files": len(files), "moves": moves.total()},
        {
            "moves of an update": "outside the model",
            "files": sum(not is_of_the_model(file) for file in files),
            "moves": sum(outside.values()),
        },
    ]
    for (start, end), count in moves.most_common(options.pairs):
        rows.append({"moves of an update": f"{start} → {end}", "files": 2, "moves": count})
    title = f"{options.copies} copies, {options.micro_batches} micro-batches, {options.plan}"
    report(title, rows, options)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
