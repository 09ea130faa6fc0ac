from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from seqba.data.fingerprint import BLOCK_BYTES, BLOCKS, fingerprint

LONG = 3 * BLOCKS * BLOCK_BYTES + 17


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


def test_the_same_files_elsewhere_are_the_same(tmp_path: Path) -> None:
    first = [write(tmp_path / "a" / name, name.encode()) for name in ("x", "y")]
    second = [write(tmp_path / "b" / name, name.encode()) for name in ("x", "y")]
    assert fingerprint(first) == fingerprint(second)
    assert fingerprint(first) == fingerprint([*first, tmp_path / "absent"])
    assert len({fingerprint(files) for files in (first, first[::-1], first[:1], [])}) == 4
    assert fingerprint(first) != fingerprint(first, names=b"of something else")


def test_bytes_that_move_from_one_file_to_the_next_are_noticed(tmp_path: Path) -> None:
    first = [write(tmp_path / "a", b"ab"), write(tmp_path / "b", b"c")]
    second = [write(tmp_path / "c", b"a"), write(tmp_path / "d", b"bc")]
    assert fingerprint(first) != fingerprint(second)


@pytest.mark.parametrize("length", [1, BLOCK_BYTES, BLOCK_BYTES + 1, BLOCKS * BLOCK_BYTES])
def test_every_byte_of_a_short_file_counts(length: int, tmp_path: Path) -> None:
    before = fingerprint([write(tmp_path / "a", bytes(length))])
    for place in {0, length // 3, length - 1}:
        changed = bytearray(length)
        changed[place] = 1
        assert fingerprint([write(tmp_path / "a", bytes(changed))]) != before


def test_a_long_file_is_looked_at_from_its_first_byte_to_its_last(tmp_path: Path) -> None:
    content = np.random.default_rng(1).integers(0, 256, LONG, dtype=np.uint8)
    before = fingerprint([write(tmp_path / "a", content.tobytes())])
    for changed in (np.append(content, 0), content[::-1], np.roll(content, 4), content ^ (np.arange(LONG) == 0)):
        assert fingerprint([write(tmp_path / "a", changed.astype(np.uint8).tobytes())]) != before
    assert fingerprint([write(tmp_path / "a", (content ^ (np.arange(LONG) == LONG - 1)).tobytes())]) != before
