"""docs/images.md names every image network, every option of pictures and networks, and every row of the recipe."""

from __future__ import annotations

import dataclasses
import re
import subprocess
from pathlib import Path

from seqba.models.image_networks import NETWORKS
from seqba.models.options import ImageClassifierOptions
from seqba.options import flag_of
from seqba.tasks.image_options import ImageOptions

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "images.md").read_text(encoding="utf-8")


def part(heading: str) -> set[str]:
    """What stands between backticks in the rows of a part's tables."""
    text = PAGE.split(f"\n## {heading}", 1)[1].split("\n## ", 1)[0]
    rows = "\n".join(line for line in text.splitlines() if line.startswith("|"))
    return set(re.findall(r"`([^`]+)`", rows))


def test_every_network_is_there() -> None:
    assert set(NETWORKS) | {"timm:NAME"} <= part("Networks")


def test_every_option_is_there() -> None:
    fields = [field for options in (ImageOptions, ImageClassifierOptions) for field in dataclasses.fields(options)]
    assert {flag_of(field.name) for field in fields} <= part("Options")


def test_every_row_is_there() -> None:
    listed = subprocess.run(
        ["bash", ROOT / "recipes" / "table2_images.sh", "--list"], capture_output=True, text=True, check=True
    )
    assert set(listed.stdout.split()) <= part("The paper's rows")
