from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from commands import weights
from preloaded import preloaded
from reversal import train_arguments, write_reversal

from seqba.checkpoints.file import read_checkpoint, write_checkpoint
from seqba.checkpoints.model import load_model
from seqba.cli.average_checkpoints import main as average
from seqba.cli.command import run
from seqba.cli.fairseq_train import UNSUPPORTED
from seqba.cli.flags import Off
from seqba.cli.train import COMMON, SOME, build_parser, main, read_config
from seqba.models.embedding import sinusoids
from seqba.models.families import FAMILIES
from seqba.models.options import TransformerLMOptions, TransformerOptions
from seqba.noise.noise import KEY_VERSION
from seqba.tasks.registry import VARIANTS
from seqba.tasks.text_options import BlockOptions, TranslationOptions
from seqba.training.folder import LAST

pytestmark = pytest.mark.usefixtures("one_thread")


def same(first: Path, second: Path) -> bool:
    one, other = weights(first), weights(second)
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def complaint(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr of a command that must fail with status 2."""
    assert run(main, arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def start(arguments: list[str]) -> subprocess.Popen[str]:
    """The command in a process of its own."""
    code = "import sys; from seqba.cli.train import entry; sys.argv[0] = 'seqba-train'; entry()"
    return subprocess.Popen(
        [preloaded().python, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def wait_for_update(process: subprocess.Popen[str], update: int) -> None:
    """Reads the process's JSON lines up to that update."""
    assert process.stdout is not None
    for line in process.stdout:
        told = json.loads(line)
        if told["event"] == "train" and told["update"] >= update:
            return
    raise AssertionError(process.communicate()[1])


def test_a_run_leaves_checkpoints_and_what_was_resolved(
    reversal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = train_arguments(reversal, tmp_path, "--max-update", "12", "--save-interval-updates", "6")
    assert main([*arguments, "--update-freq", "2", "--log-file", str(tmp_path / "log.jsonl")]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        "checkpoint_last.pt",
        "checkpoint_best.pt",
        "checkpoint_1_6.pt",
        "checkpoint1.pt",
        "checkpoint_2_12.pt",
        "config.toml",
        "log.jsonl",
        "run.json",
    }
    resolved = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    kept = read_checkpoint(tmp_path / LAST)["cfg"]
    assert resolved["key_version"] == kept["key_version"] == KEY_VERSION
    assert resolved["model"]["options"]["first_position"] == kept["model"]["options"]["first_position"] == 2
    resolved = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert (resolved["seed"], resolved["arm"], resolved["copies"], resolved["micro_batches_per_update"]) == (
        1,
        "ba",
        2,
        [2],
    )
    assert resolved["model"]["options"]["encoder_embed_dim"] == 16
    assert resolved["model"]["options"]["max_source_positions"] == 1024
    assert resolved["training"]["schedule"]["lr"] == 0.01
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["event"], line["update"]) for line in lines] == [
        *(("train", 5), ("valid", 6), ("valid", 8), ("train", 10), ("valid", 12), ("train", 12))
    ]
    assert load_model(tmp_path / LAST).updates == 12


def write_older(path: Path, target: Path) -> None:
    """The checkpoint as versions wrote it in which positions could only begin at 0."""
    state = read_checkpoint(path)
    assert state["cfg"]["model"]["options"].pop("first_position") == 0
    del state["cfg"]["key_version"]
    target.parent.mkdir(exist_ok=True)
    write_checkpoint(target, state)


