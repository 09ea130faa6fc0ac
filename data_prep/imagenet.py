"""ImageNet (ILSVRC2012) as a folder per class: 1,281,167 training and 50,000 validation pictures of 1,000 classes.

    python data_prep/imagenet.py --from FOLDER --to DIR

FOLDER holds the three archives as they were published. They need an account and the acceptance of terms, so that
nothing is downloaded here: https://image-net.org/download-images, ILSVRC2012.

    ILSVRC2012_img_train.tar        training images, tasks 1 and 2: 138 GB
    ILSVRC2012_img_val.tar          validation images, all tasks: 6.3 GB
    ILSVRC2012_devkit_t12.tar.gz    development kit, tasks 1 and 2: 2.6 MB

Writes DIR/train/WNID/*.JPEG and DIR/val/WNID/*.JPEG (another 145 GB), bytes as they were. A split takes its name only
once it is whole; until then it grows in DIR/.train.partial or DIR/.val.partial, which a second call continues.

The class of a validation picture is in the development kit: a number from 1 to 1,000 for each, and the WordNet name of
each number in meta.mat. These numbers are not the order of the names, so that a list of sorted names would give every
picture a wrong class. meta.mat is read by SciPy (pip install 'seqba[imagenet]').

Source: Russakovsky et al. 2015, "ImageNet Large Scale Visual Recognition Challenge", with the MD5 sums of the download
page. Terms: data_prep/README.md. Tried with toy archives only.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from fetching import main_entry, verify
from tqdm import tqdm
from unpacking import opened, opened_tar, tar_files

from seqba.cli.arguments import Parser
from seqba.errors import UserError
from seqba.extras import needed

TRAIN, VAL, DEVKIT = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz"
DIGESTS = {
    TRAIN: "md5:1d675b47d978889d74fa0da5fadfb00e",
    VAL: "md5:29b22e2961454d5413ddabcf34fc5622",
    DEVKIT: "md5:fa75699e90414af021442c21a62c3abf",
}
META = "ILSVRC2012_devkit_t12/data/meta.mat"
TRUTH = "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"
CLASSES = 1000
VALIDATION_PICTURES = 50_000
CLASS_ARCHIVE = re.compile(r"(n\d{8})\.tar")
TRAINING_PICTURE = re.compile(r"(n\d{8})_\d+\.JPEG")
VALIDATION_PICTURE = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")


@dataclass(frozen=True)
class Labels:
    """What the development kit says.

    Attributes:
        wnids: the WordNet names of the classes, numbers 1 to 1,000 in their order.
        truth: the class names of the validation pictures, in their order.
    """

    wnids: list[str]
    truth: list[str]


def main(arguments: Sequence[str] | None = None) -> int:
    """Unpacks the splits that aren't there yet."""
    parser = Parser("imagenet.py", "ImageNet (ILSVRC2012) as train/WNID/*.JPEG and val/WNID/*.JPEG.")
    parser.add_argument("--from", dest="source", type=Path, required=True, metavar="DIR", help="has the three archives")
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="where train/ and val/ go")
    options = parser.parse(arguments)
    steps = {"val": (VAL, unpack_validation), "train": (TRAIN, unpack_training)}
    todo = [step for split, step in steps.items() if not (options.to / split).exists()]
    if not todo:
        return 0
    for name in (DEVKIT, *(archive for archive, _ in todo)):  # all of them before the first long step
        _check_archive(options.source / name)
    verify(options.source / DEVKIT, DIGESTS[DEVKIT])
    labels = read_labels(options.source / DEVKIT)
    for archive, unpack in todo:
        verify(options.source / archive, DIGESTS[archive])
        unpack(options.source / archive, labels, options.to)
    return 0


def read_labels(devkit: Path) -> Labels:
    """The class names of the development kit.

    meta.mat has 860 more synsets, the inner nodes of the hierarchy; the classes are those without children.

    Raises:
        UserError: when it doesn't hold what it must.
    """
    with opened(devkit, META) as stream:
        synsets = read_synsets(stream.read(), f"{devkit} ({META})")
    with opened(devkit, TRUTH) as stream:
        numbers = stream.read().split()
    try:
        by_number = {
            int(synset["ILSVRC2012_ID"]): str(synset["WNID"]) for synset in synsets if int(synset["num_children"]) == 0
        }
        wnids = [by_number[number] for number in range(1, CLASSES + 1)]
        truth = [by_number[int(number)] for number in numbers]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise UserError(
            f"{devkit}: its classes are not numbered from 1 to {CLASSES:,} ({type(error).__name__}: {error}); "
            "fetch it again"
        ) from None
    if len(by_number) != CLASSES or len(set(wnids)) != CLASSES or len(truth) != VALIDATION_PICTURES:
        raise UserError(
            f"{devkit}: {len(set(by_number.values())):,} classes and the labels of {len(truth):,} validation pictures, "
            f"not {CLASSES:,} and {VALIDATION_PICTURES:,}; fetch it again"
        )
    return Labels(wnids, truth)


