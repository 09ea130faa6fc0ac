"""Small sets of pictures in the layouts of real ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from seqba.data.cifar import PIXEL_BYTES, Layout

COLOURS = 10


def write_cifar(folder: Path, layout: Layout, per_file: int = 20) -> dict[str, npt.NDArray[np.uint8]]:
    """Random records in the official layout; returns them by file."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(1)
    written = {}
    for name in (*layout.train, layout.test):
        records = random.integers(0, 256, (per_file, layout.record_bytes), dtype=np.uint8)
        for column, count in enumerate(layout.kinds):
            records[:, column] = random.integers(0, count, per_file)
        records.tofile(folder / name)
        written[name] = records
    names = "".join(f"class{number}\n" for number in range(layout.kinds[-1]))
    (folder / layout.names).write_text(names + "\n", encoding="utf-8")
    assert records.shape[1] == len(layout.kinds) + PIXEL_BYTES
    return written


def write_coloured_cifar(folder: Path, *, per_file: int = 16, test: int = 20, seed: int = 0) -> Path:
    """A CIFAR-10 whose classes are colours under much noise, so that a network can learn them in seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    colours = random.integers(40, 215, size=(COLOURS, 3))
    for name, count in [*((f"data_batch_{number}.bin", per_file) for number in range(1, 6)), ("test_batch.bin", test)]:
        labels = np.arange(count) % COLOURS
        pixels = colours[labels][:, :, None] + random.normal(0, 30, size=(count, 3, PIXEL_BYTES // 3))
        records = np.concatenate([labels[:, None], pixels.clip(0, 255).reshape(count, -1)], axis=1).astype(np.uint8)
        records.tofile(folder / name)
    (folder / "batches.meta.txt").write_text("".join(f"class{number}\n" for number in range(COLOURS)))
    return folder


def picture(height: int, width: int, seed: int) -> Image.Image:
    """Smooth noise, which formats with loss keep nearly as it is."""
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def write_folders(folder: Path, splits: tuple[str, ...] = ("train", "val"), per_class: int = 3) -> Path:
    """PNG pictures of classes `cat` and `dog` of different sizes, up to 40 by 40, the shorter side 20."""
    for split in splits:
        for label, name in enumerate(("cat", "dog")):
            (folder / split / name).mkdir(parents=True)
            for number in range(per_class):
                height, width = (20, 20 + 5 * number) if label else (20 + 10 * number, 20)
                seed = 100 * label + number
                picture(height, width, seed).save(folder / split / name / f"{number}.png")
    return folder
