"""The memory-mapped format: bytes worked by hand, and every file that must be refused."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from seqba.data.indexed import IndexedCorpus, JoinedCorpus
from seqba.data.indexed_writer import IndexedWriter
from seqba.errors import UserError

# Two rows, [4, 5, 2] and [2], as fairseq writes them for a vocabulary below 65,500.
BIN = bytes.fromhex("0400 0500 0200 0200")
IDX = b"".join(
    (
        b"MMIDIDX\x00\x00",
        bytes.fromhex("01000000 00000000"),  # version 1, u64
        bytes.fromhex("08"),  # uint16
        bytes.fromhex("02000000 00000000"),  # two rows, u64
        bytes.fromhex("03000000 01000000"),  # sizes 3 and 1, int32
        bytes.fromhex("00000000 00000000 06000000 00000000"),  # byte positions 0 and 6, int64
    )
)


def put(folder: Path, idx: bytes = IDX, ids: bytes = BIN) -> Path:
    (folder / "train.idx").write_bytes(idx)
    (folder / "train.bin").write_bytes(ids)
    return folder / "train"


def test_the_writer_gives_the_bytes_worked_by_hand(tmp_path: Path) -> None:
    with IndexedWriter(tmp_path / "train", vocabulary_size=8) as writer:
        writer.add([4, 5, 2])
        writer.add([2])
    assert (tmp_path / "train.idx").read_bytes() == IDX
    assert (tmp_path / "train.bin").read_bytes() == BIN
    assert len(list(tmp_path.iterdir())) == 2


def test_rows_at_once_are_the_rows_one_by_one(tmp_path: Path) -> None:
    with IndexedWriter(tmp_path / "train", vocabulary_size=8) as writer:
        writer.add_rows(np.array([4, 5, 2, 2]), np.array([3, 1]))
    assert (tmp_path / "train.idx").read_bytes() == IDX
    assert (tmp_path / "train.bin").read_bytes() == BIN


@pytest.mark.parametrize(
    ("vocabulary_size", "code", "width"),
    [(65_499, 8, 2), (65_500, 9, 4), (4_294_967_294, 9, 4), (4_294_967_295, 5, 8)],
)
def test_the_id_type_follows_the_vocabulary(tmp_path: Path, vocabulary_size: int, code: int, width: int) -> None:
    with IndexedWriter(tmp_path / "train", vocabulary_size) as writer:
        writer.add([vocabulary_size - 1, 2])
    assert (tmp_path / "train.idx").read_bytes()[17] == code
    assert (tmp_path / "train.bin").stat().st_size == 2 * width
    corpus = IndexedCorpus(tmp_path / "train", vocabulary_size=vocabulary_size)
    assert corpus[0].tolist() == [vocabulary_size - 1, 2]


def test_the_reader_reads_the_bytes_worked_by_hand(tmp_path: Path) -> None:
    corpus = IndexedCorpus(put(tmp_path), vocabulary_size=6)
    assert len(corpus) == 2
    assert corpus.sizes.tolist() == [3, 1]
    assert corpus.sizes.dtype == np.int32
    assert [row.tolist() for row in (corpus[0], corpus[1], corpus[-1])] == [[4, 5, 2], [2], [2]]
    with pytest.raises(IndexError):
        corpus[2]
    with pytest.raises(ValueError, match="read-only"):
        corpus[0][0] = 7


@pytest.mark.parametrize("code", [1, 2, 3, 4, 5, 8, 9, 10])
def test_every_integer_type_is_read(tmp_path: Path, code: int) -> None:
    kind = {1: "B", 2: "b", 3: "<h", 4: "<i", 5: "<q", 8: "<H", 9: "<I", 10: "<Q"}[code]
    ids = b"".join(struct.pack(kind, number) for number in (4, 5, 2, 2))
    idx = IDX[:17] + bytes([code]) + IDX[18:34] + struct.pack("<qq", 0, 3 * struct.calcsize(kind))
    corpus = IndexedCorpus(put(tmp_path, idx, ids), vocabulary_size=6)
    assert corpus.padded(np.array([1, 0])).tolist() == [[2, 1, 1], [4, 5, 2]]


def test_padding_is_on_the_right_and_a_literal_pad_is_a_word(tmp_path: Path) -> None:
    with IndexedWriter(tmp_path / "train", vocabulary_size=8) as writer:
        writer.add([4, 1, 5, 2])  # fairseq's files hold id 1 where the text says "<pad>"
        writer.add([6, 2])
    corpus = IndexedCorpus(tmp_path / "train", vocabulary_size=8)
    padded = corpus.padded(np.array([1, 0]))
    assert padded.dtype == np.int64
    assert padded.tolist() == [[6, 2, 1, 1], [4, 3, 5, 2]]
    assert corpus[0].tolist() == [4, 1, 5, 2]


def test_an_empty_corpus_is_a_corpus(tmp_path: Path) -> None:
    with IndexedWriter(tmp_path / "train", vocabulary_size=8):
        pass
    corpus = IndexedCorpus(tmp_path / "train", vocabulary_size=8)
    assert len(corpus) == 0
    assert corpus.padded(np.empty(0, dtype=np.int64)).shape == (0, 0)


def test_parts_are_joined_in_order(tmp_path: Path) -> None:
    rows = [[4, 2], [5, 6, 2], [2], [7, 7, 7, 2], [4, 5, 2]]
    for name, part in (("a", rows[:2]), ("b", rows[2:3]), ("c", rows[3:])):
        with IndexedWriter(tmp_path / name, vocabulary_size=8) as writer:
            for row in part:
                writer.add(row)
    joined = JoinedCorpus([IndexedCorpus(tmp_path / name) for name in "abc"])
    assert [joined[i].tolist() for i in range(-5, 5)] == rows + rows
    assert joined.sizes.tolist() == [2, 3, 1, 4, 3]
    assert joined.padded(np.array([4, 0, 2])).tolist() == [[4, 5, 2], [4, 2, 1], [2, 1, 1]]
    with pytest.raises(IndexError):
        joined[5]


def test_nothing_is_left_of_a_failed_writer(tmp_path: Path) -> None:

    def write() -> None:
        with IndexedWriter(tmp_path / "train", 8) as writer:
            writer.add([4, 2])
            writer.add([8, 2])

    with pytest.raises(ValueError, match="vocabulary of 8"):
        write()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="sizes add up to 3, but there are 2"), IndexedWriter(tmp_path / "t", 8) as w:
        w.add_rows(np.array([4, 2]), np.array([3]))


@pytest.mark.parametrize(
    ("idx", "message"),
    [
        (b"", r"train\.idx is empty; run seqba-preprocess again"),
        (IDX[:5], r"train\.idx is truncated: 5 bytes"),
        (IDX[:20], r"train\.idx is truncated: 20 bytes"),
        (IDX[:-1], r"train\.idx is truncated: 49 bytes for 2 rows, not 50"),
        (IDX + b"\x00", r"train\.idx is too long: 51 bytes for 2 rows, not 50"),
        (b"PK\x03\x04" + IDX[4:], r"train\.idx is not an \.idx file: it begins with b'PK"),
        (b"TNTIDX\x00\x00" + IDX, r"in fairseq's lazy/cached format; preprocess with --dataset-impl mmap"),
        (b"HUFFIDX\x00\x00" + IDX, r"in fairseq's huffman format; preprocess with --dataset-impl mmap"),
        (IDX[:9] + b"\x02" + IDX[10:], r"has version 2, only version 1 can be read"),
        (IDX[:17] + b"\x06" + IDX[18:], r"holds floating-point values, not token ids"),
        (IDX[:17] + b"\x63" + IDX[18:], r"has the unknown id type 99"),
        (IDX[:18] + b"\xff" * 8 + IDX[26:], r"train\.idx is truncated: 50 bytes for 18446744073709551615 rows"),
        (IDX[:26] + struct.pack("<ii", 5, -1) + IDX[34:], r"row 1 has a negative size"),
        (IDX[:42] + b"\x05" + IDX[43:], r"the position of row 1 does not follow from the sizes"),
        (IDX[:26] + struct.pack("<ii", 3, 2) + IDX[34:], r"train\.bin has 8 bytes where its index tells 10"),
    ],
)
def test_an_index_that_must_be_refused(tmp_path: Path, idx: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        IndexedCorpus(put(tmp_path, idx), vocabulary_size=8)


@pytest.mark.parametrize("ids", [b"", BIN[:-1], BIN[:-2], BIN + b"\x00\x00"])
def test_ids_that_do_not_match_their_index(tmp_path: Path, ids: bytes) -> None:
    with pytest.raises(UserError, match=rf"train\.bin has {len(ids)} bytes where its index tells 8: the file is trunc"):
        IndexedCorpus(put(tmp_path, ids=ids), vocabulary_size=8)


def test_an_id_beyond_the_dictionary_names_its_row(tmp_path: Path) -> None:
    IndexedCorpus(put(tmp_path), vocabulary_size=6)
    with pytest.raises(UserError, match=r"train\.bin, row 0: id 5 is beyond the dictionary of 5 symbols"):
        IndexedCorpus(put(tmp_path), vocabulary_size=5)
    ids = struct.pack("<4i", 4, 5, 2, -7)
    idx = IDX[:17] + b"\x04" + IDX[18:34] + struct.pack("<qq", 0, 12)
    with pytest.raises(UserError, match=r"row 1: id -7 is beyond the dictionary"):
        IndexedCorpus(put(tmp_path, idx, ids), vocabulary_size=6)


def test_ids_are_checked_beyond_the_first_stretch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seqba.data.indexed.SCAN_BYTES", 4)
    rows = [[4, 2]] * 9 + [[7, 2]] + [[4, 2]]
    with IndexedWriter(tmp_path / "train", vocabulary_size=8) as writer:
        for row in rows:
            writer.add(row)
    with pytest.raises(UserError, match=r"row 9: id 7 is beyond the dictionary of 7"):
        IndexedCorpus(tmp_path / "train", vocabulary_size=7)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"corpus index .*train\.idx does not exist; run seqba-preprocess"):
        IndexedCorpus(tmp_path / "train")
    put(tmp_path)
    (tmp_path / "train.bin").unlink()
    with pytest.raises(UserError, match=r"corpus .*train\.bin does not exist"):
        IndexedCorpus(tmp_path / "train")
