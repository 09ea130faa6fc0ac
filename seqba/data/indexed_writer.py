"""Writing of corpora in the format of `seqba.data.indexed`, byte for byte as fairseq writes it."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from seqba.data.files import atomic_write
from seqba.data.indexed import HEADER, ID_TYPES, MAGIC, VERSION, ids_path, index_path


def id_type_code(vocabulary_size: int) -> int:
    """Code of the smallest type that fairseq would choose: u16 below 65,500 symbols, u32 below 2**32 - 1, else i64."""
    if vocabulary_size < 65_500:
        return 8
    return 9 if vocabulary_size < 4_294_967_295 else 5


class IndexedWriter:
    """Writes a corpus that appears under its names only when it is complete. Use it as a context manager.

    Args:
        prefix: path without `.idx` and `.bin`.
        vocabulary_size: size of the dictionary; decides the type of the ids, as in fairseq.
    """

    def __init__(self, prefix: str | Path, vocabulary_size: int) -> None:
        self.prefix = Path(prefix)
        self.vocabulary_size = vocabulary_size
        self.code = id_type_code(vocabulary_size)
        self._sizes: list[npt.NDArray[np.int32]] = []

    def __enter__(self) -> IndexedWriter:
        """Opens both files under temporary names."""
        with ExitStack() as stack:
            self._index = stack.enter_context(atomic_write(index_path(self.prefix)))
            self._file = stack.enter_context(atomic_write(ids_path(self.prefix)))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Completes both files, or removes them if the block failed."""
        with self._stack:
            if error is not None:
                raise error  # for the open files to see it
            self._write_index()

    def add(self, ids: npt.ArrayLike) -> None:
        """Appends one row, `</s>` included."""
        row = np.asarray(ids)
        self.add_rows(row, np.array([row.size]))

    def add_rows(self, ids: npt.NDArray[Any], sizes: npt.NDArray[Any]) -> None:
        """Appends many rows at once.

        Args:
            ids: (sum of sizes,) integers below the vocabulary size: the rows one after the other.
            sizes: (n,) tokens of each row.

        Raises:
            ValueError: if the sizes do not add up or an id is outside the vocabulary.
        """
        if int(sizes.sum()) != ids.size:
            raise ValueError(f"sizes add up to {int(sizes.sum())}, but there are {ids.size} ids")
        if ids.size and (int(ids.min()) < 0 or int(ids.max()) >= self.vocabulary_size):
            raise ValueError(f"ids from {ids.min()} to {ids.max()} in a vocabulary of {self.vocabulary_size}")
        self._file.write(ids.astype(ID_TYPES[self.code]).tobytes())
        self._sizes.append(sizes.astype(np.int32))

    def _write_index(self) -> None:
        sizes = np.concatenate([np.empty(0, np.int32), *self._sizes])
        itemsize = np.dtype(ID_TYPES[self.code]).itemsize
        positions = (np.cumsum(sizes, dtype=np.int64) - sizes) * itemsize
        self._index.write(HEADER.pack(MAGIC, VERSION, self.code, len(sizes)))
        self._index.write(sizes.astype("<i4").tobytes())
        self._index.write(positions.astype("<i8").tobytes())
