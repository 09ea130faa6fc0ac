"""One update of an image network: images per second by plan and by batch, and what of it is input and augmentation.

    python recipes/bench/images.py [--copies 1 4 10] [--rounds 5] [--device cpu] [--json FILE]
    python recipes/bench/images.py --table batches [--batch-sizes 1 2 4 8 16 32 64 128] [--plot FILE.svg] [...]

**copies** (the default table): ResNet44 on 32 × 32 pictures of CIFAR's layout (random bytes), --batch 64 of them, each
of the M copies through its own crop, flip and cutout of 16; SGD with momentum. One measurement is: reading the batch
from the mapped files, then the update. Sides, each in its own process:

    looped      one copy per pass
    stacked     all copies in one pass; at M = 1 it would be the same

"images/s" counts a picture once per copy. "input" is reading's share of the time, "views" that of augmentation: timed
apart on the same batch, in as many passes. "of GEMM" is the rate of the operations that convolutions and the linear
layer need, forward and backward, over the best rate of a single float32 product in the same run: those that the
convolutions come down to, and a square one of 2,048. "x looped" is the median over rounds of the speed over looped's
at the same M in the same round, "x M=1" that over looped's at the first of --copies.

--network darts --batch 96 is the searched cells' network of the paper's table 2, with drop path and auxiliary head.

**batches**, the paper's table 5: the same update at M = 1 for several sizes of the batch, without reading; --network
resnet50 has the paper's 224 × 224 pixels. "spread" is the standard deviation of images/s over the rounds. --plot draws
images/s against the size (needs matplotlib: seqba[plot]).

Expectation: input below 0.01 and views below 0.05 of the time at every M. On a CPU stacking gains nothing; gpu.py
measures what it gains on a GPU. In one thread of a core that other runs kept busy (2 rounds): 19 to 24 images/s at
every M, input below 0.001, views below 0.003, stacked 0.86 (M = 4) and 0.77 (M = 10) of looped's speed in twice and
four times its memory; "of GEMM" 0.10 to 0.15, with waiting for the core counted in.
Hoffer et al. 2020, table 5 (ResNet50, one P100): 29.9 images/s at 1, 234.4 at 64, 247.9 at 128.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from harness import Row, gemm_rates, median_ratio, parse_options, report, seconds, serve, take_turns
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from workload import under_autocast

import seqba
from seqba.cli.command import run as run_command
from seqba.core import Noise, noise_context, parse_plan, replicate
from seqba.data.cifar import CIFAR10
from seqba.data.image_batch import ImageBatch
from seqba.data.images import open_images
from seqba.errors import UserError
from seqba.models.builders import build_network
from seqba.models.families import resolve_image_classifier
from seqba.models.options import ImageClassifierOptions
from seqba.nn.auxiliary import AuxiliaryLogits
from seqba.plotting.picture import COLOURS, Frame, Series, check_output, draw
from seqba.runtime.devices import to_device
from seqba.tasks.image_options import ViewOptions
from seqba.tasks.image_views import View, training_view
from seqba.training.optimizers import build_optimizer
from seqba.training.options import OptimisationOptions

SIDES = {"resnet44": 32, "resnet8": 32, "resnet50": 224, "darts": 32, "amoebanet": 32}
"""Networks → side of their pictures, in pixels."""

TABLES = ("copies", "batches")
CLASSES = 10
LEARNING_RATE = 0.1
PICTURES_PER_FILE = 2000
SGD = OptimisationOptions(optimizer="sgd", momentum=0.9, weight_decay=1e-4, weight_decay_on="weights")


def build_side(spec: Mapping[str, Any]) -> Callable[[int], Any]:
    """A child's measurement: seconds of the parts of update `number`, or the rates of single products."""
    torch.manual_seed(1)
    device = torch.device(spec["device"])
    if spec["plan"] == "gemm":
        products = convolution_products(spec["network"], spec["batch"])
        return lambda number: gemm_rates(products) if device.type == "cpu" else {}
    read = reader(spec["data"], spec["batch"]) if spec["data"] else random_batches(spec)
    view = training_view(ViewOptions(cutout=16), SIDES[spec["network"]])
    update = build_update(spec, view, device)

    def synchronised(work: Callable[[], object]) -> float:
        def timed() -> None:
            work()
            if device.type == "cuda":
                torch.cuda.synchronize()

        return seconds(timed)

    def measure(number: int) -> dict[str, float]:
        batches: list[ImageBatch] = []
        reading = synchronised(lambda: batches.append(to_device(read(number), device)))
        updating = synchronised(lambda: update(batches[0], number))
        viewing = synchronised(lambda: look(view, batches[0], spec, number))
        return {"read": reading, "views": viewing, "update": updating}

    return measure


