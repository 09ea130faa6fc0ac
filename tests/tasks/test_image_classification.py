from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from image_tasks import Constant, open_task
from torch import Tensor, nn

from seqba import grid_gradient
from seqba.data.images import ImageBatch
from seqba.errors import UserError
from seqba.models.builders import build_image_classifier
from seqba.models.families import resolve_image_classifier
from seqba.models.options import ImageClassifierOptions
from seqba.nn import label_smoothed_cross_entropy
from seqba.nn.auxiliary import AuxiliaryLogits
from seqba.noise.context import noise_context
from seqba.noise.noise import Noise
from seqba.tasks.image_classification import ImageClassification
from seqba.tasks.image_options import HELD_OUT, ImageOptions
from seqba.tasks.options import BatchOptions, CriterionOptions


def cells(name: str, ghost_batch: int | None = None) -> nn.Module:
    """Three narrow cells, with an auxiliary head and much drop path."""
    torch.manual_seed(0)
    sizes = {"init_channels": 2, "layers": 3, "drop_path": 0.4}
    options = resolve_image_classifier(name, ImageClassifierOptions(ghost_batch=ghost_batch, **sizes))
    return build_image_classifier(name, options, 10, 32).double()


def resnet(ghost_batch: int | None = None) -> nn.Module:
    torch.manual_seed(0)
    options = resolve_image_classifier("resnet8", ImageClassifierOptions(ghost_batch=ghost_batch))
    return build_image_classifier("resnet8", options, 10, 32).double()


NETWORKS = {"resnet8": resnet, "darts": partial(cells, "darts"), "amoebanet": partial(cells, "amoebanet")}


def marks(batch: ImageBatch) -> list[int]:
    """A number for each picture, by its pixels."""
    return [hash(image.numpy().tobytes()) for image in batch.images]


def test_an_epoch_sees_each_picture_once_in_whole_batches(pictures: Path) -> None:
    task = open_task(pictures)
    epoch = task.epoch(1)
    assert len(epoch) == 13  # 80 pictures make 13 batches of 6, and leave 2 out
    seen = [mark for number in range(13) for mark in marks(epoch[number])]
    assert len(set(seen)) == len(seen) == 78


def test_the_order_is_a_function_of_seed_and_epoch(pictures: Path) -> None:
    first = marks(open_task(pictures).epoch(1)[0])
    assert marks(open_task(pictures).epoch(1, micro_batches_per_update=3)[0]) == first
    assert marks(open_task(pictures).epoch(2)[0]) != first
    assert marks(open_task(pictures, seed=2).epoch(1)[0]) != first


def test_validation_sees_every_picture_in_order(pictures: Path) -> None:
    task = open_task(pictures, valid_rows=8)
    split = task.validation("test")
    assert [task.count(split[number]) for number in range(len(split))] == [8, 8, 4]
    assert torch.cat([split[number].labels for number in range(3)]).tolist() == [*range(10), *range(10)]


def test_pictures_held_out_are_not_learned_from_and_the_same_for_every_seed(pictures: Path) -> None:
    held_out = []
    for seed in (1, 2):
        task = open_task(pictures, seed=seed, hold_out=20, rows=10)
        split, epoch = task.validation(HELD_OUT), task.epoch(1)
        held_out.append([mark for number in range(len(split)) for mark in marks(split[number])])
        learned = [mark for number in range(len(epoch)) for mark in marks(epoch[number])]
        assert len(held_out[-1]) == 20
        assert len(learned) == 60
        assert not set(learned) & set(held_out[-1])
    assert held_out[0] == held_out[1]
    with pytest.raises(UserError, match="no split 'held-out'"):
        open_task(pictures).validation(HELD_OUT)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_and_sums_by_hand(pictures: Path, smoothing: float) -> None:
    task = open_task(pictures, smoothing=smoothing)
    batch = task.epoch(1)[0]
    logits = torch.randn(6, 10, generator=torch.Generator().manual_seed(0))
    loss, weight, sums = task.loss(Constant(logits).eval(), batch)
    assert weight == task.weight(batch) == task.count(batch) == 6
    # The same criterion as that of words: hidden states times an output embedding, here the identity.
    expected, nll = label_smoothed_cross_entropy(logits, torch.eye(10), batch.labels, smoothing=smoothing)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert sums["nll"].item() == pytest.approx(nll.item(), rel=1e-5)
    order = logits.argsort(dim=1, descending=True)
    assert sums["top1"] == (order[:, 0] == batch.labels).sum()
    assert sums["top5"] == sum(label in row[:5] for label, row in zip(batch.labels, order, strict=True))


