"""seqba-eval-lm with the AWD-LSTM: the state that is carried, words, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from alphabet import write_alphabet
from commands import last_complaint
from lstm_runs import score, train

from seqba.training.folder import LAST

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def checkpoint(alphabet: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lstm")
    assert train(alphabet, folder, "--max-update", "3") == 0
    return folder / LAST


def test_the_state_is_carried_through_the_whole_text(
    alphabet: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = set()
    for bptt in ("3", "20", "1000"):
        assert score(alphabet, checkpoint, "--quiet", "--bptt", bptt) == 0
        lines.add(capsys.readouterr().out)
    assert len(lines) == 1
    assert score(alphabet, checkpoint, "--quiet", "--batch-size", "5") == 0
    assert capsys.readouterr().out not in lines  # five streams begin without a past


def test_words_and_their_probabilities_add_up(
    alphabet: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score(alphabet, checkpoint, "--output-word-probs", "--batch-size", "2") == 0
    *rows, counted, last = capsys.readouterr().out.splitlines()
    assert [int(row.split(" ", 1)[0]) for row in rows] == list(range(len(rows)))
    words = [word for row in rows for word in row.split(" ", 1)[1].split("\t")]
    logs = [float(word[word.index("[") + 1 : -1]) for word in words]
    assert counted.startswith(f"Evaluated {len(words)} tokens")
    bits = -sum(logs) / len(logs) / math.log(2)
    assert float(last.split()[3].rstrip(",")) == pytest.approx(bits, abs=1e-3)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--tokens-per-sample", "20"], "--tokens-per-sample is for Transformers"),
        (["--context-window", "0"], "--context-window is for Transformers"),
        (["--max-tokens", "50"], "--max-tokens is for Transformers"),
        (["--batch-size", "5000"], "too few to cut into 5000 streams of at least 2: lower --batch-size"),
        (["--gen-subset", "nowhere"], "has no split 'nowhere'"),
    ],
)
def test_mistakes_of_an_evaluation_are_one_line(
    more: list[str], message: str, alphabet: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in last_complaint(capsys, score(alphabet, checkpoint, *more))


def test_another_vocabulary_is_refused(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = write_alphabet(tmp_path / "other", letters=list("zyxwvutsrqpo"))
    assert "was trained with another dictionary" in last_complaint(capsys, score(other, checkpoint))
    assert train(other, checkpoint.parent, "--max-update", "9") == 2
    assert "was trained on other data (dictionary_sha256 differ)" in capsys.readouterr().err