def reader(folder: str, rows: int) -> Callable[[int], ImageBatch]:
    """Batches of different pictures from mapped files, in random order."""
    pictures = open_images(folder, "train", decode_size=256)
    order = np.random.default_rng(1).permutation(len(pictures))
    return lambda number: pictures.read(order.take(range(number * rows, (number + 1) * rows), mode="wrap"))


def random_batches(spec: Mapping[str, Any]) -> Callable[[int], ImageBatch]:
    """The same random pictures at every update."""
    rows, side = spec["batch"], SIDES[spec["network"]]
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (rows, 3, side, side), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, CLASSES, (rows,), generator=generator)
    batch = ImageBatch(images, torch.full((rows, 2), side), labels)
    return lambda number: batch


def build_update(
    spec: Mapping[str, Any], view: View, device: torch.device, dtype: torch.dtype | None = None
) -> Callable[[ImageBatch, int], None]:
    """An update as seqba's trainer makes it; under autocast in `dtype`, where that isn't None."""
    model = network(spec["network"]).to(device).train()
    optimizer = build_optimizer(model.parameters(), SGD)
    for group in optimizer.param_groups:
        group["lr"] = LEARNING_RATE
    plan = parse_plan(spec["plan"])

    def loss(model: nn.Module, batch: ImageBatch) -> tuple[Tensor, float]:
        output = model(view(batch.images, batch.sizes))
        if not isinstance(output, AuxiliaryLogits):
            return cross_entropy(output, batch.labels, reduction="sum"), float(len(batch.labels))
        total = cross_entropy(output.logits, batch.labels, reduction="sum")
        auxiliary = cross_entropy(output.auxiliary, batch.labels, reduction="sum")
        return total + output.weight * auxiliary, float(len(batch.labels))

    def update(batch: ImageBatch, number: int) -> None:
        whole = under_autocast(loss, dtype)
        seqba.merged_gradient(model, batch, whole, copies=spec["copies"], plan=plan, update=number)
        optimizer.step()
        optimizer.zero_grad()

    return update


def look(view: View, batch: ImageBatch, spec: Mapping[str, Any], number: int) -> None:
    """The augmentation of an update alone, in the passes of its plan."""
    at_once = spec["copies"] if spec["plan"] == "stacked" else 1
    for first in range(0, spec["copies"], at_once):
        with noise_context(Noise(0, number, 0, range(first, first + at_once), {})):
            rows = replicate(batch, at_once)
            view(rows.images, rows.sizes)


def network(name: str) -> nn.Module:
    return build_network(name, resolve_image_classifier(name, ImageClassifierOptions()), CLASSES, SIDES[name])


def products_of(model: nn.Module, side: int) -> list[tuple[int, int, int, bool]]:
    """(places of an image, inputs, outputs, whether its input has a gradient) of each convolution and linear layer."""
    found = []

    def note(layer: nn.Module, _inputs: Any, output: Tensor) -> None:
        weight = layer.weight
        assert isinstance(weight, Tensor)
        outputs, inputs = weight.flatten(1).shape
        found.append((output[0].numel() // outputs, inputs, outputs, bool(found)))

    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(note) for layer in layers]
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, side, side))
    for hook in hooks:
        hook.remove()
    return found


def flops_of_image(name: str) -> int:
    """Operations of an image's products: forward, gradient by the weight, and by the input but for the pixels."""
    found = products_of(network(name), SIDES[name])
    return sum((6 if needs_gradient else 4) * n * i * o for n, i, o, needs_gradient in found)


def convolution_products(name: str, rows: int) -> list[tuple[int, int, int]]:
    """The products that `rows` images' convolutions come down to, each once, and a large square one."""
    found = products_of(network(name), SIDES[name])
    return [*sorted({(rows * n, i, o) for n, i, o, _ in found}), (2048, 2048, 2048)]


def write_pictures(folder: Path, per_file: int) -> None:
    """Random bytes in CIFAR-10's layout."""
    random = np.random.default_rng(1)
    for name in (*CIFAR10.train, CIFAR10.test):
        records = random.integers(0, 256, (per_file, CIFAR10.record_bytes), dtype=np.uint8)
        records[:, 0] %= CLASSES
        records.tofile(folder / name)
    (folder / CIFAR10.names).write_text("".join(f"class{number}\n" for number in range(CLASSES)), encoding="utf-8")


def best_product(answers: Sequence[Mapping[str, float]]) -> tuple[dict[str, Any], float]:
    """A note of the best product, and its rate; not a number where none was measured."""
    rates = {shape: max(round_[shape] for round_ in answers) for shape in answers[0]}
    if not rates:
        return {}, float("nan")
    shape = max(rates, key=lambda product: rates[product])
    return {f"best product {shape}, GFLOP/s": round(rates[shape] / 1e9, 1)}, rates[shape]


