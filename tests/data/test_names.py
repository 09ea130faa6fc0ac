"""File names: several in one text, and those that are not UTF-8, in files and on streams."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from seqba.data.names import AS_GIVEN, name_bytes, name_text, split_paths


def written(text: str, errors: str) -> bytes:
    stream = io.BytesIO()
    with io.TextIOWrapper(stream, encoding="utf-8", errors=errors) as file:
        file.write(text)
        file.flush()
        return stream.getvalue()


def test_a_stream_gets_the_bytes_of_a_name() -> None:
    name = b"gr\xc3\xbc\xc3\x9fe caf\xe9\xff.en"
    assert written(name.decode("utf-8", "surrogateescape"), AS_GIVEN) == name
    assert written(name.decode("ascii", "surrogateescape"), AS_GIVEN) == name  # as a C locale reads it
    assert written("lone \ud800 \udc00", AS_GIVEN) == b"lone \\ud800 \\udc00"


def test_a_file_stays_text() -> None:
    name = b"gr\xc3\xbc\xc3\x9fe caf\xe9\xff.en"
    for encoding in ("utf-8", "ascii"):
        assert name_text(name.decode(encoding, "surrogateescape")) == r"grüße caf\xe9\xff.en"
    assert name_text("lone \ud800") == r"lone \ud800"
    assert name_text("grüße") == "grüße"


def test_a_digest_is_of_the_bytes() -> None:
    assert name_bytes(os.fsdecode(b"d\xfcne")) == b"d\xfcne"
    assert name_bytes("düne") == "düne".encode()


def test_colons_separate_paths_but_in_the_name_of_one_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("2026-11-26T10:30:00")
    folder.mkdir()
    (folder / "last.pt").touch()
    assert split_paths(f"{folder}/last.pt") == [f"{folder}/last.pt"]
    assert split_paths(str(folder)) == [str(folder)]
    assert split_paths("a.pt:b.pt:") == ["a.pt", "b.pt"]
    Path("a.pt").touch()
    for several in (["a.pt", f"{folder}/last.pt"], [f"{folder}/last.pt", "a.pt"], [str(folder), str(folder)]):
        assert split_paths(":".join(several)) == split_paths(f":{'::'.join(several)}:") == several
    assert split_paths(f"absent.pt:{folder}") == ["absent.pt", *str(folder).split(":")]
    Path("2026-11-26T10").touch()
    assert split_paths(f"a.pt:{folder}") == ["a.pt", str(folder)]
    assert split_paths("") == split_paths(":") == []
