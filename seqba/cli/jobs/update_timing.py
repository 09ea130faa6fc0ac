"""Timing of updates as a training run makes them, at several numbers of copies."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import nn

from seqba.cli.jobs.trained_run import TrainedRun
from seqba.cli.options.advise import AdviseOptions
from seqba.cli.output import warn_on_stderr
from seqba.core import grid_gradient
from seqba.core.plan import PlanLike
from seqba.errors import UserError
from seqba.extras import progress_bar
from seqba.models.forks import Forking
from seqba.models.graphs import check_compiled, compile_layers
from seqba.models.layers import recompute_layers
from seqba.nn.kernels.casts import shared_casts
from seqba.runtime.devices import to_device
from seqba.statistics import PassCosts
from seqba.tasks import Task
from seqba.training.optimizers import build_optimizer
from seqba.training.options import OptimisationOptions, RunOptions

PLANS: tuple[PlanLike, ...] = ("stacked", "looped")


class Way(NamedTuple):
    """A way to run the copies of an update.

    Attributes:
        plan: where they run.
        fork: where in the model they begin; None for the input.
    """

    plan: PlanLike
    fork: str | None = None

    def __str__(self) -> str:
        """`looped`, or `looped, encoder` with a fork there."""
        return str(self.plan) if self.fork is None else f"{self.plan}, {self.fork}"


class UpdateTiming:
    """Updates of a training run, timed at several numbers of copies; the weights stay what they are.

    Attributes:
        updates: micro-batches of each update, on the CPU.
        weight: of all of them.
        read_s: seconds of reading the micro-batches of one update.
    """

    def __init__(
        self, trained: TrainedRun, task: Task[Any], size: int, device: torch.device, options: AdviseOptions
    ) -> None:
        self.model = trained.model.train()
        self.task = task
        self.device = device
        self.options = options
        optimisation = trained.options(OptimisationOptions, "training", "optimisation")
        self.is_narrow = optimisation.bf16 or optimisation.fp16  # bfloat16 costs the same, and needs no scaled losses
        self.ways = [Way(plan, fork) for fork in dict.fromkeys((None, options.fork)) for plan in PLANS]
        if options.fork is not None:
            trained.check_fork(options.fork)
        run = trained.options(RunOptions, "training", "run")
        if run.compile:
            compile_layers(self.model)
            check_compiled(self.model, torch.bfloat16 if self.is_narrow else None)
        if run.checkpoint_activations:
            recompute_layers(self.model)
        self.optimizer = build_optimizer(self.model.parameters(), optimisation)  # at learning rate 0
        batches = task.epoch(1, size)
        if len(batches) < size:
            raise UserError(f"{trained.data} has {len(batches)} micro-batches, not the {size} of an update")
        count = min(options.timed_updates, len(batches) // size)
        started = time.perf_counter()
        self.updates = [[batches[number * size + place] for place in range(size)] for number in range(count)]
        self.read_s = (time.perf_counter() - started) / count
        self.weight = sum(task.weight(batch) for update in self.updates for batch in update)

    def costs(self) -> list[PassCosts]:
        """Times of every plan, taken in turns, there and back: a machine that grows slower does so for all alike.

        One copy is the same under every plan. A number of copies that memory is too small for is left out, and named.
        """
        several = sorted({copies for copies in self.options.copies if copies > 1})
        cases = [(self.ways[0], 1), *((way, copies) for way in self.ways for copies in several)]
        taken: dict[tuple[Way, int], list[float]] = {case: [] for case in cases}
        with progress_bar()(
            total=len(cases) * (len(self.updates) + 1),
            desc="Time updates",
            unit="update",
            leave=False,
            disable=self.options.quiet or None,
        ) as bar:
            for number, batches in enumerate([self.updates[0], *self.updates]):
                for case in cases[:: -1 if number % 2 else 1]:
                    if case in taken:
                        try:
                            taken[case].append(self._seconds(batches, *case, number))
                        except torch.OutOfMemoryError:
                            del taken[case]
                            warn_on_stderr(f"M = {case[1]} {case[0]} doesn't fit into memory: it is left out")
                    bar.update()
        seconds = {case: statistics.median(each[1:]) for case, each in taken.items()}
        if cases[0] not in seconds:
            raise UserError("not even one copy of a micro-batch fits into memory: give --max-tokens or --batch-size")
        return [
            PassCosts(
                str(way),
                {copies: value for (other, copies), value in seconds.items() if copies == 1 or other == way},
                1.0 if way.fork is None or self.options.noise_above is None else self.options.noise_above,
            )
            for way in self.ways
        ]

    def _seconds(self, batches: Sequence[Any], way: Way, copies: int, number: int) -> float:
        if way.fork is not None or self.options.fork is not None:
            cast(Forking, self.model).fork_at(way.fork)
        started = time.perf_counter()
        self._update(batches, way, copies, number)
        return time.perf_counter() - started

    def _update(self, batches: Sequence[Any], way: Way, copies: int, number: int) -> None:
        """An update as in training, from the batches on the CPU to the optimizer's step, at learning rate 0."""
        with shared_casts():
            step = grid_gradient(
                self.model,
                [to_device(batch, self.device) for batch in batches],
                self._loss,
                copies=copies,
                weight=copies * sum(self.task.weight(batch) for batch in batches),
                plan=way.plan,
                seed=self.options.seed,
                update=number,
                forked=way.fork is not None,
            )
        if not math.isfinite(step.loss):
            raise UserError("the loss is not finite, as the weights aren't: take an earlier checkpoint")
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        if self.task.carried is not None:
            self.task.carried.discard()

    def _loss(self, model: nn.Module, batch: Any) -> Any:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.is_narrow):
            return self.task.loss(model, batch)
