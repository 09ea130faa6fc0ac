"""A toy CIFAR-10 in the official layout: a class is a colour, so that a network can learn it in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np

SIDE = 32
CLASSES = 10


def write_pictures(folder: Path, *, per_file: int = 16, test: int = 20, seed: int = 0) -> Path:
    """Five training files and a test file; label c has about the same mean colour everywhere, under much noise."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    colours = random.integers(40, 215, size=(CLASSES, 3))
    for name, count in [*((f"data_batch_{number}.bin", per_file) for number in range(1, 6)), ("test_batch.bin", test)]:
        labels = np.arange(count) % CLASSES
        pixels = colours[labels][:, :, None] + random.normal(0, 30, size=(count, 3, SIDE * SIDE))
        records = np.concatenate([labels[:, None], pixels.clip(0, 255).reshape(count, -1)], axis=1).astype(np.uint8)
        records.tofile(folder / name)
    (folder / "batches.meta.txt").write_text("".join(f"class{number}\n" for number in range(CLASSES)))
    return folder
