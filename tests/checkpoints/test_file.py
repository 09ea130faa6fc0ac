from __future__ import annotations

import errno
import io
import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from seqba.checkpoints.file import copy_checkpoint, read_checkpoint, write_checkpoint
from seqba.checkpoints.model import build_model, load_model, load_weights
from seqba.data import files
from seqba.data.partial import remove_abandoned
from seqba.errors import UserError
from seqba.models.builders import build_transformer
from seqba.models.embedding import sinusoids
from seqba.models.families import resolve_transformer, resolve_transformer_lm
from seqba.models.options import TransformerLMOptions, TransformerOptions
from seqba.models.transformer_lm import TransformerLM
from seqba.options import plain_options
from seqba.training.options import OptimisationOptions

OPTIONS = resolve_transformer(
    "transformer_tiny", TransformerOptions(encoder_layers=1, decoder_layers=1, share_all_embeddings=True)
)


@pytest.fixture
def state() -> dict[str, Any]:
    torch.manual_seed(1)
    return {
        "args": None,
        "cfg": {"model": {"arch": "transformer_tiny", "options": plain_options(OPTIONS)}, "task": {}, "training": {}},
        "model": build_transformer(OPTIONS, 20, 20).state_dict(),
        "optimizer_history": [{"num_updates": 7}],
        "task_state": {"source_vocabulary": 20, "target_vocabulary": 20},
        "extra_state": {},
        "last_optimizer_state": {},
    }


def test_a_model_comes_back_from_its_checkpoint(tmp_path: Path, state: dict[str, Any]) -> None:
    write_checkpoint(tmp_path / "a.pt", state)
    loaded = load_model(tmp_path / "a.pt")
    assert loaded.updates == 7
    assert not loaded.model.training
    weights = loaded.model.state_dict()
    assert list(weights) == list(state["model"])
    assert all(torch.equal(weights[name], tensor) for name, tensor in state["model"].items())


def test_positions_of_older_checkpoints_begin_at_0(tmp_path: Path, state: dict[str, Any]) -> None:
    language_model = resolve_transformer_lm("transformer_lm", TransformerLMOptions(decoder_layers=1))
    described = {"arch": "transformer_lm", "options": plain_options(language_model)}
    states = {
        "source_embedding": state,
        "embedding": {
            **state,
            "cfg": {"model": described},
            "model": build_model(described, {"vocabulary": 20}).state_dict(),
            "task_state": {"vocabulary": 20},
        },
    }
    for name, each in states.items():
        for first in (2, 0):
            write_checkpoint(tmp_path / "a.pt", each)
            positions = getattr(load_model(tmp_path / "a.pt").model, name).positions
            assert torch.equal(positions[0], sinusoids(1, positions.shape[1], first)[0])
            each["cfg"]["model"]["options"].pop("first_position", None)


class Interrupted:
    """A file at whose n-th write, before its first line, a signal is heard."""

    def __init__(self, file: Any, ending: BaseException, writes: int) -> None:
        self.file, self.ending, self.writes = file, ending, writes

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> Interrupted:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def write(self, data: Any) -> int:
        self.writes -= 1
        if not self.writes:
            raise self.ending
        return int(self.file.write(data))


@pytest.mark.parametrize("ending", [KeyboardInterrupt(), SystemExit(143)])
@pytest.mark.parametrize("writes", [1, 3, 20])
def test_a_signal_while_it_is_written_is_no_failure_of_the_file(
    ending: BaseException, writes: int, tmp_path: Path, state: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_checkpoint(tmp_path / "a.pt", state)
    before = (tmp_path / "a.pt").read_bytes()
    create = files.create_partial

    def interrupted(path: Path) -> tuple[Path, Any]:
        partial, file = create(path)
        return partial, Interrupted(file, ending, writes)

    monkeypatch.setattr(files, "create_partial", interrupted)
    with pytest.raises(type(ending)):
        write_checkpoint(tmp_path / "a.pt", {**state, "optimizer_history": [{"num_updates": 8}]})
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]
    assert (tmp_path / "a.pt").read_bytes() == before


