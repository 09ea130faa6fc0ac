"""seqba-train on pictures: learning, going on, and what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from commands import last_complaint, weights
from foreign_pictures import stand_in
from picture_runs import RESNET, train
from toy_images import picture, write_folders

from seqba.checkpoints.model import load_model
from seqba.cli.command import run
from seqba.cli.eval_image import main as evaluate
from seqba.cli.train import main
from seqba.training.folder import BEST, LAST

pytestmark = pytest.mark.usefixtures("one_thread")


def train_darts(data: Path, save_dir: Path, *more: str) -> int:
    """Three narrow cells; options that are given later win."""
    drops = RESNET.index("--lr-drops")
    return run(main, [str(data), "--save-dir", str(save_dir), *RESNET[:drops], *RESNET[drops + 2 :], *DARTS, *more])


def test_colours_are_learned_and_the_rate_falls_after_an_epoch(image_run: Path) -> None:
    lines = [json.loads(line) for line in (image_run / "log.jsonl").read_text().splitlines()]
    rates = [line["lr"] for line in lines if line["event"] == "train"]
    assert rates == pytest.approx([0.05] * 10 + [0.005] * 20)
    valid = [line for line in lines if line["event"] == "valid"]
    assert [line["update"] for line in valid] == [10, 20, 30]
    assert valid[-1]["loss"] < valid[0]["loss"] < 3
    assert valid[-1]["top1"] > 30  # chance is 10
    last = [line for line in lines if line["event"] == "train"][-1]
    assert (last["unique_images"], last["processed_images"]) == (240, 480)
    assert "ppl" not in last


@pytest.mark.parametrize("stop", [3, 10])
def test_going_on_equals_never_having_stopped(stop: int, pictures: Path, tmp_path: Path) -> None:
    for name, updates in (("straight", 12), ("twice", stop), ("twice", 12)):
        assert train(pictures, tmp_path / name, "--max-update", str(updates)) == 0
    one, other = weights(tmp_path / "straight" / LAST), weights(tmp_path / "twice" / LAST)
    for name in one:  # running statistics included
        assert torch.equal(one[name], other[name]), name


DARTS = [
    *("--arch", "darts", "--init-channels", "2", "--layers", "3", "--drop-path", "0.5", "--drop-path-epochs", "3"),
    *("--clip-norm", "5", "--lr-scheduler", "cosine", "--lr-period-updates", "30", "--lr-shrink", "1"),
]


def test_networks_of_cells_go_on_where_their_drop_path_was(pictures: Path, tmp_path: Path) -> None:
    for name, updates in (("straight", 13), ("twice", 12), ("twice", 13)):  # the second epoch begins after 10
        assert train_darts(pictures, tmp_path / name, "--max-update", str(updates)) == 0
    assert train_darts(pictures, tmp_path / "other", "--max-update", "13", "--drop-path-epochs", "4") == 0
    one, twice, other = (weights(tmp_path / name / LAST) for name in ("straight", "twice", "other"))
    for name in one:
        assert torch.equal(one[name], twice[name]), name
    assert not torch.equal(one["head.linear.weight"], other["head.linear.weight"])


def test_a_network_of_timm_is_trained_and_evaluated(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "timm", stand_in())
    noise = ["--arch", "timm:tiny_net", "--drop-path", "0.4", "--dropout", "0.2", "--max-update", "2"]
    for plan in ("stacked", "looped"):
        assert train(pictures, tmp_path / plan, *noise, "--plan", plan) == 0
    one, other = (weights(tmp_path / plan / LAST) for plan in ("stacked", "looped"))
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=1e-5, msg=name)
    capsys.readouterr()
    assert run(evaluate, [str(pictures), "--path", str(tmp_path / "looped" / LAST), "--cpu"]) == 0
    assert "Top-1: " in capsys.readouterr().out
    for more, message in (
        (["--arch", "timm:tiny_nett"], "--arch 'timm:tiny_nett': timm 1.0 has no such network; the closest are"),
        (
            ["--arch", "timm:tiny_net", "--layers", "3"],
            "--layers has no place in --arch timm:tiny_net",
        ),
        (["--arch", "timm:tiny_net", "--manifold-mixup", "1"], "--manifold-mixup mixes at places that --arch timm:"),
        (["--arch", "timm:tiny_net", "--drop-path-epochs", "3"], "--drop-path-epochs is for DARTS, AmoebaNet and NASN"),
        (["--arch", "timm:tiny_net", "--ghost-batch", "3"], "--ghost-batch 3 must divide --batch-size 8"),
    ):
        assert message in last_complaint(capsys, train(pictures, tmp_path / "none", *more))


def test_a_run_goes_on_under_another_plan_with_the_same_gradient(pictures: Path, tmp_path: Path) -> None:
    for name, plans in (("same", ("stacked", "stacked")), ("other", ("stacked", "looped"))):
        for plan, updates in zip(plans, ("1", "2"), strict=True):
            assert train(pictures, tmp_path / name, "--max-update", updates, "--plan", plan, "--ghost-batch", "4") == 0
    one, other = weights(tmp_path / "same" / LAST), weights(tmp_path / "other" / LAST)
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=1e-5, msg=name)


def test_the_arms_have_the_same_updates_and_rates(pictures: Path, tmp_path: Path) -> None:
    rates = []
    for arm in ("baseline", "fixed-samples", "ba"):
        log = tmp_path / f"{arm}.jsonl"
        folder = tmp_path / arm
        assert train(pictures, folder, "--arm", arm, "--max-update", "12", "--log-file", str(log), "--no-save") == 0
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        told = [line for line in lines if line["event"] == "train"]
        rates.append([line["lr"] for line in told])
        unique, processed = {"baseline": (8, 8), "fixed-samples": (16, 16), "ba": (8, 16)}[arm]
        assert (told[0]["unique_images"], told[0]["processed_images"]) == (unique, processed)
    assert rates[0] == rates[1] == rates[2]
    assert rates[0] == pytest.approx([0.05] * 10 + [0.005] * 2)


def test_a_checkpoint_says_what_it_is(image_run: Path) -> None:
    loaded = load_model(image_run / BEST, task="image_classification")
    assert loaded.cfg["task"]["images"]["cutout"] == 8
    assert loaded.task_state["classes"] == 10
    settings = json.loads((image_run / "run.json").read_text())
    assert settings["parameters"] == sum(weight.numel() for weight in loaded.model.parameters())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--valid-subset", "valid"], "--valid-subset test"),
        (["--ghost-batch", "1"], "--ghost-batch 1 leaves batch normalisation one image"),
        (["--batch-size", "1"], "--batch-size 1 leaves batch normalisation one image"),
        (["--ghost-batch", "3"], "--ghost-batch 3 must divide --batch-size 8"),
        (["--dropout", "0.1"], "--dropout has no place in --arch resnet8: wide_resnet28_10, vgg16_bn, alexnet have"),
        (["--layers", "3"], "--layers has no place in --arch resnet8: darts, darts_v1, amoebanet, nasnet_a have one"),
        (["--drop-path-epochs", "3"], "--drop-path-epochs is for DARTS, AmoebaNet and NASNet with --drop-path"),
        (["--arch", "darts", "--image-size", "16"], "image_size is 16; the auxiliary head needs one of 32, 36, 40"),
        (["--arch", "darts"], "say with --drop-path-epochs, or --max-epoch, how many"),
        (["--conv-init", "fan-in"], "--conv-init has no place in --arch resnet8: densenet_bc100_12 has one"),
        (["--weight-decay-on", "weights-not-depthwise"], "for networks with depthwise convolutions (mobilenet_v1)"),
        (["--weight-decay", "0", "--weight-decay-until", "3"], "--weight-decay-until is of a decay that there isn't"),
        (["--weight-decay-unit", "update"], "--weight-decay-unit belongs to --weight-decay-until"),
        (
            ["--weight-decay-until", "3", "--update-freq", "1,2", "--lr-drop-unit", "update"],
            "--weight-decay-unit epoch needs one --update-freq for all epochs",
        ),
        (["--max-tokens", "100"], "--max-tokens belongs to --task translation"),
        (["--lr-scheduler", "vaswani"], "--lr has no effect on"),
        (["--best-checkpoint-metric", "ppl"], "ppl belongs to --task translation or language_modeling"),
        (["--best-checkpoint-metric", "top1"], "top1 needs --maximize-best-checkpoint-metric"),
        (["--arch", "awd_lstm"], "--arch awd_lstm is not for --task image_classification"),
        (["--train-subset", "validation"], "has no split 'validation'"),
    ],
)
def test_what_does_not_fit_is_refused(
    more: list[str], message: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in last_complaint(capsys, train(pictures, tmp_path, "--max-update", "1", *more))


@pytest.mark.parametrize(("unit", "until"), [("epoch", "1"), ("update", "10")])
def test_the_decay_ends_at_the_same_update_in_every_arm_and_after_going_on(
    unit: str, until: str, pictures: Path, tmp_path: Path
) -> None:
    more = ["--weight-decay", "0.5", "--weight-decay-until", until, "--weight-decay-unit", unit]
    for arm in ("baseline", "fixed-samples", "ba"):  # an epoch of the baseline has 10 updates
        ends = [("straight", "12", more), ("twice", "11", more), ("twice", "12", more), ("never", "12", more[:2])]
        for name, updates, options in ends:
            folder = tmp_path / arm / name
            assert train(pictures, folder, "--arm", arm, "--max-update", updates, *options) == 0
        straight, twice, never = (weights(tmp_path / arm / name / LAST) for name in ("straight", "twice", "never"))
        assert all(torch.equal(straight[name], twice[name]) for name in straight)
        name = "stages.0.stem.conv.weight"
        assert not torch.equal(straight[name], never[name])
        assert train(pictures, tmp_path / arm / "early", "--arm", arm, "--max-update", "10", *more) == 0
        assert train(pictures, tmp_path / arm / "early never", "--arm", arm, "--max-update", "10", *more[:2]) == 0
        early = [weights(tmp_path / arm / folder / LAST) for folder in ("early", "early never")]
        assert all(torch.equal(early[0][name], early[1][name]) for name in early[0])


def test_averaged_weights_are_refused(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [word for word in RESNET if word not in ("--momentum", "0.9")]
    arguments[arguments.index("sgd")] = "nt_asgd"
    status = run(main, [str(pictures), "--save-dir", str(tmp_path), *arguments, "--max-update", "1"])
    assert "nt_asgd averages weights, but not what batch normalisation has gathered" in last_complaint(capsys, status)


def test_options_of_images_are_refused_elsewhere(
    alphabet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(alphabet), "--save-dir", str(tmp_path), "--task", "language_modeling", "--lr", "1"]
    status = run(main, [*arguments, "--max-tokens", "4096", "--cutout", "16"])
    assert "--cutout belongs to --task image_classification" in last_complaint(capsys, status)
    status = run(
        main,
        [*arguments, "--max-tokens", "4096", "--best-checkpoint-metric", "top1", "--maximize-best-checkpoint-metric"],
    )
    assert "top1 belongs to --task image_classification" in last_complaint(capsys, status)


def test_going_on_with_another_hold_out_is_refused(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(pictures, tmp_path, "--max-update", "1") == 0
    status = train(pictures, tmp_path, "--max-update", "2", "--hold-out", "8")
    assert "can't go on with --hold-out 8 (it had 0)" in last_complaint(capsys, status)


def test_going_on_with_another_decay_leaves_the_momentum_behind(
    pictures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert train(pictures, tmp_path, "--max-update", "1") == 0
    assert train(pictures, tmp_path, "--max-update", "2", "--weight-decay-on", "all") == 0
    assert "had --weight-decay-on weights: its averages are left behind" in caplog.text


def test_a_folder_of_small_pictures_is_trained_on_as_cifar_is(tmp_path: Path) -> None:
    for number, path in enumerate(sorted(write_folders(tmp_path / "pictures").rglob("*.png"))):
        picture(24, 24, seed=number).save(path)
    (tmp_path / "pictures" / "test.bin").touch()
    more = ["--batch-size", "3", "--valid-subset", "val", "--max-epoch", "1"]
    assert train(tmp_path / "pictures", tmp_path / "run", *more) == 0
    assert json.loads((tmp_path / "run" / "run.json").read_text())["task_state"]["image_size"] == 24
    arguments = [str(tmp_path / "pictures"), "--gen-subset", "val", "--path", str(tmp_path / "run" / BEST), "--cpu"]
    assert run(evaluate, arguments) == run(evaluate, [*arguments, "--tta", "2"]) == 0
