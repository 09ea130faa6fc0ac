"""Mixup and manifold mixup: what is drawn for whom, and what mixing does to rows and losses."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from pictures import CPU, KEY
from torch import Tensor, nn

import seqba
from seqba.core import Noise, noise_context
from seqba.nn.images.mixup import Mixing, Mixup, draw_beta


def draw(module: Mixup, rows: int, copies: tuple[int, ...] = (0,), **key: int) -> Mixing:
    with noise_context(Noise(**{**KEY, **key}, copies=copies)):
        return module.draw(rows, CPU)


def same(one: Mixing, other: Mixing) -> bool:
    return all(
        torch.equal(getattr(one, field.name), getattr(other, field.name)) for field in dataclasses.fields(Mixing)
    )


def test_a_copy_draws_the_same_in_any_company() -> None:
    module, state = Mixup(0.2, stages=3), torch.get_rng_state()
    together = draw(module, 4 * 6, copies=(0, 1, 2, 3))
    for copy in range(4):
        alone = draw(module, 6, copies=(copy,))
        of_copy = slice(6 * copy, 6 * copy + 6)
        assert torch.equal(together.partner[of_copy] - 6 * copy, alone.partner)
        assert torch.equal(together.share[of_copy], alone.share)
        assert torch.equal(together.stage[of_copy], alone.stage)
    assert torch.equal(torch.get_rng_state(), state)


def test_every_part_of_the_key_and_every_call_draws_another_mixing() -> None:
    module = Mixup(1.0, stages=3)
    mixings = [draw(module, 20, copies=(copy,)) for copy in range(3)]
    mixings += [draw(module, 20, **{part: 9}) for part in KEY]
    with noise_context(Noise(**KEY, copies=(0,))):
        calls = [module.draw(20, CPU) for _ in range(2)]
    assert same(calls[0], mixings[0])
    for one, other in itertools.combinations([*mixings, calls[1]], 2):
        assert not torch.equal(one.partner, other.partner)
        assert not torch.equal(one.share, other.share)


def test_one_share_one_stage_and_one_permutation_belong_to_a_copy() -> None:
    mixing = draw(Mixup(1.0, stages=40), 3 * 50, copies=(4, 7, 9))
    assert (mixing.partner.dtype, mixing.share.dtype, mixing.stage.dtype) == (torch.int64, torch.float32, torch.int64)
    for copy in range(3):
        of_copy = slice(50 * copy, 50 * copy + 50)
        assert sorted(mixing.partner[of_copy].tolist()) == list(range(50 * copy, 50 * copy + 50))
        assert len(mixing.share[of_copy].unique()) == len(mixing.stage[of_copy].unique()) == 1
    assert len(mixing.share.unique()) == 3
    assert len(mixing.stage.unique()) > 1


def test_a_shared_share_and_stage_belong_to_all_copies_of_a_micro_batch() -> None:
    own, shared = Mixup(1.0, stages=40), Mixup(1.0, stages=40, shared=True)
    together = draw(shared, 4 * 30, copies=(0, 1, 2, 3))
    assert len(together.share.unique()) == len(together.stage.unique()) == 1
    assert torch.equal(together.partner, draw(own, 4 * 30, copies=(0, 1, 2, 3)).partner)  # in each copy its own
    for copy in range(4):  # and whatever other copies are in the pass
        alone = draw(shared, 30, copies=(copy,))
        of_copy = slice(30 * copy, 30 * copy + 30)
        assert torch.equal(together.share[of_copy], alone.share)
        assert torch.equal(together.stage[of_copy], alone.stage)
        assert torch.equal(together.partner[of_copy] - 30 * copy, alone.partner)
    others = [draw(shared, 30, **{part: 9}) for part in KEY]
    assert len({float(mixing.share[0]) for mixing in [together, *others]}) == 1 + len(KEY)
    outside = shared.draw(30, CPU)
    assert len(outside.share.unique()) == 1


def test_partners_and_stages_are_uniform() -> None:
    module = Mixup(0.2, stages=3)
    partners, stages = torch.zeros(5, 5), torch.zeros(3)
    for update in range(40):
        mixing = draw(module, 50 * 5, copies=tuple(range(50)), update=update)
        partner = mixing.partner.view(50, 5) % 5
        partners += nn.functional.one_hot(partner, 5).sum(0)
        stages += mixing.stage.view(50, 5)[:, 0].bincount(minlength=3)
    assert torch.allclose(partners, torch.tensor(400.0), atol=5 * (2000 * 4 / 25) ** 0.5)
    assert torch.allclose(stages, torch.tensor(2000 / 3), atol=5 * (2000 * 2 / 9) ** 0.5)


def test_one_stage_is_the_input() -> None:
    assert draw(Mixup(0.2), 30, copies=tuple(range(10))).stage.tolist() == [0] * 30


@pytest.mark.parametrize("alpha", [0.05, 0.2, 1.0, 8.0])
def test_shares_are_of_the_beta_distribution(alpha: float) -> None:
    generator = torch.Generator().manual_seed(3)
    ours = np.sort([draw_beta(alpha, generator) for _ in range(4000)])
    assert ours.mean() == pytest.approx(0.5, abs=0.03)
    assert ours.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.06)
    theirs = np.sort(np.random.default_rng(4).beta(alpha, alpha, 40000))
    # Kolmogorov-Smirnov: two samples of one distribution come further apart once in ten thousand.
    below = [np.searchsorted(shares, ours, "right") / len(shares) for shares in (ours, theirs)]
    distance = np.abs(below[0] - below[1]).max()
    assert distance < 2.23 * (1 / 4000 + 1 / 40000) ** 0.5


@pytest.mark.parametrize("alpha", [1e-6, 1e-4, 1e-2])
def test_shares_of_a_tiny_alpha_are_numbers(alpha: float) -> None:
    generator = torch.Generator().manual_seed(5)
    shares = torch.tensor([draw_beta(alpha, generator) for _ in range(1000)])
    assert ((shares >= 0) & (shares <= 1)).all()
    assert ((shares < 1e-3) | (shares > 1 - 1e-3)).double().mean() > 0.8
    assert shares.mean().item() == pytest.approx(0.5, abs=0.08)


def test_outside_an_update_all_rows_are_one_minibatch() -> None:
    module = Mixup(0.5)
    torch.manual_seed(6)
    first = module.draw(30, CPU)
    assert sorted(first.partner.tolist()) == list(range(30))
    assert len(first.share.unique()) == 1
    torch.manual_seed(6)
    assert same(module.draw(30, CPU), first)
    assert not same(module.draw(30, CPU), first)


def test_evaluation_mixes_nothing_and_draws_nothing() -> None:
    module = Mixup(0.5, stages=2).eval()
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    with noise_context(noise := Noise(**KEY, copies=(0, 1))):
        mixing = module.draw(6, CPU)
    assert noise.draws == 0
    assert all(mixing.at(x, stage) is x for stage in range(2))
    assert torch.equal(mixing.loss(lambda labels: labels.float() + 1, torch.arange(6)), torch.arange(6) + 1.0)


MIXING = Mixing(
    partner=torch.tensor([2, 0, 1, 4, 3]),
    share=torch.tensor([0.25, 0.25, 0.25, 0.875, 0.875]),
    stage=torch.tensor([1, 1, 1, 2, 2]),
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(5,), (5, 3), (5, 2, 3, 4)])
def test_rows_are_mixed_before_their_stage_alone(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    before = x.clone()
    for stage in (1, 2):
        mixed = MIXING.at(x, stage)
        assert mixed.dtype == dtype
        for row in range(5):
            if MIXING.stage[row] == stage:
                share = MIXING.share[row].item()
                expected = share * before[row] + (1 - share) * before[MIXING.partner[row]]
                torch.testing.assert_close(mixed[row], expected)
            else:
                assert torch.equal(mixed[row], before[row])
    assert MIXING.at(x, 0) is x
    assert torch.equal(x, before)


def test_rows_of_other_copies_are_not_touched_by_what_is_not_a_number() -> None:
    x = torch.ones(5, 2)
    x[3:] = float("nan")
    assert torch.equal(MIXING.at(x, 1)[:3], torch.ones(3, 2))


def test_the_gradient_of_a_mixed_row_reaches_both() -> None:
    x = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2), requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: MIXING.at(x, 1).sin(), (x,))


def test_views_of_one_row_can_be_mixed() -> None:
    x = torch.arange(5.0).view(5, 1)
    assert torch.equal(MIXING.at(x.expand(5, 7), 2), MIXING.at(x, 2).expand(5, 7))


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_the_loss_is_that_against_mixed_labels(label_smoothing: float) -> None:
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(3))
    labels = torch.tensor([0, 6, 2, 2, 5])

    def row_losses(labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(logits, labels, reduction="none", label_smoothing=label_smoothing)

    hot = nn.functional.one_hot(labels, 7).float()
    share = MIXING.share[:, None]
    soft = share * hot + (1 - share) * hot[MIXING.partner]
    expected = nn.functional.cross_entropy(logits, soft, reduction="none", label_smoothing=label_smoothing)
    torch.testing.assert_close(MIXING.loss(row_losses, labels), expected)


class Network(nn.Module):
    """Three stages, mixed before any of them."""

    def __init__(self, *, shared: bool = False) -> None:
        super().__init__()
        self.mixup = Mixup(1.0, stages=3, shared=shared)
        self.stages = nn.ModuleList([nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 4)])

    def loss(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, int]:
        x, labels = batch
        mixing = self.mixup.draw(len(x), x.device)
        for number, stage in enumerate(self.stages):
            x = stage(mixing.at(x, number)).tanh()
        losses = mixing.loss(lambda labels: nn.functional.cross_entropy(x, labels, reduction="none"), labels)
        return losses.sum(), len(x)


@pytest.mark.parametrize("shared", [False, True])
def test_the_gradient_does_not_depend_on_the_plan(shared: bool) -> None:
    torch.manual_seed(7)
    network = Network(shared=shared).double()
    batch = (torch.randn(5, 6).double(), torch.randint(0, 4, (5,)))
    gradients = []
    for plan in ("stacked", "looped"):
        network.zero_grad()
        seqba.merged_gradient(network, batch, lambda model, batch: model.loss(batch), copies=8, plan=plan, update=3)
        gradients.append([parameter.grad for parameter in network.parameters()])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-12, atol=1e-14)


def test_what_cannot_be_mixed_is_refused() -> None:
    with pytest.raises(ValueError, match="7 rows don't hold 2 copies"):
        draw(Mixup(0.2), 7, copies=(0, 1))
    with pytest.raises(ValueError, match="mixing of 5 rows needs as many floating rows"):
        MIXING.at(torch.zeros(4, 2), 0)
    with pytest.raises(ValueError, match=r"not \(5, 2\) of torch.uint8"):
        MIXING.at(torch.zeros(5, 2, dtype=torch.uint8), 0)
    for alpha, stages in ((0.0, 1), (-1.0, 1), (float("nan"), 1), (float("inf"), 1), (0.2, 0)):
        with pytest.raises(ValueError, match="alpha must be above 0, stages at least 1"):
            Mixup(alpha, stages)
