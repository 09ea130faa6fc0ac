"""Mixup and manifold mixup: pairs of examples are mixed, at the input or inside the model, and so are their losses."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from seqba.noise.context import current_noise
from seqba.noise.noise import Noise

NOWHERE = -1
"""The stage of rows that aren't mixed."""


@dataclass(frozen=True)
class Mixing:
    """Mixing of one pass: the rows, their partners and shares, and where in the model.

    Args:
        partner: (R,) int64: the row that each row is mixed with, always one of the same copy.
        share: (R,) float32: λ, the share of the row itself.
        stage: (R,) int64, on the CPU whatever the model's device: before which stage of the model a row is mixed. 0 is
            the input, `NOWHERE` is nowhere.
    """

    partner: Tensor
    share: Tensor
    stage: Tensor

    def at(self, x: Tensor, stage: int) -> Tensor:
        """Mixes what enters a stage: λ·x + (1 − λ)·x[partner] for the rows whose stage it is.

        Args:
            x: (R, ...), floating, on the device of `partner`.
            stage: number of the stage that x is about to enter.

        Returns:
            A tensor like x, with other rows as they were; x itself if no row is mixed here.

        Raises:
            ValueError: if x has other rows than this mixing, or isn't floating.
        """
        if len(x) != len(self.stage) or not x.is_floating_point():
            raise ValueError(
                f"mixing of {len(self.stage)} rows needs as many floating rows, not {tuple(x.shape)} of {x.dtype}"
            )
        chosen = self.stage == stage
        if not bool(chosen.any()):
            return x
        rows = chosen.nonzero().squeeze(1).to(x.device)
        share = self.share[rows].view(-1, *[1] * (x.dim() - 1)).to(x.dtype)
        mixed = share * x[rows] + (1 - share) * x[self.partner[rows]]
        return mixed if len(rows) == len(x) else x.index_copy(0, rows, mixed)

    def repeated(self, copies: int) -> Mixing:
        """The same mixing for the rows of copies that begin inside the model, (k·R,) each, copy-major."""
        if copies == 1:
            return self
        rows = len(self.stage)
        partner = torch.cat([self.partner + copy * rows for copy in range(copies)])
        return Mixing(partner, self.share.repeat(copies), self.stage.repeat(copies))

    def loss(self, row_losses: Callable[[Tensor], Tensor], labels: Tensor) -> Tensor:
        """The loss of each row, mixed like the rows: λ·loss(y) + (1 − λ)·loss(y[partner]).

        For a cross-entropy, label smoothing included, it is the loss against the mixed labels, since that is linear in
        them.

        Args:
            row_losses: labels (R,) → the loss of each row against its label, (R,).
            labels: (R,) int64.

        Returns:
            (R,), to be summed by the caller.
        """
        return self.share * row_losses(labels) + (1 - self.share) * row_losses(labels[self.partner])


class Mixup(nn.Module):
    """Draws how examples are mixed with others of their minibatch, so that a model is linear between examples.

    With one stage the input is mixed (mixup); with more, what enters a stage chosen uniformly among `stages` places,
    the input being the first (manifold mixup).

    Randomness: as in both papers' released code, where everything is drawn once for a minibatch; here the minibatch is
    a cell. Each copy of a micro-batch draws one λ ~ Beta(α, α), one permutation of its B rows and one stage, keyed
    inside an update by (seed, update, micro-batch, copy, site); outside one they are drawn once for all rows, from the
    global generator. All of it is drawn on the CPU, so that every device mixes alike. In evaluation nothing is mixed.

    With M copies the update's gradient is hence a mean over M shares and mixings. The released code of Batch
    Augmentation draws one λ and one permutation for all B·M rows together. `shared` is its λ: one for all copies of a
    micro-batch (and one stage), keyed by `ALL_COPIES` in the copy's place, and so the same in every plan. Its
    permutation, which mixes copies with each other, isn't to be had, as the gradient would depend on which copies were
    stacked; but a row's partner is a uniformly random row of the micro-batch in a view of its own, there as here, where
    each copy still has its own permutation.

    Args:
        alpha: α, above 0. Small ones leave examples nearly pure; 1 makes λ uniform.
        stages: places at which a copy may be mixed.
        shared: one λ and one stage for all copies of a micro-batch, rather than for each.

    Raises:
        ValueError: if `alpha` isn't above 0 or `stages` < 1.

    Source: Zhang et al. 2018, equation 1; Verma et al. 2019, section 2; with copies, Hoffer et al. 2020, table 3.
    """

    def __init__(self, alpha: float, stages: int = 1, *, shared: bool = False) -> None:
        super().__init__()
        if not 0 < alpha < float("inf") or stages < 1:
            raise ValueError(f"alpha is {alpha} and stages {stages}; alpha must be above 0, stages at least 1")
        self.alpha = alpha
        self.stages = stages
        self.shared = shared

    def draw(self, rows: int, device: torch.device) -> Mixing:
        """Draws the mixing of a pass.

        Args:
            rows: k·B; k copies in the pass, copy-major.
            device: that the rows are on.

        Raises:
            ValueError: if `rows` isn't a multiple of the number of copies in the pass.
        """
        if not self.training:
            stage = torch.full((rows,), NOWHERE)
            return Mixing(torch.arange(rows, device=device), torch.ones(rows, device=device), stage)
        noise = current_noise()
        copies = 1 if noise is None else len(noise.copies)
        if rows % copies:
            raise ValueError(f"{rows} rows don't hold {copies} copies: their number must be a multiple of {copies}")
        size = rows // copies
        partner = torch.empty(copies, size, dtype=torch.int64)
        share = torch.empty(copies, size)
        stage = torch.empty(copies, size, dtype=torch.int64)
        for copy, generator in enumerate(self._generators(noise)):
            share[copy] = draw_beta(self.alpha, generator)
            partner[copy] = torch.randperm(size, generator=generator) + copy * size
            stage[copy] = torch.randint(self.stages, (), generator=generator)
        if self.shared:
            for generator in self._generators(noise, shared=True):
                share[:] = draw_beta(self.alpha, generator)
                stage[:] = torch.randint(self.stages, (), generator=generator)
        return Mixing(partner.flatten().to(device), share.flatten().to(device), stage.flatten())

    def _generators(self, noise: Noise | None, *, shared: bool = False) -> Iterable[torch.Generator | None]:
        return [None] if noise is None else noise.generators(self, torch.device("cpu"), shared=shared)

    def extra_repr(self) -> str:
        """`alpha=0.2, stages=1, shared=False`."""
        return f"alpha={self.alpha}, stages={self.stages}, shared={self.shared}"


def draw_beta(alpha: float, generator: torch.Generator | None) -> float:
    """Draws from Beta(α, α), for any α > 0.

        λ = X / (X + Y) = 1 / (1 + exp(log Y − log X)),   X, Y ~ Gamma(α)

    For a small α both X and Y may be too small for a float, which would make 0/0. Their logarithms never are:
    Gamma(α) is Gamma(α + 1)·U^(1/α), for U uniform on (0, 1].

    Args:
        alpha: α.
        generator: of the CPU; None is the global one.

    Source: Marsaglia & Tsang 2000, section 6, for gammas below 1.
    """
    # The draw beneath torch.distributions.Gamma, which doesn't take a generator.
    gammas = torch._standard_gamma(torch.full((2,), alpha + 1, dtype=torch.float64), generator=generator)
    uniforms = torch.rand(2, dtype=torch.float64, generator=generator)
    logs = gammas.log() + (-uniforms).log1p() / alpha
    return float(torch.sigmoid(logs[0] - logs[1]))
