from __future__ import annotations

from pathlib import Path

import pytest

TRAIN = ("europarl-v7.de-en", "commoncrawl.de-en", "news-commentary-v11.de-en")
TINY = [
    *("--encoder-layers", "1", "--encoder-embed-dim", "32", "--encoder-ffn-embed-dim", "64"),
    *("--decoder-layers", "1", "--decoder-embed-dim", "32", "--decoder-ffn-embed-dim", "64"),
    *("--encoder-attention-heads", "2", "--decoder-attention-heads", "2"),
    *("--max-tokens", "400", "--warmup-updates", "2"),
]


def as_sgm(path: Path) -> str:
    """A plain file in the form of WMT's tests."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return "<doc>\n" + "".join(f'<seg id="{i}">{line}</seg>\n' for i, line in enumerate(lines)) + "</doc>\n"


@pytest.fixture
def parts(toy_text: Path, write_pairs) -> Path:
    """The corpus's parts under their own names, at toy size."""
    for name in TRAIN:
        write_pairs(toy_text / f"{name}.en", toy_text / f"{name}.de", 60)
    write_pairs(toy_text / "newstest2013.en", toy_text / "newstest2013.de", 12)
    for name in ("newstest2014-deen", "newstest2015-ende", "newstest2016-ende"):
        (toy_text / f"{name}-src.en.sgm").write_text(as_sgm(toy_text / "newstest2013.en"), encoding="utf-8")
        (toy_text / f"{name}-ref.de.sgm").write_text(as_sgm(toy_text / "newstest2013.de"), encoding="utf-8")
    return toy_text


@pytest.mark.slow
def test_the_papers_run_at_toy_size(recipe, parts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["--from", parts, "--arm", "all", "--copies", "2", "--updates", "3", "--merges", "60", "--out", out]
    finished = recipe("wmt16_en_de.sh", *arguments, "--", *TINY)
    assert finished.returncode == 0, finished.stderr
    for arm in ("baseline", "fixed-samples", "ba"):
        folder = out / arm / "newstest2014"
        assert len((folder / "text.de").read_text(encoding="utf-8").splitlines()) == 12
        report = (folder / "bleu.txt").read_text(encoding="utf-8")
        assert report.count("BLEU") >= 3
    corpus = {path.name: path.stat().st_mtime_ns for path in (out / "corpus" / "bpe").iterdir()}
    again = recipe("wmt16_en_de.sh", *arguments[:2], *arguments[4:], "--", *TINY)
    assert again.returncode == 0, again.stderr
    assert {path.name: path.stat().st_mtime_ns for path in (out / "corpus" / "bpe").iterdir()} == corpus
