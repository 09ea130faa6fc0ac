"""seqba-eval-image on pictures: figures, test-time augmentation, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from alphabet import write_alphabet
from commands import last_complaint
from picture_runs import train
from toy_images import write_coloured_cifar

from seqba.cli.command import run
from seqba.cli.eval_image import main as evaluate
from seqba.cli.train import main
from seqba.training.folder import BEST, LAST

pytestmark = pytest.mark.usefixtures("one_thread")


def test_evaluation_prints_what_training_saw(
    image_run: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [json.loads(line) for line in (image_run / "log.jsonl").read_text().splitlines()]
    valid = [line for line in lines if line["event"] == "valid"][-1]
    arguments = [str(pictures), "--path", str(image_run / LAST), "--cpu", "--quiet", "--batch-size", "7"]
    assert evaluate(arguments) == 0
    expected = f"Top-1: {valid['top1']:.2f}%, Top-5: {valid['top5']:.2f}%, Loss (nats): {valid['nll']:.4f}"
    assert capsys.readouterr().out.strip() == expected


def test_views_are_averaged_and_the_same_again(
    image_run: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    losses = []
    for more in (["--tta", "5"], ["--tta", "5"], ["--tta", "5", "--seed", "2"], ["--tta", "1"]):
        assert evaluate([str(pictures), "--path", str(image_run / BEST), "--cpu", *more]) == 0
        told = capsys.readouterr().out
        assert told.startswith(f"Evaluated 20 images in {more[1]} random views")
        losses.append(float(told.split()[-1]))
    assert losses[0] == losses[1] != losses[2]
    assert losses[3] != losses[0]


def test_predictions_are_printed_one_a_line(
    image_run: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate([str(pictures), "--path", str(image_run / BEST), "--cpu", "--output-predictions"]) == 0
    *lines, _, summary = capsys.readouterr().out.splitlines()
    rows = [line.split("\t") for line in lines]
    assert [(row[0], row[1]) for row in rows] == [(str(number), f"class{number % 10}") for number in range(20)]
    right = sum(label == likeliest for _, label, likeliest, _ in rows)
    assert summary.startswith(f"Top-1: {100 * right / 20:.2f}%")
    assert all(0.1 <= float(row[3]) <= 1 for row in rows)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--gen-subset", "train2"], "has no split 'train2'"),
        (["--gen-subset", "held-out"], "has no split 'held-out'"),
        (["--quiet", "--output-predictions"], "exclude each other"),
        (["--tta-average", "logits"], "--tta-average belongs to --tta, which is 0"),
        (["--tta-cutout", "8"], "--tta-cutout belongs to --tta, which is 0"),
        (["--tta", "2", "--tta-cutout", "1"], "--tta-cutout 1 would blank nothing"),
        (["--tta", "2", "--tta-average", "votes"], "'votes'"),
    ],
)
def test_an_evaluation_that_can_not_be_is_refused(
    more: list[str], message: str, image_run: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = run(evaluate, [str(pictures), "--path", str(image_run / BEST), "--cpu", *more])
    assert message in last_complaint(capsys, status)


def test_other_classes_are_refused(image_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = write_coloured_cifar(tmp_path / "other")
    names = (other / "batches.meta.txt").read_text().splitlines()
    (other / "batches.meta.txt").write_text("\n".join(reversed(names)) + "\n")
    status = run(evaluate, [str(other), "--path", str(image_run / BEST), "--cpu"])
    assert "was trained on other classes than those of" in last_complaint(capsys, status)


def test_views_are_averaged_as_asked(image_run: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    losses = {}
    for more in ("", "--tta-average probabilities", "--tta-average logits", "--tta-cutout 0", "--tta-cutout 8"):
        assert evaluate([str(pictures), "--path", str(image_run / BEST), "--cpu", "--tta", "3", *more.split()]) == 0
        losses[more] = float(capsys.readouterr().out.split()[-1])
    assert losses[""] == losses["--tta-average probabilities"] == losses["--tta-cutout 0"]
    # The model was trained with cutout; without it its views are easier.
    assert len({losses[""], losses["--tta-average logits"], losses["--tta-cutout 8"]}) == 3


@pytest.mark.filterwarnings("ignore:nothing drew noise")
def test_equal_views_are_not_averaged(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(pictures, tmp_path, "--max-update", "1", "--augmentation", "none", "--cutout", "0") == 0
    capsys.readouterr()
    status = run(evaluate, [str(pictures), "--path", str(tmp_path / BEST), "--tta", "3", "--cpu"])
    assert "was trained without any noise" in last_complaint(capsys, status)
    assert train(pictures, tmp_path / "blank", "--max-update", "1", "--augmentation", "none") == 0
    capsys.readouterr()
    arguments = [str(pictures), "--path", str(tmp_path / "blank" / BEST), "--tta", "3", "--cpu"]
    status = run(evaluate, arguments)
    assert "was trained with no noise but cutout: add --tta-cutout" in last_complaint(capsys, status)
    assert run(evaluate, [*arguments, "--tta-cutout", "8"]) == 0


def test_a_checkpoint_of_another_task_is_refused(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_alphabet(tmp_path / "data-bin")
    arguments = [
        str(data),
        "--save-dir",
        str(tmp_path),
        "--task",
        "language_modeling",
        "--lr",
        "1",
        "--max-update",
        "1",
    ]
    model = ["--decoder-layers", "1", "--decoder-embed-dim", "8", "--decoder-ffn-embed-dim", "8", "--cpu"]
    sizes = ["--decoder-attention-heads", "2", "--tokens-per-sample", "16", "--max-tokens", "64"]
    assert run(main, [*arguments, *model, *sizes]) == 0
    capsys.readouterr()
    status = run(evaluate, [str(pictures), "--path", str(tmp_path / BEST), "--cpu"])
    assert "is not of an image classification run; it is of language_modeling: use seqba-eval-lm" in last_complaint(
        capsys, status
    )
