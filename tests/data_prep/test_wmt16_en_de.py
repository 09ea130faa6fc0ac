from __future__ import annotations

import dataclasses
import hashlib
import io
import tarfile
from pathlib import Path

import moses
import pytest
import wmt16_en_de as wmt

from seqba.cli.command import run
from seqba.data.text import count_lines
from seqba.errors import UserError

TEXT = {
    "en": ["The house isn't old.", "She has a dog, a cat and a house.", "The dog is old."],
    "de": ["Das Haus ist nicht alt.", "Sie hat einen Hund, eine Katze und ein Haus.", "Der Hund ist alt."],
}


def content(member: str) -> bytes:
    """What a toy archive holds under a member's name."""
    language = "en" if ".en" in member.removesuffix(".sgm")[-3:] else "de"
    if not member.endswith(".sgm"):
        return "".join(line + "\n" for line in TEXT[language]).encode()
    segments = "".join(f'<seg id="{i}"> {line} </seg>\n' for i, line in enumerate(TEXT[language]))
    return f'<srcset setid="newstest">\n<doc docid="a">\n<p>\n{segments}</p>\n</doc>\n</srcset>\n'.encode()


def all_parts() -> list[wmt.Part]:
    return [*wmt.TRAIN, *wmt.TESTS.values()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The plain files, under their own names, without the archives' folders."""
    folder = tmp_path / "from"
    folder.mkdir()
    for part in all_parts():
        for member in part.members:
            (folder / Path(member).name).write_bytes(content(member))
    return folder


@pytest.fixture
def archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Toy archives at file:// addresses, and tables that point there."""
    folder = tmp_path / "public"
    folder.mkdir()
    sources: dict[wmt.Source, wmt.Source] = {}
    for archive in {part.archive for part in all_parts()}:
        with tarfile.open(folder / archive.name, "w:gz") as tar:
            for member in (name for part in all_parts() if part.archive == archive for name in part.members):
                (tmp_path / "member").write_bytes(content(member))
                tar.add(tmp_path / "member", arcname=member)
        path = folder / archive.name
        digest = "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
        sources[archive] = wmt.Source(path.as_uri(), digest)

    def moved(part: wmt.Part) -> wmt.Part:
        return dataclasses.replace(part, archive=sources[part.archive])

    monkeypatch.setattr(wmt, "TRAIN", tuple(moved(part) for part in wmt.TRAIN))
    monkeypatch.setattr(wmt, "TESTS", {name: moved(part) for name, part in wmt.TESTS.items()})
    wmt._archive.cache_clear()
    return folder


def arguments(to: Path, *more: str) -> list[str]:
    return ["--to", str(to), "--merges", "20", "--workers", "1", *more]


def test_archives_and_plain_files_give_the_same_corpus(archives: Path, folder: Path, tmp_path: Path) -> None:
    assert wmt.main(arguments(tmp_path / "a")) == 0
    assert wmt.main(arguments(tmp_path / "b", "--from", str(folder))) == 0
    assert wmt.main(arguments(tmp_path / "c", "--from", str(archives))) == 0
    made = sorted(path.relative_to(tmp_path / "b") for path in (tmp_path / "b").rglob("*.*") if path.is_file())
    assert len(made) == 3 * 10 + 2 + 1
    for name in made:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
        assert (tmp_path / "c" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_text_at_every_stage(folder: Path, tmp_path: Path) -> None:
    assert wmt.main(arguments(tmp_path / "to", "--from", str(folder))) == 0

    def lines(name: str) -> list[str]:
        return (tmp_path / "to" / name).read_text(encoding="utf-8").splitlines()

    assert lines("raw/train.en") == TEXT["en"] * 3
    assert lines("raw/newstest2014.de") == TEXT["de"]
    assert lines("tok/newstest2014.en")[:2] == [
        "The house isn &apos;t old .",
        "She has a dog , a cat and a house .",
    ]
    joined = [line.replace("@@ ", "") for line in lines("bpe/newstest2014.de")]
    assert joined == lines("tok/newstest2014.de")
    assert any("@@" in line for line in lines("bpe/train.en"))


def test_a_second_call_makes_only_what_is_missing(folder: Path, tmp_path: Path) -> None:
    to = tmp_path / "to"
    wmt.main(arguments(to, "--from", str(folder)))
    kept, made_again = to / "tok" / "train.en", to / "bpe" / "newstest2013.de"
    before, text = kept.stat().st_mtime_ns, made_again.read_bytes()
    made_again.unlink()
    wmt.main(arguments(to, "--from", str(folder)))
    assert kept.stat().st_mtime_ns == before
    assert made_again.read_bytes() == text


def test_mistakes_are_one_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "newstest2013.de").unlink()
    assert run(wmt.main, arguments(tmp_path / "to", "--from", str(folder))) == 2
    assert "neither newstest2013.de nor dev.tgz is there" in capsys.readouterr().err
    (folder / "newstest2013.de").write_text("nur eine\n", encoding="utf-8")
    assert run(wmt.main, arguments(tmp_path / "to", "--from", str(folder))) == 2
    assert "newstest2013.en has 3 lines" in capsys.readouterr().err
    assert run(wmt.main, arguments(tmp_path / "to", "--max-ratio", "0.5")) == 2
    assert "--max-ratio is 0.5" in capsys.readouterr().err


def test_every_stage_has_the_same_lines_whatever_is_in_them(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "newstest2013.en").write_bytes("\ufeffOne\rtwo.\r\nThree\x85four.\n".encode() + b"Caf\xe9.\n")
    assert run(wmt.main, arguments(tmp_path / "to", "--from", str(folder))) == 0
    assert f"note: {folder}/newstest2013.en: 1 lines hold bytes that are not UTF-8" in capsys.readouterr().err
    raw = (tmp_path / "to" / "raw" / "newstest2013.en").read_bytes()
    assert raw == "One two.\nThree\x85four.\nCaf\ufffd.\n".encode()
    assert count_lines(tmp_path / "to" / "bpe" / "newstest2013.en") == 3


def test_what_is_no_text_is_called_that(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "newstest2013.en").write_bytes("One.\n".encode("utf-16"))
    assert run(wmt.main, arguments(tmp_path / "to", "--from", str(folder))) == 2
    assert "newstest2013.en is UTF-16 text, not UTF-8 text" in capsys.readouterr().err


def test_moses_reads_lines_as_everywhere(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbfa cat .\r\na dog .\ra cow .")))
    assert run(moses.main, ["detokenize", "--lang", "en"]) == 0
    assert capfdbinary.readouterr().out == b"a cat.\na dog.\na cow.\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\x89PNG\r\n")))
    assert run(moses.main, ["detokenize", "--lang", "en"]) == 2
    assert b"standard input is a PNG picture, not UTF-8 text" in capfdbinary.readouterr().err


