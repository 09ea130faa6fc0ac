"""Augmentation of small images: a few kernels over all rows of a pass, against one image after the other in workers.

    python recipes/bench/image_augmentation.py [--copies 1 4 10] [--workers 2] [--device cpu] [--json FILE]

Both sides make the same from 32 × 32 pictures in memory (random bytes): updates of 64 pictures, each cropped (4 pixels
of padding), mirrored, normalised and cut out (16 × 16) M times, as float32 on the device. "batched" is seqba's modules
inside an update, in --threads threads. "workers" is the usual way: a `DataLoader` with --workers processes, where each
picture is opened with Pillow and goes M times through transforms of one image; what they do to arrays is NumPy, which
is faster than torch at this size. Each side in its own processes, asked in turns; "x workers" is the median over rounds
of the ratio of images per second (augmented ones: 64·M an update) within a round.

What bounds them: "parts" are the batched side's milliseconds per update at the largest M, each part alone;
"one worker's rate" is what the transforms of one image reach without a `DataLoader` in one process, so that --workers
times that is all that so many free cores could give.

Expectation: in one thread, several times as fast as two worker processes at every M (9 to 11 times, 87,000 images per
second at M = 10, on two AMD cores that other runs kept busy); four times what two free cores could.
"""

from __future__ import annotations

import random
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from harness import Row, median_ratio, parse_options, report, seconds, serve, take_turns
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from seqba.cli.command import run as run_command
from seqba.core import Noise, noise_context, replicate
from seqba.nn.images.image_noise import IMAGENET_MEAN, IMAGENET_STD, Cutout, HorizontalFlip, Normalize, RandomCrop
from seqba.runtime.memory import keep_freed_memory

SIDE, PADDING, LENGTH = 32, 4, 16
BATCH = 64


def random_bytes(pictures: int) -> np.ndarray:
    """(pictures, 3, 32, 32), as CIFAR's files hold them."""
    return np.random.default_rng(0).integers(0, 256, (pictures, 3, SIDE, SIDE), dtype=np.uint8)


def one_of(count: int) -> int:
    """A random number below `count`, the fastest way for a single one; a `DataLoader` seeds it in each worker."""
    return random.randrange(count)  # noqa: S311


class OneByOne(Dataset[np.ndarray]):
    """Each item is one picture, opened once and augmented `copies` times: (M, 3, 32, 32) float32."""

    def __init__(self, pictures: int, copies: int) -> None:
        self.data = random_bytes(pictures).transpose(0, 2, 3, 1).copy()  # height, width, colour, as Pillow has them
        self.copies = copies
        mean, std = np.array(IMAGENET_MEAN), np.array(IMAGENET_STD)
        self.scale, self.shift = (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, number: int) -> np.ndarray:
        picture = Image.fromarray(self.data[number])
        return np.stack([self.augment(picture) for _ in range(self.copies)])

    def augment(self, picture: Image.Image) -> np.ndarray:
        """Crop, flip, normalisation and cutout of one picture."""
        top, left = one_of(2 * PADDING + 1), one_of(2 * PADDING + 1)
        padded = ImageOps.expand(picture, PADDING)
        crop = padded.crop((left, top, left + SIDE, top + SIDE))
        if one_of(2):
            crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        levels = (np.asarray(crop) * self.scale + self.shift).transpose(2, 0, 1)
        y, x = one_of(SIDE), one_of(SIDE)
        mask = np.ones((SIDE, SIDE), dtype=np.float32)
        half = LENGTH // 2
        mask[max(y - half, 0) : y + half, max(x - half, 0) : x + half] = 0
        cut: np.ndarray = levels * mask
        return cut


