from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seqba.core import current_noise
from seqba.data.images import ImageBatches, open_images
from seqba.evaluation.accuracy import ImageTally, ScoredImages, score_once, score_views
from seqba.noise import noise
from seqba.tasks.image_options import ViewOptions
from seqba.tasks.image_views import training_view

CPU = torch.device("cpu")


class Tilted(nn.Module):
    """Logits that are linear in the mean of each channel."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(10, 3, generator=generator))

    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3)) @ self.weight.T


class Shaken(nn.Module):
    """A random view: the picture times a number of its own, keyed like any noise."""

    def forward(self, images: Tensor, sizes: Tensor) -> Tensor:
        current = current_noise()
        assert current is not None
        assert sizes.shape == (len(images), 2)
        return images / 255 * current.uniform(self, (len(images), 1, 1, 1), CPU)


def still(images: Tensor, sizes: Tensor) -> Tensor:
    return images / 255


def split(folder: Path, rows: int = 8) -> ImageBatches:
    source = open_images(folder, "test", decode_size=32)
    return ImageBatches(source, np.split(np.arange(len(source)), range(rows, len(source), rows)))


def together(scored: list[ScoredImages]) -> tuple[Tensor, Tensor]:
    return torch.cat([each.labels for each in scored]), torch.cat([each.probabilities for each in scored])


def test_one_view_of_every_picture(pictures: Path) -> None:
    model = Tilted()
    labels, probabilities = together(list(score_once(model, split(pictures), still, CPU)))
    batch = split(pictures, 20)[0]
    assert torch.equal(labels, batch.labels)
    torch.testing.assert_close(probabilities, model(batch.images / 255).softmax(dim=1).detach())


def test_probabilities_are_averaged_over_views(pictures: Path) -> None:
    model, batches = Tilted(), split(pictures)
    by_count = [
        together(list(score_views(model, batches, Shaken(), CPU, views=views, seed=3)))[1] for views in (1, 2, 3)
    ]
    # The first views are the same for every number of them, so that differences of sums are single views.
    second = 2 * by_count[1] - by_count[0]
    third = 3 * by_count[2] - 2 * by_count[1]
    for single in (second, third):
        assert (single > 0).all()
        torch.testing.assert_close(single.sum(dim=1), torch.ones(20))
    assert not torch.allclose(second, third, atol=1e-3)
    torch.testing.assert_close(by_count[2], (by_count[0] + second + third) / 3)


def test_logits_are_averaged_over_views(pictures: Path) -> None:
    model, batches = Tilted(), split(pictures)
    scored = [
        together(list(score_views(model, batches, Shaken(), CPU, views=views, seed=3, average="logits")))[1].log()
        for views in (1, 2)
    ]
    likely = [together(list(score_views(model, batches, Shaken(), CPU, views=views, seed=3)))[1] for views in (1, 2)]
    torch.testing.assert_close(scored[0].exp(), likely[0])  # of one view
    second = 2 * likely[1] - likely[0]
    torch.testing.assert_close(
        scored[1], ((likely[0].log() + second.log()) / 2).log_softmax(dim=1), rtol=1e-4, atol=1e-4
    )
    assert not torch.allclose(scored[1].exp(), likely[1], atol=1e-4)


def test_views_are_a_function_of_the_seed(pictures: Path) -> None:
    def score(seed: int) -> Tensor:
        return together(list(score_views(Tilted(), split(pictures), Shaken(), CPU, views=2, seed=seed)))[1]

    assert torch.equal(score(1), score(1))
    assert not torch.equal(score(1), score(2))


@pytest.mark.parametrize("view", [Shaken(), training_view(ViewOptions(cutout=8), 32)])
def test_views_are_those_of_a_picture_whatever_batch_it_is_in(view: nn.Module, pictures: Path) -> None:
    one_by_one, many = (
        together(list(score_views(Tilted(), split(pictures, rows), view, CPU, views=2, seed=1)))[1] for rows in (1, 8)
    )
    torch.testing.assert_close(one_by_one, many)
    assert len(many.unique(dim=0)) == len(many)


@pytest.mark.parametrize("by_counter", [False, True])
def test_pictures_needn_t_be_neighbours(pictures: Path, monkeypatch: pytest.MonkeyPatch, *, by_counter: bool) -> None:
    """Those that were held out are any, and a GPU draws for neighbours at once."""
    monkeypatch.setattr(noise, "draws_by_counter", lambda _: by_counter)
    source = open_images(pictures, "test", decode_size=32)
    held_out = np.array([1, 4, 5, 11, 17, 18])
    one_by_one, many = (
        together(list(score_views(Tilted(), batches, Shaken(), CPU, views=2, seed=1)))[1]
        for batches in (ImageBatches(source, np.split(held_out, range(rows, 6, rows))) for rows in (1, 4))
    )
    torch.testing.assert_close(one_by_one, many)
    assert len(many.unique(dim=0)) == len(many)


def test_a_tally_by_hand() -> None:
    tally = ImageTally()
    probabilities = torch.tensor([[0.1, 0.2, 0.3, 0.15, 0.05, 0.2], [0.5, 0.1, 0.1, 0.1, 0.1, 0.1]])
    tally.add(ScoredImages(torch.tensor([2, 0]), probabilities.log()))
    tally.add(ScoredImages(torch.tensor([4]), probabilities[:1].log()))
    assert (tally.images, tally.top1, tally.top5) == (3, 2, 2)
    assert tally.nll == pytest.approx(-float(np.log(0.3) + np.log(0.5) + np.log(0.05)), rel=1e-6)
    assert tally.percent(tally.top1) == pytest.approx(200 / 3)


def test_a_sure_mistake_has_a_finite_loss(pictures: Path) -> None:
    model = Tilted()
    model.weight.data *= 1e4  # probabilities of wrong classes are far below the smallest number
    tallies = [ImageTally(), ImageTally()]
    for tally, scored in zip(
        tallies,
        (
            score_once(model, split(pictures), still, CPU),
            score_views(model, split(pictures), lambda images, _: images / 255, CPU, views=2, seed=1),
        ),
        strict=True,
    ):
        for each in scored:
            tally.add(each)
    batch = split(pictures, 20)[0]
    expected = nn.functional.cross_entropy(model(batch.images / 255), batch.labels, reduction="sum").item()
    assert expected > 20 * 100
    assert [tally.nll for tally in tallies] == pytest.approx([expected, expected], rel=1e-5)


def test_no_views_are_refused(pictures: Path) -> None:
    with pytest.raises(ValueError, match="views is 0; it must be at least 1"):
        next(score_views(Tilted(), split(pictures), still, CPU, views=0, seed=1))
    with pytest.raises(ValueError, match="average is 'median'; it must be one of probabilities, logits"):
        next(score_views(Tilted(), split(pictures), still, CPU, views=1, seed=1, average="median"))
