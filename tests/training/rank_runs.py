"""Runs of all three tasks, as torchrun starts them: python rank_runs.py FOLDER UPDATES [OPTION…]."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from seqba.cli.command import run
from seqba.cli.train import main
from seqba.distributed.launch import leave_group

COMMON = ["--cpu", "--log-format", "json", "--log-interval", "1", "--no-epoch-checkpoints"]
RUNS = {
    "transformer": [
        *("reversal", "--arch", "transformer_tiny", "--share-all-embeddings"),
        *("--dropout", "0.2", "--activation-fn", "gelu", "--max-tokens", "200"),
        *("--eval-bleu", "--eval-bleu-args", '{"beam": 2, "max_len_b": 12}', "--eval-tokenized-bleu"),
        *("--update-freq", "2", "--copies", "2", "--optimizer", "sgd", "--lr", "0.05", "--clip-norm", "1"),
    ],
    "awd_lstm": [
        *("alphabet", "--task", "language_modeling", "--arch", "awd_lstm", "--decoder-layers", "2"),
        *("--decoder-embed-dim", "8", "--decoder-hidden-size", "12", "--batch-size", "4", "--batch-size-valid", "2"),
        *("--bptt", "10", "--copies", "4", "--optimizer", "nt_asgd", "--lr", "2", "--clip-norm", "0.25"),
    ],
    "resnet": [
        *("pictures", "--task", "image_classification", "--arch", "resnet8", "--batch-size", "4", "--ghost-batch", "2"),
        *("--copies", "5", "--cutout", "8", "--valid-subset", "test", "--optimizer", "sgd", "--momentum", "0.9"),
        *("--lr", "0.002", "--weight-decay", "1e-4", "--weight-decay-on", "weights"),
    ],
}
"""Data (a folder in FOLDER) and options. Small rates and gelu: where rounding turns a relu, the difference grows."""

MORE_RUNS = {
    "adam": [
        *RUNS["transformer"],
        *("--optimizer", "adam", "--lr", "0.002", "--adam-eps", "1e-3", "--encoder-normalize-before"),
        *("--store-ema", "--ema-decay", "0.8", "--checkpoint-activations"),
    ],
    "averaged": [
        *RUNS["awd_lstm"],
        *("--lr", "40", "--nonmono", "0", "--validate-interval-updates", "1"),
    ],
    "short": [
        *RUNS["resnet"],
        *("--copies", "1", "--update-freq", "19", "--store-ema", "--ema-decay", "0.5", "--ema-start-update", "3"),
    ],
}
"""Adam's averages (an epsilon above the rounding of gradients that are zero), those of NT-ASGD, epochs whose last
update is a single cell; and moving averages of the weights, and of what batch normalisation gathers."""

AVERAGED = ("adam", "averaged", "short")
"""Runs whose checkpoints have averages, and the raw weights beside them."""

CELLS = [
    *RUNS["resnet"],
    *("--arch", "darts", "--init-channels", "2", "--layers", "3", "--drop-path", "0.4", "--drop-path-epochs", "2"),
    *("--auxiliary-weight", "0", "--lr", "0.0002"),
]
"""Without the auxiliary head: its last norm makes ±1 of two pictures' single values, whichever way they are rounded. At
ten times the rate, rounding of 4e-9 in the first update made 4e-5 by the sixth, with torch 2.6."""

ARM_RUNS = {
    "fixed_rows_of_tokens": [*RUNS["transformer"], "--arm", "fixed-rows", "--copies", "4", "--max-tokens", "400"],
    "fixed_rows_of_streams": [*RUNS["awd_lstm"], "--arm", "fixed-rows", "--update-freq", "4"],
    "large_batch_of_streams": [*RUNS["awd_lstm"], "--arm", "large-batch", "--update-freq", "3"],
    "fixed_rows_of_pictures": [*RUNS["resnet"], "--arm", "fixed-rows", "--copies", "2", "--update-freq", "4"],
    "large_batch_of_pictures": [*RUNS["resnet"], "--arm", "large-batch", "--copies", "2", "--update-freq", "3"],
    "copies_of_searched_cells": CELLS,
    "large_batch_of_searched_cells": [*CELLS, "--arm", "large-batch", "--copies", "2", "--update-freq", "3"],
    "compared_copies_of_pairs": [*RUNS["transformer"], "--consistency", "2.5", "--copies", "4"],
    "compared_copies_of_streams": [*RUNS["awd_lstm"], "--consistency", "0.5", "--plan", "looped"],
}
"""The further arms, networks whose cells were searched, and copies that are compared, some on other ranks; each run has
at least three cells of its grid."""

SAMPLED_RUNS = {
    "subwords": [
        *("syllables", *RUNS["transformer"][1:8], "--attention-dropout", "0.1", "--max-tokens", "160"),
        *("--update-freq", "2", "--copies", "2", "--optimizer", "sgd", "--lr", "0.05", "--disable-validation"),
        *("--subword-sampling", "0.3"),
    ],
}
"""Copies with tokens of their own."""


def train_all(folder: Path, updates: str, more: list[str], *, names: list[str], save: str) -> None:
    """Trains each of `names` on FOLDER/DATA into FOLDER/SAVE/NAME."""
    for name in names:
        data, *options = {**RUNS, **MORE_RUNS, **ARM_RUNS, **SAMPLED_RUNS}[name]
        save_dir = folder / save / name
        log = ["--save-dir", str(save_dir), "--log-file", f"{save_dir}.jsonl", "--max-update", updates]
        status = run(main, [str(folder / data), *options, *COMMON, *log, *more])
        if status:
            sys.exit(status)


if __name__ == "__main__":
    torch.set_num_threads(1)
    if int(os.environ["WORLD_SIZE"]) > 1:
        dist.init_process_group("gloo")  # once for all the runs
    where, save_name, made, names, *options = sys.argv[1:]
    train_all(Path(where), made, options, names=names.split(","), save=save_name)
    if dist.is_initialized():
        leave_group()
