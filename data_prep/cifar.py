"""CIFAR-10 and CIFAR-100 in their official binary layout: 50,000 training and 10,000 test pictures of 32×32 pixels.

    python data_prep/cifar.py --dataset cifar10 --to DIR               # downloads the official archive, 170 MB
    python data_prep/cifar.py --dataset cifar10 --to DIR --from PLACE  # the archive, or a folder with it or its files

Makes DIR/cifar-10-batches-bin or DIR/cifar-100-binary, as the archives do; seqba-train takes DIR or that folder:

    cifar-10-batches-bin/   data_batch_1.bin … data_batch_5.bin, test_batch.bin, batches.meta.txt
    cifar-100-binary/       train.bin, test.bin, fine_label_names.txt, coarse_label_names.txt

Every file is written whole or not at all, and one that is there is not made again. At the end sizes and labels of all
files are checked.

Source: https://www.cs.toronto.edu/~kriz/cifar.html (Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny
Images"), with the MD5 sums that stand there. Terms: data_prep/README.md. The download has been tried against local
servers only.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fetching import Source, fetch, main_entry, verify
from unpacking import opened_tar

from seqba.cli.arguments import Parser
from seqba.data.cifar import CIFAR10, CIFAR100, Cifar, Layout
from seqba.data.files import atomic_write
from seqba.errors import UserError


@dataclass(frozen=True)
class Dataset:
    """One of the two sets.

    Attributes:
        layout: how it lies in its folder.
        archive: where the public has it.
        pictures: how many each picture file holds.
        texts: the other files that are taken.
    """

    layout: Layout
    archive: Source
    pictures: Mapping[str, int]
    texts: tuple[str, ...]

    @property
    def files(self) -> tuple[str, ...]:
        """All that is taken from the archive."""
        return (*self.pictures, *self.texts)

    def size_of(self, name: str) -> int | None:
        """What a picture file must have in bytes; None for a text."""
        return self.pictures[name] * self.layout.record_bytes if name in self.pictures else None


DATASETS = {
    "cifar10": Dataset(
        CIFAR10,
        Source(
            "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
            "md5:c32a1d4ab5d03f1284b67883e8d87530",
            170_052_171,
        ),
        dict.fromkeys((*CIFAR10.train, CIFAR10.test), 10_000),
        (CIFAR10.names,),
    ),
    "cifar100": Dataset(
        CIFAR100,
        Source(
            "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
            "md5:03b5dce01913d631647c71ecec9e9cb8",
            168_513_733,
        ),
        {CIFAR100.train[0]: 50_000, CIFAR100.test: 10_000},
        (CIFAR100.names, "coarse_label_names.txt"),
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Makes the folder of a set, or what is still missing of it."""
    parser = Parser("cifar.py", "CIFAR-10 or CIFAR-100 in the official binary layout.")
    parser.add_argument("--dataset", choices=tuple(DATASETS), required=True, help="which one")
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="where its folder goes")
    parser.add_argument(
        "--from", dest="source", type=Path, metavar="PLACE", help="take this archive, or what is in this folder"
    )
    options = parser.parse(arguments)
    dataset = DATASETS[options.dataset]
    target = options.to / dataset.layout.folder
    missing = [name for name in dataset.files if not _is_there(target / name, dataset.size_of(name))]
    if missing:
        plain = _find_files(dataset, options.source, missing)
        archive = None if plain else _find_archive(dataset, options.source, options.to / "download")
        target.mkdir(parents=True, exist_ok=True)
        if plain is not None:
            _copy(dataset, plain, target, missing)
        elif archive is not None:
            _unpack(dataset, archive, target, missing)
    for split in ("train", "test"):
        Cifar(target, split, dataset.layout)  # opening checks sizes, labels and names
    return 0


def _is_there(path: Path, size: int | None) -> bool:
    """Whether a file is there already; another one in its place is the user's, and not ours to replace."""
    if not path.exists():
        return False
    _check_size(str(path), path.stat().st_size, size)
    return True


def _check_size(where: str, found: int, size: int | None) -> None:
    if size is not None and found != size:
        raise UserError(f"{where} has {found:,} bytes, not the {size:,} of the published file: remove it and run again")


def _find_files(dataset: Dataset, source: Path | None, missing: Sequence[str]) -> Path | None:
    """The folder in the user's that has the files themselves, if there is one."""
    if source is None:
        return None
    places = (source, source / dataset.layout.folder)
    return next((place for place in places if all((place / name).is_file() for name in missing)), None)


def _find_archive(dataset: Dataset, source: Path | None, downloads: Path) -> Path:
    """The checked archive: the user's, or fetched."""
    if source is None:
        return fetch(dataset.archive, downloads)
    archive = source / dataset.archive.name if source.is_dir() else source
    if not archive.is_file():
        raise UserError(
            f"{source}: there is neither {dataset.archive.name} nor all of {', '.join(dataset.files)}; --from takes "
            f"the archive, or a folder with it or with these files ({dataset.archive.url})"
        )
    verify(archive, dataset.archive.digest)
    return archive


def _copy(dataset: Dataset, folder: Path, target: Path, missing: Sequence[str]) -> None:
    for name in missing:
        _check_size(str(folder / name), (folder / name).stat().st_size, dataset.size_of(name))
        with open(folder / name, "rb") as source, atomic_write(target / name) as stream:
            shutil.copyfileobj(source, stream)


def _unpack(dataset: Dataset, archive: Path, target: Path, missing: Sequence[str]) -> None:
    """Writes what is missing of an archive, by the names that are known: others in it are passed over."""
    wanted = {f"{dataset.layout.folder}/{name}": name for name in missing}
    with opened_tar(archive) as files:
        for member, size, source in files:
            if (name := wanted.pop(member, None)) is None:
                continue
            _check_size(f"{member} in {archive}", size, dataset.size_of(name))
            with atomic_write(target / name) as stream:
                shutil.copyfileobj(source, stream)
    if wanted:
        raise UserError(f"{archive}: there is no {' and no '.join(wanted)} in it; it isn't the published archive")


if __name__ == "__main__":
    main_entry(main)
