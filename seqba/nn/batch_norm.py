"""Batch normalisation whose statistics don't depend on how many copies are stacked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from seqba.noise.context import current_noise
from seqba.noise.fork import counts_below


class GhostBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation over ghost groups: `ghost_batch` different images of one copy, never several copies at once.

        y = γ·(x − μ)/√(σ² + ε) + β,   μ and σ² over the images of the group and their H × W places

    Rows lie copy-major, so a group is a contiguous slice. The groups are the same in every plan, and so are outputs,
    gradients and running statistics: inside an update the latter wait for its end, and then move once towards the mean
    over all groups of the grid; below a fork there is one copy, which counts once. Outside an update they move at once,
    as torch's own; evaluation is torch's own.

    Args:
        num_features: C.
        ghost_batch: images of a group; None for all B of a copy. It must divide B.
        eps: ε.
        momentum: how far the running statistics move in an update.

    Shape:
        (k·B, C, H, W) → the same; k copies in the pass, copy-major.

    Raises:
        ValueError: if `ghost_batch` doesn't divide the images of a copy.

    Source: Ioffe & Szegedy 2015; groups: Hoffer, Hubara & Soudry 2017, algorithm 1; under copies: Hoffer et al. 2020,
    section 4.5.
    """

    def __init__(
        self, num_features: int, ghost_batch: int | None = None, *, eps: float = 1e-5, momentum: float = 0.1
    ) -> None:
        super().__init__(num_features, eps=eps, momentum=momentum)
        if ghost_batch is not None and ghost_batch < 1:
            raise ValueError(f"ghost_batch is {ghost_batch}; a group has at least one image")
        self.ghost_batch = ghost_batch
        self._rate = momentum
        self._passes: list[Tensor] = []  # (G, 2, C) each: means and variances of a pass's groups
        self._sums: Tensor | None = None  # (3, C): those of passes before, and ones, added up, other ranks' too

    def forward(self, input: Tensor) -> Tensor:
        """Normalises `input` (k·B, C, H, W) group by group."""
        if not self.training:
            return super().forward(input)
        self._check_input_dim(input)
        noise = current_noise()
        size = self._group_size(input.shape[0], 1 if noise is None else len(noise.copies))
        # A single group isn't split: the backward of that would copy its gradient.
        groups = (input,) if size == input.shape[0] else torch.split(input, size)
        statistics = self.weight.new_zeros(len(groups), 2, self.num_features)
        parameters = (_per_group(parameter, len(groups)) for parameter in (self.weight, self.bias))
        outputs = [
            # With a momentum of 1 the kernel leaves the group's own mean and unbiased variance behind.
            nn.functional.batch_norm(rows, mean, variance, weight, bias, True, 1.0, self.eps)
            for rows, (mean, variance), weight, bias in zip(groups, statistics, *parameters, strict=True)
        ]
        if noise is None or not noise.calls.is_recomputing:  # a layer that is recomputed has been counted
            self._passes.append(statistics if noise is None or counts_below(noise) else statistics[:0])
        if noise is None:
            self.finish_update(keep=True)
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    def gathered(self) -> Iterable[Tensor]:
        """Sums over the groups since the last `finish_update`."""
        for statistics in self._passes:
            ones = statistics.new_full((1, self.num_features), len(statistics))
            sums = torch.cat([statistics.sum(0), ones])
            self._sums = sums if self._sums is None else self._sums + sums
        self._passes = []
        return [] if self._sums is None else [self._sums]

    def finish_update(self, *, keep: bool) -> None:
        """Moves the running statistics towards the mean over the groups since the last call, if `keep`."""
        self.finish_together([self], keep=keep)

    @staticmethod
    def finish_together(modules: Sequence[GhostBatchNorm2d], *, keep: bool) -> None:
        """`finish_update` of several modules: on a GPU one kernel for each part, in place of one for each module."""
        moves: dict[float, list[tuple[Tensor, Tensor]]] = {}  # by the rate: running statistics, what they move towards
        counts = []
        for module in modules:
            towards = module._take_mean()
            running_mean, running_var = module.running_mean, module.running_var
            if keep and towards is not None and running_mean is not None and running_var is not None:
                moves.setdefault(module._rate, []).extend(zip((running_mean, running_var), towards, strict=True))
                counts += [] if module.num_batches_tracked is None else [module.num_batches_tracked]
        for rate, pairs in moves.items():
            running = [each for each, _ in pairs]
            torch._foreach_mul_(running, 1 - rate)
            torch._foreach_add_(running, [towards for _, towards in pairs], alpha=rate)
        if counts:
            torch._foreach_add_(counts, 1)

    def _take_mean(self) -> Tensor | None:
        """Mean and variance (2, C) over the groups since the last call; None where there was no pass."""
        if self._sums is None and len(self._passes) == 1 and len(self._passes[0]) == 1:
            mean: Tensor | None = self._passes[0][0]
        else:
            sums = next(iter(self.gathered()), None)
            mean = None if sums is None else sums[:2] / sums[2]
        self._passes, self._sums = [], None
        return mean

    def extra_repr(self) -> str:
        """`16, ghost_batch=32, eps=…`."""
        return f"{self.num_features}, ghost_batch={self.ghost_batch}, eps={self.eps}, momentum={self.momentum}"

    def _group_size(self, rows: int, copies: int) -> int:
        images = rows // copies
        size = self.ghost_batch or images
        if rows % copies or images % size:
            raise ValueError(
                f"ghost groups of {size} images don't divide {rows} rows of {copies} copies: choose a ghost batch that "
                f"divides the {images} images of a copy"
            )
        return size


def _per_group(parameter: Tensor, groups: int) -> Sequence[Tensor]:
    """The parameter for each group; on a GPU as parts of one tensor, whose gradients are added up in one kernel."""
    if groups == 1 or parameter.is_cpu:
        return [parameter] * groups
    return parameter.expand(groups, -1).unbind()
