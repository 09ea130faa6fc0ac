"""Keyed noise: every random number of an update is a function of (seed, update, micro-batch, copy, site).

Because nothing depends on how the cells of the grid were grouped into passes, the gradient doesn't either: stacked,
looped and spread plans draw the same masks. Resuming needs no stored generator state for the same reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from seqba.noise.placed import PlacedDraw
from seqba.noise.sites import ALL_COPIES, Place, Sites
from seqba.random.masks import drop, drop_by_numbers, drop_level, kept
from seqba.random.philox import Draw

if TYPE_CHECKING:
    from collections.abc import Iterator

    from seqba.noise.compare import Comparison
    from seqba.noise.fork import Trunk
    from seqba.noise.ordinary import OrdinaryNoise


class Noise:
    """The keyed noise of one pass: which copies of which micro-batch a forward is looking at, and their draws.

    Args:
        seed: of the run.
        update: number of the update.
        micro_batch: number of the micro-batch within the update.
        copies: numbers of the copies stacked in this pass, in the order of their row slices. Never a rank.
        names: `id` of a module → its qualified name in the model. A module that isn't in the model (a loss, say) is
            named by the order in which such modules first draw.
        rows: that the pass begins with, over all its copies, where they are known: tells draws that have a number for
            each row from those that rows share (`seqba.keying.keyed`).
        trunk: of a pass that forks inside the model (`seqba.noise.fork`), what the passes of its micro-batch have in
            common; None for one that sees its copies' rows from the beginning.
        copies_differ: whether the copies came with rows of their own, so that a model that leaves padding out may have
            different numbers of tokens for them (`part_rows`).
        comparison: of a pass whose loss compares copies (`seqba.noise.compare`), what the passes of its micro-batch
            have in common for that; None for a loss that doesn't.

    Attributes:
        pass_copies: the copies of the pass.
        draws: how many draws were made.
        draws_above: how many of them, not counting those below a fork.
        drew_ordinary: whether anything was drawn from torch's own generators, above a fork if there is one; in a pass
            that doesn't seed them asked only where there are no `draws_above`.
        placed: what the forward drew by torch's functions where the rows are known, in order.
        ordinary: what watches torch's own generators in the pass; None for noise of no pass.
        calls: numbers of the calls of each site.

    A module that draws several times in a pass has its calls numbered, so that a dropout module used at three places
    makes three sites. A layer that activation checkpointing recomputes in the backward draws the masks of its forward
    again (`seqba.noise.sites`).
    """

    def __init__(
        self,
        seed: int,
        update: int,
        micro_batch: int,
        copies: Sequence[int],
        names: Mapping[int, str] | None = None,
        rows: int | None = None,
        trunk: Trunk | None = None,
        *,
        copies_differ: bool = False,
        comparison: Comparison | None = None,
    ) -> None:
        self.seed = seed
        self.update = update
        self.micro_batch = micro_batch
        self.pass_copies = copies
        self.names: Mapping[int, str] = {} if names is None else names
        self.trunk = trunk
        self.copies_differ = copies_differ
        self.comparison = comparison
        self.draws = self.draws_above = 0
        self.drew_ordinary = False
        self.placed: list[PlacedDraw] = []
        self.ordinary: OrdinaryNoise | None = None
        self._sites = Sites((seed, update, micro_batch), self.names, None if trunk is None else trunk.marks)
        self.calls = self._sites.calls
        self._rows = rows
        self._generators: dict[torch.device, torch.Generator] = {}

    @property
    def copies(self) -> Sequence[int]:
        """The copies that rows are of at this point of the pass: below a fork one, which stands for all of them."""
        return self.pass_copies if self.trunk is None or self.calls.is_above else (ALL_COPIES,)

    @property
    def rows(self) -> int | None:
        """Rows of all copies at this point of the pass; None where they aren't known."""
        if self._rows is None or self.trunk is None or not self.calls.is_above:
            return self._rows
        return self._rows * len(self.pass_copies)

    def go_above(self, place: Place | None = None) -> Place:
        """Passes the fork: from here on rows are those of the pass's copies.

        Args:
            place: where another pass of the micro-batch stood at the fork, for a pass that has left out what is below.

        Returns:
            Where this pass stands: the numbers of its calls, and the names of what isn't in the model.
        """
        place = self._sites.go_above(place)
        if self.ordinary is not None:
            self.ordinary.go_above(self)
        return place

    def keep_mask(
        self,
        owner: object,
        shape: Sequence[int],
        probability: float,
        device: torch.device,
        *,
        shared: bool = False,
        rows: Sequence[int] | None = None,
    ) -> Tensor:
        """Draws which elements are kept: each is dropped with `probability`, rounded to 1/65,536, independently.

        Args:
            owner: the object that draws, usually a module; its name and the number of this call make the site.
            shape: (k·R, ...): k copies of R rows each, copy-major.
            probability: of dropping, in [0, 1).
            device: where the mask is needed.
            shared: one draw for all copies of the micro-batch, whatever plan they run in: `shape` is then that of one
                copy, and the key holds `ALL_COPIES` in the copy's place.
            rows: how many rows each copy has, where they don't all have R (`part_rows`).

        Returns:
            An int8 tensor of `shape`, 1 where kept and 0 where dropped. Slice j holds the draw keyed by (seed, update,
            micro-batch, copies[j], site): the same whatever other copies are in the pass. A CPU draws from torch's
            generators and a GPU from `seqba.random.philox`, hence different masks from the same key.

        Raises:
            ValueError: if dimension 0 isn't a multiple of the number of copies in the pass, or the sum of `rows`.
        """
        if not draws_by_counter(device):
            return kept(self._numbers(owner, shape, device, shared=shared, rows=rows), probability).view(tuple(shape))
        counts = _numbers_of_copies(shape, 1 if shared else len(self.copies), rows)
        draw, level = self.draw(owner, shared=shared), drop_level(probability)
        if rows is None:
            return draw.keep_mask(shape, level, device)
        parts = [draw.of_copy(number).keep_mask((count,), level, device) for number, count in enumerate(counts)]
        return torch.cat(parts).view(tuple(shape))

    def _numbers(
        self,
        owner: object,
        shape: Sequence[int],
        device: torch.device,
        *,
        shared: bool = False,
        rows: Sequence[int] | None = None,
    ) -> Tensor:
        """As many 16-bit numbers as `shape` has elements, for a mask: int16, drawn from torch's generators."""
        counts = _numbers_of_copies(shape, 1 if shared else len(self.copies), rows)
        # Four 16-bit numbers come out of each 64-bit draw; the surplus of the last word is thrown away.
        words = torch.empty((len(counts), -(-max(counts) // 4)), dtype=torch.int64, device=device)
        for row, count, generator in zip(words, counts, self.generators(owner, device, shared=shared), strict=True):
            row[: -(-count // 4)].random_(-(1 << 63), None, generator=generator)
        numbers = words.view(torch.int16)
        if rows is None:
            return numbers[:, : counts[0]]
        return torch.cat([row[:count] for row, count in zip(numbers, counts, strict=True)])

    def drop(
        self,
        owner: object,
        x: Tensor,
        p: float,
        added: Tensor | None = None,
        *,
        rows: Sequence[int] | None = None,
    ) -> Tensor:
        """Drops from x by a mask of its shape that is drawn here: x·mask / (1 − p) + added, for p as it is drawn.

        A GPU does it in one kernel, which keeps no mask and draws it again in the backward.

        Args:
            owner: the object that draws, usually a module.
            x: (k·R, ...), floating.
            p: probability of dropping, in [0, 1).
            added: like x; None for nothing.
            rows: how many rows each copy has, where they don't all have R (`part_rows`).

        Raises:
            ValueError: as `keep_mask`.
        """
        if not draws_by_counter(x.device):
            return drop_by_numbers(x, self._numbers(owner, x.shape, x.device, rows=rows), p, added)
        if rows is not None or not Draw.can_drop(x, added):
            return drop(x, self.keep_mask(owner, x.shape, p, x.device, rows=rows), p, added)
        numbers_per_copy(x.shape, len(self.copies))
        return self.draw(owner).drop(x, added, drop_level(p))

    def part_rows(self, is_row: Tensor) -> tuple[int, ...] | None:
        """How many rows each copy of the pass has left where a model leaves some out, padding say.

        Args:
            is_row: (k·R, ...) bool, copy-major: what is left.

        Returns:
            A number for each copy, to draw by; None where all have as many, which copies of the same rows have.
        """
        copies = len(self.copies)
        if not self.copies_differ or copies == 1:
            return None
        return tuple(is_row.view(copies, -1).sum(1).tolist())

    def uniform(self, owner: object, shape: Sequence[int], device: torch.device) -> Tensor:
        """Draws numbers uniform on [0, 1): float32 of `shape` (k·R, ...), keyed like the masks of `keep_mask`.

        Raises:
            ValueError: if dimension 0 isn't a multiple of the number of copies in the pass.
        """
        per_copy = numbers_per_copy(shape, len(self.copies))
        if draws_by_counter(device):
            return self.draw(owner).uniform(shape, device)
        numbers = torch.empty((len(self.copies), per_copy), device=device)
        for row, generator in zip(numbers, self.generators(owner, device), strict=True):
            row.uniform_(generator=generator)
        return numbers.view(tuple(shape))

    def draw(self, owner: object, *, shared: bool = False) -> Draw:
        """The numbers that a GPU draws at a site, for all copies of the pass at once.

        Args:
            owner: the object that draws, usually a module; its name and the number of this call make the site.
            shared: one draw for all copies, keyed by `ALL_COPIES` in the copy's place.
        """
        return Draw.of(self._sites.key(owner), self._copies_of_draw(shared=shared))

    def generators(self, owner: object, device: torch.device, *, shared: bool = False) -> Iterator[torch.Generator]:
        """One generator for each copy of the pass, in order, seeded by (seed, update, micro-batch, copy, site).

        All of them are the same object, seeded anew: draw what a copy needs before going on to the next one.

        Args:
            owner: the object that draws, usually a module; its name and the number of this call make the site.
            device: of the generator.
            shared: one for all copies, keyed by `ALL_COPIES` in the copy's place.
        """
        seeds = self._sites.seeds(owner, self._copies_of_draw(shared=shared))
        generator = self._generator(device)
        for seed in seeds:
            yield generator.manual_seed(seed)

    def ordinary_seed(self) -> int:
        """What seeds torch's own generators at this point of the pass, by its first copy."""
        return self._sites.ordinary_seed(self.copies[0])

    def _copies_of_draw(self, *, shared: bool) -> Sequence[int]:
        """Counts a draw, and returns the copies that it is made for."""
        is_above = self.trunk is None or self.calls.is_above
        self.draws += 1
        self.draws_above += is_above
        return self.pass_copies if is_above and not shared else (ALL_COPIES,)

    def _generator(self, device: torch.device) -> torch.Generator:
        if device not in self._generators:
            self._generators[device] = torch.Generator(device)
        return self._generators[device]


def numbers_per_copy(shape: Sequence[int], copies: int) -> int:
    """How many numbers of a draw of `shape` (k·R, ...) belong to each of k copies.

    Raises:
        ValueError: if dimension 0 isn't a multiple of the copies.
    """
    if not shape or shape[0] % copies:
        raise ValueError(
            f"keyed noise of shape {tuple(shape)} in a pass of {copies} copies: dimension 0 must hold the copies' "
            f"rows, copy after copy, so it must be a multiple of {copies}"
        )
    return torch.Size(shape).numel() // copies


def _numbers_of_copies(shape: Sequence[int], copies: int, rows: Sequence[int] | None) -> list[int]:
    """How many numbers of a draw of `shape` belong to each copy, which have these rows; None for as many each."""
    if rows is None:
        return [numbers_per_copy(shape, copies)] * copies
    if sum(rows) != shape[0] or len(rows) != copies:
        raise ValueError(f"keyed noise of shape {tuple(shape)}: {tuple(rows)} aren't the rows of its copies")
    width = torch.Size(shape[1:]).numel()
    return [count * width for count in rows]


def draws_by_counter(device: torch.device) -> bool:
    """Whether a device draws by `seqba.random.philox`, as all but a CPU do."""
    return device.type != "cpu"
