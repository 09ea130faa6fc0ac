"""The merged gradient: run the passes of the grid, add up, divide once."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from typing import Any, TypeVar

import torch
from torch import nn
from torch.utils.weak import WeakIdKeyDictionary

from seqba.core.accumulator import Accumulator, Loss, Step, described, whole_number
from seqba.core.gradients_before import GradientsBefore
from seqba.core.group import ALONE, Exchange, Group, group_of, local_part
from seqba.core.hooks import discarding_pending, finish_update
from seqba.core.noise import Noise, noise_context
from seqba.core.plan import Pass, Plan, PlanLike, SavedBytes, parse_plan
from seqba.core.replicate import replicate, select_copies
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
    micro_batch: int = 0,
    ranks: Group | None = None,
    end_update: bool = True,
    replicated: bool = False,
    shard: int | None = None,
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
        update: number of this update. **Pass it**: the same (seed, update, micro-batch) draws the same masks again.
        micro_batch: number of this batch within the update, when several are added up before one optimizer step.
        ranks: the processes that share the copies (`seqba.Ranks.of()` under torchrun); each calls with the same batch,
            runs its part of the copies, and ends with the gradient of all of them. None for this process alone, and
            for a model in DistributedDataParallel or FSDP: there each process has rows of its own, whose draws are its
            own (micro-batch s of rank r is keyed as micro-batch s·R + r), and the wrapper means the gradients, once a
            call.
        end_update: whether modules that gather something over an update (running statistics of `GhostBatchNorm2d`) use
            it now. False for a loop that decides about the step afterwards, and then calls `finish_update` itself.
        replicated: whether `batch` holds M·B rows already, copy after copy, as a loader with `RepeatingBatchSampler`
            makes them: every copy with its own random transforms.
        shard: the former name of `micro_batch`, which is taken with a warning.

    Returns:
        The mean loss and the weight; under DistributedDataParallel or FSDP, those of this process's rows.

    Raises:
        ValueError: for a batch whose rows can't be told (see `replicate`), copies < 1, more ranks than copies, `ranks`
            beside a wrapper that takes means itself, an unknown plan, a loss that isn't a 0-dim tensor, or a weight
            that isn't positive or changes between copies.
        TypeError: for an argument, a loss or a weight of another type.

    Whatever is raised, also by the model or the loss function, `.grad` is afterwards what it was before: a loop may
    skip the batch. (Where gradients were there already, they are copied for that.) What ordinary modules keep on the
    side, running statistics of batch normalisation say, isn't taken back.

    Source: Hoffer et al. 2020, section 2, the modified learning rule.
    """
    if shard is not None:
        warnings.warn("shard= is called micro_batch= now", DeprecationWarning, stacklevel=2)
        micro_batch = shard
    grid = _Grid(model, [batch], loss_fn, copies, plan, seed, update, micro_batch, ranks, replicated=replicated)
    grid.group.check(1, grid.copies)
    step = grid.run(weight=None, end_update=end_update)
    if grid.repeats_a_key:
        warnings.warn(grid.repeated_key(), stacklevel=2)
    return step


def grid_gradient(
    model: nn.Module,
    micro_batches: Sequence[Batch],
    loss_fn: LossFunction[Batch],
    *,
    copies: int,
    weight: float,
    plan: PlanLike = "auto",
    seed: int = 0,
    update: int = 0,
    ranks: Group | None = None,
    also_sum: Sequence[float] = (),
    end_update: bool = True,
) -> Step:
    """`merged_gradient` over S micro-batches at once: the mean is over the whole grid of S × M cells.

        .grad += 1/weight · Σ_s Σ_m ∇ (summed loss of cell (s, m))

    Args:
        model: as in `merged_gradient`.
        micro_batches: S batches of distinct examples; micro-batch s is keyed by its place in this sequence. With
            `ranks` only those that have a cell here are asked for.
        loss_fn: as in `merged_gradient`, returning (sum, weight) or (sum, weight, further sums).
        copies: M.
        weight: of the whole grid, M × Σ_s weight of micro-batch s, known beforehand: dividing by it is the only
            division. With `ranks`, of the cells of this rank alone (0 where it has none): weights are added up in the
            same all-reduce as the gradients, and divided by then.
        plan: as in `merged_gradient`.
        seed: of the run.
        update: number of the update.
        ranks: the processes among which the cells are dealt; None for this process alone, and as in `merged_gradient`
            for a wrapped model. One without a cell runs a pass whose outcome is thrown away: an epoch's last update may
            be that small.
        also_sum: numbers of this process that shall be added up over the ranks in the same message.
        end_update: as in `merged_gradient`.

    Where this raises, what modules gathered is thrown away, and `.grad` is what it was before.

    Returns:
        The mean loss over the grid and the weight.

    Raises:
        ValueError: as `merged_gradient`, and if the weights that come out don't add up to `weight`.
        TypeError: as `merged_gradient`.
    """
    if not weight > 0 and not (ranks is not None and weight == 0):
        raise ValueError(f"the grid's weight is {weight}; it must be positive")
    grid = _Grid(model, micro_batches, loss_fn, copies, plan, seed, update, 0, ranks)
    step = grid.run(weight=weight, end_update=end_update, also_sum=also_sum)
    if grid.repeats_a_key:
        warnings.warn(grid.repeated_key(), stacklevel=2)
    return step