def test_evaluation_sees_the_pictures_as_they_are(pictures: Path) -> None:
    task = open_task(pictures, cutout=16)
    batch = task.validation("test")[0]
    seen: list[Tensor] = []

    class Looker(Constant):
        def forward(self, images: Tensor, mixing: object = None) -> Tensor:
            seen.append(images)
            return self.logits

    task.loss(Looker(torch.zeros(6, 10)).eval(), batch)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = (batch.images.float() / 255 - mean[:, None, None]) / std[:, None, None]
    torch.testing.assert_close(seen[0], expected, rtol=1e-5, atol=1e-5)


def test_mixup_mixes_pictures_and_losses(pictures: Path) -> None:
    task = open_task(pictures, mixup=1.0, augmentation="none")
    batch = task.epoch(1)[0]
    logits = torch.randn(6, 10, generator=torch.Generator().manual_seed(0))
    mixings: list[Any] = []

    class Looker(Constant):
        def forward(self, images: Tensor, mixing: object = None) -> Tensor:
            mixings.append(mixing)
            return self.logits

    with noise_context(Noise(0, 1, 0, (0,))):
        loss, _, sums = task.loss(Looker(logits), batch)
    (mixing,) = mixings
    own = nn.functional.cross_entropy(logits, batch.labels, reduction="none")
    other = nn.functional.cross_entropy(logits, batch.labels[mixing.partner], reduction="none")
    assert loss.item() == pytest.approx((mixing.share * own + (1 - mixing.share) * other).sum().item(), rel=1e-5)
    assert sums["nll"].item() == pytest.approx(own.sum().item(), rel=1e-5)
    assert set(mixing.stage.tolist()) == {0}


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("mixup", [0.0, 1.0])
def test_an_auxiliary_head_adds_its_weighted_loss_in_training(pictures: Path, smoothing: float, mixup: float) -> None:
    task = open_task(pictures, smoothing=smoothing, mixup=mixup, augmentation="none")
    batch = task.epoch(1)[0]
    logits, auxiliary = torch.randn(2, 6, 10, generator=torch.Generator().manual_seed(0))

    class TwoHeads(Constant):
        def forward(self, images: Tensor, mixing: object = None) -> Any:
            return AuxiliaryLogits(logits, auxiliary, 0.4) if self.training else logits

    def loss(model: nn.Module) -> tuple[float, float, dict[str, float]]:
        with noise_context(Noise(0, 1, 0, (0,))):
            total, weight, sums = task.loss(model, batch)
        return total.item(), weight, {name: value.item() for name, value in sums.items()}

    first, second, both = loss(Constant(logits)), loss(Constant(auxiliary)), loss(TwoHeads(logits))
    assert both[0] == pytest.approx(first[0] + 0.4 * second[0], rel=1e-6)
    assert both[1:] == first[1:]  # what is told of is the first head's
    assert loss(TwoHeads(logits).eval()) == loss(Constant(logits).eval())


NOISES = {
    "crop and cutout": {"cutout": 8},
    "colours and mixup": {"colour_jitter": (0.4, 0.4, 0.4), "mixup": 0.2},
    "one lambda for all copies": {"mixup": 1.0, "mixup_lambda": "shared"},
    "manifold mixup": {"manifold_mixup": 1.0, "cutout": 8},
    "resized crop": {"augmentation": "resized-crop"},
}


