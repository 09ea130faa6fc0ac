from __future__ import annotations

import dataclasses
import hashlib
import io
import tarfile
from pathlib import Path

import cifar
import numpy as np
import pytest
from fetching import Source
from toy_images import write_cifar

from seqba.cli.command import run
from seqba.data.images import open_images

DATASETS = ["cifar10", "cifar100"]
PICTURES = 6


@pytest.fixture(params=DATASETS)
def dataset(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A set with six pictures in each file."""
    name: str = request.param
    small = dict.fromkeys(cifar.DATASETS[name].pictures, PICTURES)
    changed = dataclasses.replace(cifar.DATASETS[name], pictures=small)
    monkeypatch.setattr(cifar, "DATASETS", {**cifar.DATASETS, name: changed})
    return name


@pytest.fixture
def files(dataset: str, tmp_path: Path) -> Path:
    """The toy's files, in a folder called as in the archive."""
    layout = cifar.DATASETS[dataset].layout
    folder = tmp_path / "public" / layout.folder
    write_cifar(folder, layout, PICTURES)
    if dataset == "cifar100":
        (folder / "coarse_label_names.txt").write_text("coarse\n")
    return folder


def publish(dataset: str, files: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes the archive of a folder the known one, at a file:// address."""
    archive = files.parent / cifar.DATASETS[dataset].archive.name
    with tarfile.open(archive, "w:gz") as tar:
        readme = tarfile.TarInfo(f"{files.name}/readme.html")
        readme.size = 5
        tar.addfile(readme, io.BytesIO(b"hello"))
        tar.add(files, arcname=files.name)
    source = Source(archive.as_uri(), "md5:" + hashlib.md5(archive.read_bytes(), usedforsecurity=False).hexdigest())
    changed = dataclasses.replace(cifar.DATASETS[dataset], archive=source)
    monkeypatch.setattr(cifar, "DATASETS", {**cifar.DATASETS, dataset: changed})
    return archive


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def arguments(dataset: str, to: Path, source: Path | None = None) -> list[str]:
    return ["--dataset", dataset, "--to", str(to), *([] if source is None else ["--from", str(source)])]


def complaint(given: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert run(cifar.main, given) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_the_archive_is_downloaded_and_unpacked_once(
    dataset: str, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = publish(dataset, files, monkeypatch)
    to = tmp_path / "to"
    assert cifar.main(arguments(dataset, to)) == 0
    assert capsys.readouterr().err == f"downloading {archive.as_uri()}\n"
    assert content(to / files.name) == content(files)
    source = open_images(to, "train", decode_size=32)
    assert len(source) == PICTURES * len(cifar.DATASETS[dataset].layout.train)
    assert source.read(np.arange(len(source))).images.shape[1:] == (3, 32, 32)
    kept = (to / files.name / cifar.DATASETS[dataset].layout.test).stat().st_mtime_ns
    (to / files.name / cifar.DATASETS[dataset].layout.train[0]).unlink()
    assert cifar.main(arguments(dataset, to)) == 0
    assert content(to / files.name) == content(files)
    assert (to / files.name / cifar.DATASETS[dataset].layout.test).stat().st_mtime_ns == kept
    assert capsys.readouterr().err == ""
    archive.unlink()
    (to / "download" / archive.name).unlink()
    assert cifar.main(arguments(dataset, to)) == 0  # nothing is missing, so that nothing is asked for


@pytest.mark.parametrize("given", ["the archive", "its folder"])
def test_an_archive_at_hand_is_taken(
    given: str, dataset: str, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = publish(dataset, files, monkeypatch)
    expected = content(files)
    for path in files.iterdir():
        path.unlink()
    assert cifar.main(arguments(dataset, tmp_path / "to", archive if given == "the archive" else archive.parent)) == 0
    assert content(tmp_path / "to" / files.name) == expected


@pytest.mark.parametrize("inner", [True, False])
def test_files_at_hand_are_taken(inner: bool, dataset: str, files: Path, tmp_path: Path) -> None:
    assert cifar.main(arguments(dataset, tmp_path / "to", files if inner else files.parent)) == 0
    assert content(tmp_path / "to" / files.name) == content(files)


def test_another_archive_is_refused(
    files: Path, dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = publish(dataset, files, monkeypatch)
    archive.write_bytes(archive.read_bytes() + b"\0")
    assert "not the published" in complaint(arguments(dataset, tmp_path / "to", archive), capsys)
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize("kept", [100, -100])
def test_an_archive_cut_short_leaves_whole_files(
    kept: int,
    files: Path,
    dataset: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    archive = publish(dataset, files, monkeypatch)
    archive.write_bytes(archive.read_bytes()[:kept])
    monkeypatch.setattr(cifar, "verify", lambda path, digest: None)
    assert "not a whole tar archive" in complaint(arguments(dataset, tmp_path / "to", archive), capsys)
    for path in (tmp_path / "to" / files.name).iterdir():
        assert path.read_bytes() == (files / path.name).read_bytes()


def test_a_file_of_another_size_is_refused_wherever_it_is(
    files: Path, dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = files / cifar.DATASETS[dataset].layout.test
    path.write_bytes(path.read_bytes()[: -cifar.DATASETS[dataset].layout.record_bytes])
    sizes = f"{path.stat().st_size:,} bytes, not the {PICTURES * cifar.DATASETS[dataset].layout.record_bytes:,}"
    to = tmp_path / "to"
    assert f"{path} has {sizes}" in complaint(arguments(dataset, to, files), capsys)
    archive = publish(dataset, files, monkeypatch)
    error = complaint(arguments(dataset, to, archive), capsys)
    assert f"{files.name}/{path.name} in {archive} has {sizes}" in error
    (to / files.name / path.name).write_bytes(path.read_bytes())
    assert f"{to / files.name / path.name} has {sizes}" in complaint(arguments(dataset, to, archive), capsys)
    assert (to / files.name / path.name).exists()  # it is the user's


def test_an_archive_without_a_file_is_refused(
    files: Path, dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = cifar.DATASETS[dataset].layout.names
    (files / name).rename(files.parent / name)
    archive = publish(dataset, files, monkeypatch)
    assert f"there is no {files.name}/{name} in it" in complaint(arguments(dataset, tmp_path / "to", archive), capsys)


def test_a_damaged_label_is_seen_at_the_end(
    files: Path, dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = files / cifar.DATASETS[dataset].layout.train[-1]
    path.write_bytes(b"\xff\xff" + path.read_bytes()[2:])
    assert "picture 0: label 255 is beyond" in complaint(arguments(dataset, tmp_path / "to", files), capsys)


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_a_place_with_nothing_in_it_is_one_line(
    name: str, dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    error = complaint(arguments(dataset, tmp_path / "to", tmp_path / name), capsys)
    assert f"{tmp_path / name}: there is neither {cifar.DATASETS[dataset].archive.name} nor all of " in error
    assert "--from takes the archive, or a folder" in error


@pytest.mark.parametrize(("name", "record", "pictures"), [("cifar10", 3073, 60_000), ("cifar100", 3074, 60_000)])
def test_the_published_sizes(name: str, record: int, pictures: int) -> None:
    published = cifar.DATASETS[name]
    assert sum(published.pictures.values()) == pictures
    assert sum(published.size_of(file) or 0 for file in published.files) == pictures * record
    assert set(published.layout.files) <= set(published.files)
