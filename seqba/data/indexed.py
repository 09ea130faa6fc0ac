"""Corpora of token ids as memory-mapped files: fairseq's `mmap` format, read with suspicion.

`PREFIX.bin` holds the ids of all rows one after the other. `PREFIX.idx`, little-endian: 9 bytes `MMIDIDX`
and two zeros, u64 version 1, u8 code of the id type, u64 number of rows N, N int32 sizes, N int64 byte positions in
the .bin file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from seqba.data.dictionary import Dictionary
from seqba.data.files import open_file
from seqba.errors import UserError

MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1
HEADER = struct.Struct("<9sQBQ")  # magic, version, code of the id type, number of rows
BYTES_PER_ROW = 4 + 8  # one int32 size, one int64 position
ID_TYPES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2", 9: "<u4", 10: "<u8"}
FLOAT_CODES = (6, 7)
OTHER_FORMATS = {b"TNTIDX\x00\x00": "lazy/cached", b"HUFFIDX\x00": "huffman"}
REMEDY = "run seqba-preprocess, or check the data folder, the split and the languages"
AGAIN = "run seqba-preprocess again"
SCAN_BYTES = 1 << 24

Ids = npt.NDArray[Any]


def index_path(prefix: Path) -> Path:
    """`data-bin/train.en-de.en` → `data-bin/train.en-de.en.idx`."""
    return prefix.with_name(prefix.name + ".idx")


def ids_path(prefix: Path) -> Path:
    """`data-bin/train.en-de.en` → `data-bin/train.en-de.en.bin`."""
    return prefix.with_name(prefix.name + ".bin")


def corpus_files(prefixes: Iterable[Path]) -> list[Path]:
    """The files of corpora, both of each."""
    return [of(prefix) for prefix in prefixes for of in (index_path, ids_path)]


class Corpus(Protocol):
    """Rows of token ids that are read when they are asked for.

    Attributes:
        sizes: (N,) int32, tokens of each row, the final `</s>` included.
    """

    sizes: npt.NDArray[np.int32]

    @property
    def parts(self) -> tuple[IndexedCorpus, ...]:
        """The files that it lies in, one after the other."""
        ...

    @property
    def tokens(self) -> int:
        """Number of tokens in all rows, every `</s>` included."""
        ...

    def __len__(self) -> int:
        """Number of rows."""
        ...

    def __getitem__(self, row: int) -> Ids:
        """Ids of one row: (sizes[row],)."""
        ...

    def padded(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Ids of some rows, filled up on the right with `<pad>` to the longest: (B, L) int64."""
        ...

    def take(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The tokens at some places of the running text: (n,) int64, for places (n,) from 0."""
        ...


class IndexedCorpus:
    """Rows of token ids in a memory-mapped file; nothing but the sizes and positions (12 bytes a row) is in memory.

    Everything is checked when it is opened: magic, version, type, row sizes against both files' lengths, and with
    `vocabulary_size` every id. Reading the ids once also brings the file into the page cache, as fairseq's warm-up
    does.

    Args:
        prefix: path without `.idx` and `.bin`.
        vocabulary_size: ids must be below it; None leaves the ids unread.

    Attributes:
        sizes: (N,) int32, tokens of each row, the final `</s>` included.

    Raises:
        UserError: if a file is missing, truncated, of another format or version, or holds an id beyond the dictionary.
    """

    def __init__(self, prefix: str | Path, *, vocabulary_size: int | None = None) -> None:
        self.prefix = Path(prefix)
        id_type, self.sizes = _read_index(index_path(self.prefix))
        self._starts = np.zeros(len(self.sizes) + 1, dtype=np.int64)
        np.cumsum(self.sizes, dtype=np.int64, out=self._starts[1:])
        self._check_positions(id_type)
        self._ids = self._map_ids(id_type)
        if vocabulary_size is not None:
            self._check_ids(vocabulary_size)

    @property
    def parts(self) -> tuple[IndexedCorpus, ...]:
        """Itself."""
        return (self,)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.sizes)

    def __getitem__(self, row: int) -> Ids:
        """Ids of one row: (sizes[row],) of the file's own integer type, a read-only view of the file."""
        row = _from_the_front(row, len(self))
        return self._ids[self._starts[row] : self._starts[row + 1]]

    def padded(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Ids of some rows, filled up on the right with `<pad>` to the longest: (B, L) int64."""
        sizes = self.sizes[rows]
        columns = np.arange(sizes.max(initial=0))
        inside = columns < sizes[:, None]  # (B, L)
        result = np.full(inside.shape, Dictionary.pad, dtype=np.int64)
        result[inside] = _as_words(self._ids[(self._starts[rows][:, None] + columns)[inside]])
        return result

    @property
    def tokens(self) -> int:
        """Number of tokens in all rows, every `</s>` included."""
        return int(self._starts[-1])

    def take(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The tokens at some places of the running text: (n,) int64, for places (n,) from 0."""
        return _as_words(self._ids[places])

    def last_ids(self) -> Ids:
        """Last id of each row: (N,); `</s>` everywhere in a corpus of sentences. No row may be empty."""
        last: Ids = self._ids[self._starts[1:] - 1]
        return last

    def _check_positions(self, id_type: np.dtype[Any]) -> None:
        path = index_path(self.prefix)
        positions = np.fromfile(path, dtype="<i8", offset=HEADER.size + 4 * len(self))
        if not np.array_equal(positions, self._starts[:-1] * id_type.itemsize):
            row = int(np.flatnonzero(positions != self._starts[:-1] * id_type.itemsize)[0])
            raise UserError(f"corpus index {path}: the position of row {row} does not follow from the sizes; {AGAIN}")

    def _map_ids(self, id_type: np.dtype[Any]) -> Ids:
        path = ids_path(self.prefix)
        with open_file(path, "corpus", REMEDY) as file:
            length = file.seek(0, 2)
        expected = int(self._starts[-1]) * id_type.itemsize
        if length != expected:
            raise UserError(
                f"corpus {path} has {length} bytes where its index tells {expected}: "
                f"the file is truncated or belongs to another index; {AGAIN}"
            )
        # An empty file cannot be mapped.
        return np.memmap(path, dtype=id_type, mode="r") if length else np.empty(0, dtype=id_type)

    def _check_ids(self, vocabulary_size: int) -> None:
        # A negative id of a signed type is a huge number in the unsigned one: a single maximum finds both mistakes.
        ids = self._ids.view(f"<u{self._ids.dtype.itemsize}")
        step = SCAN_BYTES // ids.dtype.itemsize
        for start in range(0, len(ids), step):
            chunk = ids[start : start + step]
            if int(chunk.max()) >= vocabulary_size:
                place = start + int(np.argmax(chunk >= vocabulary_size))
                row = int(np.searchsorted(self._starts, place, side="right")) - 1
                raise UserError(
                    f"corpus {ids_path(self.prefix)}, row {row}: id {int(self._ids[place])} is beyond the dictionary "
                    f"of {vocabulary_size} symbols; the dictionary is not the one the corpus was made with"
                )


class JoinedCorpus:
    """Several corpora one after the other, as `train`, `train1` and `train2` are in training.

    Args:
        parts: at least one corpus.

    Attributes:
        sizes: (N,) int32, as in `IndexedCorpus`.
    """

    def __init__(self, parts: Sequence[IndexedCorpus]) -> None:
        self.parts = tuple(parts)
        self.sizes = np.concatenate([part.sizes for part in self.parts])
        self._ends = np.cumsum([len(part) for part in self.parts])

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.sizes)

    def __getitem__(self, row: int) -> Ids:
        """Ids of one row, as in `IndexedCorpus`."""
        row = _from_the_front(row, len(self))
        number = int(np.searchsorted(self._ends, row, side="right"))
        return self.parts[number][row - int(self._ends[number])]

    def padded(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Ids of some rows, as in `IndexedCorpus`: (B, L) int64."""
        width = int(self.sizes[rows].max(initial=0))
        result = np.full((len(rows), width), Dictionary.pad, dtype=np.int64)
        numbers = np.searchsorted(self._ends, rows, side="right")
        for number in np.unique(numbers):
            part, here = self.parts[number], numbers == number
            block = part.padded(rows[here] - self._ends[number] + len(part))
            result[here, : block.shape[1]] = block
        return result

    @property
    def tokens(self) -> int:
        """Number of tokens in all parts."""
        return sum(part.tokens for part in self.parts)

    def take(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The tokens at some places of all parts one after the other, as in `IndexedCorpus`."""
        result = np.empty(len(places), dtype=np.int64)
        first = 0
        for part in self.parts:
            here = (places >= first) & (places < first + part.tokens)
            result[here] = part.take(places[here] - first)
            first += part.tokens
        return result


def _from_the_front(row: int, rows: int) -> int:
    """A row of so many, counted from the front; a negative one was counted from the end."""
    if not -rows <= row < rows:
        raise IndexError(f"row {row} of a corpus of {rows}")
    return row % rows


def _as_words(ids: Ids) -> npt.NDArray[np.int64]:
    """Ids as int64, the word "<pad>" as `<unk>`.

    In a text, "<pad>" has padding's own id in fairseq's files. There it is a word like others that the model has no
    symbol for; left as it is, it would read as the end of a row.
    """
    words = ids.astype(np.int64)
    words[words == Dictionary.pad] = Dictionary.unk
    return words


def _read_index(path: Path) -> tuple[np.dtype[Any], npt.NDArray[np.int32]]:
    """Reads and checks the header and the sizes of an .idx file."""
    with open_file(path, "corpus index", REMEDY) as file:
        header = file.read(HEADER.size)
        length = file.seek(0, 2)
    if not header:
        raise UserError(f"corpus index {path} is empty; {AGAIN}")
    if other := OTHER_FORMATS.get(header[:8]):
        raise UserError(f"corpus index {path} is in fairseq's {other} format; preprocess with --dataset-impl mmap")
    if not MAGIC.startswith(header[: len(MAGIC)]):
        raise UserError(f"corpus index {path} is not an .idx file: it begins with {header[:9]!r}; {AGAIN}")
    if len(header) < HEADER.size:
        raise UserError(f"corpus index {path} is truncated: {length} bytes; {AGAIN}")
    _, version, code, count = HEADER.unpack(header)
    if version != VERSION:
        raise UserError(f"corpus index {path} has version {version}, only version {VERSION} can be read; {AGAIN}")
    if code not in ID_TYPES:
        reason = "holds floating-point values" if code in FLOAT_CODES else f"has the unknown id type {code}"
        raise UserError(f"corpus index {path} {reason}, not token ids; {AGAIN}")
    expected = HEADER.size + BYTES_PER_ROW * count
    if length != expected:
        problem = "truncated" if length < expected else "too long"
        raise UserError(f"corpus index {path} is {problem}: {length} bytes for {count} rows, not {expected}; {AGAIN}")
    sizes = np.fromfile(path, dtype="<i4", count=count, offset=HEADER.size)
    if count and int(sizes.min()) < 0:
        raise UserError(f"corpus index {path}: row {int(np.argmin(sizes))} has a negative size; {AGAIN}")
    return np.dtype(ID_TYPES[code]), sizes
