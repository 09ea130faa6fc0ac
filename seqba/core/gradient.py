"""The merged gradient: run the passes of the grid, add up, divide once."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import nn
from torch.utils.weak import WeakIdKeyDictionary

from seqba.core.finish import finish_update, gathering_nothing
from seqba.core.noise import Noise, noise_context
from seqba.core.plan import Pass, Plan, PlanLike, SavedBytes, parse_plan
from seqba.core.replicate import replicate
from seqba.core.sharded import check_sharding, is_sharded, local_part
from seqba.core.spread import GradientExchange, Ranks
from seqba.core.sums import Loss, Step, Sums, described, trained, whole_number
from seqba.core.wrappers import Replicas, module_names

Batch = TypeVar("Batch")
LossFunction = Callable[[nn.Module, Batch], Loss]


def merged_gradient(
    model: nn.Module,
    batch: Batch,
    loss_fn: LossFunction[Batch],
    *,
    copies: int,
    plan: PlanLike = "auto",
    seed: int = 0,
    update: int = 0,
    shard: int = 0,
    ranks: Ranks | None = None,
) -> Step:
    """Adds to every parameter's `.grad` the mean gradient over `copies` noisy views of one batch.

        .grad += 1/Σw · Σ_m ∇ loss_m        (m = 1..M, each copy through its own noise)

    Args:
        model: any module. Ordinary dropout draws per row, hence per copy, from the global generator (on several ranks
            from one that each pass seeds); seqba's own modules draw keyed noise, so that the gradient doesn't depend on
            the plan. Wrappers (`torch.compile`, DistributedDataParallel, FSDP, activation checkpointing) change no
            draw.
        batch: nested tensors with B rows on dimension 0 (see `replicate`).
        loss_fn: `loss_fn(model, batch)` → the mean over rows (0-dim tensor), or (sum, weight), or (sum, weight, further
            sums to report). A weight may not depend on the noise.
        copies: M, noisy views of each example; 1 is an ordinary step, bit for bit where there is no dropout.
        plan: "auto", "stacked", "looped", a number of copies per pass, or a `Plan`.
        seed: of the run.
        update: number of this update. **Pass it**: the same (seed, update, shard) draws the same masks again.
        shard: number of this batch within the update, when several are added up before one optimizer step.
        ranks: the processes that share the copies (`Ranks.of()` under torchrun); each calls with the same batch, runs
            its part of the copies, and ends with the gradient of all of them. None for this process alone, and for a
            model in DistributedDataParallel or FSDP: there each process has rows of its own, whose draws are its own
            (shard s of rank r is keyed as shard s·R + r), and the wrapper means the gradients, once a call.

    Returns:
        The mean loss and the weight; under DistributedDataParallel or FSDP, those of this process's rows.

    Raises:
        ValueError: for copies < 1, more ranks than copies, `ranks` beside a wrapper that takes means itself, an unknown
            plan, a loss that isn't a 0-dim tensor, or a weight that isn't positive or changes between copies.
        TypeError: for an argument, a loss or a weight of another type.

    Whatever is raised, also by the model or the loss function, `.grad` is afterwards what it was before: a loop may
    skip the batch. (Where gradients were there already, they are copied for that.) What ordinary modules keep on the
    side, running statistics of batch normalisation say, isn't taken back.

    Source: Hoffer et al. 2020, section 2, the modified learning rule.
    """
    grid = _Grid(model, [batch], loss_fn, copies, plan, seed, update, shard, ranks)
    if ranks is not None:
        ranks.check(1, grid.copies)
    step = grid.run(weight=None)
    finish_update(model, keep=math.isfinite(step.loss))
    if grid.repeats_a_key:
        warnings.warn(grid.repeated_key(), stacklevel=2)
    return step


def grid_gradient(
    model: nn.Module,
    shards: Sequence[Batch],
    loss_fn: LossFunction[Batch],
    *,
    copies: int,
    weight: float,
    plan: PlanLike = "auto",
    seed: int = 0,
    update: int = 0,
    ranks: Ranks | None = None,
    notes: Mapping[str, float] | None = None,
) -> Step:
    """`merged_gradient` over S shards at once: the mean is over the whole grid of S × M cells.

        .grad += 1/weight · Σ_s Σ_m ∇ (summed loss of cell (s, m))

    Args:
        model: as in `merged_gradient`.
        shards: S batches of distinct examples; shard s is keyed by its place in this sequence. With `ranks` only those
            that have a cell here are asked for.
        loss_fn: as in `merged_gradient`, returning (sum, weight) or (sum, weight, further sums).
        copies: M.
        weight: of the whole grid, M × Σ_s weight of shard s, known beforehand: dividing by it is the only division.
            With `ranks`, of the cells of this rank alone (0 where it has none): weights are added up in the same
            all-reduce as the gradients, and divided by then.
        plan: as in `merged_gradient`.
        seed: of the run.
        update: number of the update.
        ranks: the processes among which the cells are dealt; None for this process alone, and as in `merged_gradient`
            for a wrapped model. One without a cell runs a pass whose outcome is thrown away: an epoch's last update may
            be that small.
        notes: numbers of this process that shall be added up over the ranks in the same message.

    What modules gathered beside the gradient (running statistics) waits for `finish_update`: call it once it is decided
    that the step is made, or not. Where this raises, it is thrown away, and `.grad` is what it was before.

    Returns:
        The mean loss over the grid and the weight.

    Raises:
        ValueError: as `merged_gradient`, and if the weights that come out don't add up to `weight`.
        TypeError: as `merged_gradient`.
    """
    if not weight > 0 and not (ranks is not None and weight == 0):
        raise ValueError(f"the grid's weight is {weight}; it must be positive")
    grid = _Grid(model, shards, loss_fn, copies, plan, seed, update, 0, ranks, notes or {})
    step = grid.run(weight=weight)
    if grid.repeats_a_key:
        warnings.warn(grid.repeated_key(), stacklevel=2)
    return step


# By identity: a model may define what it is equal to.
_auto_plans: WeakIdKeyDictionary = WeakIdKeyDictionary()
_last_keys: WeakIdKeyDictionary = WeakIdKeyDictionary()


def _plan_for(model: nn.Module, plan: PlanLike) -> Plan:
    """The word `auto` measures each model once, not at every call; ranks with sharded parameters can't each measure."""
    chosen = _auto_plans.setdefault(model, parse_plan("auto")) if plan == "auto" else parse_plan(plan)  # type: ignore[no-untyped-call]
    return parse_plan("looped") if chosen.is_auto and is_sharded(model) else chosen


