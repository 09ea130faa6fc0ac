"""seqba-measure and seqba-advise: from a checkpoint to numbers, a picture and a recommendation."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from commands import last_complaint

from seqba.checkpoints.file import read_checkpoint, write_checkpoint
from seqba.cli.advise import main as advise
from seqba.cli.command import run
from seqba.cli.measure import main as measure
from seqba.cli.train import main as train
from seqba.models import graphs
from seqba.nn.kernels.casts import shared_cast
from seqba.tasks.language_modeling import LanguageModeling
from seqba.training.folder import LAST

TINY = [
    *("--decoder-layers", "1", "--decoder-embed-dim", "16", "--decoder-ffn-embed-dim", "16"),
    *("--decoder-attention-heads", "2", "--cpu", "--max-update", "3", "--log-format", "none"),
]
FEW = ["--examples", "6", "--draws", "2", "--pairs", "4", "--cpu"]

pytestmark = pytest.mark.usefixtures("one_thread")


def trained(data: Path, folder: Path, *arguments: str) -> Path:
    assert run(train, [str(data), "--save-dir", str(folder), *arguments]) == 0
    return folder / LAST


@pytest.fixture(scope="module")
def blocks(alphabet: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Transformer that learns the alphabet."""
    folder = tmp_path_factory.mktemp("blocks")
    sizes = ["--tokens-per-sample", "12", "--max-tokens", "60", "--lr", "0.01", "--dropout", "0.2"]
    return trained(alphabet, folder, "--task", "language_modeling", *TINY, *sizes, "--update-freq", "2")


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


