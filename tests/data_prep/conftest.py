"""The scripts of data_prep/ import each other by their plain names, as Python does for a script's own folder."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "data_prep"))
