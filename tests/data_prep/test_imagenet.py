from __future__ import annotations

import hashlib
import io
import shutil
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path

import imagenet
import pytest
from matlab_file import HEADER, array, element, mat_file, numbers, text

from seqba.cli.command import run

pytest.importorskip("scipy", reason="the extra imagenet isn't installed")

# Numbers 1, 2, 3 on purpose not in the order of the names; 4 is an inner node.
SYNSETS = {1: ("n02119789", 0), 2: ("n02100735", 0), 3: ("n01751748", 0), 4: ("n00001740", 3)}
TRUTH = [3, 1, 1, 2, 3]
VALIDATION = {f"ILSVRC2012_val_{number:08}.JPEG": f"val {number}".encode() for number in range(1, 6)}
TRAINING = {
    wnid: {f"{wnid}_{number}.JPEG": f"{wnid} {number}".encode() for number in (7, 10)}
    for wnid in ("n02119789", "n02100735", "n01751748")
}


def tar(files: Mapping[str, bytes], mode: str = "w") -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def meta_mat(synsets: Mapping[int, tuple[str, int]]) -> bytes:
    return mat_file(
        "synsets",
        ["ILSVRC2012_ID", "WNID", "num_children"],
        *(
            part
            for number, (wnid, children) in synsets.items()
            for part in (numbers(number), text(wnid), numbers(children))
        ),
    )


META = meta_mat(SYNSETS)


def devkit(synsets: Mapping[int, tuple[str, int]] = SYNSETS, truth: list[int] = TRUTH) -> bytes:
    lines = "".join(f"{number}\n" for number in truth).encode()
    return tar({imagenet.META: meta_mat(synsets), imagenet.TRUTH: lines}, "w:gz")


def training(classes: Mapping[str, Mapping[str, bytes]] = TRAINING) -> bytes:
    return tar({f"{wnid}.tar": tar(pictures) for wnid, pictures in classes.items()})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The three archives at toy size, and the script's figures to go with them."""
    folder = tmp_path / "from"
    folder.mkdir()
    (folder / imagenet.DEVKIT).write_bytes(devkit())
    (folder / imagenet.VAL).write_bytes(tar(VALIDATION))
    (folder / imagenet.TRAIN).write_bytes(training())
    monkeypatch.setattr(imagenet, "CLASSES", 3)
    monkeypatch.setattr(imagenet, "VALIDATION_PICTURES", 5)
    publish(folder, monkeypatch)
    return folder