def test_an_average_is_gone_on_from_as_its_message_says(
    reversal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(train_arguments(reversal, tmp_path / "run", "--max-update", "4", "--save-interval-updates", "2")) == 0
    mean = str(tmp_path / "mean.pt")
    inputs = [str(tmp_path / "run" / f"checkpoint_1_{updates}.pt") for updates in (2, 4)]
    assert average(["--inputs", *inputs, "--output", mean]) == 0
    capsys.readouterr()

    def arguments(name: str, *more: str) -> list[str]:
        return train_arguments(reversal, tmp_path / name, "--max-update", "4", *more)

    told = complaint(arguments("on", "--restore-file", mean), capsys)
    assert "mean.pt has no optimizer state, as an average of checkpoints has none" in told
    assert "--reset-optimizer" in told
    assert f"--finetune-from-model {mean}" in told
    assert main(arguments("on", "--restore-file", mean, "--reset-optimizer", "--save-interval-updates", "1")) == 0
    assert {path.name for path in (tmp_path / "on").glob("checkpoint_1_*.pt")} == {
        "checkpoint_1_3.pt",
        "checkpoint_1_4.pt",
    }
    assert main(arguments("anew", "--finetune-from-model", mean, "--save-interval-updates", "1")) == 0
    assert len(list((tmp_path / "anew").glob("checkpoint_1_*.pt"))) == 4


@pytest.mark.parametrize("flags", [["--curriculum", "4"], ["--adaptive-input"], ["--offload-activations"]])
def test_usual_options_of_fairseq_say_what_to_do(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert "leave it out" in complaint(["data-bin", "--lr", "1", *flags], capsys)


def test_a_run_without_validation_needs_no_split_for_it(reversal: Path, tmp_path: Path) -> None:
    data = tmp_path / "data-bin"
    shutil.copytree(reversal, data)
    for path in data.glob("valid.*"):
        path.unlink()
    arguments = train_arguments(data, tmp_path / "run", "--max-update", "4", "--save-interval-updates", "2")
    assert main([*arguments, "--disable-validation"]) == 0
    assert {path.name for path in (tmp_path / "run").glob("*.pt")} == {
        "checkpoint_last.pt",
        "checkpoint_1_2.pt",
        "checkpoint_1_4.pt",
    }
    lines = (tmp_path / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    assert {json.loads(line)["event"] for line in lines} == {"train"}


def test_min_lr_is_the_former_name_of_stop_min_lr(
    reversal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    schedule = ["--lr-scheduler", "inverse_sqrt", "--warmup-updates", "1", "--max-update", "9", "--no-save"]
    arguments = [*train_arguments(reversal, tmp_path, *schedule), "--min-lr", "0.0055"]
    assert main(arguments) == 0
    assert caplog.messages[-1] == "done after update 3: --stop-min-lr 0.0055"
    capsys.readouterr()
    assert "--min-lr is the former name of --stop-min-lr" in complaint([*arguments, "--stop-min-lr", "1e-9"], capsys)


def test_fp16_is_bfloat16_on_a_cpu(reversal: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    for flag in ("--fp16", "--amp", "--bf16"):
        assert main([*train_arguments(reversal, tmp_path / flag), "--max-update", "2", flag]) == 0
    assert caplog.messages.count("--fp16 is bfloat16 on a CPU") == 2
    assert same(tmp_path / "--fp16" / LAST, tmp_path / "--bf16" / LAST)
    assert same(tmp_path / "--amp" / LAST, tmp_path / "--bf16" / LAST)


RDROP = ["--criterion", "label_smoothed_cross_entropy_with_rdrop", "--rdrop-alpha", "5"]


def test_rdrop_takes_two_copies_in_one_pass_unless_told_otherwise(reversal: Path, tmp_path: Path) -> None:
    arguments = train_arguments(reversal, tmp_path)
    place = arguments.index("--copies")
    untold = [*arguments[:place], *arguments[place + 2 :], *RDROP]
    for given, copies in ((untold, 2), ([*arguments, "--copies", "3", *RDROP], 3)):
        grid = read_config(build_parser().parse(given)).training.grid
        assert (grid.copies, grid.plan) == (copies, "stacked")
    assert main([*untold, "--max-update", "5"]) == 0
    line = json.loads((tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert line["divergence"] > 0
    assert line["processed_tokens"] == 2 * line["unique_tokens"]


def test_rdrops_option_is_twice_the_general_one(reversal: Path, tmp_path: Path) -> None:
    smoothed = ["--criterion", "label_smoothed_cross_entropy", "--consistency", "2.5"]
    for name, loss in {"rdrop": RDROP, "consistency": smoothed}.items():
        arguments = [*train_arguments(reversal, tmp_path / name), "--copies", "3", "--label-smoothing", "0.1"]
        assert main([*arguments, *loss, "--max-update", "2"]) == 0
    one, other = (read_checkpoint(tmp_path / name / LAST)["model"] for name in ("rdrop", "consistency"))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("plan", ["looped", "auto", "2"])
def test_rdrop_makes_the_same_weights_in_every_plan(plan: str, reversal: Path, tmp_path: Path) -> None:
    made = []
    for each in ("stacked", plan):
        arguments = [*train_arguments(reversal, tmp_path / each), *RDROP, "--copies", "3", "--update-freq", "2"]
        assert main([*arguments, "--optimizer", "sgd", "--dropout", "0.3", "--plan", each, "--max-update", "4"]) == 0
        state = read_checkpoint(tmp_path / each / LAST)["model"]
        made.append(torch.cat([weight.flatten() for weight in state.values()]))
    assert float((made[1] - made[0]).norm() / made[0].norm()) < 1e-5


@pytest.mark.parametrize("place", ["encoder", "decoder-layer-1"])
def test_rdrop_compares_copies_that_begin_inside_the_network(place: str, reversal: Path, tmp_path: Path) -> None:
    arguments = [*train_arguments(reversal, tmp_path), *RDROP, "--copies", "3", "--fork", place]
    assert main([*arguments, "--decoder-layers", "2", "--max-update", "5"]) == 0
    line = json.loads((tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert line["divergence"] > 0
    assert line["processed_tokens"] == 3 * line["unique_tokens"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--copies", "1"], "--rdrop-alpha compares the copies of an example, and --arm ba with --copies 1 has one"),
        (["--arm", "baseline"], "and --arm baseline with --copies 2 has one: give --copies 2"),
        (
            ["--criterion", "label_smoothed_cross_entropy"],
            "--rdrop-alpha has no effect on label_smoothed_cross_entropy",
        ),
        (
            ["--measure-every", "5"],
            "gradients of single copies, which --rdrop-alpha makes depend on each other: leave one out",
        ),
        (["--shard-params"], "--rdrop-alpha excludes --shard-params"),
    ],
)
def test_rdrop_needs_copies_to_compare(
    more: list[str], message: str, reversal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in complaint([*train_arguments(reversal, tmp_path), *RDROP, *more], capsys)


def test_validation_needs_both_sides(reversal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data-bin"
    shutil.copytree(reversal, data)
    for path in data.glob("valid.xx-yy.yy.*"):
        path.unlink()
    told = complaint(train_arguments(data, tmp_path / "run", "--max-update", "1"), capsys)
    assert "split 'valid' of" in told
    assert "has no references" in told


def test_older_checkpoints_keep_positions_that_begin_at_0(
    reversal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def arguments(name: str, updates: int, *more: str) -> list[str]:
        return train_arguments(reversal, tmp_path / name, "--max-update", str(updates), *more)

    assert main(arguments("straight", 6, "--first-position", "0")) == 0
    assert main(arguments("half", 3, "--first-position", "0")) == 0
    write_older(tmp_path / "half" / LAST, tmp_path / "older" / LAST)
    write_older(tmp_path / "straight" / LAST, tmp_path / "read.pt")
    assert main(arguments("older", 6)) == 0
    assert same(tmp_path / "straight" / LAST, tmp_path / "older" / LAST)
    for path in (tmp_path / "read.pt", tmp_path / "older" / LAST):
        embedding = load_model(path).model.source_embedding
        assert torch.equal(embedding.positions[0], sinusoids(1, 16, 0)[0])
    assert main(arguments("tuned", 1, "--finetune-from-model", str(tmp_path / "read.pt"))) == 0
    assert read_checkpoint(tmp_path / "tuned" / LAST)["cfg"]["model"]["options"]["first_position"] == 0
    capsys.readouterr()
    told = complaint(arguments("older", 6, "--first-position", "2"), capsys)
    assert "--first-position 2 (it had 0)" in told
    assert main(arguments("new", 1)) == 0
    assert torch.equal(load_model(tmp_path / "new" / LAST).model.source_embedding.positions[0], sinusoids(1, 16, 2)[0])


def test_a_checkpoint_has_fairseqs_keys(reversal: Path, tmp_path: Path) -> None:
    main(train_arguments(reversal, tmp_path, "--max-update", "3"))
    state = torch.load(tmp_path / LAST, weights_only=True)
    assert set(state) == {
        *("args", "cfg", "model", "optimizer_history", "task_state", "extra_state", "last_optimizer_state"),
        "raw_model",
    }
    assert state["args"] is None
    assert state["optimizer_history"][0]["num_updates"] == 3
    assert state["extra_state"]["train_iterator"]["iterations_in_epoch"] == 3
    assert state["extra_state"]["best"] == state["extra_state"]["val_loss"]
    assert set(state["cfg"]) == {"task", "model", "training", "key_version", "version"}


@pytest.mark.parametrize(
    ("arm", "micro_batches", "copies"), [("baseline", 1, 1), ("fixed-samples", 3, 1), ("ba", 1, 3)]
)
def test_arms_see_what_they_should(
    arm: str, micro_batches: int, copies: int, reversal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([*train_arguments(reversal, tmp_path, "--max-update", "5"), "--copies", "3", "--arm", arm])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    told = next(line for line in lines if line["event"] == "train")
    assert told["processed_tokens"] == copies * told["unique_tokens"]
    assert told["unique_tokens"] / 5 == pytest.approx(micro_batches * 135, rel=0.25)


@pytest.mark.parametrize("plan", ["auto", "stacked", "looped"])
@pytest.mark.parametrize("first", [4, 11])
def test_going_on_equals_never_having_stopped(plan: str, first: int, reversal: Path, tmp_path: Path) -> None:
    common = ["--plan", plan, "--lr-scheduler", "inverse_sqrt", "--warmup-updates", "5", "--attention-dropout", "0.1"]
    main([*train_arguments(reversal, tmp_path / "straight", "--max-update", "15"), *common])
    for updates in (first, 15):
        main([*train_arguments(reversal, tmp_path / "twice", "--max-update", str(updates)), *common])
    assert same(tmp_path / "straight" / LAST, tmp_path / "twice" / LAST)


def test_layers_that_are_computed_again_give_the_same_weights(reversal: Path, tmp_path: Path) -> None:
    """With the noise on, under R-Drop, where copies begin inside, and in updates that are measured."""
    rdrop = ["--criterion", "label_smoothed_cross_entropy_with_rdrop", "--rdrop-alpha", "5"]
    for number, more in enumerate([rdrop, ["--fork", "encoder"], ["--measure-every", "2", "--bf16"]]):
        one, other = tmp_path / f"{number}", tmp_path / f"{number} again"
        assert main(train_arguments(reversal, one, *more, "--max-update", "3")) == 0
        assert main(train_arguments(reversal, other, *more, "--max-update", "3", "--checkpoint-activations")) == 0
        assert same(one / LAST, other / LAST)


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
    line = complaint(train_arguments(data, tmp_path / "own", "--max-update", "9"), capsys)
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
    assert message.format(data=two_texts) in complaint([*arguments, *more], capsys)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_asked_to_stop_it_finishes_the_update_and_goes_on_later(
    number: signal.Signals, status: int, reversal: Path, tmp_path: Path
) -> None:
    process = start(train_arguments(reversal, tmp_path / "stopped"))  # without a limit
    wait_for_update(process, 20)
    process.send_signal(number)
    _, errors = process.communicate()
    assert process.returncode == status, errors
    assert f"stopped by {number.name} after update" in errors
    assert "Traceback" not in errors
    updates = load_model(tmp_path / "stopped" / LAST).updates
    assert updates >= 20
    for name in ("stopped", "straight"):
        main(train_arguments(reversal, tmp_path / name, "--max-update", str(updates + 10)))
    assert same(tmp_path / "straight" / LAST, tmp_path / "stopped" / LAST)


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on_from_its_last_checkpoint(reversal: Path, tmp_path: Path) -> None:
    more = ["--save-interval-updates", "7", "--keep-interval-updates", "2"]
    for update in (10, 40):
        process = start(train_arguments(reversal, tmp_path / "killed", *more))
        wait_for_update(process, update)
        time.sleep(0.013)  # into whatever comes next: an update, a validation, a write
        process.kill()
        process.communicate()
    updates = load_model(tmp_path / "killed" / LAST).updates
    for name in ("killed", "straight"):
        main(train_arguments(reversal, tmp_path / name, *more, "--max-update", str(updates + 10)))
    assert same(tmp_path / "straight" / LAST, tmp_path / "killed" / LAST)
    assert same(tmp_path / "straight" / "checkpoint_best.pt", tmp_path / "killed" / "checkpoint_best.pt")
    kept = [
        sorted(path.name for path in (tmp_path / run_).glob("checkpoint_[0-9]*")) for run_ in ("straight", "killed")
    ]
    assert kept[0] == kept[1]


@pytest.mark.slow
def test_the_toy_language_is_learned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_reversal(tmp_path / "data", longest=4, splits={"train": 2000, "valid": 100})
    arguments = [
        *(str(data), "--save-dir", str(tmp_path / "run"), "--cpu", "--arch", "transformer_tiny"),
        *("--encoder-layers", "1", "--decoder-layers", "1", "--dropout", "0.1", "--share-all-embeddings"),
        *("--max-tokens", "500", "--copies", "2", "--max-update", "300", "--clip-norm", "1", "--log-format", "json"),
        *("--lr-scheduler", "inverse_sqrt", "--lr", "0.01", "--warmup-updates", "50", "--adam-betas", "0.9,0.98"),
        *("--criterion", "label_smoothed_cross_entropy", "--label-smoothing", "0.1", "--eval-bleu"),
        *("--eval-bleu-args", '{"beam": 1, "max_len_b": 10}', "--validate-interval", "100"),
    ]
    assert main(arguments) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    last = [line for line in lines if line["event"] == "valid"][-1]
    assert last["ppl"] < 1.5
    assert last["bleu"] > 80


def test_bleu_decides_what_is_best(reversal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--eval-bleu", "--eval-bleu-args", '{"beam": 1, "max_len_b": 8}', "--keep-best-checkpoints", "1"]
    deciding = ["--best-checkpoint-metric", "bleu", "--maximize-best-checkpoint-metric", "--max-update", "2"]
    main([*train_arguments(reversal, tmp_path), *more, *deciding])
    line = json.loads(capsys.readouterr().out.splitlines()[0])
    assert line["best"] == line["bleu"]
    assert (tmp_path / f"checkpoint.best_bleu_{line['bleu']:.3f}0.pt").exists()


def test_several_validation_splits(reversal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([*train_arguments(reversal, tmp_path), "--max-update", "1", "--valid-subset", "test,valid"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    told = [line for line in lines if line["event"] == "valid"]
    assert [line["subset"] for line in told] == ["test", "valid"]
    assert told[0]["best"] == told[0]["loss"] != told[1]["loss"]


def test_bf16_trains(reversal: Path, tmp_path: Path) -> None:
    assert main([*train_arguments(reversal, tmp_path), "--max-update", "3", "--bf16"]) == 0
    assert all(tensor.dtype == torch.float32 for tensor in weights(tmp_path / LAST).values())


def test_a_diverging_run_stops_with_a_clear_line(
    reversal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = train_arguments(reversal, tmp_path, "--max-skipped-updates", "3", "--adam-betas", "0,0")
    assert run(main, [*arguments, "--lr", "1e38", "--max-update", "50"]) == 2
    assert "no finite loss and gradient for 3 updates in a row" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--max-tokens", "0"], "--max-tokens is 0; it must be at least 1"),
        (
            ["--criterion", "label_smoothed_cross_entropy", "--label-smoothing", "1"],
            "--label-smoothing is 1; it must be less than 1",
        ),
        (["--lr", "nan"], "--lr is nan; it must be a finite number"),
        (["--lr", "inf"], "--lr is inf; it must be a finite number"),
        (["--update-freq", "1e999"], "is not a list of whole numbers"),
        (["--seed", "9" * 30], "it must be at most"),
        (["--copies", "9" * 20], "it must be at most 2147483647"),
        (["--copies", "two"], "argument --copies: 'two' is neither a number nor a schedule like 1:0,4:2000"),
        (["--update-freq", "1.5"], "not a list of whole numbers"),
        (["--adam-betas", "a,b"], "not a list of numbers"),
        (["--plan", "sideways"], "--plan is 'sideways'"),
        (["--arch", "resnet0"], "invalid choice: 'resnet0'"),
        (["--arch", "fconv"], "--arch fconv is not one here: it is a convolutional network; take a transformer"),
        (["--criterion", "adaptive_loss"], "--criterion adaptive_loss is not one here: it belongs to an adaptive"),
        (["--optimizer", "nag"], "--optimizer nag is not one here: take adam"),
        (["--fp16", "--bf16"], "give --fp16 or --bf16, not both"),
        (["--amp-init-scale", "4"], "--fp16-init-scale belongs to --fp16, which isn't given"),
        (["--disable-validation", "--patience", "3"], "--patience needs validations, and --disable-validation excl"),
        (["--task", "summarisation"], "invalid choice: 'summarisation'"),
        (["--task", "language_modeling"], "--arch transformer_tiny is not for --task language_modeling; choose one of"),
        (["--arch", "transformer_lm"], "--arch transformer_lm is not for --task translation; choose one of"),
        (["--valid-subset", "nowhere"], "nowhere"),
        (["--valid-subset", ","], "--valid-subset names no split"),
        (["--restore-file", "absent.pt"], "absent.pt does not exist"),
        (["--best-checkpoint-metric", "bleu", "--maximize-best-checkpoint-metric"], "needs --eval-bleu"),
        (["--encoder-attention-heads", "3"], "3"),
        (["--learning-rate", "1"], "unknown argument '--learning-rate'"),
        (
            ["--tokens-per-sample", "512"],
            "--tokens-per-sample belongs to --task language_modeling --arch transformer_lm (or another size of it); ",
        ),
        (["--add-bos-token"], "--add-bos-token belongs to --task language_modeling --arch transformer_lm (or another"),
        (["--bptt", "70"], "--bptt belongs to --task language_modeling --arch awd_lstm; this is --task translation"),
        (["--output-dictionary-size", "9"], "a language model predicts"),
        (["--warmup-update", "5"], "did you mean --warmup-updates?"),
    ],
)
def test_mistakes_are_one_line(
    more: list[str], message: str, reversal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = train_arguments(reversal, tmp_path / "run", "--max-update", "1")
    assert message in complaint([*arguments, *more], capsys)
    assert not list(tmp_path.glob("run/*"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--encoder-layers", "2"], "--encoder-layers belongs to --task translation; this is --task language_modeling"),
        (["-s", "en"], "--source-lang belongs to --task translation; this is"),
        (["--eval-bleu"], "--eval-bleu belongs to --task translation; this is"),
        (["--encoder-normalize-before"], "--encoder-normalize-before belongs to --task translation; this is"),
        (
            ["--best-checkpoint-metric", "bleu", "--maximize-best-checkpoint-metric"],
            "--best-checkpoint-metric bleu belongs to --task translation",
        ),
    ],
)
def test_a_language_model_refuses_what_it_would_ignore(
    more: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["data-bin", "--task", "language_modeling", "--max-tokens", "99", "--lr", "1", "--save-dir", "run"]
    assert message in complaint([*arguments, *more], capsys)


def test_a_flag_at_its_default_is_given_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    """What is refused is the flag, not a value that differs from the default."""
    line = ["data-bin", "--max-tokens", "99", "--lr", "1", "--sample-break-mode", "none"]
    assert "--sample-break-mode belongs to --task language_modeling" in complaint(line, capsys)


def test_the_task_chooses_the_architecture_and_its_options() -> None:
    common = ["data-bin", "--max-tokens", "99", "--lr", "1", "--dropout", "0.3", "--decoder-layers", "2"]
    translation = read_config(build_parser().parse(common))
    assert (translation.arch, translation.task_options) == ("transformer_wmt_en_de", TranslationOptions())
    assert translation.model == TransformerOptions(dropout=0.3, decoder_layers=2)
    more = ["--task", "language_modeling", "--tokens-per-sample", "32", "--sample-break-mode", "eos"]
    modelling = read_config(build_parser().parse([*common, *more]))
    assert modelling.arch == "transformer_lm"
    assert modelling.task_options == BlockOptions(tokens_per_sample=32, sample_break_mode="eos")
    assert modelling.model == TransformerLMOptions(dropout=0.3, decoder_layers=2)


def test_every_task_and_family_has_its_flags_and_every_flag_its_owner() -> None:
    owned = {options for variant in VARIANTS.values() for options in variant.groups.values()}
    owned |= {family.options for family in FAMILIES.values()}
    assert owned == set(SOME.values())
    assert not owned & set(COMMON.values())


def test_where_an_option_belongs_names_architectures_when_not_all_have_it(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["data-bin", "--batch-size", "9", "--lr", "1", "--task", "language_modeling"]
    # The first one on the command line is named.
    told = complaint([*arguments, "--arch", "awd_lstm", "--tokens-per-sample", "9", "--max-tokens", "99"], capsys)
    assert "--tokens-per-sample belongs to --task language_modeling --arch transformer_lm (or another size" in told
    told = complaint([*arguments, "--bptt", "70"], capsys)
    assert "--bptt belongs to --task language_modeling --arch awd_lstm; this is --task language_modeling --arch" in told


def test_a_missing_data_bin_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no data-bin" in complaint(train_arguments(tmp_path / "absent", tmp_path / "run"), capsys)
    assert "arguments are required: DATA" in complaint(["--max-tokens", "9", "--lr", "1"], capsys)


def test_a_joined_dictionary_is_needed_to_share_all_embeddings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_reversal(tmp_path / "data")
    lines = (data / "dict.yy.txt").read_text(encoding="utf-8").splitlines()
    (data / "dict.yy.txt").write_text("\n".join(lines[::-1]) + "\n", encoding="utf-8")
    assert "needs a joined dictionary" in complaint(train_arguments(data, tmp_path / "run"), capsys)


def test_a_broken_last_checkpoint_is_told_and_kept(
    reversal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = train_arguments(reversal, tmp_path, "--max-update", "2")
    main(arguments)
    capsys.readouterr()
    whole = (tmp_path / LAST).read_bytes()
    (tmp_path / LAST).unlink()
    (tmp_path / LAST).write_bytes(whole[:1000])
    assert "is truncated or not a checkpoint" in complaint(arguments, capsys)
    assert (tmp_path / LAST).read_bytes() == whole[:1000]


def test_another_grid_in_the_same_folder_is_refused(
    reversal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = train_arguments(reversal, tmp_path, "--max-update", "2")
    main(arguments)
    capsys.readouterr()
    for more, named in ((["--copies", "4"], "--copies 4 (it had 2)"), (["--max-tokens", "99"], "--max-tokens 99")):
        assert named in complaint([*arguments, *more], capsys)
    assert "--encoder-ffn-embed-dim" in complaint([*arguments, "--encoder-ffn-embed-dim", "64"], capsys)


@pytest.mark.parametrize("flag", ["--zero-sharding", "--no-reshard-after-forward"])
def test_what_micro_batches_parameters_elsewhere_names_our_option(flag: str) -> None:
    assert "--shard-params" in UNSUPPORTED[flag]


@pytest.mark.parametrize("flag", sorted(UNSUPPORTED))
def test_fairseqs_other_options_are_refused_by_name(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    message = complaint(["data-bin", "--lr", "1", flag, "1"], capsys)
    assert f"{flag} is not an option here: {UNSUPPORTED[flag]}" in message


def test_no_option_is_both_known_and_refused() -> None:
    known = {flag for action in build_parser()._actions for flag in action.option_strings}
    assert not known & set(UNSUPPORTED)


def test_fairseqs_command_line_of_a_wmt_run_is_understood() -> None:
    line = (
        "data-bin/wmt16_en_de --arch transformer_wmt_en_de --share-all-embeddings --optimizer adam "
        "--adam-betas (0.9,0.98) --clip-norm 0.0 --lr 0.0007 --lr-scheduler inverse_sqrt --warmup-updates 4000 "
        "--warmup-init-lr 1e-07 --dropout 0.1 --weight-decay 0.0 --criterion label_smoothed_cross_entropy "
        "--label-smoothing 0.1 --max-tokens 4096 --update-freq 8 --bf16 -s en -t de --max-sentences 512 --max-epoch 0 "
        "--stop-min-lr 1e-09 --keep-interval-updates -1 --keep-last-epochs -1 --patience -1 --save-interval-updates 0 "
        "--log-format simple --log-interval 100 --seed 1 --no-progress-bar --copies 4 --eval-bleu "
        "--eval-bleu-remove-bpe"
    )
    given = build_parser().parse(line.split())
    assert (given.adam_betas, given.update_freq, given.batch_size) == ((0.9, 0.98), (8,), 512)
    assert (given.source_lang, given.eval_bleu_remove_bpe, given.copies) == ("en", "subword_nmt", 4)


def test_fairseqs_command_line_of_a_language_model_is_understood() -> None:
    line = (
        "data-bin/wikitext-103 --task language_modeling --arch transformer_lm --share-decoder-input-output-embed "
        "--dropout 0.1 --optimizer adam --adam-betas (0.9,0.98) --weight-decay 0.01 --clip-norm 0.0 --lr 0.0005 "
        "--lr-scheduler inverse_sqrt --warmup-updates 4000 --warmup-init-lr 1e-07 --tokens-per-sample 512 "
        "--sample-break-mode none --max-tokens 2048 --update-freq 16 --max-update 50000 --save-dir checkpoints"
    )
    config = read_config(build_parser().parse(line.split()))
    assert (config.task, config.arch) == ("language_modeling", "transformer_lm")
    assert config.task_options == BlockOptions(tokens_per_sample=512)
    assert config.model == TransformerLMOptions(share_decoder_input_output_embed=True, dropout=0.1)


def flags_shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> set[str]:
    """Flags that `--help` explains, each at the beginning of its entry."""
    with pytest.raises(SystemExit) as stopped:
        main([*arguments])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert "transformer_lm for language_modeling" in " ".join(shown.split())
    return {flag for line in shown.splitlines() if line.startswith("  -") for flag in re.findall(r"--[\w-]+", line)}


def test_help_is_of_the_task_and_architecture_that_are_given(capsys: pytest.CaptureFixture[str]) -> None:
    common = {"--copies", "--arm", "--plan", "--update-freq", "--lr-scheduler", "--task", "--arch"}
    translation = flags_shown(capsys, "--help")
    assert translation > common | {"--source-lang", "--eval-bleu", "--encoder-layers", "--max-tokens"}
    assert not translation & {"--tokens-per-sample", "--bptt", "--crop-padding", "--num-workers", "--ddp-backend"}
    streams = flags_shown(capsys, "data-bin", "-h", "--lr", "1", "--task", "language_modeling", "--arch", "awd_lstm")
    assert streams > common | {"--bptt", "--wdrop"}
    assert not streams & {"--source-lang", "--tokens-per-sample", "--max-tokens", "--encoder-layers"}
    assert flags_shown(capsys, "--help", "all") > translation | streams
    parser = build_parser()
    actions = [action for action in parser._actions if not isinstance(action, Off)]
    every = {flag for action in actions for flag in action.option_strings if flag.startswith("--")}
    assert flags_shown(capsys, "--help", "all") >= every - set(parser.accepted)


def test_help_on_what_there_is_none_of_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--arch fconv is not one here" in complaint(["--help", "--arch", "fconv"], capsys)
    assert "--arch awd_lstm is not for --task translation" in complaint(["--help", "--arch", "awd_lstm"], capsys)
