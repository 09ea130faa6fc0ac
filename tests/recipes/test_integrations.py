"""The examples of the integrations, at toy size, with and without copies."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
Run = Callable[..., str]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`run("lightning_language_model.py", text, "--copies", 2)` → what it prints."""

    def start(script: str, *arguments: object) -> str:
        monkeypatch.setenv("PL_GLOBAL_SEED", "0")  # put back afterwards: Lightning's seeding leaves it
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        spec = importlib.util.spec_from_file_location(Path(script).stem, RECIPES / script)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, Path(script).stem, module)  # dataclasses look themselves up
        spec.loader.exec_module(module)
        module.main()
        return capsys.readouterr().out

    return start


@pytest.fixture
def phrases(toy_text: Path, write_pairs: Callable[[Path, Path, int], None]) -> Path:
    for split, count in {"train": 64, "test": 8}.items():
        write_pairs(toy_text / f"{split}.en", toy_text / f"{split}.de", count)
    return toy_text


TINY = ("--layers", 1, "--width", 16, "--heads", 2)
TRAINER = ("--max_steps", 3, "--per_device_train_batch_size", 8, "--max_length", 12, "--use_cpu", "--report_to", "none")


@pytest.mark.parametrize("copies", [0, 2])
def test_a_new_translation_model_is_trained_and_scored(run: Run, phrases: Path, copies: int, tmp_path: Path) -> None:
    out = ("--output_dir", tmp_path / "out", "--disable_tqdm", True, "--vocabulary", 100)
    printed = run("huggingface_translation.py", "--text", phrases, *out, *TINY, *TRAINER, "--copies", copies)
    assert re.search(r"^BLEU = \d", printed, flags=re.MULTILINE)
    assert ("processed_tokens" in printed) == (copies > 0)
    if copies:  # goes on from the weights and subwords of the first run
        again = run("huggingface_translation.py", "--text", phrases, *out, *TRAINER, "--model", tmp_path / "out")
        assert re.search(r"^BLEU = \d", again, flags=re.MULTILINE)


def test_a_missing_file_is_one_line(run: Run, phrases: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (phrases / "test.de").unlink()
    with pytest.raises(SystemExit, match="2"):
        run("huggingface_translation.py", "--text", phrases, "--output_dir", phrases)
    assert capsys.readouterr().err == (
        f"error: no {phrases / 'test.de'}: see --text, --train, --test, --source and --target\n"
    )


@pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning")
@pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning")
@pytest.mark.parametrize("copies", [0, 2])
def test_a_language_model_is_trained_and_scored(run: Run, copies: int, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("the cat sat on the mat\n" * 60, encoding="utf-8")
    sizes = (*TINY, "--context", 16, "--batch", 8, "--updates", 3)
    printed = run("lightning_language_model.py", text, *sizes, "--copies", copies)
    (bits,) = re.findall(r"bits per byte\s+│\s+([\d.]+)", printed)
    assert 1 < float(bits) < 9


@pytest.mark.parametrize(("name", "message"), [("absent", "no file"), ("short", "too few")])
def test_a_text_that_is_absent_or_short_is_refused(
    run: Run, name: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "short").write_text("abc", encoding="utf-8")
    with pytest.raises(SystemExit, match="2"):
        run("lightning_language_model.py", tmp_path / name)
    assert message in capsys.readouterr().err.splitlines()[-1]