@pytest.fixture(scope="module")
def measured(alphabet: Path, blocks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What was measured of the Transformer on the alphabet."""
    file = tmp_path_factory.mktemp("measured") / "split.json"
    assert measure([str(alphabet), "--path", str(blocks), *FEW, "--json", str(file)]) == 0
    return file


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


def test_updates_are_timed_and_advised_on(measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "advice.json"
    before = read_checkpoint(json.loads(measured.read_text())["path"])["model"]
    assert run(advise, [str(measured), "--cpu", "--copies", "2,4", "--timed-updates", "2", "--json", str(file)]) == 0
    printed = capsys.readouterr().out
    told = json.loads(file.read_text())
    assert [row["copies"] for row in told["copies"]] == [1, 2, 4]
    assert set(told["costs"]) == {"stacked", "looped"}
    assert all(seconds > 0 for seconds in told["costs"]["looped"]["seconds_per_update"].values())
    assert told["batch_examples"] == pytest.approx(2 * 60 / 12, rel=0.2)  # --update-freq × --max-tokens / block
    assert told["advice"][-1] in printed
    after = read_checkpoint(json.loads(measured.read_text())["path"])["model"]
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_timed_updates_are_those_of_the_training(
    precision: str, measured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = read_checkpoint(json.loads(measured.read_text())["path"])
    state["cfg"]["training"]["optimisation"][precision] = True
    state["cfg"]["training"]["run"]["checkpoint_activations"] = True
    write_checkpoint(tmp_path / "other.pt", state)
    seen = []

    def loss(task: LanguageModeling, model: Any, batch: Any) -> Any:
        is_shared = shared_cast(model.output_weight, torch.bfloat16) is not None
        seen.append((model.layers[0].recomputes, is_shared, torch.is_autocast_enabled("cpu")))
        return real(task, model, batch)

    real = LanguageModeling.loss
    monkeypatch.setattr(LanguageModeling, "loss", loss)
    arguments = ["--path", str(tmp_path / "other.pt"), "--cpu", "--copies", "2", "--timed-updates", "1"]
    assert run(advise, [str(measured), *arguments]) == 0
    assert set(seen) == {(True, True, True)}


def test_a_machine_that_cant_compile_is_told_where_the_training_did(
    measured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    state = read_checkpoint(json.loads(measured.read_text())["path"])
    state["cfg"]["training"]["run"]["compile"] = True
    write_checkpoint(tmp_path / "compiled.pt", state)

    def refuse(*_: Any, **__: Any) -> Any:
        raise RuntimeError("No working C++ compiler found")

    monkeypatch.setattr(torch, "compile", refuse)
    graphs._compiled.cache_clear()
    status = run(advise, [str(measured), "--path", str(tmp_path / "compiled.pt"), "--cpu", "--copies", "2"])
    assert "--compile: torch can't compile for this machine's cpu" in last_complaint(capsys, status)


def test_updates_that_fork_are_timed_beside_whole_copies(
    measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "advice.json"
    arguments = ["--copies", "2", "--timed-updates", "1", "--fork", "layer-1", "--noise-above", "0.75"]
    assert run(advise, [str(measured), "--cpu", *arguments, "--json", str(file)]) == 0
    assert "average 75% of the noise" in capsys.readouterr().out
    costs = json.loads(file.read_text())["costs"]
    assert {name: costs[name]["noise_above"] for name in costs} == {
        "stacked": 1.0,
        "looped": 1.0,
        "stacked, layer-1": 0.75,
        "looped, layer-1": 0.75,
    }


def test_the_noise_above_a_fork_is_measured_and_advised_by(
    alphabet: Path, blocks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, advice = tmp_path / "split.json", tmp_path / "advice.json"
    arguments = [str(alphabet), "--path", str(blocks), *FEW, "--fork", "layer-1", "--json", str(file)]
    assert run(measure, arguments) == 0
    told = json.loads(file.read_text())
    share = told["noise_above"]["value"]
    assert told["fork"] == "layer-1"
    assert 0.2 < share < 1
    assert f"share of S_w above --fork layer-1            {share:.4g} ± " in capsys.readouterr().out
    timed = [str(file), "--cpu", "--copies", "2", "--timed-updates", "1", "--fork", "layer-1"]
    assert run(advise, [*timed, "--json", str(advice)]) == 0
    assert json.loads(advice.read_text())["costs"]["looped, layer-1"]["noise_above"] == share


def test_the_noise_above_a_place_that_is_not_there_is_refused(
    alphabet: Path, blocks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(alphabet), "--path", str(blocks), *FEW, "--fork", "layer-9"]
    assert "--fork layer-9 has no place in" in last_complaint(capsys, run(measure, arguments))


def test_a_file_of_options_names_both_what_is_read_and_what_is_written(measured: Path, tmp_path: Path) -> None:
    (tmp_path / "advise.toml").write_text(
        f"measured = '{measured}'\njson = '{tmp_path / 'advice.json'}'\ntimes = '1:1,2:2'\nbatch-examples = 10\n",
        encoding="utf-8",
    )
    assert run(advise, ["--config", str(tmp_path / "advise.toml")]) == 0
    assert json.loads((tmp_path / "advice.json").read_text())["measured"] == str(measured)


def test_times_may_be_given_instead(measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    times = ["--times", "1:1.0,2:1.01,4:1.02", "--batch-examples", "1"]
    assert run(advise, [str(measured), *times, "--copies", "2,4"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("An update of 1 examples;")
    assert " 1.02 " in printed
    assert "On this device" in printed


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


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--times", "1:2"], "--times needs --batch-examples"),
        (["--times", "1:2", "--batch-examples", "3", "--path", "x"], "--path is for timing"),
        (["--times", "half", "--batch-examples", "3"], "write it like 1:0.52,4:1.9"),
        (["--times", "2:1", "--batch-examples", "3"], "no time of an update at M = 1"),
        (["--times", "1:-1", "--batch-examples", "3"], "times must be positive"),
        (["--copies", "0"], "--copies is 0"),
        (
            ["--fork", "layer-1"],
            "doesn't say which share of the noise is above --fork layer-1: measure with seqba-measure --fork",
        ),
        (["--noise-above", "0.5"], "--noise-above belongs to --fork"),
        (["--fork", "encoder", "--noise-above", "0.5"], "--fork encoder has no place in"),
        (
            ["--times", "1:2", "--batch-examples", "3", "--fork", "layer-1", "--noise-above", "0.5"],
            "--fork is for timing",
        ),
        (["--json", "no/such/folder/advice.json"], "can't be written: there is no folder no/such/folder"),
        (["--update-freq", "1000"], "micro-batches, not the 1000 of an update"),
    ],
)
def test_what_can_not_be_advised_on_is_refused(
    more: list[str], message: str, measured: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in last_complaint(capsys, run(advise, [str(measured), "--cpu", *more]))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"split": {"signal": 1}}', "not json", '{"split": null}'])
def test_a_file_that_is_no_measurement_is_refused(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file.json").write_text(text, encoding="utf-8")
    status = run(advise, [str(tmp_path / "file.json")])
    assert "is not what seqba-measure --json writes" in last_complaint(capsys, status)
    status = run(advise, [str(tmp_path / "nowhere.json")])
    assert "write one with seqba-measure --json" in last_complaint(capsys, status)


@pytest.mark.filterwarnings("default")
def test_what_the_library_warns_of_is_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As of copies that nothing makes different: without a path and a line of the code."""
    monkeypatch.setattr("seqba.cli.jobs.advise.print_advice", lambda *_: warnings.warn("no noise", stacklevel=1))
    assert run(advise, ["split.json"]) == 0
    assert capsys.readouterr().err == "warning: no noise\n"


def test_advice_without_a_checkpoint_asks_for_one(
    measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told: dict[str, Any] = json.loads(measured.read_text())
    del told["path"]
    (tmp_path / "split.json").write_text(json.dumps(told), encoding="utf-8")
    status = run(advise, [str(tmp_path / "split.json")])
    assert "names no checkpoint and data: give --path and --data, or --times" in last_complaint(capsys, status)


def test_no_picture_without_matplotlib_is_told_before_any_work(
    alphabet: Path, blocks: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    status = run(measure, [str(alphabet), "--path", str(blocks), *FEW, "--plot", "worth.svg"])
    assert "pip install 'seqba[plot]'" in last_complaint(capsys, status)