# By identity: a model may define what it is equal to.
_auto_plans: WeakIdKeyDictionary = WeakIdKeyDictionary()
_last_keys: WeakIdKeyDictionary = WeakIdKeyDictionary()


def _plan_for(model: nn.Module, plan: PlanLike) -> Plan:
    """`auto` measures each model once, not at every call; where passes go together, ranks can't each measure."""
    chosen = _auto_plans.setdefault(model, parse_plan("auto")) if plan == "auto" else parse_plan(plan)  # type: ignore[no-untyped-call]
    return parse_plan("looped") if chosen.is_auto and group_of(model) is not None else chosen


class _Grid:
    """The cells of one update, and the sums that their passes add up to."""

    def __init__(
        self,
        model: nn.Module,
        micro_batches: Sequence[Any],
        loss_fn: LossFunction[Any],
        copies: int,
        plan: PlanLike,
        seed: int,
        update: int,
        first_micro_batch: int,
        ranks: Group | None,
        *,
        replicated: bool = False,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, not {described(model)}")
        if not callable(loss_fn):
            raise TypeError(f"loss_fn must be a function of model and batch, not {described(loss_fn)}")
        if ranks is not None and not isinstance(ranks, Group):
            raise TypeError(f"ranks must be a seqba.Ranks (Ranks.of()), not {described(ranks)}")
        self.copies = whole_number("copies", copies)
        self.seed = whole_number("seed", seed)
        self.update = whole_number("update", update)
        self.first_micro_batch = whole_number("micro_batch", first_micro_batch)
        if self.copies < 1:
            raise ValueError(f"copies is {self.copies}; it must be at least 1")
        self.group: Group = ALONE if ranks is None else ranks
        self.group.check_model(model)
        self.replicas = Replicas() if group_of(model) is not None else Replicas.of(model)
        if self.group is not ALONE and self.replicas != Replicas():
            raise ValueError(
                "the model is wrapped to take means over processes (DistributedDataParallel, FSDP), which ranks= would "
                "take again: pass the model itself (model.module) with ranks=, or leave ranks= out"
            )
        self.model = model
        self.micro_batches = micro_batches
        self.loss_fn = loss_fn
        self.plan = _plan_for(model, plan)
        self.replicated = replicated
        self.names = module_names(model)
        self.exchange: Exchange = ALONE
        self.repeats_a_key = False

    def run(self, weight: float | None, *, end_update: bool, also_sum: Sequence[float] = ()) -> Step:
        """Runs the passes, and adds up and divides what they made."""
        before = GradientsBefore(self.model, set_aside=self.group is not ALONE)
        try:
            self.exchange = self.group.exchange(self.model)
            sums = self._attempts(self.group.cells(len(self.micro_batches), self.copies), weight, before)
            step = sums.step(self.model, self.exchange, also_sum)
        except BaseException:
            finish_update(self.model, keep=False)
            before.restore()
            raise
        before.add()
        if end_update:
            finish_update(self.model, keep=math.isfinite(step.loss))
        return step

    def _attempts(
        self, cells: Sequence[tuple[int, range]], weight: float | None, before: GradientsBefore
    ) -> Accumulator:
        while True:
            try:
                return self._attempt(cells, weight)
            except _OutOfMemory as error:
                if self.exchange.has_begun:
                    raise error.cause from None  # a part of the gradient has been sent
            finish_update(self.model, keep=False)
            before.begin_again()

    def _attempt(self, cells: Sequence[tuple[int, range]], weight: float | None) -> Accumulator:
        sums = Accumulator(weight, sum(len(copies) for _, copies in cells), self.group)
        for _ in range(self._dummy_passes(cells)):
            self._run_dummy(cells, sums)
        drew_noise = False
        for micro_batch, copies in cells:
            if not copies:
                continue
            batch = self.micro_batches[micro_batch]
            for pass_ in self._passes(micro_batch, copies):
                noise = self._noise(micro_batch, pass_.copies)
                is_last = (micro_batch, pass_.copies.stop) == (cells[-1][0], cells[-1][1].stop)
                self._run_pass(pass_, batch, noise, sums, is_last=is_last)
                drew_noise = drew_noise or noise.draws > 0
        self.repeats_a_key = self._is_repeated_key() if drew_noise else False
        return sums

    def _noise(self, micro_batch: int, copies: range) -> Noise:
        return Noise(
            self.seed, self.update, self.replicas.number(self.first_micro_batch + micro_batch), copies, self.names
        )

    def _passes(self, micro_batch: int, copies: range) -> Iterator[Pass]:
        """The passes of some copies, each planned when it is asked for: by then the plan may have measured."""
        first = copies.start
        while first < copies.stop:
            pass_ = self.plan.next_pass(micro_batch, first, copies.stop)
            yield pass_
            first = pass_.copies.stop

    def _dummy_passes(self, cells: Sequence[tuple[int, range]]) -> int:
        """How many dummy passes this rank runs, whose outcome counts nowhere.

        One where it has no cell, to know what the loss function reports; with sharded parameters, whose every pass is a
        conversation, as many as the rank with the most passes has more.
        """
        if not self.group.passes_together(self.model):
            return 0 if not cells or any(copies for _, copies in cells) else 1
        dealt = (self.group.cells(len(self.micro_batches), self.copies, rank) for rank in range(self.group.size))
        return max(map(self._count_passes, dealt)) - self._count_passes(cells)

    def _count_passes(self, cells: Sequence[tuple[int, range]]) -> int:
        return sum(1 for micro_batch, copies in cells for _ in self._passes(micro_batch, copies))

    def _run_dummy(self, cells: Sequence[tuple[int, range]], sums: Accumulator) -> None:
        """A pass of this rank's first cell, or of another rank's, whose outcome counts nowhere.

        It comes before the others: what it carries over, the cell's own pass carries over as well.
        """
        micro_batch, copies = cells[0]
        one = range(copies.start, copies.start + 1)
        noise = self._noise(micro_batch, one)
        with discarding_pending(self.model), noise_context(noise), noise.ordinary():
            nothing = sums.add_dummy(self.loss_fn(self.model, self._rows(self.micro_batches[micro_batch], one)))
            nothing.backward()  # type: ignore[no-untyped-call]

    def _run_pass(self, pass_: Pass, batch: Any, noise: Noise, sums: Accumulator, *, is_last: bool) -> None:
        saved = SavedBytes(self.model) if self.plan.needs_measuring(self.copies) else None
        try:
            with ExitStack() as stack:
                stack.enter_context(noise_context(noise))
                if self.group is not ALONE or self.replicas.size > 1:
                    stack.enter_context(noise.ordinary())
                if not is_last:
                    stack.enter_context(self.replicas.without_exchange())
                else:
                    stack.enter_context(self.exchange.last_backward())
                with saved.counting() if saved else nullcontext():
                    loss = self.loss_fn(self.model, self._rows(batch, pass_.copies))
                scaled = sums.add(loss, len(pass_.copies))
                if saved:
                    self.plan.measured(saved.total, scaled.device)
                scaled.backward()  # type: ignore[no-untyped-call]
        except torch.OutOfMemoryError as error:
            if (is_last and self.replicas.synchronised) or not self.plan.shrink(pass_):
                raise  # other processes have a part of the last pass's gradient, or nothing smaller is left
            raise _OutOfMemory(error) from error

    def _rows(self, batch: Any, copies: range) -> Any:
        """What a pass of some copies of a batch sees."""
        if self.replicated:
            return select_copies(batch, copies, self.copies)
        return batch if self.copies == 1 else replicate(batch, len(copies))  # looped copies are checked as stacked ones

    def _is_repeated_key(self) -> bool:
        """Masks that come again after the weights have moved are a forgotten `update=`, which would go unnoticed."""
        key = (self.seed, self.update, self.first_micro_batch)
        sample = _sample_weights(self.model)
        last_key, last_sample = _last_keys.get(self.model, (None, sample))  # type: ignore[no-untyped-call]
        _last_keys[self.model] = (key, sample)
        return bool(key == last_key and sample != last_sample)

    def repeated_key(self) -> str:
        """What to say of it."""
        return (
            f"the weights have changed, but this update draws the same masks as the one before (seed {self.seed}, "
            f"update {self.update}, micro-batch {self.first_micro_batch}): pass update= with the number of the update"
        )


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
