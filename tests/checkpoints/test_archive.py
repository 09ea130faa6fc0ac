"""Whatever is given as a checkpoint is read or told in one line, and nothing in it is run."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from seqba.checkpoints.file import read_checkpoint, write_checkpoint
from seqba.checkpoints.model import load_model
from seqba.errors import UserError
from seqba.models.builders import build_transformer
from seqba.models.families import resolve_transformer
from seqba.models.options import TransformerOptions
from seqba.options import plain_options

MUTATIONS = 150


class Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, ("ran",)


def small_state() -> dict[str, Any]:
    sizes = TransformerOptions(encoder_layers=1, decoder_layers=1, encoder_embed_dim=4, encoder_ffn_embed_dim=4)
    options = resolve_transformer("transformer_tiny", sizes)
    torch.manual_seed(1)
    model = build_transformer(options, 8, 8)
    return {
        "args": None,
        "cfg": {"model": {"arch": "transformer_tiny", "options": plain_options(options)}, "task": {}, "training": {}},
        "model": model.state_dict(),
        "optimizer_history": [{"num_updates": 7}],
        "task_state": {"task": "translation", "source_vocabulary": 8, "target_vocabulary": 8},
        "extra_state": {},
        "last_optimizer_state": {"state": {0: {"step": torch.tensor(7.0), "exp_avg": torch.ones(3)}}},
    }


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a real checkpoint."""
    path = tmp_path_factory.mktemp("real") / "a.pt"
    write_checkpoint(path, small_state())
    return path.read_bytes()


