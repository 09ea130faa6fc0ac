"""Texts mixed by weights, in seqba-train."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from commands import same, train_complaint
from reversal import train_arguments, write_reversal

from seqba.cli.train import main
from seqba.training.folder import LAST

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def two_texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data-bin of the toy pair with 30 pairs in train and 40 in train1; read only."""
    return write_reversal(tmp_path_factory.mktemp("mixed") / "bin", splits={"train": 30, "train1": 40, "valid": 9})


@pytest.mark.parametrize("plan", ["stacked", "looped"])
def test_a_mixed_run_that_goes_on_within_an_epoch_equals_one_that_never_stopped(
    plan: str, two_texts: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    mixed = ["--plan", plan, "--weights", "3,0.3"]
    main([*train_arguments(two_texts, tmp_path / "straight", "--max-update", "14"), *mixed])
    assert "90 of train (30 × 3), 12 of train1 (40 × 0.3)" in caplog.text
    for updates in (5, 14):
        main([*train_arguments(two_texts, tmp_path / "twice", "--max-update", str(updates)), *mixed])
    assert same(tmp_path / "straight" / LAST, tmp_path / "twice" / LAST)
    main(train_arguments(two_texts, tmp_path / "unmixed", "--max-update", "14"))
    assert not same(tmp_path / "straight" / LAST, tmp_path / "unmixed" / LAST)


def test_weights_of_a_data_bin_are_the_runs_unless_it_has_others(
    two_texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Path(shutil.copytree(two_texts, tmp_path / "bin"))
    (data / "train.weights").write_text("3\n0.3\n")
    for name, folder, more in (("own", data, []), ("given", two_texts, ["--weights", "3,0.3"])):
        main([*train_arguments(folder, tmp_path / name, "--max-update", "6"), *more])
    assert same(tmp_path / "own" / LAST, tmp_path / "given" / LAST)
    resolved = json.loads((tmp_path / "own" / "run.json").read_text())
    assert resolved["task"]["batches"]["weights"] == [3.0, 0.3]
    (data / "train.weights").write_text("1\n1\n")  # other epochs: another run
    capsys.readouterr()
    line = train_complaint(train_arguments(data, tmp_path / "own", "--max-update", "9"), capsys)
    assert "can't go on with --weights [1.0, 1.0] (it had [3.0, 0.3])" in line


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--weights", "3"], "--weights 3 are of 1 texts, and {data} has 2: train, train1; give a weight for each"),
        (["--weights", "3,0"], "--weights is 0; it must be greater than 0"),
        (["--weights", "3,1001"], "--weights is 1001; it must be at most 1000"),
        (["--weights", "three"], "is not a list of numbers"),
        (["--upsample-primary", "3"], "--upsample-primary is not an option here: its name is --weights"),
    ],
)
def test_mistaken_weights_are_one_line(
    more: list[str], message: str, two_texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = train_arguments(two_texts, tmp_path / "run", "--max-update", "1")
    assert message.format(data=two_texts) in train_complaint([*arguments, *more], capsys)
