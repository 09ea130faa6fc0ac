"""seqba-eval-image: a classifier and a split of pictures → accuracy, also over noisy views."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from seqba.checkpoints.model import LoadedModel, load_model
from seqba.cli.arguments import Parser, read_options
from seqba.cli.command import run
from seqba.data.images import ImageBatches
from seqba.errors import UserError
from seqba.evaluation.accuracy import AVERAGES, ImageTally, ScoredImages, score_once, score_views
from seqba.extras import progress_bar
from seqba.models.families import ARCHITECTURES
from seqba.options import flag_of, is_given, option, options, options_from
from seqba.runtime.devices import choose_device
from seqba.runtime.memory import keep_freed_memory
from seqba.tasks.image_classification import classes_digest, open_split, random_view
from seqba.tasks.image_options import ImageOptions
from seqba.tasks.image_views import evaluation_decode_size, evaluation_view


@options
class EvalImageOptions:
    """Options of seqba-eval-image: the model, the pictures, their views, and the output."""

    path: str | None = option(None, "the checkpoint", metavar="FILE")
    gen_subset: str = option("test", "the split to score; held-out is what --hold-out left out of training")
    batch_size: int = option(256, "pictures of a batch", minimum=1, aliases=("max-sentences",))
    tta: int = option(
        0,
        "test-time augmentation: average over so many random views, drawn as in training but for cutout; 0 = one view "
        "of the middle",
        minimum=0,
    )
    tta_average: str = option(
        "probabilities",
        "what --tta averages: probabilities, or logits as the released code of Batch Augmentation does",
        choices=AVERAGES,
    )
    tta_cutout: int = option(
        0,
        "blank a square of this side in the views of --tta; 0 = none, as in the released code unless it is asked for",
        minimum=0,
    )
    seed: int = option(1, "of the views", minimum=0, maximum=2**63 - 1)
    num_workers: int = option(2, "processes that decode pictures ahead of time", minimum=0)
    output_predictions: bool = option(
        False, "print a line for each picture: number, class, likeliest class, its probability"
    )
    quiet: bool = option(False, "print the accuracies alone")
    cpu: bool = option(False, "run on the CPU even where there is a GPU")
    bf16: bool = option(False, "compute in bfloat16, weights included")

    def __post_init__(self) -> None:
        """Refuses combinations of options."""
        if self.path is None:
            raise UserError("--path is missing: which checkpoint shall be evaluated? (checkpoints/checkpoint_best.pt)")
        for name in ("tta_average", "tta_cutout"):
            if not self.tta and is_given(self, name):
                raise UserError(f"{flag_of(name)} belongs to --tta, which is 0: one view of the middle is seen")
        if self.tta_cutout == 1:
            raise UserError("--tta-cutout 1 would blank nothing: an odd side acts as the even number below it")
        if self.quiet and self.output_predictions:
            raise UserError("--quiet and --output-predictions exclude each other")


def main(arguments: Sequence[str] | None = None) -> int:
    """Scores a split and prints its accuracies."""
    logging.basicConfig(level=logging.WARNING, format="warning: %(message)s", stream=sys.stderr)
    parser = Parser(
        "seqba-eval-image",
        "Top-1 and top-5 accuracy of an image classifier on a split, in one view or averaged over many.",
    )
    parser.add_argument("data", help="folder of the pictures, as for seqba-train")
    parser.add_options(EvalImageOptions, "model, pictures and output")
    namespace = parser.parse(arguments)
    options = read_options(namespace, EvalImageOptions)
    device = choose_device(cpu=options.cpu)
    if device.type == "cpu":
        keep_freed_memory()
    loaded = load_model(str(options.path), device, task="image_classification")
    images = _image_options(loaded, options)
    batches = _open(Path(namespace.data), loaded, images, options)
    start = time.perf_counter()
    tally = _score(_scored(loaded, images, batches, device, options), batches, options)
    elapsed_s = time.perf_counter() - start
    if not math.isfinite(tally.nll):
        raise UserError(
            f"the probabilities of {options.path} are not finite, as its weights aren't: take an earlier one"
        )
    if not options.quiet:
        views = f"{options.tta} random views" if options.tta else "1 view"
        print(
            f"Evaluated {tally.images} images in {views} in {elapsed_s:.1f}s ({tally.images / elapsed_s:.1f} images/s)"
        )
    print(
        f"Top-1: {tally.percent(tally.top1):.2f}%, Top-5: {tally.percent(tally.top5):.2f}%, "
        f"Loss (nats): {tally.nll / tally.images:.4f}"
    )
    return 0


def _image_options(loaded: LoadedModel, options: EvalImageOptions) -> ImageOptions:
    """Image options of training, with the cutout of the views that are averaged."""
    try:
        trained = options_from(ImageOptions, loaded.cfg["task"]["images"])
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"checkpoint {options.path} doesn't say what its views were: {error}") from None
    images = replace(trained, num_workers=options.num_workers, cutout=options.tta_cutout)
    if options.tta and images.augmentation == "none" and not images.cutout and not images.colour_jitter:
        noise = "with no noise but cutout: add --tta-cutout" if trained.cutout else "without any noise"
        raise UserError(f"--tta {options.tta} would average equal views: {options.path} was trained {noise}")
    return images


def _open(folder: Path, loaded: LoadedModel, images: ImageOptions, options: EvalImageOptions) -> ImageBatches:
    """Opens the split, if its classes are the model's."""
    train_subset = _train_subset(loaded, options)
    size = loaded.task_state["image_size"]
    batches = open_split(
        folder,
        options.gen_subset,
        images,
        train_subset=train_subset,
        batch_size=options.batch_size,
        decode_size=images.decode_size if options.tta else evaluation_decode_size(images, size),
    )
    if loaded.task_state.get("classes_sha256") != classes_digest(batches.source.classes):
        raise UserError(
            f"checkpoint {options.path} was trained on other classes than those of {folder}: give the folder it was "
            "trained on"
        )
    return batches