class _Grid:
    """The cells of one update, and the sums that their passes add up to."""

    def __init__(
        self,
        model: nn.Module,
        shards: Sequence[Any],
        loss_fn: LossFunction[Any],
        copies: int,
        plan: PlanLike,
        seed: int,
        update: int,
        first_shard: int,
        ranks: Ranks | None,
        notes: Mapping[str, float] | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, not {described(model)}")
        if not callable(loss_fn):
            raise TypeError(f"loss_fn must be a function of model and batch, not {described(loss_fn)}")
        if ranks is not None and not isinstance(ranks, Ranks):
            raise TypeError(f"ranks must be a seqba.Ranks (Ranks.of()), not {described(ranks)}")
        self.copies = whole_number("copies", copies)
        self.seed = whole_number("seed", seed)
        self.update = whole_number("update", update)
        self.first_shard = whole_number("shard", first_shard)
        if self.copies < 1:
            raise ValueError(f"copies is {self.copies}; it must be at least 1")
        check_sharding(model, ranks)
        self.replicas = Replicas() if is_sharded(model) else Replicas.of(model)
        if ranks is not None and self.replicas != Replicas():
            raise ValueError(
                "the model is wrapped to take means over processes (DistributedDataParallel, FSDP), which ranks= would "
                "take again: pass the model itself (model.module) with ranks=, or leave ranks= out"
            )
        self.model = model
        self.shards = shards
        self.loss_fn = loss_fn
        self.plan = _plan_for(model, plan)
        self.ranks = ranks
        self.notes = notes or {}
        self.names = module_names(model)
        self.exchange: GradientExchange | None = None
        self.repeats_a_key = False

    def run(self, weight: float | None) -> Step:
        before = _GradientsBefore(self.model, set_aside=self.ranks is not None)
        try:
            cells = self._cells()
            if self.ranks is None:
                return self._attempts(cells, weight, before).step(self.notes)
            # A sharded model's gradients are added up by its backward.
            self.exchange = GradientExchange(self.ranks, [] if is_sharded(self.model) else trained(self.model))
            sums = self._attempts(cells, weight, before)
            step = sums.step_of_all(self.ranks, self.exchange, self.model, self.notes)
        except BaseException:
            finish_update(self.model, keep=False)
            before.restore()
            raise
        before.add()
        return step

    def _cells(self) -> list[tuple[int, range]]:
        """Which copies of which shards this process runs."""
        if self.ranks is None:
            return [(shard, range(self.copies)) for shard in range(len(self.shards))]
        return self.ranks.cells(len(self.shards), self.copies)

    def _attempts(self, cells: Sequence[tuple[int, range]], weight: float | None, before: _GradientsBefore) -> Sums:
        while True:
            try:
                return self._attempt(cells, weight)
            except _OutOfMemory as error:
                if self.exchange is not None and self.exchange.has_begun:
                    raise error.cause from None  # a part of the gradient has been sent
            finish_update(self.model, keep=False)
            before.begin_again()

    def _attempt(self, cells: Sequence[tuple[int, range]], weight: float | None) -> Sums:
        sums = Sums(weight, sum(len(copies) for _, copies in cells), divides=self.ranks is None)
        for _ in range(self._idle_passes(cells)):
            self._run_idle(cells, sums)
        drew_noise = False
        for shard, copies in cells:
            if not copies:
                continue
            batch = self.shards[shard]
            for pass_ in self._passes(shard, copies):
                noise = self._noise(shard, pass_.copies)
                is_last = (shard, pass_.copies.stop) == (cells[-1][0], cells[-1][1].stop)
                self._run_pass(pass_, batch, noise, sums, is_last=is_last)
                drew_noise = drew_noise or noise.draws > 0
        self.repeats_a_key = self._is_repeated_key() if drew_noise else False
        return sums

    def _noise(self, shard: int, copies: range) -> Noise:
        return Noise(self.seed, self.update, self.replicas.number(self.first_shard + shard), copies, self.names)

    def _passes(self, shard: int, copies: range) -> Iterator[Pass]:
        """The passes of some copies, each planned when it is asked for: by then the plan may have measured."""
        first = copies.start
        while first < copies.stop:
            pass_ = self.plan.next_pass(shard, first, copies.stop)
            yield pass_
            first = pass_.copies.stop

    def _idle_passes(self, cells: Sequence[tuple[int, range]]) -> int:
        """How many passes this rank runs for nothing.

        One where it has no cell, to know what the loss function reports; with sharded parameters, whose every pass is a
        conversation, as many as the rank with the most passes has more.
        """
        if self.ranks is None:
            return 0
        if not is_sharded(self.model):
            return 0 if any(copies for _, copies in cells) else 1
        dealt = (replace(self.ranks, rank=rank).cells(len(self.shards), self.copies) for rank in range(self.ranks.size))
        return max(map(self._count_passes, dealt)) - self._count_passes(cells)

    def _count_passes(self, cells: Sequence[tuple[int, range]]) -> int:
        return sum(1 for shard, copies in cells for _ in self._passes(shard, copies))

    def _run_idle(self, cells: Sequence[tuple[int, range]], sums: Sums) -> None:
        """A pass of this rank's first cell, or of another rank's, whose outcome counts nowhere.

        It comes before the others: what it carries over, the cell's own pass carries over as well.
        """
        shard, copies = cells[0]
        one = range(copies.start, copies.start + 1)
        noise = self._noise(shard, one)
        with gathering_nothing(self.model), noise_context(noise), noise.ordinary():
            nothing = sums.add_nothing(self.loss_fn(self.model, self.shards[shard]))
            nothing.backward()  # type: ignore[no-untyped-call]

    def _run_pass(self, pass_: Pass, batch: Any, noise: Noise, sums: Sums, *, is_last: bool) -> None:
        saved = SavedBytes(self.model) if self.plan.needs_measuring(self.copies) else None
        try:
            with ExitStack() as stack:
                stack.enter_context(noise_context(noise))
                if self.ranks or self.replicas.size > 1:
                    stack.enter_context(noise.ordinary())
                if not is_last:
                    stack.enter_context(self.replicas.without_exchange())
                elif self.exchange:
                    stack.enter_context(self.exchange.last_backward())
                with saved.counting() if saved else nullcontext():
                    loss = self.loss_fn(self.model, replicate(batch, len(pass_.copies)))
                scaled = sums.add(loss, len(pass_.copies))
                if saved:
                    self.plan.measured(saved.total, scaled.device)
                scaled.backward()  # type: ignore[no-untyped-call]
        except torch.OutOfMemoryError as error:
            if (is_last and self.replicas.synchronised) or not self.plan.shrink(pass_):
                raise  # other processes have a part of the last pass's gradient, or nothing smaller is left
            raise _OutOfMemory(error) from error

    def _is_repeated_key(self) -> bool:
        """Masks that come again after the weights have moved are a forgotten `update=`, which would go unnoticed."""
        key = (self.seed, self.update, self.first_shard)
        sample = _sample_weights(self.model)
        last_key, last_sample = _last_keys.get(self.model, (None, sample))  # type: ignore[no-untyped-call]
        _last_keys[self.model] = (key, sample)
        return bool(key == last_key and sample != last_sample)

    def repeated_key(self) -> str:
        """What to say of it."""
        return (
            f"the weights have changed, but this update draws the same masks as the one before (seed {self.seed}, "
            f"update {self.update}, shard {self.first_shard}): pass update= with the number of the update"
        )


class _GradientsBefore:
    """The gradients that parameters had before an update: a failed one leaves them as they were.

    Args:
        model: whose parameters' `.grad` are kept.
        set_aside: whether the update shall find none, and `add` them afterwards: what ranks add up isn't to be added up
            again. Otherwise passes add to them, and a copy is kept.
    """

    def __init__(self, model: nn.Module, *, set_aside: bool) -> None:
        self._parameters = list(model.parameters())
        self._gradients = [parameter.grad for parameter in self._parameters]
        self._set_aside = set_aside
        self._copies = [None if set_aside or gradient is None else gradient.clone() for gradient in self._gradients]
        if set_aside:
            self.begin_again()

    def restore(self) -> None:
        """Makes every `.grad` what it was, the same tensor with the same values."""
        for parameter, gradient, copy in zip(self._parameters, self._gradients, self._copies, strict=True):
            parameter.grad = gradient
            if gradient is not None and copy is not None:
                gradient.detach().copy_(copy)

    def begin_again(self) -> None:
        """Makes every `.grad` what the update begins with."""
        self.restore()
        if self._set_aside:
            for parameter in self._parameters:
                parameter.grad = None

    def add(self) -> None:
        """Adds what was set aside to the gradients of the update."""
        if not self._set_aside:
            return
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else gradient.add_(parameter.grad)


def _sample_weights(model: nn.Module) -> float:
    """The squares of a few hundred weights of one parameter, added up: tells moved weights from unmoved ones.

    Their plain sum wouldn't: the gradient by the logits' biases adds up to zero.
    """
    trained = [parameter for parameter in model.parameters() if parameter.grad is not None]
    flat = local_part(trained[-1]).detach().flatten() if trained else torch.zeros(1)
    return float(flat[:: max(1, flat.numel() // 256)].abs().double().square().sum())


class _OutOfMemory(Exception):
    """Memory ran out and the plan has a smaller pass to offer."""

    def __init__(self, cause: torch.OutOfMemoryError) -> None:
        super().__init__()
        self.cause = cause