def batched_steps(device: torch.device) -> dict[str, Callable[[Tensor], Tensor]]:
    """The modules of the batched side, in order."""
    crop, flip, cutout = RandomCrop(SIDE, PADDING), HorizontalFlip(), Cutout(LENGTH)
    return {"crop": crop, "flip": flip, "normalise": Normalize().to(device), "cutout": cutout}


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def build(spec: Mapping[str, Any]) -> Callable[[int], float]:
    """A side that measures the augmented images per second of an epoch."""
    copies, pictures, device = spec["copies"], spec["updates"] * BATCH, torch.device(spec["device"])
    if spec["side"] == "batched":
        data, steps = torch.from_numpy(random_bytes(pictures)), batched_steps(device)

        def epoch(number: int) -> None:
            order = torch.from_numpy(np.random.default_rng(number).permutation(pictures)).view(-1, BATCH)
            for update, rows in enumerate(order):
                images = replicate(data[rows].to(device), copies)
                with noise_context(Noise(seed=number, update=update, micro_batch=0, copies=range(copies))):
                    for step in steps.values():
                        images = step(images)
                assert images.shape == (copies * BATCH, 3, SIDE, SIDE)
            wait_for(device)
    else:
        loader = DataLoader(
            OneByOne(pictures, copies),
            batch_size=BATCH,
            shuffle=True,
            num_workers=spec["workers"],
            persistent_workers=True,
            pin_memory=device.type == "cuda",
        )

        def epoch(number: int) -> None:
            for images in loader:
                assert images.to(device).transpose(0, 1).flatten(0, 1).shape == (copies * BATCH, 3, SIDE, SIDE)
            wait_for(device)

    return lambda number: copies * pictures / seconds(lambda: epoch(number))


def parts(copies: int, device: torch.device, repeats: int) -> dict[str, float]:
    """Median milliseconds of each part of a batched update."""
    data = torch.from_numpy(random_bytes(BATCH * 8))
    rows = torch.randperm(len(data))[:BATCH]
    images = data[rows].to(device)
    steps = {"repeat": lambda images: replicate(images, copies), **batched_steps(device)}
    medians = {"gather": statistics.median(seconds(lambda: data[rows].to(device)) for _ in range(repeats))}
    for name, step in steps.items():
        outputs: list[Tensor] = []

        def once(step: Callable[[Tensor], Tensor] = step, outputs: list[Tensor] = outputs) -> None:
            with noise_context(Noise(seed=0, update=0, micro_batch=0, copies=range(copies))):
                outputs[:] = [step(images)]  # noqa: B023 - used up within the iteration
            wait_for(device)

        once()
        medians[name] = statistics.median(seconds(once) for _ in range(repeats))
        images = outputs[0]
    return {name: round(1e3 * median, 3) for name, median in medians.items()}


def one_by_one_rate(copies: int, pictures: int) -> float:
    """Augmented images per second of the per-image transforms alone, in this process."""
    dataset = OneByOne(pictures, copies)
    return copies * pictures / seconds(lambda: [dataset[number] for number in range(pictures)])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures both sides at every number of copies."""
    options: Any = parse_options(__doc__, arguments, copies=[1, 4, 10], workers=2, updates=20, rounds=7, device="cpu")
    if options.side:
        serve(options.side, build)
        return 0
    if options.quick:
        options.updates, options.rounds, options.copies = 2, 1, [1, 3]
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    shared = {"updates": options.updates, "workers": options.workers, "device": options.device, "keep_memory": True}
    rows: list[Row] = []
    for copies in options.copies:
        specs = {
            "batched": {"side": "batched", "copies": copies, "threads": options.threads, **shared},
            "workers": {"side": "workers", "copies": copies, "threads": 1, **shared},
        }
        rates, _ = take_turns(__file__, specs, options.rounds)
        for side, measured in rates.items():
            rate, ratio = statistics.median(measured), median_ratio(measured, rates["workers"])
            rows.append({"copies": copies, "side": side, "images/s": rate, "x workers": ratio})
    largest = max(options.copies)
    alone = statistics.median(one_by_one_rate(largest, BATCH) for _ in range(options.rounds))
    milliseconds = parts(largest, torch.device(options.device), 3 * options.rounds)
    report(
        "Augmentation of images",
        rows,
        options,
        **{
            "parts": ", ".join(f"{name} {value:.2f} ms" for name, value in milliseconds.items()),
            "one worker's rate": f"{alone:,.0f} images/s, {1e6 / alone:.0f} us an image, at M = {largest}",
        },
    )
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
