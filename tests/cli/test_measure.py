"""seqba-measure and seqba-advise: from a checkpoint to numbers, a picture and a recommendation."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from commands import last_complaint
from measured_runs import FEW, TINY, trained

from seqba.checkpoints.file import read_checkpoint, write_checkpoint
from seqba.cli.advise import main as advise
from seqba.cli.command import run
from seqba.cli.measure import main as measure


@pytest.fixture(scope="module")
def streams(alphabet: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An AWD-LSTM that does."""
    folder = tmp_path_factory.mktemp("streams")
    sizes = [
        "--decoder-embed-dim",
        "8",
        "--decoder-hidden-size",
        "10",
        "--batch-size",
        "4",
        "--bptt",
        "12",
        "--lr",
        "1",
        "--optimizer",
        "sgd",
    ]
    common = ["--arch", "awd_lstm", "--cpu", "--max-update", "3", "--log-format", "none"]
    return trained(alphabet, folder, "--task", "language_modeling", *common, *sizes)


@pytest.fixture(scope="module")
def translator(reversal: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Transformer that learns to turn words round."""
    folder = tmp_path_factory.mktemp("translator")
    encoder = [word.replace("decoder", "encoder") for word in TINY[:8]]
    return trained(reversal, folder, *TINY, *encoder, "--max-tokens", "100", "--lr", "0.01")


@pytest.fixture(scope="module")
def classifier(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that learns colours."""
    folder = tmp_path_factory.mktemp("classifier")
    options = ["--arch", "resnet8", "--batch-size", "8", "--valid-subset", "test", "--lr", "0.05", "--optimizer", "sgd"]
    rest = ["--cpu", "--max-update", "2", "--log-format", "none", "--cutout", "8"]
    return trained(pictures, folder, "--task", "image_classification", *options, *rest)


@pytest.fixture(scope="module")
def cells(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of searched cells, with drop path and an auxiliary head."""
    folder = tmp_path_factory.mktemp("cells")
    options = ["--arch", "darts", "--init-channels", "2", "--layers", "3", "--drop-path", "0.4"]
    rest = ["--drop-path-epochs", "2", "--batch-size", "8", "--valid-subset", "test", "--lr", "0.05"]
    last = ["--optimizer", "sgd", "--cpu", "--max-update", "2", "--log-format", "none"]
    return trained(pictures, folder, "--task", "image_classification", *options, *rest, *last)


def test_a_table_json_and_a_picture_come_of_a_checkpoint(
    alphabet: Path, blocks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    json_file, picture = tmp_path / "split.json", tmp_path / "worth.svg"
    arguments = [str(alphabet), "--path", str(blocks), *FEW, "--json", str(json_file), "--plot", str(picture)]
    assert run(measure, arguments) == 0
    printed, errors = capsys.readouterr()
    assert errors.splitlines()[-1].startswith("warning: standard errors are of the examples too, and fewer than 10")
    told = json.loads(json_file.read_text())
    split = told["split"]
    first = printed.splitlines()[0]
    assert first.startswith(f"transformer_lm, {told['parameters']:,} parameters, update 3: 6 examples of train under 2")
    assert f"{split['noise']['value']:.4g} ± {split['noise']['standard_error']:.2g}" in printed
    assert (told["updates"], told["unit"], split["examples"], split["draws"]) == (3, "tokens", 6, 2)
    assert list(told["correlations"]) == ["clean_view", "views", "other_example"]
    assert len(told["correlations"]["views"]["values"]) == 4
    assert f"{told['correlations']['views']['median']:6.3f}" in printed
    texts = {"".join(node.itertext()).strip() for node in ElementTree.fromstring(picture.read_text()).iter()}  # noqa: S314 - ours
    assert {"copies (M)", "worth in examples (M = 1 is 1)", "infinitely many copies"} <= texts


def test_a_loss_that_compares_copies_has_no_gradient_of_one(
    alphabet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rdrop = ["--criterion", "label_smoothed_cross_entropy_with_rdrop", "--rdrop-alpha", "1"]
    sizes = ["--tokens-per-sample", "12", "--max-tokens", "60", "--lr", "0.01"]
    path = trained(alphabet, tmp_path, "--task", "language_modeling", *TINY, *sizes, *rdrop)
    told = last_complaint(capsys, run(measure, [str(alphabet), "--path", str(path), *FEW]))
    assert "was trained with --rdrop-alpha, whose loss compares the copies of an example" in told


@pytest.mark.parametrize(("arm", "is_told"), [("ba", True), ("baseline", False)])
def test_copies_that_began_at_a_fork_are_measured_from_the_input_on_and_that_is_said(
    arm: str, is_told: bool, alphabet: Path, blocks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = read_checkpoint(blocks)
    state["cfg"]["training"]["grid"] |= {"fork": "layer-1", "arm": arm}
    write_checkpoint(tmp_path / "forked.pt", state)
    assert run(measure, [str(alphabet), "--path", str(tmp_path / "forked.pt"), *FEW, "--pairs", "0"]) == 0
    assert (
        "was trained with --fork layer-1, and these are copies from the input on" in capsys.readouterr().err
    ) is is_told


@pytest.mark.parametrize(
    ("model", "data", "kinds"),
    [
        ("streams", "alphabet", ["clean_view", "views", "other_example"]),
        ("translator", "reversal", ["clean_view", "views", "other_example"]),
        ("classifier", "pictures", ["clean_view", "views", "same_class", "other_class"]),
        ("cells", "pictures", ["clean_view", "views", "same_class", "other_class"]),
    ],
)
def test_every_task_is_measured_and_advised_on(
    model: str,
    data: str,
    kinds: list[str],
    tmp_path: Path,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, folder, file = request.getfixturevalue(model), request.getfixturevalue(data), tmp_path / "split.json"
    arguments = [str(folder), "--path", str(path), *FEW, "--json", str(file)]
    if model == "cells":  # of one picture the auxiliary head's last norm has a single value, which has no variance
        assert "try --batch-norm running" in last_complaint(capsys, run(measure, arguments))
        arguments += ["--batch-norm", "running"]
    assert run(measure, arguments) == 0
    told = json.loads(file.read_text())
    assert list(told["correlations"]) == kinds
    assert told["split"]["noise"]["value"] > 0
    capsys.readouterr()
    assert run(advise, [str(file), "--cpu", "--copies", "2", "--timed-updates", "1"]) == 0
    printed = capsys.readouterr().out
    if model == "classifier":
        assert printed.startswith("An update of 8 examples;")


def test_drop_path_is_that_of_the_update_not_the_one_at_the_end(pictures: Path, cells: Path, tmp_path: Path) -> None:
    noise = {}
    for name, updates, share in (("none", 2, 0.0), ("first", 2, 0.4), ("second", 1000, 0.4)):
        state = read_checkpoint(cells)
        state["optimizer_history"][-1]["num_updates"] = updates
        state["cfg"]["model"]["options"]["drop_path"] = share
        path, file = tmp_path / f"{name}.pt", tmp_path / name
        write_checkpoint(path, state)
        arguments = [str(pictures), "--path", str(path), *FEW, "--pairs", "0", "--batch-norm", "running"]
        assert run(measure, [*arguments, "--json", str(file)]) == 0
        noise[name] = json.loads(file.read_text())["split"]["noise"]["value"]
    assert noise["none"] == noise["first"] != noise["second"]  # it is 0 throughout the first epoch


def test_measuring_twice_is_the_same_and_new_weights_are_other_ones(
    alphabet: Path, blocks: Path, measured: Path, tmp_path: Path
) -> None:
    splits = []
    for name, more in (("again", []), ("fresh", ["--fresh"]), ("seed", ["--seed", "2"])):
        file = tmp_path / name
        assert run(measure, [str(alphabet), "--path", str(blocks), *FEW, "--json", str(file), *more]) == 0
        splits.append(json.loads(file.read_text()))
    first = json.loads(measured.read_text())
    assert splits[0]["split"] == first["split"]
    assert splits[0]["correlations"] == first["correlations"]
    assert (splits[1]["updates"], splits[1]["fresh"]) == (0, True)
    assert splits[1]["split"]["noise"] != first["split"]["noise"] != splits[2]["split"]["noise"]


def test_cutout_is_another_noise(pictures: Path, classifier: Path, tmp_path: Path) -> None:
    noise = {}
    for side in ("0", "8", ""):
        arguments = [
            str(pictures),
            "--path",
            str(classifier),
            *FEW,
            *(["--cutout", side] if side else []),
            "--json",
            str(tmp_path / f"{side}.json"),
        ]
        assert run(measure, arguments) == 0
        noise[side] = json.loads((tmp_path / f"{side}.json").read_text())["split"]["noise"]["value"]
    assert noise["0"] != noise["8"] == noise[""]  # it was trained with 8


def test_fewer_examples_than_asked_for_are_all_and_that_is_said(
    pictures: Path, classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(pictures), "--path", str(classifier), "--gen-subset", "test", "--draws", "2", "--cpu"]
    assert run(measure, [*arguments, "--examples", "50", "--pairs", "0", "--json", str(tmp_path / "json")]) == 0
    output = capsys.readouterr()
    assert output.err.splitlines()[-1] == "warning: test has 20 examples, fewer than --examples 50"
    assert json.loads((tmp_path / "json").read_text())["split"]["examples"] == 20


def test_the_noise_above_a_place_that_is_not_there_is_refused(
    alphabet: Path, blocks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(alphabet), "--path", str(blocks), *FEW, "--fork", "layer-9"]
    assert "--fork layer-9 has no place in" in last_complaint(capsys, run(measure, arguments))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--path", "nowhere.pt"], "nowhere.pt does not exist"),
        (["--examples", "1"], "--examples is 1; it must be at least 2"),
        (["--draws", "1"], "--draws is 1; it must be at least 2"),
        (["--cutout", "4"], "--cutout is for pictures"),
        (["--gen-subset", "nothing"], "nothing"),
        (["--plot", "worth.gif"], "worth.gif can't be drawn"),
        (["--theme", "dark"], "--theme belongs to --plot"),
        (
            ["--json", "no/such/folder/split.json"],
            "--json no/such/folder/split.json can't be written: there is no folder",
        ),
        (["--batch-norm", "other"], "--batch-norm"),
        (["--batch-norm", "running"], "--batch-norm is for networks with batch norms; that of"),
    ],
)
def test_what_can_not_be_measured_is_refused(
    more: list[str], message: str, alphabet: Path, blocks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = run(measure, [str(alphabet), "--path", str(blocks), *FEW, *more])
    assert message in last_complaint(capsys, status)


@pytest.mark.parametrize("flag", ["--json", "--plot"])
def test_a_folder_that_takes_no_file_is_told_before_anything_is_measured(
    flag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)
    status = run(measure, ["nowhere", "--path", "nowhere.pt", flag, str(tmp_path / "worth.svg")])
    assert f"worth.svg can't be written: no permission to write into {tmp_path}" in last_complaint(capsys, status)


def test_other_data_than_the_models_are_refused(
    pictures: Path, blocks: Path, classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from alphabet import write_alphabet

    other = write_alphabet(tmp_path / "other", letters=["x", "y", "z"])
    status = run(measure, [str(other), "--path", str(blocks), *FEW])
    assert "was trained with other dictionaries, languages or classes" in last_complaint(capsys, status)
    status = run(measure, [str(tmp_path / "nowhere"), "--path", str(classifier), *FEW])
    assert "there is no folder" in last_complaint(capsys, status)
    status = run(measure, [str(pictures), *FEW])
    assert "--path is missing" in last_complaint(capsys, status)


def test_weights_that_are_not_finite_are_told(
    alphabet: Path, blocks: Path, measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = read_checkpoint(blocks)
    next(iter(state["model"].values())).fill_(float("nan"))
    write_checkpoint(tmp_path / "broken.pt", state)
    status = run(measure, [str(alphabet), "--path", str(tmp_path / "broken.pt"), *FEW])
    assert "can't be measured: a gradient is not finite" in last_complaint(capsys, status)
    status = run(advise, [str(measured), "--path", str(tmp_path / "broken.pt"), "--cpu"])
    assert "the loss is not finite" in last_complaint(capsys, status)


def test_no_picture_without_matplotlib_is_told_before_any_work(
    alphabet: Path, blocks: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    status = run(measure, [str(alphabet), "--path", str(blocks), *FEW, "--plot", "worth.svg"])
    assert "pip install 'seqba[plot]'" in last_complaint(capsys, status)
