"""Config files of training runs: written, read again, and their mistakes."""

from __future__ import annotations

import dataclasses
import re
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import torch
from commands import weights
from reversal import train_arguments

from seqba.cli.arguments import Parser
from seqba.cli.command import run
from seqba.cli.flags import Off
from seqba.cli.train import build_parser, main, read_config
from seqba.errors import UserError
from seqba.models.families import ARCHITECTURES, FAMILIES
from seqba.options import plain_options
from seqba.tasks.registry import TASKS
from seqba.training.config import RunConfig
from seqba.training.config_record import config_text
from seqba.training.folder import LAST


def resolved(config: RunConfig) -> object:
    """All that a run is made of, with the sizes of its model."""
    model = config.family.resolve(config.arch, config.variant.fit_model(config.task_options, config.model))
    return dataclasses.replace(config, model=plain_options(model))


MORE = {
    "transformer_tiny": ["--eval-bleu", "--eval-bleu-remove-bpe", "--adam-betas", "0.9,0.98", "--update-freq", "2,4"],
    "transformer": [
        *("--criterion", "label_smoothed_cross_entropy_with_rdrop", "--rdrop-alpha", "5"),
        *("--lr-scheduler", "inverse_sqrt", "--no-save", "--cpu"),
    ],
    "awd_lstm": ["--optimizer", "nt_asgd", "--weight-noise", "shared"],
    "resnet44": ["--optimizer", "sgd", "--momentum", "0.9", "--lr-scheduler", "step", "--lr-drops", "81,122"],
}


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_the_written_file_makes_the_same_run(arch: str, tmp_path: Path) -> None:
    task = next(name for name, spec in TASKS.items() if ARCHITECTURES[arch] in spec.variants)
    arguments = ['a "b":c', "--task", task, "--arch", arch, "--lr", "0.001", "--batch-size", "8", *MORE.get(arch, [])]
    config = read_config(build_parser().parse(arguments))
    model = config.family.resolve(arch, config.variant.fit_model(config.task_options, config.model))
    path = tmp_path / "config.toml"
    path.write_text(config_text(config, arch, plain_options(model)), encoding="utf-8")
    again = read_config(build_parser().parse(["--config", str(path)]))
    assert resolved(again) == resolved(config)
    named = set(re.findall(r"^(\w+) = ", path.read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert {"data", "task", "arch", "seed", "copies", "log_interval", "save_dir"} <= named
    names = {field.name for field in dataclasses.fields(FAMILIES[ARCHITECTURES[arch]].options)}
    assert {name for name in names if getattr(model, name) is not None} <= named


def test_what_toml_cannot_write_is_told_in_the_file(tmp_path: Path) -> None:
    config = read_config(build_parser().parse(["data-\udce9", "--lr", "1", "--batch-size", "8"]))
    text = config_text(config, config.arch, {})
    assert "# data = data-\\xe9 is not UTF-8, which TOML needs: give it as a flag\n" in text


@pytest.mark.usefixtures("one_thread")
def test_a_run_goes_on_from_the_file_that_it_wrote(reversal: Path, tmp_path: Path) -> None:
    ours, whole = tmp_path / "parts", tmp_path / "whole"
    more = ("--update-freq", "2", "--adam-betas", "0.9,0.98", "--warmup-updates", "4", "--lr-scheduler", "inverse_sqrt")
    assert main(train_arguments(reversal, whole, *more, "--max-update", "9")) == 0
    assert main(train_arguments(reversal, ours, *more, "--max-update", "5")) == 0
    assert main(["--config", str(ours / "config.toml"), "--max-update", "9"]) == 0
    one, other = weights(whole / LAST), weights(ours / LAST)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert "max_update = 9\n" in (ours / "config.toml").read_text(encoding="utf-8")
    assert main(["--config", str(ours / "config.toml")]) == 0  # nothing is left to do


def complaint(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    path = tmp_path / "run.toml"
    path.write_text(text, encoding="utf-8")
    assert run(main, ["data-bin", "--config", str(path), *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("batch_size = 8\nhidden_dropout = 0.1\n", "run.toml line 2) belongs to --task language_modeling"),
        ("batch_size = 8\nmomentum = 0.9\n", "run.toml line 2) belongs to --optimizer sgd, not adam"),
        ("task = 'translate'\n", "run.toml line 1: task: invalid choice: 'translate'"),
        ("optimizer = 'lamb'\n", "run.toml line 1: seqba-train: --optimizer lamb is not one here: take adam"),
        ("adaptive-input = true\n", "run.toml line 1: seqba-train: --adaptive-input is not an option here"),
        (
            "batch_size = 8\narch = 'transformer_wmt_en_de_big_t2t'\nencoder_normalize_before = false\n",
            "run.toml line 3): --arch transformer_wmt_en_de_big_t2t has it",
        ),
    ],
)
def test_a_training_names_the_line_too(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in complaint(text, tmp_path, capsys)


def test_an_option_of_fairseqs_without_effect_may_stand_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(
        "ddp-backend = 'no_c10d'\nleft-pad-source = false\nnum_workers = 4\nlr = 1\nbatch_size = 8\n", encoding="utf-8"
    )
    parsed = build_parser().parse(["data-bin", "--config", str(path)])
    read_config(parsed)
    assert set(parsed.without_effect) == {"--ddp-backend", "--left-pad-source", "--num-workers"}


def test_a_switched_off_architecture_is_refused_by_its_flag(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--lr", "1", "--arch", "transformer_wmt_en_de_big_t2t", "--no-encoder-normalize-before"]
    assert run(main, ["data-bin", *flags]) == 2
    assert "can't be switched off: --arch transformer_wmt_en_de_big_t2t has it" in capsys.readouterr().err


COMMANDS = sorted(entry.name for entry in entry_points(group="console_scripts") if entry.value.startswith("seqba."))
VALUES = ("true", "3", "0.5", "'abc'", "'a\\nb'", "[]", "[1, 2]", "['a', 'b']", "[[1], 2]", "{a = 1}")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_every_command_takes_a_value_or_says_what_it_takes(command: str, tmp_path: Path) -> None:
    parser = import_module("seqba.cli." + command.removeprefix("seqba-").replace("-", "_")).build_parser()
    path = tmp_path / "options.toml"
    for action in parser._actions:
        if action.dest in ("help", "config") or isinstance(action, Off):
            continue
        name = max(action.option_strings, key=len, default=action.dest).lstrip("-")
        told, words = [], [f"'{choice}'" for choice in action.choices or ()]
        for value in (*VALUES, *words):
            path.write_text(f"{name} = {value}\n", encoding="utf-8")
            complaint = complaint_of(parser, ["--config", str(path)])
            if complaint is not None and "arguments are required" not in complaint:
                assert complaint.startswith(f"{path} line 1: {name}")
                told.append(complaint)
        assert 3 <= len(told) < len(VALUES) + len(words), f"{name} takes whatever there is, or nothing"


def complaint_of(parser: Parser, arguments: list[str]) -> str | None:
    try:
        parser.parse(arguments)
    except UserError as error:
        return str(error)
    return None
