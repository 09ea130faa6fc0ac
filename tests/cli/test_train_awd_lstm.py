"""seqba-train and seqba-eval-lm with the AWD-LSTM: going on, averaged weights, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import last_complaint
from lstm_runs import LSTM, score, train

from seqba.checkpoints.file import read_checkpoint
from seqba.checkpoints.model import load_model
from seqba.cli.average_checkpoints import main as average_checkpoints
from seqba.cli.command import run
from seqba.cli.eval_lm import main as evaluate
from seqba.cli.train import main
from seqba.models.awd_lstm import AWDLSTM
from seqba.training.folder import BEST, LAST

pytestmark = pytest.mark.usefixtures("one_thread")


def state_of(folder: Path) -> dict[str, Any]:
    return read_checkpoint(folder / LAST)


# Averaging from the second of the validations on: nonmono 0, and a rate at which the loss soon rises.
AVERAGING = ["--nonmono", "0", "--validate-interval-updates", "2", "--lr", "40", "--clip-norm", "1"]


@pytest.mark.parametrize("stop", [3, 5, 8])
@pytest.mark.parametrize("more", [[], AVERAGING])
def test_going_on_equals_never_having_stopped(more: list[str], stop: int, alphabet: Path, tmp_path: Path) -> None:
    for name, updates in (("straight", 12), ("twice", stop), ("twice", 12)):
        # A limit validates too, which the trigger sees: let it come where a validation is due anyway.
        assert (
            train(alphabet, tmp_path / name, "--max-update", str(updates), *more, "--validate-interval-updates", "1")
            == 0
        )
    one, other = state_of(tmp_path / "straight"), state_of(tmp_path / "twice")
    for part in ("model", "raw_model"):
        assert (one[part] is None) == (other[part] is None)
        for name in one[part] or {}:
            assert torch.equal(one[part][name], other[part][name]), name
    for ours, theirs in zip(*(s["extra_state"]["trainer"]["carried"]["shards"][0] for s in (one, other)), strict=True):
        assert torch.equal(ours, theirs)
    assert (one["raw_model"] is not None) == bool(more)


def test_a_run_goes_on_under_another_plan_with_the_same_gradient(alphabet: Path, tmp_path: Path) -> None:
    for name, plans in (("same", ("stacked", "stacked")), ("other", ("stacked", "looped"))):
        for plan, updates in zip(plans, ("4", "8"), strict=True):
            assert train(alphabet, tmp_path / name, "--max-update", updates, "--plan", plan) == 0
    one, other = (state_of(tmp_path / name)["model"] for name in ("same", "other"))
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=1e-6)


def test_fraternal_dropout_draws_copies_together(alphabet: Path, tmp_path: Path) -> None:
    for kappa in ("0", "5"):
        more = ["--consistency", kappa, "--copies", "3", "--dropout", "0.3", "--optimizer", "sgd"]
        assert train(alphabet, tmp_path / kappa, "--max-update", "20", "--plan", "stacked", *more) == 0
    logs = ((tmp_path / kappa / "log.jsonl").read_text().splitlines() for kappa in ("0", "5"))
    plain, together = ([json.loads(line) for line in log] for log in logs)
    assert "distance" not in plain[0]
    updates = [line for line in together if line["event"] == "train"]
    assert updates[-1]["distance"] > 0
    assert updates[0]["loss"] > updates[0]["nll"]
    assert "distance" not in next(line for line in together if line["event"] == "valid")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--copies", "1"], "--consistency compares the copies of an example, and --arm ba with --copies 1 has one"),
        (["--rdrop-alpha", "1"], "--rdrop-alpha belongs to"),
    ],
)
def test_copies_can_be_drawn_together_where_there_are_several(
    more: list[str], message: str, alphabet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in last_complaint(capsys, train(alphabet, tmp_path, "--consistency", "0.15", *more))


def test_averages_are_the_model_and_the_raw_weights_are_beside_them(
    alphabet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    assert train(alphabet, tmp_path, "--max-update", "12", *AVERAGING) == 0
    captured = capsys.readouterr()
    assert "averaging the weights from update" in caplog.text
    state = state_of(tmp_path)
    averages = [part["ax"] for part in state["last_optimizer_state"]["state"].values()]
    for average, weight, raw in zip(averages, state["model"].values(), state["raw_model"].values(), strict=True):
        assert torch.equal(average, weight)
        assert not torch.equal(weight, raw)
    # The validation's figure is that of the averaged weights, which is what seqba-eval-lm finds in the file.
    told = [json.loads(line) for line in captured.out.splitlines() if '"valid"' in line][-1]
    arguments = [str(alphabet), "--path", str(tmp_path / LAST), "--gen-subset", "valid", "--batch-size", "2", "--cpu"]
    assert evaluate([*arguments, "--quiet"]) == 0
    assert float(capsys.readouterr().out.split()[-1]) == pytest.approx(told["ppl"], abs=0.01)


def test_a_checkpoint_says_what_it_is(alphabet: Path, tmp_path: Path) -> None:
    assert train(alphabet, tmp_path, "--max-update", "2", "--weight-noise", "shared") == 0
    loaded = load_model(tmp_path / BEST, task="language_modeling")
    assert isinstance(loaded.model, AWDLSTM)
    assert loaded.cfg["model"]["options"]["weight_noise"] == "shared"
    assert loaded.cfg["task"]["streams"] == {
        "bptt": 20, "activation_regularization": 2.0, "temporal_activation_regularization": 1.0,
    }  # fmt: skip


@pytest.mark.parametrize("arm", ["baseline", "fixed-samples", "ba"])
def test_arms_and_optimizers_of_the_other_task(arm: str, alphabet: Path, tmp_path: Path) -> None:
    more = ["--arm", arm, "--max-update", "3", "--optimizer", "adam", "--lr", "1e-3", "--adam-betas", "0.9,0.98"]
    assert train(alphabet, tmp_path, *more) == 0
    micro_batches = state_of(tmp_path)["extra_state"]["trainer"]["carried"]["shards"]
    assert (len(micro_batches), micro_batches[0][0].shape[0]) == {
        "baseline": (1, 4),
        "fixed-samples": (2, 4),
        "ba": (1, 8),
    }[arm]


@pytest.mark.parametrize("optimizer", ["sgd", "nt_asgd"])
def test_the_transformer_trains_with_sgd(optimizer: str, alphabet: Path, tmp_path: Path) -> None:
    arguments = [str(alphabet), "--save-dir", str(tmp_path), "--task", "language_modeling", "--cpu", "--lr", "0.5"]
    sizes = ["--decoder-layers", "1", "--decoder-embed-dim", "8", "--decoder-ffn-embed-dim", "8"]
    more = ["--decoder-attention-heads", "2", "--tokens-per-sample", "24", "--max-tokens", "96", "--max-update", "3"]
    assert main([*arguments, *sizes, *more, "--optimizer", optimizer]) == 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--tokens-per-sample", "20"], "--tokens-per-sample belongs to"),
        (["--encoder-layers", "2"], "--encoder-layers belongs to"),
        (["--max-tokens", "100"], "--max-tokens belongs to --task translation, or --task language_modeling --arch tr"),
        (["--weights", "1"], "--weights belongs to --task translation"),
        (["--sentence-avg"], "--sentence-avg belongs to --task translation"),
        (["--required-batch-size-multiple", "8"], "--required-batch-size-multiple belongs to --task translation"),
        (["--skip-invalid-size-inputs-valid-test"], "belongs to --task translation"),
        (["--momentum", "0.9"], "--momentum belongs to --optimizer sgd, not nt_asgd"),
        (["--optimizer", "sgd", "--nonmono", "3"], "--nonmono belongs to --optimizer nt_asgd, not sgd"),
        (["--adam-eps", "1e-9"], "--adam-eps belongs to --optimizer adam, not nt_asgd"),
        (["--dropouth", "1"], "--hidden-dropout is 1; it must be less than 1"),
        (["--weight-noise", "none"], "invalid choice: 'none'"),
        (["--batch-size", "4000"], "too few to cut into 4000 streams of at least 2: lower --batch-size, and"),
        (["--batch-size-valid", "400"], "too few to cut into 400 streams of at least 2: lower --batch-size-valid"),
        (["--update-freq", "1,400"], "too few to cut into 1600 streams"),
        (["--optimizer", "sgd", "--adam-eps", "1e-8"], "--adam-eps belongs to --optimizer adam, not sgd"),
    ],
)
def test_mistakes_are_one_line(
    more: list[str], message: str, alphabet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in last_complaint(capsys, train(alphabet, tmp_path, "--max-update", "1", *more))


def test_running_text_of_a_data_bin_with_weights_is_refused(
    alphabet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Path(shutil.copytree(alphabet, tmp_path / "bin"))
    (data / "train.weights").write_text("2\n")
    complaint = last_complaint(capsys, train(data, tmp_path / "run", "--max-update", "1"))
    assert f"{data}/train.weights mixes texts by weights, which --arch awd_lstm can't" in complaint


def test_streams_belong_to_recurrent_models(alphabet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(alphabet), "--save-dir", str(tmp_path), "--task", "language_modeling", "--lr", "1", "--bptt", "9"]
    assert "--bptt belongs to" in last_complaint(capsys, run(main, [*arguments, "--max-tokens", "99"]))


@pytest.mark.parametrize(
    ("more", "named"),
    [(["--bptt", "30"], "--bptt 30 (it had 20)"), (["--batch-size", "5"], "--batch-size 5 (it had 4)")],
)
def test_other_streams_in_the_same_folder_are_refused(
    more: list[str], named: str, alphabet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(alphabet, tmp_path, "--max-update", "1")
    assert named in last_complaint(capsys, train(alphabet, tmp_path, "--max-update", "2", *more))


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--weight-noise", "shared"], "--weight-noise shared (it had per-copy)"),
        (["--wdrop", "0.1"], "--weight-dropout 0.1 (it had 0.5)"),
        (["--alpha", "1"], "--activation-regularization 1.0 (it had 2.0)"),
        (["--beta", "0"], "--temporal-activation-regularization 0.0 (it had 1.0)"),
        (["--nonmono", "3"], "--nonmono 3 (it had 5)"),
    ],
)
def test_what_moves_the_weights_may_change_on_the_way_and_is_told(
    more: list[str], told: str, alphabet: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(alphabet, tmp_path, "--max-update", "1")
    assert train(alphabet, tmp_path, "--max-update", "2", *more) == 0
    assert told in caplog.text


def test_the_first_validation_split_is_what_the_trigger_sees(
    alphabet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--valid-subset", "test,valid", "--validate-interval-updates", "1", "--max-update", "3"]
    assert train(alphabet, tmp_path, *more) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if '"valid"' in line]
    losses = [line["loss"] for line in lines if line["subset"] == "test"]
    assert state_of(tmp_path)["extra_state"]["trainer"]["trigger"]["losses"] == pytest.approx(losses, rel=1e-5)


def test_the_papers_schedule_goes_by_the_embedding(
    alphabet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = LSTM.index("--lr")
    arguments = [str(alphabet), "--save-dir", str(tmp_path), *LSTM[:place], *LSTM[place + 2 :]]
    schedule = ["--lr-scheduler", "vaswani", "--warmup-updates", "10", "--max-update", "1"]
    assert run(main, [*arguments, *schedule]) == 0
    line = json.loads(capsys.readouterr().out.splitlines()[0])
    length = line["unique_tokens"] / 4
    assert line["lr"] == pytest.approx(8**-0.5 * 10**-1.5 * length / 20, rel=1e-4)


OPTIMIZERS = {
    "adam": ["--optimizer", "adam", "--lr", "1e-3"],
    "sgd": ["--optimizer", "sgd", "--momentum", "0.5"],
    "unfired": ["--optimizer", "nt_asgd", "--nonmono", "9"],
    "fired": AVERAGING,
}


@pytest.mark.parametrize("second", OPTIMIZERS)
@pytest.mark.parametrize("first", OPTIMIZERS)
def test_any_optimizer_goes_on_from_any_other(
    first: str, second: str, alphabet: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kinds = {"unfired": "nt_asgd", "fired": "nt_asgd"}
    assert train(alphabet, tmp_path, "--max-update", "8", *OPTIMIZERS[first]) == 0
    before = state_of(tmp_path)["model"]
    assert train(alphabet, tmp_path, "--max-update", "14", *OPTIMIZERS[second]) == 0
    after = state_of(tmp_path)
    assert any(not torch.equal(before[name], after["model"][name]) for name in before)
    left_behind = kinds.get(first, first) != kinds.get(second, second)
    assert ("its averages are left behind" in caplog.text) == left_behind
    if left_behind:
        assert f"--optimizer {kinds.get(second, second)} (it had {kinds.get(first, first)})" in caplog.text
        assert (after["raw_model"] is not None) == (second == "fired")


def test_resets_begin_again_with_averaged_weights_and_without_a_past(alphabet: Path, tmp_path: Path) -> None:
    assert train(alphabet, tmp_path / "a", "--max-update", "12", *AVERAGING) == 0
    averaged = state_of(tmp_path / "a")["model"]
    more = ["--restore-file", str(tmp_path / "a" / LAST), "--reset-optimizer", "--reset-dataloader", "--copies", "3"]
    # One update from the averaged weights at a rate that moves nothing.
    still = ["--optimizer", "nt_asgd", "--nonmono", "9", "--lr", "1e-30", "--max-update", "13"]
    assert train(alphabet, tmp_path / "b", *more, *still) == 0
    state = state_of(tmp_path / "b")
    assert state["raw_model"] is None
    for name, weight in averaged.items():
        assert torch.equal(state["model"][name], weight)
    assert state["extra_state"]["trainer"]["carried"]["shards"][0][0].shape[0] == 12


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("raw_model", {}),
        ("raw_model", {"embedding.weight": torch.zeros(2)}),
        ("carried", {"shards": [[torch.zeros(3, 12)]]}),
        ("carried", {"shards": [[torch.zeros(8, 12, dtype=torch.int64)]]}),
        ("carried", {"shards": [[torch.tensor(1.0)]]}),
        ("carried", {"shards": [None]}),
        ("trigger", {"losses": [None], "has_fired": True}),
        ("ax", torch.zeros(3)),
        ("ax", None),
        ("ax", "text"),
    ],
)
def test_a_damaged_part_is_one_line(
    part: str, value: Any, alphabet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(alphabet, tmp_path, "--max-update", "12", *AVERAGING) == 0
    state = state_of(tmp_path)
    if part == "raw_model":
        state["raw_model"] = value
    elif part == "ax":
        state["last_optimizer_state"]["state"][0].update(ax=value)
    else:
        state["extra_state"]["trainer"][part] = value
    torch.save(state, tmp_path / LAST)
    capsys.readouterr()
    told = last_complaint(capsys, train(alphabet, tmp_path, "--max-update", "13", *AVERAGING))
    assert str(tmp_path / LAST) in told


def test_averaged_checkpoints_hold_one_set_of_weights(alphabet: Path, tmp_path: Path) -> None:
    assert train(alphabet, tmp_path, "--max-update", "12", *AVERAGING) == 0
    output = tmp_path / "averaged.pt"
    assert average_checkpoints(["--inputs", str(tmp_path / LAST), str(tmp_path / BEST), "--output", str(output)]) == 0
    state = read_checkpoint(output)
    assert "raw_model" not in state
    assert state["extra_state"]["trainer"]["carried"] is None
    assert score(alphabet, output, "--quiet") == 0
