from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from commands import same, train_complaint, weights
from preloaded import preloaded
from reversal import train_arguments, write_reversal

from seqba.checkpoints.file import read_checkpoint, write_checkpoint
from seqba.checkpoints.model import load_model
from seqba.cli.average_checkpoints import main as average
from seqba.cli.command import run
from seqba.cli.train import main
from seqba.models.embedding import sinusoids
from seqba.noise.sites import KEY_VERSION
from seqba.training.folder import LAST

pytestmark = pytest.mark.usefixtures("one_thread")


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

    told = train_complaint(arguments("on", "--restore-file", mean), capsys)
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


def test_fp16_is_bfloat16_on_a_cpu(reversal: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    for flag in ("--fp16", "--amp", "--bf16"):
        assert main([*train_arguments(reversal, tmp_path / flag), "--max-update", "2", flag]) == 0
    assert caplog.messages.count("--fp16 is bfloat16 on a CPU") == 2
    assert same(tmp_path / "--fp16" / LAST, tmp_path / "--bf16" / LAST)
    assert same(tmp_path / "--amp" / LAST, tmp_path / "--bf16" / LAST)


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
    told = train_complaint(arguments("older", 6, "--first-position", "2"), capsys)
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
    assert set(state["cfg"]) == {"task", "model", "training", "fingerprints", "key_version", "version"}


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
    assert (line["best"], line["best_of"]) == (line["bleu"], "bleu")
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


def test_a_broken_last_checkpoint_is_told_and_kept(
    reversal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = train_arguments(reversal, tmp_path, "--max-update", "2")
    main(arguments)
    capsys.readouterr()
    whole = (tmp_path / LAST).read_bytes()
    (tmp_path / LAST).unlink()
    (tmp_path / LAST).write_bytes(whole[:1000])
    assert "is truncated or not a checkpoint" in train_complaint(arguments, capsys)
    assert (tmp_path / LAST).read_bytes() == whole[:1000]


def test_another_grid_in_the_same_folder_is_refused(
    reversal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = train_arguments(reversal, tmp_path, "--max-update", "2")
    main(arguments)
    capsys.readouterr()
    for more, named in ((["--copies", "4"], "--copies 4 (it had 2)"), (["--max-tokens", "99"], "--max-tokens 99")):
        assert named in train_complaint([*arguments, *more], capsys)
    assert "--encoder-ffn-embed-dim" in train_complaint([*arguments, "--encoder-ffn-embed-dim", "64"], capsys)