def _train_subset(loaded: LoadedModel, options: EvalImageOptions) -> str:
    try:
        name = loaded.cfg["task"]["batches"]["train_subset"]
    except (KeyError, TypeError):
        name = None
    if not isinstance(name, str):
        raise UserError(f"checkpoint {options.path} doesn't say which split it was trained on")
    return name


def _scored(
    loaded: LoadedModel, images: ImageOptions, batches: ImageBatches, device: torch.device, options: EvalImageOptions
) -> Iterator[ScoredImages]:
    model = loaded.model.bfloat16() if options.bf16 else loaded.model
    arch = loaded.cfg["model"]["arch"]
    if ARCHITECTURES[arch] != "image_classifier":
        raise UserError(f"--path names a {arch}, which is no image classifier")
    size = loaded.task_state["image_size"]
    if options.tta:
        view = random_view(batches.source, images, size)
        return score_views(
            model, batches, view, device, views=options.tta, seed=options.seed, average=options.tta_average
        )
    return score_once(model, batches, evaluation_view(size), device)


def _score(scored: Iterator[ScoredImages], batches: ImageBatches, options: EvalImageOptions) -> ImageTally:
    """Sums the scores, with a bar on stderr if that is a terminal, and prints each picture if asked to."""
    tally = ImageTally()
    hidden = True if options.quiet or (options.output_predictions and sys.stdout.isatty()) else None
    total = len(batches.source)
    with progress_bar()(
        total=total, desc=f"Evaluate {options.gen_subset}", unit="img", leave=False, disable=hidden
    ) as bar:
        for batch, rows in zip(scored, batches.batches, strict=True):
            if options.output_predictions:
                _print_predictions(batch, rows.tolist(), batches.source.classes)
            tally.add(batch)
            bar.update(len(batch.labels))
    return tally


def _print_predictions(batch: ScoredImages, rows: Sequence[int], classes: Sequence[str]) -> None:
    r"""Prints `12\tcat\tdog\t0.7310`."""
    best = batch.probabilities.max(dim=1)
    lines = zip(rows, batch.labels.tolist(), best.indices.tolist(), best.values.tolist(), strict=True)
    for row, label, likeliest, probability in lines:
        print(f"{row}\t{classes[label]}\t{classes[likeliest]}\t{probability:.4f}")


def entry() -> None:
    """The `seqba-eval-image` command."""
    sys.exit(run(main))
