"""seqba-train --shard-params under torchrun: the run of one process, in parts; checkpoints don't know."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from alphabet import write_alphabet
from rank_runs import RUNS, train_all
from reversal import write_reversal
from test_distributed import distance, lines_of, state_of, torchrun
from toy_images import write_coloured_cifar

from seqba.errors import UserError
from seqba.training.arms import Grid
from seqba.training.distributed import check_ranks
from seqba.training.folder import LAST
from seqba.training.options import RunOptions

UPDATES = 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of all tasks, and a run of each, alone and in parts on 2 and 3 ranks."""
    folder = tmp_path_factory.mktemp("sharded")
    write_reversal(folder / "reversal")
    write_alphabet(folder / "alphabet")
    write_coloured_cifar(folder / "pictures")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    train_all(folder, str(UPDATES), [], names=list(RUNS), save="1")
    torch.set_num_threads(threads)
    for ranks in (2, 3):
        finished = torchrun(folder, ranks, str(ranks), UPDATES, "--shard-params")
        assert finished.returncode == 0, finished.stderr
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("ranks", ["2", "3"])
def test_weights_after_twenty_updates_are_those_of_one_process(folder: Path, ranks: str, name: str) -> None:
    assert distance(*(state_of(folder, save, name)["model"] for save in ("1", ranks))) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("ranks", ["2", "3"])
def test_every_line_of_the_log_is_the_same_and_there_once(folder: Path, ranks: str, name: str) -> None:
    alone, several = (lines_of(folder, save, name) for save in ("1", ranks))
    assert [line["event"] for line in alone] == [line["event"] for line in several]
    for one, other in zip(alone, several, strict=True):
        for key in ("loss", "nll", "ppl", "top1", "bleu", "grad_norm", "lr", "update", "epoch"):
            if key in one:
                assert other[key] == pytest.approx(one[key], rel=2e-5), key
