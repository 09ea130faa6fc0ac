"""Scores of a split of pictures: a classifier → accuracies, printed."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from seqba.checkpoints.model import LoadedModel, load_model
from seqba.cli.options.eval_image import EvalImageOptions
from seqba.data.images import ImageBatches
from seqba.errors import UserError
from seqba.evaluation.accuracy import ImageTally, ScoredImages, score_once, score_views
from seqba.extras import progress_bar
from seqba.models.families import ARCHITECTURES
from seqba.options import options_from
from seqba.runtime.devices import prepare_device
from seqba.tasks.image_options import ImageOptions
from seqba.tasks.image_splits import classes_digest, open_split, random_view
from seqba.tasks.image_views import evaluation_decode_size, evaluation_view


def evaluate(data: Path, options: EvalImageOptions) -> None:
    """Scores a split of the folder `data` and prints its accuracies.

    Raises:
        UserError: for files that can't be used, or views without noise.
    """
    device = prepare_device(cpu=options.cpu)
    loaded = load_model(str(options.path), device, task="image_classification")
    images = _image_options(loaded, options)
    batches = _open(data, loaded, images, options)
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