def read_synsets(data: bytes, where: str) -> list[Any]:
    """The structures of meta.mat, one dictionary from field to value each.

    Only of an archive whose checksum is the published one: forged bytes may crash SciPy's reader.

    Raises:
        UserError: for a file that SciPy can't read, or one without them; and without SciPy.
    """
    scipy_io = needed("scipy.io", "data_prep/imagenet.py")
    try:
        synsets = scipy_io.loadmat(io.BytesIO(data), variable_names=["synsets"], simplify_cells=True)["synsets"]
    except Exception as error:  # a damaged file may hold anything
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(
            f"{where} can't be read ({type(error).__name__}: {reason}): take it from the published archive"
        ) from None
    if not isinstance(synsets, list):
        raise UserError(f"{where} has no array of structures: take it from the published archive")
    return synsets


def unpack_validation(archive: Path, labels: Labels, to: Path) -> None:
    """The validation pictures, each into the folder of its class.

    Raises:
        UserError: for an archive that is damaged or holds other files.
    """
    growing = _growing(to, "val", labels)
    found = set()
    with opened_tar(archive) as files, _bar("val", len(labels.truth), "picture") as bar:
        for name, size, stream in files:
            match = VALIDATION_PICTURE.fullmatch(name)
            number = int(match[1]) if match else 0
            if not 1 <= number <= len(labels.truth):
                raise UserError(f"{archive}: {name!r} is not one of the validation pictures; fetch the archive again")
            _write(stream, size, growing / labels.truth[number - 1] / name)
            found.add(number)
            bar.update()
    if len(found) != len(labels.truth):
        raise UserError(f"{archive}: {len(found):,} pictures, not {len(labels.truth):,}; fetch the archive again")
    _finish(growing, to / "val")


def unpack_training(archive: Path, labels: Labels, to: Path) -> None:
    """The training pictures: the archive holds an archive of each class.

    Raises:
        UserError: for an archive that is damaged or holds other files.
    """
    growing = _growing(to, "train", labels)
    missing = set(labels.wnids)
    with opened_tar(archive) as files, _bar("train", len(labels.wnids), "class") as bar:
        for name, _, stream in files:
            match = CLASS_ARCHIVE.fullmatch(name)
            if match is None or match[1] not in missing:
                raise UserError(f"{archive}: {name!r} is not the archive of a class; fetch the archive again")
            _unpack_class(stream, match[1], growing, archive)
            missing.remove(match[1])
            bar.update()
    if missing:
        raise UserError(f"{archive}: there is no {min(missing)}.tar in it; fetch the archive again")
    _finish(growing, to / "train")


def _unpack_class(stream: IO[bytes], wnid: str, growing: Path, archive: Path) -> None:
    pictures = 0
    with tarfile.open(fileobj=stream, mode="r:") as inner:
        for name, size, picture in tar_files(inner):
            match = TRAINING_PICTURE.fullmatch(name)
            if match is None or match[1] != wnid:
                raise UserError(f"{archive}: {name!r} in {wnid}.tar is not a picture of it; fetch the archive again")
            _write(picture, size, growing / wnid / name)
            pictures += 1
    if not pictures:
        raise UserError(f"{archive}: there are no pictures in {wnid}.tar; fetch the archive again")


def _growing(to: Path, split: str, labels: Labels) -> Path:
    """The folder in which a split grows, with a folder for every class."""
    growing = to / f".{split}.partial"
    for wnid in labels.wnids:
        (growing / wnid).mkdir(parents=True, exist_ok=True)
    return growing


def _write(stream: IO[bytes], size: int, path: Path) -> None:
    """Writes a picture, unless an earlier call did so: one that was cut short is shorter."""
    if path.exists() and path.stat().st_size == size:
        return
    with open(path, "wb") as target:
        shutil.copyfileobj(stream, target)


def _finish(growing: Path, target: Path) -> None:
    """Gives a split its name, once all of it is on the disk: one sync rather than one for each of a million files."""
    os.sync()
    growing.rename(target)


def _check_archive(path: Path) -> None:
    if not path.is_file():
        raise UserError(
            f"{path} does not exist: get {', '.join(DIGESTS)} from https://image-net.org/download-images (ILSVRC2012, "
            "for registered researchers), and give their folder with --from"
        )


def _bar(split: str, total: int, unit: str) -> tqdm:
    return tqdm(total=total, desc=f"unpacking {split}", unit=unit, leave=False, disable=None)


if __name__ == "__main__":
    main_entry(main)
