"""Toy pictures and stubs of the commands, for the tests of the recipes on pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stub_programs import NOTE, noted_calls, write_programs

from seqba.data.cifar import CIFAR10, PIXEL_BYTES, Layout

TINY = ["--", "--arch", "resnet8"]
SWITCHES = ("--maximize-best-checkpoint-metric", "--quiet", "--fresh")
ANSWER = """
if name == "seqba-eval-image":
    views = arguments[arguments.index("--tta") + 1] if "--tta" in arguments else "0"
    print("Evaluated 8 images")
    print(f"Top-1: 9{views}.{'50' if 'best' in str(arguments) else '25'}%, Top-5: 99.00%, Loss (nats): 0.1")
"""


def write_coloured_cifar(folder: Path, layout: Layout, per_file: int) -> Path:
    """Pictures in the official layout, each of its class's colour and a little noise: soon learned."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(1)
    for name in (*layout.train, layout.test):
        labels = random.integers(0, 10, per_file)
        colours = np.random.default_rng(2).integers(40, 216, (10, 3))[labels]
        pixels = np.repeat(colours, PIXEL_BYTES // 3, axis=1) + random.integers(-20, 21, (per_file, PIXEL_BYTES))
        kinds = [np.zeros(per_file, int), labels][-len(layout.kinds) :]
        np.column_stack([*kinds, pixels]).astype(np.uint8).tofile(folder / name)
    names = "".join(f"class{number}\n" for number in range(layout.kinds[-1]))
    (folder / layout.names).write_text(names, encoding="utf-8")
    return folder


def write_coloured_folders(folder: Path, per_class: int) -> Path:
    """Two classes in the layout of ImageNet, one red, one blue, in several sizes."""
    for split in ("train", "val"):
        for name, colour in {"n01": (200, 40, 40), "n02": (40, 40, 200)}.items():
            (folder / split / name).mkdir(parents=True)
            for number in range(per_class):
                Image.new("RGB", (20 + number % 5, 20), colour).save(folder / split / name / f"{number}.png")
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """CIFAR-10 with 60 training and 12 test pictures."""
    return write_coloured_cifar(tmp_path / "pictures", CIFAR10, 12)


@pytest.fixture
def stubs(tmp_path: Path) -> Path:
    """An environment whose programs only write down how they were called. There are $PICTURES training pictures."""
    lines = {
        "python": f'case "$1" in */data_prep/*) {NOTE} ;; *) echo "${{PICTURES:-}}" ;; esac',
        **dict.fromkeys(("seqba-train", "seqba-eval-image"), NOTE),
    }
    return write_programs(tmp_path / "venv", lines, ANSWER)


def calls(stubs: Path, command: str) -> list[dict[str, str]]:
    """The options of every call of a command, the last of each name; its first argument under "data"."""
    found = []
    for call in noted_calls(stubs, command):
        named = {name: "" for name in SWITCHES if name in call}
        words = [word for word in call if word not in named]
        if len(words) % 2:
            named["data"] = words.pop(0)
        found.append(named | dict(zip(words[::2], words[1::2], strict=True)))
    return found


def table(stdout: str) -> dict[str, list[str]]:
    """The closing table, by its first column."""
    lines = stdout.splitlines()
    head = max(number for number, line in enumerate(lines) if line.startswith("top-1 %"))
    return {line.split()[0]: line.split()[1:] for line in lines[head + 1 :]}