def measure_copies(options: Any, folder: str) -> tuple[list[Row], dict[str, Any]]:
    """A row for each number of copies and plan."""
    common = {"network": options.network, "batch": options.batch, "data": folder, "keep_memory": True}
    common |= {"threads": options.threads, "device": options.device}
    specs: dict[str, dict[str, Any]] = {}
    for copies in options.copies:
        for plan in ("looped", "stacked") if copies > 1 else ("looped",):
            specs[f"{plan} {copies}"] = {**common, "copies": copies, "plan": plan}
    answers, peaks = take_turns(__file__, {**specs, "gemm": {**common, "plan": "gemm"}}, options.rounds)
    notes, best = best_product(answers["gemm"])
    work = options.batch * flops_of_image(options.network)
    whole = {name: [parts["read"] + parts["update"] for parts in answers[name]] for name in specs}
    first = f"looped {options.copies[0]}"
    rows: list[Row] = []
    for name, spec in specs.items():
        copies, alike = spec["copies"], f"looped {spec['copies']}"
        rows.append(
            {
                "copies": copies,
                "plan": spec["plan"],
                "s/update": statistics.median(whole[name]),
                "images/s": copies * options.batch / statistics.median(whole[name]),
                "input": median_ratio((parts["read"] for parts in answers[name]), whole[name]),
                "views": median_ratio((parts["views"] for parts in answers[name]), whole[name]),
                "of GEMM": copies * work / statistics.median(whole[name]) / best,
                "x looped": median_ratio(whole[alike], whole[name]),
                f"x M={options.copies[0]}": copies / options.copies[0] * median_ratio(whole[first], whole[name]),
                "peak MB": peaks[name],
            }
        )
    return rows, {"GFLOP of an image": round(work / options.batch / 1e9, 3), **notes}


def measure_batches(options: Any) -> tuple[list[Row], dict[str, Any]]:
    """A row for each size of the batch."""
    common = {"network": options.network, "copies": 1, "data": None, "keep_memory": True}
    common |= {"threads": options.threads, "device": options.device}
    specs = {f"{size}": {**common, "batch": size, "plan": "looped"} for size in options.batch_sizes}
    gemm = {**common, "batch": max(options.batch_sizes), "plan": "gemm"}
    answers, peaks = take_turns(__file__, {**specs, "gemm": gemm}, options.rounds)
    notes, best = best_product(answers["gemm"])
    flops = flops_of_image(options.network)
    rows: list[Row] = []
    for name, spec in specs.items():
        rates = [spec["batch"] / parts["update"] for parts in answers[name]]
        rows.append(
            {
                "batch": spec["batch"],
                "images/s": statistics.median(rates),
                "spread": statistics.pstdev(rates),
                "of GEMM": flops * statistics.median(rates) / best,
                "peak MB": peaks[name],
            }
        )
    return rows, {"GFLOP of an image": round(flops / 1e9, 3), **notes}


def plot_batches(path: str, rows: Sequence[Row], network: str) -> None:
    """Draws images/s over the size of the batch."""
    sizes, rates = ([float(row[name]) for row in rows] for name in ("batch", "images/s"))
    line = Series("", sizes, rates, COLOURS[0], values=[f"{rate:,.0f}" for rate in rates])
    frame = Frame("images of a batch", "images per second", network, x_base=2, y_min=0, y_max=1.1 * max(rates))
    draw(path, [line], frame)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures one of the two tables."""
    options = parse_options(
        __doc__,
        arguments,
        table=TABLES[0],
        network="resnet44",
        batch=64,
        copies=[1, 4, 10],
        batch_sizes=[1, 2, 4, 8, 16, 32, 64, 128],
        plot="",
        rounds=5,
        device="cpu",
    )
    if options.side:
        serve(options.side, build_side)
        return 0
    if options.table not in TABLES or options.network not in SIDES:
        print(f"error: --table is one of {TABLES}, --network one of {tuple(SIDES)}", file=sys.stderr)
        return 2
    if options.plot:
        try:
            check_output(options.plot)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
    if options.quick:
        options.network, options.batch, options.copies, options.batch_sizes = "resnet8", 4, [1, 2], [1, 2]
        options.rounds = 2
    if options.table == "batches":
        rows, notes = measure_batches(options)
        report(f"Images of a batch and images per second, {options.network}", rows, options, **notes)
        if options.plot:
            plot_batches(options.plot, rows, options.network)
        return 0
    with TemporaryDirectory() as folder:
        write_pictures(Path(folder), 20 if options.quick else PICTURES_PER_FILE)
        rows, notes = measure_copies(options, folder)
    report(f"One update of {options.network}, {options.batch} pictures", rows, options, **notes)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