def publish(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes what is in the folder the known archives."""
    digests = {
        name: "md5:" + hashlib.md5((folder / name).read_bytes(), usedforsecurity=False).hexdigest()
        for name in imagenet.DIGESTS
    }
    monkeypatch.setattr(imagenet, "DIGESTS", digests)


def made(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


EXPECTED = {
    "val/n01751748/ILSVRC2012_val_00000001.JPEG": b"val 1",
    "val/n02119789/ILSVRC2012_val_00000002.JPEG": b"val 2",
    "val/n02119789/ILSVRC2012_val_00000003.JPEG": b"val 3",
    "val/n02100735/ILSVRC2012_val_00000004.JPEG": b"val 4",
    "val/n01751748/ILSVRC2012_val_00000005.JPEG": b"val 5",
    **{f"train/{wnid}/{name}": content for wnid, files in TRAINING.items() for name, content in files.items()},
}


def unpack(folder: Path, to: Path) -> int:
    return run(imagenet.main, ["--from", str(folder), "--to", str(to)])


def complaint(folder: Path, to: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert unpack(folder, to) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_every_picture_lies_with_its_class(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert unpack(folder, tmp_path / "to") == 0
    assert made(tmp_path / "to") == EXPECTED
    assert sorted(path.name for path in (tmp_path / "to").iterdir()) == ["train", "val"]
    assert capsys.readouterr().err == ""


def test_a_second_call_asks_for_nothing(folder: Path, tmp_path: Path) -> None:
    assert unpack(folder, tmp_path / "to") == 0
    shutil.rmtree(folder)
    assert unpack(folder, tmp_path / "to") == 0


@pytest.mark.parametrize(
    ("name", "split", "kept"),
    [
        (imagenet.VAL, "val", 2 * 512 + 512 + 2),  # within the second picture
        (imagenet.TRAIN, "train", 512 + tarfile.RECORDSIZE + 512 + 512 + 3),  # within the first of the second class
    ],
)
def test_a_stopped_call_goes_on(
    name: str,
    split: str,
    kept: int,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    to = tmp_path / "to"
    whole = (folder / name).read_bytes()
    change(name, whole[:kept], folder, monkeypatch)
    assert f"{folder / name}: not a whole tar archive" in complaint(folder, to, capsys)
    assert not (to / split).exists()
    written = {
        path.relative_to(to / f".{split}.partial"): path.stat().st_mtime_ns
        for path in (to / f".{split}.partial").rglob("*.JPEG")
        if path.stat().st_size > 3
    }
    assert len(written) == (1 if split == "val" else 2)
    change(name, whole, folder, monkeypatch)
    assert unpack(folder, to) == 0
    assert made(to) == EXPECTED
    assert {path: (to / split / path).stat().st_mtime_ns for path in written} == written


def test_a_picture_cut_short_is_written_again(folder: Path, tmp_path: Path) -> None:
    for split, name in (("val", "n02100735/ILSVRC2012_val_00000004.JPEG"), ("train", "n02100735/n02100735_7.JPEG")):
        path = tmp_path / "to" / f".{split}.partial" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(b"va")
    assert unpack(folder, tmp_path / "to") == 0
    assert made(tmp_path / "to") == EXPECTED


@pytest.mark.parametrize("name", [imagenet.TRAIN, imagenet.VAL, imagenet.DEVKIT])
def test_a_missing_archive_is_told_before_any_work(
    name: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / name).unlink()
    error = complaint(folder, tmp_path / "to", capsys)
    assert f"{folder / name} does not exist: get ILSVRC2012_img_train.tar" in error
    assert "https://image-net.org/download-images (ILSVRC2012, for registered researchers)" in error
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize("name", [imagenet.TRAIN, imagenet.VAL, imagenet.DEVKIT])
def test_another_archive_is_refused(
    name: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / name).write_bytes((folder / name).read_bytes() + b"\0")
    assert f"{folder / name}: md5 is" in complaint(folder, tmp_path / "to", capsys)


def change(name: str, content: bytes, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / name).write_bytes(content)
    publish(folder, monkeypatch)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (devkit({**SYNSETS, 4: ("n00001740", 0)}), "4 classes and the labels of 5 validation pictures, not 3 and 5"),
        (devkit({1: SYNSETS[1], 2: SYNSETS[2], 5: SYNSETS[3]}), "not numbered from 1 to 3 (KeyError: 3)"),
        (devkit({**SYNSETS, 3: SYNSETS[1]}), "2 classes and"),
        (devkit(truth=[*TRUTH, 1]), "the labels of 6 validation pictures"),
        (devkit(truth=[0, *TRUTH[1:]]), "(KeyError: 0)"),
        (devkit(truth=[4, *TRUTH[1:]]), "(KeyError: 4)"),
        (tar({imagenet.META: b"", imagenet.TRUTH: b""}, "w:gz"), "meta.mat) can't be read ("),
        (tar({imagenet.META: META[:-40], imagenet.TRUTH: b""}, "w:gz"), "meta.mat) can't be read ("),
        (tar({imagenet.META: b"\x89HDF\r\n\x1a\n" + bytes(1000), imagenet.TRUTH: b""}, "w:gz"), "can't be read ("),
        (tar({imagenet.META: mat_file("classes", ["id"], numbers(1)), imagenet.TRUTH: b""}, "w:gz"), "'synsets'"),
        (
            tar(
                {imagenet.META: HEADER + array(6, (1, 1), "synsets", element(9, bytes(8))), imagenet.TRUTH: b""}, "w:gz"
            ),
            "no array of",
        ),
        (tar({"readme.txt": b""}, "w:gz"), f"there is no {imagenet.META} in it"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",  # a gzip file has the time in it
)
def test_another_development_kit_is_refused(
    content: bytes,
    reason: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    change(imagenet.DEVKIT, content, folder, monkeypatch)
    error = complaint(folder, tmp_path / "to", capsys)
    assert str(folder / imagenet.DEVKIT) in error
    assert reason in error
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (tar({**VALIDATION, "ILSVRC2012_val_00000006.JPEG": b""}), "'ILSVRC2012_val_00000006.JPEG' is not one of"),
        (tar({**VALIDATION, "ILSVRC2012_val_00000000.JPEG": b""}), "'ILSVRC2012_val_00000000.JPEG' is not one of"),
        (tar({**VALIDATION, "../ILSVRC2012_val_00000001.JPEG": b""}), "is not one of the validation pictures"),
        (tar(dict(list(VALIDATION.items())[:4])), "4 pictures, not 5"),
    ],
)
def test_other_validation_pictures_are_refused(
    content: bytes,
    reason: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    change(imagenet.VAL, content, folder, monkeypatch)
    assert reason in complaint(folder, tmp_path / "to", capsys)
    assert not (tmp_path / "to" / "val").exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            training({**TRAINING, "n00001740": {"n00001740_1.JPEG": b""}}),
            "'n00001740.tar' is not the archive of a class",
        ),
        (training({**TRAINING, "../n02119789": {}}), "'../n02119789.tar' is not the archive of a class"),
        (training({**TRAINING, "n02119789": {"n02100735_1.JPEG": b""}}), "'n02100735_1.JPEG' in n02119789.tar is not"),
        (training({**TRAINING, "n02119789": {"../n02119789_1.JPEG": b""}}), "in n02119789.tar is not a picture of it"),
        (training({**TRAINING, "n02119789": {}}), "there are no pictures in n02119789.tar"),
        (training({"n02119789": TRAINING["n02119789"]}), "there is no n01751748.tar in it"),
        (tar({"n02119789.tar": b"no archive" * 100}), "not a whole tar archive"),
    ],
)
def test_other_training_pictures_are_refused(
    content: bytes,
    reason: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    change(imagenet.TRAIN, content, folder, monkeypatch)
    assert reason in complaint(folder, tmp_path / "to", capsys)
    assert not (tmp_path / "to" / "train").exists()
    assert (tmp_path / "to" / "val").exists()  # which is whole


def test_text_and_numbers_of_any_width_are_read() -> None:
    fields = ["ILSVRC2012_ID", "WNID", "words", "children"]
    byte = array(6, (1, 1), "", element(2, b"\x07"))
    whole = mat_file(
        "synsets", fields, byte, text("n1"), text("nine"), numbers(1, 2), byte, text("n2"), text(""), numbers()
    )
    (first, second) = imagenet.read_synsets(whole, "meta.mat")
    assert (first["ILSVRC2012_ID"], first["WNID"], first["words"]) == (7, "n1", "nine")
    assert first["children"].tolist() == [1, 2]
    assert second["WNID"] == "n2"


def test_without_scipy_it_is_one_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    assert "pip install 'seqba[imagenet]'" in complaint(folder, tmp_path / "to", capsys)


def test_a_link_in_an_archive_is_passed_over(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = io.BytesIO(tar(VALIDATION))
    with tarfile.open(fileobj=packed, mode="a") as archive:
        entry = tarfile.TarInfo("ILSVRC2012_val_00000001.JPEG")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(entry)
    change(imagenet.VAL, packed.getvalue(), folder, monkeypatch)
    assert unpack(folder, tmp_path / "to") == 0
    assert made(tmp_path / "to") == EXPECTED
