"""seqba-train --shard-params under torchrun: the run of one process, in parts; checkpoints don't know of them."""

from __future__ import annotations

import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from alphabet import write_alphabet
from rank_runs import AVERAGED, MORE_RUNS, RUNS, train_all
from reversal import write_reversal
from sharded_memories import outputs_and_gradient
from sharded_memories import run_all as run_on_gpus
from test_distributed import check_same_lines, distance, lines_of, lose_a_rank, state_of, torchrun
from toy_images import write_coloured_cifar
from validation_world import BATCHES, SIZE, CountingTask, run_all, validated

from seqba.core import ALONE
from seqba.distributed import Ranks
from seqba.errors import UserError
from seqba.training.arms import GridShape, check_ranks
from seqba.training.folder import LAST
from seqba.training.loop import TrainingLoop
from seqba.training.options import RunOptions
from seqba.training.options.grid import CopySchedule

UPDATES = 13
"""Of a run from its beginning to its end: the first of the Transformer's third epoch."""

BEGUN, ALL = 6, 12
"""Updates of the runs that go on elsewhere: when, and how many they make in all."""

RESUMED = [*MORE_RUNS, "resnet"]


@pytest.fixture(scope="module")
def folder(sharding: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of all tasks, and a run of each: alone, and in parts on 3 ranks."""
    folder = tmp_path_factory.mktemp("sharded")
    write_reversal(folder / "reversal")
    write_alphabet(folder / "alphabet")
    write_coloured_cifar(folder / "pictures")
    train_alone(folder, "1", UPDATES, list(RUNS))
    train_in_parts(folder, 3, "3", UPDATES, list(RUNS))
    return folder


@pytest.fixture(scope="module")
def resumed(folder: Path) -> Path:
    """Runs that go on as they began, and runs that begin in parts and go on alone, and the other way round."""
    train_alone(folder, "alone", ALL, RESUMED)
    train_alone(folder, "alone first", BEGUN, RESUMED)
    train_in_parts(folder, 3, "alone first", ALL, RESUMED)
    train_in_parts(folder, 2, "parts first", BEGUN, RESUMED)
    train_alone(folder, "parts first", ALL, RESUMED)
    return folder


def train_alone(folder: Path, save: str, updates: int, names: list[str]) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    train_all(folder, str(updates), [], names=names, save=save)
    torch.set_num_threads(threads)


def train_in_parts(folder: Path, ranks: int, save: str, updates: int, names: list[str]) -> None:
    options = ("--shard-params", "--broadcast-batches")
    finished = torchrun(folder, ranks, save, updates, *options, names=",".join(names))
    assert finished.returncode == 0, finished.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_weights_after_some_updates_are_those_of_one_process(folder: Path, name: str) -> None:
    assert distance(*(state_of(folder, save, name)["model"] for save in ("1", "3"))) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_every_line_of_the_log_is_the_same_and_there_once(folder: Path, name: str) -> None:
    check_same_lines(*(lines_of(folder, save, name) for save in ("1", "3")))


@pytest.mark.slow
@pytest.mark.parametrize("name", RESUMED)
@pytest.mark.parametrize("save", ["alone first", "parts first"])
def test_a_run_begun_in_parts_goes_on_alone_and_the_other_way_round(resumed: Path, save: str, name: str) -> None:
    alone, went_on = (state_of(resumed, where, name) for where in ("alone", save))
    assert distance(alone["model"], went_on["model"]) < 1e-5
    assert (alone["raw_model"] is None) == (went_on["raw_model"] is None) == (name not in AVERAGED)
    if name in AVERAGED:
        assert distance(alone["raw_model"], went_on["raw_model"]) < 1e-5


def averages_of(state: dict[str, Any]) -> dict[str, torch.Tensor]:
    """What the optimizer keeps, by weight and name."""
    averages = state["last_optimizer_state"]["state"]
    return {f"{number} {name}": value for number, kept in averages.items() for name, value in kept.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", RESUMED)
def test_a_checkpoint_written_in_parts_is_that_of_one_process(resumed: Path, name: str) -> None:
    alone, parts = (state_of(resumed, save, name) for save in ("alone", "alone first"))
    assert parts.keys() == alone.keys()
    for one, other in ((alone["model"], parts["model"]), (averages_of(alone), averages_of(parts))):
        assert one
        assert distance(one, other) < 1e-4
        for key, value in one.items():
            assert (other[key].shape, other[key].dtype) == (value.shape, value.dtype)
    storages = [
        len({tensor.untyped_storage().data_ptr() for tensor in state["model"].values()}) for state in (alone, parts)
    ]
    assert storages[0] == storages[1]  # an embedding that is the output as well is written once
    sizes = [(resumed / save / name / LAST).stat().st_size for save in ("alone", "alone first")]
    # Alone, averages that are the weights of the model are written once.
    assert sizes[1] <= (4 / 3 if name == "averaged" else 1) * 1.005 * sizes[0] + 2000


@pytest.mark.slow
@pytest.mark.usefixtures("sharding")
def test_ranks_validate_their_parts_of_a_split_and_stop_together(tmp_path: Path) -> None:
    results = run_all(tmp_path)
    for what, batches in (("whole", BATCHES), ("few", 2)):
        expected = validated(None, batches)["means"]
        for result in results:
            assert result[what]["means"] == pytest.approx(expected, rel=1e-5)
    own = [float(batch.values[0, 0]) for batch in CountingTask().batches]
    assert results[1]["whole"]["seen"] == [own[1], own[4], own[0]]  # the last one for nothing
    assert [result["stopped"] for result in results] == [
        {"means": None, "seen": [own[rank]], "held": results[rank]["whole"]["held"]} for rank in range(SIZE)
    ]
    assert [sum(column) for column in zip(*(result["whole"]["held"] for result in results), strict=True)] == [
        20, 5, 5, 1,
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.usefixtures("sharding")
def test_a_gpu_multiplies_by_no_weights_of_a_layer_that_are_in_parts(tmp_path: Path) -> None:
    expected = outputs_and_gradient()
    for result in run_on_gpus(tmp_path):
        for way in ("alone", "parts"):  # all layers' keys and values in one product, and each layer's in its own
            torch.testing.assert_close(result[way], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.slow
def test_who_loses_a_rank_in_the_middle_of_a_pass_says_so_in_one_line(folder: Path, tmp_path: Path) -> None:
    lose_a_rank(folder, "resnet", tmp_path, signal.SIGKILL, "--shard-params")


def test_one_process_alone_has_nothing_to_share() -> None:
    with pytest.raises(UserError, match="--shard-params is for several processes: start them with torchrun"):
        check_ranks(ALONE, GridShape((1,), CopySchedule((4,))), RunOptions(shard_params=True))


@pytest.mark.parametrize(("rank", "sharded", "saves"), [(0, True, 0), (1, True, 0), (0, False, 1), (1, False, 0)])
def test_nobody_saves_alone_what_all_have_parts_of(rank: int, sharded: bool, saves: int) -> None:
    saved: list[list[str]] = []
    loop = object.__new__(TrainingLoop)
    task = SimpleNamespace(carried=None)
    optimisation = SimpleNamespace(is_sharded=sharded)
    loop.trainer = SimpleNamespace(task=task, ranks=Ranks(rank, 2), optimisation=optimisation)  # type: ignore[assignment]
    loop._save = saved.append  # type: ignore[method-assign]
    loop._save_alone_before_exit()
    assert len(saved) == saves
