"""seqba-train --fork: every kind of model under every plan, resuming, the other arms, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from commands import last_complaint, weights

from seqba.cli.command import run
from seqba.cli.train import main
from seqba.training.folder import LAST

COMMON = ["--cpu", "--log-format", "none", "--copies", "3", "--no-epoch-checkpoints"]
SGD = ("--optimizer", "sgd", "--lr", "0.05", "--momentum", "0.9")
RUNS = {
    "translation": (
        "reversal",
        "encoder",
        ["--arch", "transformer_tiny", "--share-all-embeddings", "--dropout", "0.2", "--max-tokens", "200", *SGD],
    ),
    "blocks": (
        "alphabet",
        "layer-2",
        [
            *("--task", "language_modeling", "--arch", "transformer_lm", "--decoder-layers", "2"),
            *("--decoder-embed-dim", "8", "--decoder-ffn-embed-dim", "8", "--decoder-attention-heads", "2"),
            *("--tokens-per-sample", "9", "--add-bos-token", "--max-tokens", "60", *SGD),
        ],
    ),
    "streams": (
        "alphabet",
        "layer-2",
        [
            *("--task", "language_modeling", "--arch", "awd_lstm", "--decoder-layers", "2", "--decoder-embed-dim", "8"),
            *("--decoder-hidden-size", "12", "--batch-size", "4", "--bptt", "9", "--update-freq", "2", *SGD),
        ],
    ),
}

pytestmark = pytest.mark.usefixtures("one_thread")


def train(request: pytest.FixtureRequest, name: str, folder: Path, updates: int, *more: str) -> None:
    data, place, options = RUNS[name]
    arguments = [str(request.getfixturevalue(data)), "--save-dir", str(folder), "--max-update", str(updates)]
    assert run(main, [*arguments, *options, *COMMON, "--fork", place, *more]) == 0


@pytest.mark.parametrize("name", RUNS)
def test_the_weights_do_not_depend_on_the_plan(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    for plan in ("stacked", "looped", "2"):
        train(request, name, tmp_path / plan, 3, "--plan", plan)
    stacked = weights(tmp_path / "stacked" / LAST)
    for plan in ("looped", "2"):
        other = weights(tmp_path / plan / LAST)
        for parameter in stacked:
            torch.testing.assert_close(other[parameter], stacked[parameter], rtol=1e-4, atol=1e-5, msg=parameter)


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("plan", ["stacked", "looped"])
def test_going_on_equals_never_having_stopped(
    name: str, plan: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    for folder, updates in (("straight", 5), ("twice", 2), ("twice", 5)):
        train(request, name, tmp_path / folder, updates, "--plan", plan)
    one, other = weights(tmp_path / "straight" / LAST), weights(tmp_path / "twice" / LAST)
    for parameter in one:
        assert torch.equal(one[parameter], other[parameter]), parameter


@pytest.mark.parametrize("arm", ["baseline", "fixed-samples"])
def test_arms_of_one_copy_are_what_they_are_without_it(
    arm: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    data, _, options = RUNS["translation"]
    train(request, "translation", tmp_path / "fork", 2, "--arm", arm)
    plain = [str(request.getfixturevalue(data)), "--save-dir", str(tmp_path / "plain"), "--max-update", "2", *options]
    assert run(main, [*plain, *COMMON, "--arm", arm]) == 0
    one, other = weights(tmp_path / "fork" / LAST), weights(tmp_path / "plain" / LAST)
    assert all(torch.equal(one[parameter], other[parameter]) for parameter in one)


def test_it_is_logged_and_another_fork_is_another_run(
    request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(request, "translation", tmp_path, 1)
    data, _, options = RUNS["translation"]
    arguments = [str(request.getfixturevalue(data)), "--save-dir", str(tmp_path), "--max-update", "2"]
    status = run(main, [*arguments, *options, *COMMON, "--fork", "decoder-layer-2"])
    assert "--fork decoder-layer-2 (it had encoder)" in last_complaint(capsys, status)


def test_copies_that_begin_in_the_decoder_are_compared_too(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """R-Drop's divergence is that of the noise above the fork: less than that of all noise, more than none."""
    found = {}
    for name, fork in {"whole": [], "decoder": ["--fork", "decoder-layer-2"]}.items():
        data, _, options = RUNS["translation"]
        arguments = [str(request.getfixturevalue(data)), "--save-dir", str(tmp_path / name), "--max-update", "1"]
        loss = ["--criterion", "label_smoothed_cross_entropy_with_rdrop", "--rdrop-alpha", "1", "--plan", "stacked"]
        assert run(main, [*arguments, *options, *COMMON, "--log-interval", "1", *loss, *fork]) == 0
        lines = [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        found[name] = next(line["divergence"] for line in lines if line["event"] == "train")
    assert 0 < found["decoder"] < 0.9 * found["whole"]


@pytest.mark.slow  # the one network that is deep enough to have a head with dropout, twice
def test_the_head_of_vgg_forks_with_mixup_and_ghost_batches(pictures: Path, tmp_path: Path) -> None:
    common = ["--task", "image_classification", "--arch", "vgg16_bn", "--cpu", "--log-format", "none"]
    common += ["--batch-size", "4", "--ghost-batch", "2", "--valid-subset", "test", "--manifold-mixup", "1", *SGD]
    for plan in ("stacked", "looped"):
        arguments = [str(pictures), "--save-dir", str(tmp_path / plan), "--max-update", "1", "--plan", plan]
        assert run(main, [*arguments, *common, "--copies", "3", "--fork", "head"]) == 0
    one, other = weights(tmp_path / "stacked" / LAST), weights(tmp_path / "looped" / LAST)
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=1e-4, msg=name)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--copies", "1", "--fork", "encoder"], "give --copies of at least 2"),
        (["--copies", "2", "--fork", "middle"], "choose one of encoder, decoder-layer-1, decoder-layer-2"),
        (["--copies", "2", "--fork", "encoder", "--measure-every", "5"], "--fork excludes --measure-every"),
        (["--copies", "2", "--fork", "encoder", "--shard-params"], "--fork excludes --shard-params"),
    ],
)
def test_what_does_not_fit_is_refused(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ["--arch", "transformer_tiny", "--max-tokens", "200", "--lr", "0.1"]
    assert words in last_complaint(capsys, run(main, [str(tmp_path), *model, *arguments]))


@pytest.mark.parametrize(
    ("arch", "more"), [("resnet44", []), ("wide_resnet28_10", []), ("vgg16_bn", ["--dropout", "0"])]
)
def test_networks_without_noise_in_the_head_have_no_place(
    arch: str, more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ["--task", "image_classification", "--arch", arch, "--batch-size", "8", "--lr", "0.1", *more]
    complaint = last_complaint(capsys, run(main, [str(tmp_path), *model, "--copies", "2", "--fork", "head"]))
    assert f"--fork head has no place in --arch {arch}" in complaint
