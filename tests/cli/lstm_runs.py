"""Runs of a tiny AWD-LSTM, and their evaluation."""

from __future__ import annotations

from pathlib import Path

from seqba.cli.command import run
from seqba.cli.eval_lm import main as evaluate
from seqba.cli.train import main

LSTM = [
    *("--task", "language_modeling", "--arch", "awd_lstm", "--cpu", "--log-format", "json", "--log-interval", "1"),
    *("--decoder-layers", "2", "--decoder-embed-dim", "8", "--decoder-hidden-size", "12"),
    *("--batch-size", "4", "--batch-size-valid", "2", "--bptt", "20", "--copies", "2"),
    *("--optimizer", "nt_asgd", "--lr", "2", "--clip-norm", "0.25", "--weight-decay", "1.2e-6"),
]


def train(data: Path, save_dir: Path, *more: str) -> int:
    return run(main, [str(data), "--save-dir", str(save_dir), *LSTM, *more])


def score(data: Path, checkpoint: Path, *more: str) -> int:
    return run(evaluate, [str(data), "--path", str(checkpoint), "--cpu", *more])