def saved(thing: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(thing, file, **options)
    return file.getvalue()


def zipped(name: str, content: bytes, kind: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", kind) as archive:
        archive.writestr(name, content)
    return file.getvalue()


SAFETENSORS = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
OTHER_FILES: dict[str, tuple[bytes, str]] = {
    "a dictionary": (b"the 10\nof 7\nmadeupword0000 0\n", "is none, but text"),
    "a text": ("Grüße, Jürgen ❤\n".encode() * 99, "is none, but text"),
    "an empty file": (b"", "is empty"),
    "a picture": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(99), "a PNG picture"),
    "a photo": (b"\xff\xd8\xff\xe0" + bytes(99), "a JPEG picture"),
    "a corpus index": (b"MMIDIDX\0\0" + bytes(99), "the index of a data-bin"),
    "a zip": (zipped("a.txt", b"hello"), "truncated or not a checkpoint"),
    "a compressed checkpoint": (zipped("a/data.pkl", b"\x80\x02}." * 9, zipfile.ZIP_DEFLATED), "truncated or not"),
    "a zip bomb": (zipped("a/data/0", bytes(1 << 24), zipfile.ZIP_DEFLATED), "truncated or not a checkpoint"),
    "zeros": (bytes(5000), "truncated or not a checkpoint"),
    "noise": (np.random.default_rng(1).bytes(5000), "truncated or not a checkpoint"),
    "a tensor": (saved(torch.ones(3)), "holds a Tensor"),
    "weights alone": (saved(small_state()["model"]), "it has no 'model'"),
    "a module": (saved(torch.nn.Linear(2, 2)), "holds more than tensors and plain values"),
    "a checkpoint with code": (saved({**small_state(), "cfg": Evil()}), "holds more than tensors and plain values"),
    "a pickle": (pickle.dumps({"model": {}}), "a plain pickle"),
    "a pickle with code": (pickle.dumps(Evil()), "a plain pickle"),
    "safetensors": (struct.pack("<Q", len(SAFETENSORS)) + SAFETENSORS + bytes(4), "a safetensors file"),
    "a gzip archive": (b"\x1f\x8b\x08" + bytes(50), "a gzip archive"),
}


@pytest.mark.parametrize("name", OTHER_FILES)
def test_any_other_file_is_told_for_what_it_is(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content, told = OTHER_FILES[name]
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(UserError, match=told):
        read_checkpoint(tmp_path / "a.pt")
    assert not (tmp_path / "ran").exists()


def test_the_format_before_version_1_6_is_read(tmp_path: Path) -> None:
    tied = torch.arange(6.0).view(2, 3)
    state = {**small_state(), "extra_state": {"tied": [tied, tied[1:], tied.t()], "none": torch.ones(0)}}
    (tmp_path / "a.pt").write_bytes(saved(state, _use_new_zipfile_serialization=False))
    read = read_checkpoint(tmp_path / "a.pt")
    assert all(torch.equal(read["model"][name], tensor) for name, tensor in state["model"].items())
    assert all(map(torch.equal, read["extra_state"]["tied"], state["extra_state"]["tied"]))
    assert read["extra_state"]["none"].shape == (0,)


def test_a_pipe_and_a_device_are_refused_before_they_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path(os.devnull)):
        with pytest.raises(UserError, match="is a pipe or a device, not a file"):
            read_checkpoint(path)


def repacked(data: bytes, change: Callable[[str, bytes], bytes]) -> bytes:
    """The archive with its records changed and their check sums right."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return file.getvalue()


def mutated(data: bytes, chance: np.random.Generator) -> bytes:
    """Bits turned over, an end cut off, bytes copied, exchanged, put in or taken out."""
    new, place, other = bytearray(data), int(chance.integers(len(data))), int(chance.integers(len(data)))
    kind = str(chance.choice(["bits", "end", "copy", "exchange", "more", "fewer"]))
    if kind == "bits":
        for at in range(place, min(place + int(chance.choice([1, 1, 4])), len(new))):
            new[at] ^= 1 << int(chance.integers(8))
    elif kind == "end":
        del new[place:]
    elif kind == "copy":
        new[place : place + 64] = new[other : other + 64]
    elif kind == "exchange":
        new[place], new[other] = new[other], new[place]
    elif kind == "more":
        new[place:place] = chance.bytes(3)
    else:
        del new[place : place + 3]
    return bytes(new)


@pytest.mark.parametrize("inside", [False, True], ids=["bytes of the file", "bytes of the pickle, check sums right"])
def test_mutations_are_read_or_told(inside: bool, real: bytes, tmp_path: Path) -> None:
    chance, told, path = np.random.default_rng(5), 0, tmp_path / "a.pt"
    for _ in range(MUTATIONS):
        if inside:
            path.write_bytes(
                repacked(real, lambda name, data: mutated(data, chance) if name.endswith("data.pkl") else data)
            )
        else:
            path.write_bytes(mutated(real, chance))
        try:
            load_model(path)
        except UserError:
            told += 1
    assert told > MUTATIONS // 2


def test_a_turned_bit_anywhere_in_a_weight_is_told(real: bytes, tmp_path: Path) -> None:
    state = small_state()["model"]
    numbers = bytes(state["encoder_layers.0.feed_forward.expand.weight"].numpy())
    place = real.index(numbers)
    for at in (0, 17, len(numbers) - 1):
        damaged = bytearray(real)
        damaged[place + at] ^= 4
        (tmp_path / "a.pt").write_bytes(damaged)
        with pytest.raises(UserError, match="truncated or not a checkpoint"):
            read_checkpoint(tmp_path / "a.pt")


def test_a_storage_that_claims_more_than_its_record_is_told(tmp_path: Path) -> None:
    """torch would read on in the memory behind it."""
    honest = saved({**small_state(), "model": {"w": torch.ones(16)}})
    for count in (b"K\x14", b"K\xff", b"J\xff\xff\xff\x7f"):
        changed = repacked(honest, lambda name, data, count=count: data.replace(b"K\x10t", count + b"t"))  # type: ignore[misc]
        assert changed != repacked(honest, lambda name, data: data)
        (tmp_path / "a.pt").write_bytes(changed)
        with pytest.raises(UserError, match="truncated or not a checkpoint"):
            read_checkpoint(tmp_path / "a.pt")


def test_a_tensor_that_is_larger_than_its_storage_is_told(tmp_path: Path) -> None:
    wide = torch.ones(1).expand(1 << 40)
    write_checkpoint(tmp_path / "a.pt", {**small_state(), "model": {"w": wide}})
    with pytest.raises(UserError, match="truncated or not a checkpoint"):
        read_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.bool, torch.complex64]
)
def test_tensors_of_every_kind_come_back(dtype: torch.dtype, tmp_path: Path) -> None:
    whole = torch.arange(12).reshape(3, 4).to(dtype)
    tensors: dict[str, Tensor] = {"whole": whole, "part": whole[1:, ::2], "turned": whole.t(), "none": whole[:0]}
    write_checkpoint(tmp_path / "a.pt", {**small_state(), "model": tensors})
    read = read_checkpoint(tmp_path / "a.pt")["model"]
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("cfg", "model", "options", "encoder_layers"), 1 << 30),
        (("cfg", "model", "options", "encoder_embed_dim"), 1 << 16),
        (("cfg", "model", "options", "max_source_positions"), 1 << 40),
        (("cfg", "model", "options", "dropout"), "high"),
        (("cfg", "model", "options", "dropout"), [0.1]),
        (("cfg", "model", "options", "first_position"), -3),
        (("cfg", "model", "options"), [1]),
        (("cfg", "model", "arch"), {"a": 1}),
        (("cfg", "model"), None),
        (("task_state", "source_vocabulary"), 1 << 62),
        (("task_state", "source_vocabulary"), 8.0),
        (("task_state", "target_vocabulary"), True),
        (("task_state", "target_vocabulary"), -1),
        (("task_state", "task"), ["translation"]),
        (("optimizer_history",), [{"num_updates": "many"}]),
        (("optimizer_history",), [{"num_updates": None}]),
        (("model", "target_embedding.tokens.weight"), torch.zeros(8, 4, dtype=torch.int32)),
    ],
)
def test_a_part_of_another_kind_or_size_is_told(place: tuple[str, ...], value: Any, tmp_path: Path) -> None:
    state = small_state()
    *way, last = place
    part = state
    for name in way:
        part = part[name]
    part[last] = value
    write_checkpoint(tmp_path / "a.pt", state)
    with pytest.raises(UserError, match=r"describes no model|is of another|not of a translation|is damaged|no weight"):
        load_model(tmp_path / "a.pt", task="translation")
