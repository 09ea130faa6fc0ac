"""Toy pictures and stubs of the commands, for the tests of the recipes on pictures."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seqba.data.cifar import CIFAR10, PIXEL_BYTES, Layout

TINY = ["--", "--arch", "resnet8"]


SWITCHES = ("--maximize-best-checkpoint-metric", "--quiet", "--fresh")


STUB = """\
import json, sys
from pathlib import Path

home, name, arguments = Path(sys.argv[1]).parent, Path(sys.argv[1]).name, sys.argv[2:]
if name == "python":
    name = Path(arguments.pop(0)).name
with open(home / "calls.jsonl", "a") as calls:
    calls.write(json.dumps([name, *arguments]) + chr(10))
if name == "seqba-train":
    Path(arguments[arguments.index("--save-dir") + 1]).mkdir(exist_ok=True, parents=True)
elif name == "seqba-eval-image":
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
    programs = tmp_path / "venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "stub.py").write_text(STUB, encoding="utf-8")
    stub = f'exec {sys.executable} "${{0%/*}}/stub.py" "$0" "$@"'
    commands = {
        "python": f'case "$1" in */data_prep/*) {stub} ;; *) echo "${{PICTURES:-}}" ;; esac',
        **dict.fromkeys(("seqba-train", "seqba-eval-image"), stub),
    }
    for name, line in commands.items():
        (programs / name).write_text(f"#!/bin/sh\n{line}\n", encoding="utf-8")
        (programs / name).chmod(0o755)
    return programs.parent


def calls(stubs: Path, command: str) -> list[dict[str, str]]:
    """The options of every call of a command, the last of each name; its first argument under "data"."""
    lines = map(json.loads, (stubs / "bin" / "calls.jsonl").read_text(encoding="utf-8").splitlines())
    found = []
    for name, *words in lines:
        if name == command:
            named = {name: "" for name in SWITCHES if name in words}
            words = [word for word in words if word not in named]
            if len(words) % 2:
                named["data"] = words.pop(0)
            found.append(named | dict(zip(words[::2], words[1::2], strict=True)))
    return found


def table(stdout: str) -> dict[str, list[str]]:
    """The closing table, by its first column."""
    lines = stdout.splitlines()
    head = max(number for number, line in enumerate(lines) if line.startswith("top-1 %"))
    return {line.split()[0]: line.split()[1:] for line in lines[head + 1 :]}
