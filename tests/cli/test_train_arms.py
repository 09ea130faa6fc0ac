"""seqba-train's arms: what an update sees of the data in each, at the same updates, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from alphabet import write_alphabet
from commands import last_complaint, weights

from seqba.checkpoints.file import read_checkpoint
from seqba.cli.command import run
from seqba.cli.train import main
from seqba.training.folder import LAST

COMMON = ["--cpu", "--log-format", "none", "--log-interval", "1", "--copies", "4"]
RUNS = {
    "pictures": [
        *("--task", "image_classification", "--arch", "resnet8", "--batch-size", "8", "--valid-subset", "test"),
        *("--cutout", "8", "--optimizer", "sgd", "--lr", "0.01", "--lr-scheduler", "step", "--lr-drops", "1"),
    ],
    "alphabet": [
        *("--task", "language_modeling", "--arch", "awd_lstm", "--decoder-layers", "2", "--decoder-embed-dim", "8"),
        *("--decoder-hidden-size", "12", "--batch-size", "8", "--bptt", "20", "--optimizer", "sgd", "--lr", "0.1"),
        *("--lr-scheduler", "step", "--lr-drops", "1"),
    ],
    "reversal": [
        *("--arch", "transformer_tiny", "--share-all-embeddings", "--dropout", "0.2", "--max-tokens", "200"),
        *("--required-batch-size-multiple", "1", "--optimizer", "sgd", "--lr", "0.05"),
        *("--lr-scheduler", "step", "--lr-drops", "1"),
    ],
}
"""By the name of the data."""

ARMS = {
    "pictures": ("fixed-samples", "ba", "large-batch", "fixed-rows"),
    "alphabet": ("fixed-samples", "ba", "large-batch", "fixed-rows"),
    "reversal": ("fixed-samples", "ba", "fixed-rows"),
}

pytestmark = pytest.mark.usefixtures("one_thread")


def train(request: pytest.FixtureRequest, name: str, folder: Path, *more: str) -> list[dict[str, Any]]:
    """Trains in a folder, and returns the lines of the log."""
    log = folder / "log.jsonl"
    data = str(request.getfixturevalue(name))
    assert run(main, [data, "--save-dir", str(folder), "--log-file", str(log), *RUNS[name], *COMMON, *more]) == 0
    return [json.loads(line) for line in log.read_text().splitlines()]


def same(one: Path, other: Path, *, tolerance: float = 0.0) -> None:
    first, second = weights(one / LAST), weights(other / LAST)
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=tolerance, atol=tolerance, msg=name)


def of(lines: Sequence[dict[str, Any]], event: str, key: str) -> list[Any]:
    return [line[key] for line in lines if line["event"] == event]


@pytest.mark.parametrize("name", RUNS)
def test_every_arm_has_the_baselines_updates_rates_validations_and_checkpoints(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    limits = ["--max-epoch", "3", "--validate-interval", "2", "--save-interval", "2"]
    lines = train(request, name, tmp_path / "baseline", "--arm", "baseline", *limits)
    updates, checked = of(lines, "train", "update"), of(lines, "valid", "update")
    files = sorted(path.name for path in (tmp_path / "baseline").iterdir())
    assert "checkpoint2.pt" in files
    assert len(checked) == 2
    for arm in ARMS[name]:
        lines = train(request, name, tmp_path / arm, "--arm", arm, *limits)
        assert (of(lines, "train", "update"), of(lines, "valid", "update")) == (updates, checked), arm
        assert sorted(path.name for path in (tmp_path / arm).iterdir()) == files, arm
        if name != "alphabet":  # where the rate goes by the length of the window as well
            rates = of(lines, "train", "lr")
            assert rates[0] > 9 * rates[-1]


@pytest.mark.parametrize(
    ("arm", "unique", "processed"),
    [("baseline", 8, 8), ("fixed-samples", 32, 32), ("ba", 8, 32), ("large-batch", 32, 32), ("fixed-rows", 2, 8)],
)
def test_pictures_of_an_update(
    arm: str, unique: int, processed: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    (line,) = train(request, "pictures", tmp_path, "--arm", arm, "--max-update", "1", "--no-save")[:1]
    assert (line["unique_images"], line["processed_images"]) == (unique, processed)


@pytest.mark.parametrize(
    ("arm", "unique", "processed"),
    [("fixed-samples", 32, 32), ("ba", 8, 32), ("large-batch", 32, 32), ("fixed-rows", 2, 8)],
)
def test_pictures_of_an_update_of_searched_cells(
    arm: str, unique: int, processed: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    sizes = ["--arch", "amoebanet", "--init-channels", "2", "--layers", "3", "--drop-path-epochs", "2"]
    lines = train(request, "pictures", tmp_path, "--arm", arm, "--max-update", "1", "--no-save", *sizes)
    assert (lines[0]["unique_images"], lines[0]["processed_images"]) == (unique, processed)


@pytest.mark.parametrize(
    ("arm", "copies", "states"),
    [
        ("baseline", 1, (1, 8)),
        ("fixed-samples", 1, (4, 8)),
        ("ba", 4, (1, 32)),
        ("large-batch", 1, (1, 32)),
        ("fixed-rows", 4, (1, 8)),
    ],
)
def test_streams_of_an_update(
    arm: str, copies: int, states: tuple[int, int], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    (line,) = train(request, "alphabet", tmp_path, "--arm", arm, "--max-update", "1")[:1]
    assert line["processed_tokens"] == copies * line["unique_tokens"]
    micro_batches = read_checkpoint(tmp_path / LAST)["extra_state"]["trainer"]["carried"]["shards"]
    assert (
        len(micro_batches),
        micro_batches[0][0].shape[0],
    ) == states  # each of copies × streams rows


def test_a_token_batch_of_fixed_rows_has_a_part_of_the_budget(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    for arm in ("baseline", "fixed-rows"):
        (line,) = train(request, "reversal", tmp_path / arm, "--arm", arm, "--max-update", "1")[:1]
        assert 100 < line["processed_tokens"] <= 200
        assert line["processed_tokens"] == line["unique_tokens"] * (1 if arm == "baseline" else 4)
    resolved = json.loads((tmp_path / "fixed-rows" / "run.json").read_text())
    assert resolved["micro_batch"] == {"max_tokens": 50, "batch_size": None}
    assert (resolved["arm"], resolved["micro_batches_per_update"], resolved["copies"]) == ("fixed-rows", [1], 4)
    assert resolved["task"]["batches"]["max_tokens"] == 200  # as it was given


@pytest.mark.parametrize(
    ("name", "arm", "by_hand"),
    [
        ("pictures", "large-batch", ["--arm", "baseline", "--batch-size", "32"]),
        ("alphabet", "large-batch", ["--arm", "baseline", "--batch-size", "32"]),
        ("pictures", "fixed-rows", ["--arm", "ba", "--batch-size", "2"]),
        ("alphabet", "fixed-rows", ["--arm", "ba", "--batch-size", "2"]),
        ("reversal", "fixed-rows", ["--arm", "ba", "--max-tokens", "50"]),
    ],
)
def test_an_arm_is_the_run_that_it_stands_for(
    name: str, arm: str, by_hand: list[str], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    updates = ["--max-update", "5", "--lr-drop-unit", "update", "--lr-drops", "4", "--batch-size-valid", "8"]
    train(request, name, tmp_path / "arm", "--arm", arm, *updates)
    train(request, name, tmp_path / "hand", *by_hand, *updates)
    same(tmp_path / "arm", tmp_path / "hand")


@pytest.mark.parametrize("name", RUNS)
def test_fixed_rows_takes_fewer_micro_batches_where_copies_divide_them(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    updates = ["--max-update", "3", "--lr-drop-unit", "update"]
    train(request, name, tmp_path / "arm", "--arm", "fixed-rows", "--update-freq", "4", *updates)
    train(request, name, tmp_path / "hand", "--arm", "ba", "--update-freq", "1", *updates)
    same(tmp_path / "arm", tmp_path / "hand")


@pytest.mark.parametrize(("name", "arm"), [(name, arm) for name in RUNS for arm in ARMS[name] if arm != "ba"])
def test_going_on_equals_never_having_stopped(
    name: str, arm: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    common = ["--arm", arm, "--max-epoch", "2", "--plan", "stacked"]
    straight = train(request, name, tmp_path / "straight", *common)
    train(request, name, tmp_path / "twice", *common, "--max-update", "3")
    resumed = train(request, name, tmp_path / "twice", *common)
    same(tmp_path / "straight", tmp_path / "twice")
    epochs = [update for update in of(resumed, "valid", "update") if update != 3]
    assert epochs == [update for update in of(straight, "valid", "update") if update != 3]


@pytest.mark.parametrize("name", RUNS)
def test_fixed_rows_is_the_same_in_every_plan(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    plans = ("stacked", "looped", "2")
    still = [] if name != "pictures" else ["--cutout", "0"]
    for plan in plans:
        train(request, name, tmp_path / plan, "--arm", "fixed-rows", "--plan", plan, "--max-update", "2", *still)
    for plan in plans[1:]:
        same(tmp_path / plan, tmp_path / "stacked", tolerance=1e-3)


def test_an_arm_stays_what_it_was(
    request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(request, "pictures", tmp_path, "--arm", "large-batch", "--max-update", "1")
    data = str(request.getfixturevalue("pictures"))
    again = [data, "--save-dir", str(tmp_path), *RUNS["pictures"], *COMMON, "--max-update", "2"]
    assert "--arm fixed-rows (it had large-batch)" in last_complaint(capsys, run(main, [*again, "--arm", "fixed-rows"]))


@pytest.mark.parametrize(
    ("name", "more", "complaint"),
    [
        ("reversal", ["--arm", "large-batch"], "take --arm fixed-samples, which is the same there"),
        (
            "pictures",
            ["--arm", "fixed-rows", "--copies", "3"],
            "--copies 3 divides neither --update-freq 1 nor --batch-size 8: give a multiple of 3",
        ),
        (
            "reversal",
            ["--arm", "fixed-rows", "--copies", "3", "--update-freq", "3,4", "--lr-drop-unit", "update"],
            "divides neither --update-freq 3,4 nor --max-tokens 200",
        ),
        (
            "pictures",
            ["--arm", "fixed-rows", "--copies", "8"],
            "--batch-size 1 (that of --arm fixed-rows with --copies",
        ),
        (
            "pictures",
            ["--arm", "fixed-rows", "--ghost-batch", "4"],
            "--ghost-batch 4 must divide --batch-size 2 (that of --arm fixed-rows with --copies 4)",
        ),
        (
            "pictures",
            ["--arm", "large-batch", "--copies", "11"],
            "has 80 pictures, not even one --batch-size of 88, which --arm large-batch makes of 8",
        ),
        ("alphabet", ["--arm", "large-batch", "--copies", "4000"], "too few to cut into 32000 streams"),
        ("alphabet", ["--arm", "baselines"], "baselines"),
    ],
)
def test_what_cannot_be_is_one_line(
    name: str,
    more: list[str],
    complaint: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = str(request.getfixturevalue(name))
    status = run(main, [data, "--save-dir", str(tmp_path), *RUNS[name], *COMMON, "--max-update", "1", *more])
    assert complaint in last_complaint(capsys, status)


def test_blocks_of_text_share_nothing_either(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_alphabet(tmp_path / "data")
    blocks = ["--task", "language_modeling", "--tokens-per-sample", "24", "--max-tokens", "192", "--lr", "0.01"]
    status = run(main, [str(data), *blocks, "--cpu", "--arm", "large-batch", "--max-update", "1", "--no-save"])
    assert "fixed-samples" in last_complaint(capsys, status)