def test_the_weights_are_a_plain_state_dict(tmp_path: Path, state: dict[str, Any]) -> None:
    write_checkpoint(tmp_path / "a.pt", state)
    weights = torch.load(tmp_path / "a.pt", weights_only=True)["model"]
    assert isinstance(weights, OrderedDict)
    build_transformer(OPTIONS, 20, 20).load_state_dict(weights)


@pytest.mark.parametrize("share", [0.01, 0.04, 0.15, 0.3, 0.5, 0.8, 0.999])
def test_a_truncated_file_is_told(tmp_path: Path, state: dict[str, Any], share: float) -> None:
    path = tmp_path / "a.pt"
    # Large enough that torch looks for the archive's end behind the middle of the file.
    write_checkpoint(path, {**state, "extra_state": {**state["extra_state"], "filler": torch.zeros(33_000)}})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UserError, match=r"a\.pt is truncated or not a checkpoint"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "content", [b"hello world, this is no checkpoint\n" * 9, b"\x80\x04K\x01.", b"PK\x03\x04" * 99]
)
def test_a_foreign_file_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(UserError, match=r"checkpoint .*a\.pt"):
        read_checkpoint(tmp_path / "a.pt")


class Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, ("ran",)


def test_nothing_in_a_checkpoint_is_run(tmp_path: Path, state: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({**state, "cfg": Evil()}, tmp_path / "a.pt")
    with pytest.raises(UserError, match="holds more than tensors and plain values"):
        read_checkpoint(tmp_path / "a.pt")
    assert not (tmp_path / "ran").exists()


def test_a_missing_file_or_a_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.pt does not exist"):
        read_checkpoint(tmp_path / "absent.pt")
    with pytest.raises(UserError, match="is a folder"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("key", ["model", "cfg", "task_state", "extra_state", "optimizer_history"])
def test_a_checkpoint_without_a_part_is_told(tmp_path: Path, state: dict[str, Any], key: str) -> None:
    del state[key]
    write_checkpoint(tmp_path / "a.pt", state)
    with pytest.raises(UserError, match=f"has no '{key}'"):
        read_checkpoint(tmp_path / "a.pt")


def test_other_things_that_torch_saves_are_told(tmp_path: Path, state: dict[str, Any]) -> None:
    torch.save(torch.ones(3), tmp_path / "tensor.pt")
    with pytest.raises(UserError, match="holds a Tensor"):
        read_checkpoint(tmp_path / "tensor.pt")
    write_checkpoint(tmp_path / "odd.pt", {**state, "model": {"weight": 3}})
    with pytest.raises(UserError, match="'model' holds more than tensors"):
        read_checkpoint(tmp_path / "odd.pt")


def test_weights_of_another_architecture_are_told(tmp_path: Path, state: dict[str, Any]) -> None:
    model = build_transformer(OPTIONS, 20, 20)
    name = next(iter(state["model"]))
    for change, message in (
        ({name: torch.zeros(3)}, r"of shape \(3,\)"),
        ({"more": torch.zeros(3)}, "a weight 'more' that the model lacks"),
    ):
        with pytest.raises(UserError, match=message):
            load_weights(model, {"model": {**state["model"], **change}}, "a.pt")
    with pytest.raises(UserError, match="has no weight"):
        load_weights(model, {"model": {}}, "a.pt")


def test_a_description_that_builds_no_model_is_told(tmp_path: Path, state: dict[str, Any]) -> None:
    state["cfg"]["model"]["options"]["wings"] = 2
    write_checkpoint(tmp_path / "a.pt", state)
    with pytest.raises(UserError, match="describes no model"):
        load_model(tmp_path / "a.pt")


def test_building_from_a_description(state: dict[str, Any]) -> None:
    model = build_model(state["cfg"]["model"], state["task_state"])
    assert model.output_weight.shape == (20, 64)


def test_the_architecture_decides_which_model_it_is() -> None:
    options = resolve_transformer_lm("transformer_lm", TransformerLMOptions(decoder_layers=1))
    cfg = {"arch": "transformer_lm", "options": plain_options(options)}
    model = build_model(cfg, {"vocabulary": 20})
    assert isinstance(model, TransformerLM)
    assert model.output_weight.shape == (20, 512)


def test_a_checkpoint_of_another_task_is_told(tmp_path: Path, state: dict[str, Any]) -> None:
    for own, told in (
        ({"task": "language_modeling"}, "not of a translation run; it is of language_modeling: use seqba-eval-lm"),
        ({"task": "painting"}, "not of a translation run$"),
        ({}, "not of a translation run$"),
    ):
        write_checkpoint(tmp_path / "a.pt", {**state, "task_state": {**state["task_state"], **own}})
        with pytest.raises(UserError, match=told):
            load_model(tmp_path / "a.pt", task="translation")
    write_checkpoint(tmp_path / "a.pt", {**state, "task_state": {**state["task_state"], "task": "translation"}})
    assert load_model(tmp_path / "a.pt", task="translation").updates == 7
    with pytest.raises(UserError, match="not of a language modeling run; it is of translation: use seqba-generate"):
        load_model(tmp_path / "a.pt", task="language_modeling")


def test_an_unknown_architecture_is_told(tmp_path: Path, state: dict[str, Any]) -> None:
    state["cfg"]["model"]["arch"] = "perceptron"
    write_checkpoint(tmp_path / "a.pt", state)
    with pytest.raises(UserError, match="describes no model that this version can build: 'perceptron'"):
        load_model(tmp_path / "a.pt")


class FullDisk(io.FileIO):
    """Takes some bytes and then no more."""

    room = 50_000

    def write(self, data: Any) -> int:
        self.room -= len(data)
        if self.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return len(data)


def test_a_full_disk_leaves_what_was_there(
    tmp_path: Path, state: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.pt"
    write_checkpoint(path, state)
    before = path.read_bytes()
    monkeypatch.setattr(Path, "open", lambda self, mode: FullDisk(self, mode.replace("b", "")))
    with pytest.raises(OSError, match="No space left on device") as caught:
        write_checkpoint(path, {**state, "model": {"weight": torch.zeros(100_000)}})
    monkeypatch.undo()
    assert caught.value.filename == str(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.pt"]


@pytest.mark.parametrize("handled", [SystemExit(143), ValueError("a bad batch")])
def test_a_full_disk_met_while_a_signal_is_handled_is_the_disks(
    handled: BaseException, tmp_path: Path, state: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loop that saves because of a signal."""
    monkeypatch.setattr(Path, "open", lambda self, mode: FullDisk(self, mode.replace("b", "")))

    def save() -> None:
        try:
            raise handled
        except BaseException:
            write_checkpoint(tmp_path / "a.pt", {**state, "model": {"weight": torch.zeros(100_000)}})

    with pytest.raises(OSError, match="No space left on device"):
        save()


def test_a_copy_survives_its_original(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "a.pt", {"x": 1})
    copy_checkpoint(tmp_path / "a.pt", tmp_path / "b.pt")
    write_checkpoint(tmp_path / "a.pt", {"x": 2})
    assert torch.load(tmp_path / "b.pt") == {"x": 1}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.pt", "b.pt"]


def test_a_second_name_that_is_there_already_leaves_nothing_else(tmp_path: Path) -> None:
    """A rename of one link of a file over another does nothing, and leaves both."""
    write_checkpoint(tmp_path / "a.pt", {"x": 1})
    for _ in range(2):
        copy_checkpoint(tmp_path / "a.pt", tmp_path / "b.pt")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.pt", "b.pt"]


def test_a_second_name_is_a_copy_where_another_writer_takes_the_link_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_checkpoint(tmp_path / "a.pt", {"x": 1})
    link = os.link

    def taken(source: Path, name: Path) -> None:
        link(source, name)
        remove_abandoned(tmp_path / "b.pt")

    monkeypatch.setattr(os, "link", taken)
    copy_checkpoint(tmp_path / "a.pt", tmp_path / "b.pt")
    assert torch.load(tmp_path / "b.pt") == {"x": 1}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.pt", "b.pt"]


def test_options_become_plain_values() -> None:
    assert plain_options(OptimisationOptions())["adam_betas"] == [0.9, 0.999]