@pytest.mark.parametrize(
    ("noise", "network"),
    [
        *[(noise, "resnet8") for noise in NOISES],
        *[("crop and cutout", "darts"), ("manifold mixup", "darts"), ("crop and cutout", "amoebanet")],
    ],
)
@pytest.mark.parametrize("ghost_batch", [None, 2])
def test_the_plan_changes_nothing_with_every_noise(
    pictures: Path, noise: str, network: str, ghost_batch: int | None
) -> None:
    task = open_task(pictures, rows=4, **NOISES[noise])
    epoch = task.epoch(1)
    results = []
    for plan in ("looped", "stacked", 2):
        model = NETWORKS[network](ghost_batch)
        model.register_forward_pre_hook(lambda _, args: (args[0].double(), *args[1:]))
        for update in (1, 2):
            grid_gradient(
                model, [epoch[0], epoch[update]], task.loss, copies=3, weight=24, plan=plan, seed=1, update=update
            )
        gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
        results.append({**gradients, **dict(model.named_buffers())})
    for other in results[1:]:
        for name, expected in results[0].items():
            assert expected is not None
            # Logits are rounded to float32 before the loss.
            torch.testing.assert_close(other[name], expected, rtol=1e-5, atol=1e-7, msg=name)
    (stem,) = (name for name in results[0] if name.endswith("stem.conv.weight"))
    gradient = results[0][stem]
    assert gradient is not None
    assert gradient.norm() > 0


def test_copies_see_different_views(pictures: Path) -> None:
    task = open_task(pictures)
    batch = task.epoch(1)[0]
    seen: list[Tensor] = []

    class Looker(Constant):
        def forward(self, images: Tensor, mixing: object = None) -> Tensor:
            seen.append(images)
            return self.logits

    def loss(model: nn.Module, batch: ImageBatch) -> tuple[Tensor, float, Any]:
        return task.loss(model, batch)

    grid_gradient(Looker(torch.zeros(18, 10)), [batch], loss, copies=3, weight=18, plan="stacked", update=1)
    views = seen[0].view(3, 6, -1)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not torch.equal(views[one], views[other])


def test_the_state_tells_what_a_checkpoint_must_agree_with(pictures: Path) -> None:
    state = open_task(pictures).state()
    assert state == open_task(pictures, seed=5).state()
    assert (state["task"], state["classes"], state["image_size"]) == ("image_classification", 10, 32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": 81}, "has 80 pictures, not even one --batch-size of 81"),
        ({"rows": 10, "hold_out": 71}, "has 80 pictures less --hold-out 71, not even one"),
        ({"mixup": 0.2, "manifold_mixup": 0.2}, "--mixup and --manifold-mixup exclude each other"),
        ({"mixup_lambda": "shared"}, "--mixup-lambda shared needs --mixup or --manifold-mixup"),
        ({"augmentation": "none", "crop_padding": 2}, "--crop-padding belongs to --augmentation crop"),
        ({"cutout": 1}, "--cutout 1 would blank nothing"),
        ({"colour_jitter": (0.4,)}, "--colour-jitter takes three numbers"),
        ({"image_size": 300}, "--image-size 300 is more than --decode-size 256"),
        ({"image_size": 32, "decode_size_valid": 30}, "--image-size 32 is more than --decode-size-valid 30"),
        ({"image_size": 33}, "--image-size 33 is more than the 32 pixels of CIFAR-10 train"),
        (
            {"smoothing": 0.91},
            "--label-smoothing 0.91 would make .* the least likely of 10 classes: give less than 0.9",
        ),
    ],
)
def test_what_does_not_fit_is_refused(pictures: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_task(pictures, **options)


def test_cifar_is_enlarged_by_resized_crops(pictures: Path) -> None:
    task = open_task(pictures, augmentation="resized-crop", image_size=64)
    assert task.image_size == 64
    loss, _, _ = task.loss(resnet().eval().float(), task.validation("test")[0])
    assert loss.isfinite()


def test_a_batch_size_is_needed(pictures: Path) -> None:
    with pytest.raises(UserError, match="Give --batch-size"):
        ImageClassification(str(pictures), ImageOptions(), BatchOptions(max_tokens=100), CriterionOptions(), seed=1)