def test_a_byte_order_mark_changes_no_merges(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("low lower lowest\n" * 3, encoding="utf-8")
    moses.learn_joint_bpe([tmp_path / "text"], tmp_path / "codes", merges=2)
    (tmp_path / "marked").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "codes").read_bytes())
    split = [moses.apply_bpe(["low lowest"], codes=tmp_path / name) for name in ("codes", "marked")]
    assert split[0] == split[1] == ["lo@@ w lo@@ we@@ s@@ t"]


def test_a_truncated_archive_is_named(archives: Path, tmp_path: Path) -> None:
    archive = wmt.TRAIN[0].archive
    whole = (archives / archive.name).read_bytes()
    (archives / archive.name).write_bytes(whole[: len(whole) // 2])
    digest = "sha256:" + hashlib.sha256(whole[: len(whole) // 2]).hexdigest()
    with pytest.raises(UserError, match="not a whole tar archive"):
        list(wmt.lines_of(wmt.Source(archive.url, digest), "training/x", tmp_path, None))


def test_cleaning_follows_moses(tmp_path: Path) -> None:
    pairs = [
        ("a b", "c d e"),  # kept
        ("", "c"),  # empty
        ("a " * 81, "c " * 81),  # too long
        ("a", "c " * 10),  # ten times as long
        ("a", "c " * 9),  # nine times as long: kept
        ("a" * 1001, "c"),  # a word of 1,001 characters
    ]
    for language, side in (("en", 0), ("de", 1)):
        (tmp_path / language).write_text("".join(pair[side] + "\n" for pair in pairs), encoding="utf-8")
    kept = moses.clean_pairs(
        (tmp_path / "en", tmp_path / "de"), (tmp_path / "x", tmp_path / "y"), shortest=1, longest=80, ratio=9.0
    )
    assert kept == (2, 6)
    assert (tmp_path / "x").read_text() == "a b\na\n"
    assert (tmp_path / "y").read_text() == "c d e\n" + " ".join("c" * 9) + "\n"


def test_detokenising_undoes_tokenising() -> None:
    for language, lines in TEXT.items():
        assert moses.detokenize(moses.tokenize(lines, language=language), language=language) == lines
