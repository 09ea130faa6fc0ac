"""A look at a model, a batch and a loss function before a run."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from seqba.checking.ambiguous import AmbiguousDraw, find_ambiguous
from seqba.checking.compare import Comparison, Gradients, compare
from seqba.checking.findings import judge
from seqba.checking.report import Report
from seqba.checking.unkeyed import UnkeyedDraw, UnkeyedDraws
from seqba.checking.untouched import seed_everything, untouched
from seqba.core import copies as passes_of
from seqba.core import merged_gradient
from seqba.core.plan import PlanLike
from seqba.keying.shapes import watching_shapes
from seqba.modules.wrappers import check_model, module_names
from seqba.nn import GhostBatchNorm2d
from seqba.rows.nested import count_rows, own_parts
from seqba.values import Loss, described, whole_number

Batch = TypeVar("Batch")
LossFunction = Callable[[nn.Module, Batch], Loss]

_UPDATE = -1  # no update of a run has this number, so that none repeats its masks


def check(
    model: nn.Module, batch: Batch, loss_fn: LossFunction[Batch], *, copies: int = 2, forked: bool = False
) -> Report:
    """Tells whether the gradient of a model depends on where its copies run, and why; once, before a run.

        print(seqba.check(model, batch, loss_fn))

    It computes a handful of gradients of `batch` under `seqba.keyed`: stacked, looped, looped with every layer
    recomputed in the backward, looped under other states of all generators, and once more under a mode that sees every
    operation of torch. A model in evaluation mode is put into training mode for that. Afterwards parameters, buffers,
    gradients, modes and all generators are as they were.

    Args:
        model: any module; every process of a wrapped one calls.
        batch: as for `merged_gradient`. A small one will do, of two rows at least.
        loss_fn: as for `merged_gradient`.
        copies: M, at least 2.
        forked: whether copies begin inside the model, as for `merged_gradient`. Recomputed layers aren't looked at
            then: what is below the fork and what is above it are recomputed apart.

    In half precision, under autocast too, gradients are compared to its rounding: faults of a few per cent show in
    float32 alone.

    Returns:
        The report: `is_fine`, `findings` with advice, and what each comparison came to.

    Raises:
        ValueError: if copies < 2; as `check_model`, for a model that no update can be computed with.
        TypeError: as `merged_gradient`.
    """
    check_model(model)
    count = whole_number("copies", copies)
    if count < 2:
        raise ValueError(f"copies is {count}; a check compares at least 2")
    if not callable(loss_fn):
        raise TypeError(f"loss_fn must be a function of model and batch, not {described(loss_fn)}")
    with untouched(model), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the model draws noise that can't be keyed")  # said in the report
        warnings.filterwarnings("ignore", ".* draws a tensor of shape ")  # likewise
        warnings.filterwarnings("ignore", "nothing drew noise")  # likewise
        warnings.filterwarnings("ignore", "the weights have changed")  # an earlier check's masks, on purpose
        if not model.training:
            model.train()
        return _Check(model, batch, loss_fn, count, forked=forked).report()


class _Check:
    """Computes the gradients of one model, batch and loss function in several ways."""

    def __init__(self, model: nn.Module, batch: Any, loss_fn: LossFunction[Any], copies: int, *, forked: bool) -> None:
        self.forked = forked
        self.model = model
        self.batch = batch
        self.loss_fn = loss_fn
        self.copies = copies
        self.buffers = {name: buffer.detach().clone() for name, buffer in model.named_buffers()}
        self.losses: list[float] = []  # of the latest gradient's passes
        self.half: torch.dtype | None = None  # whose rounding is in the gradients
        self.loss_dtype: torch.dtype | None = None  # float32 in many a model of float64
        self.batch_problem: str | None = None
        self.rows = 0
        try:
            self.rows = count_rows(batch)
        except (TypeError, ValueError) as error:
            self.batch_problem = str(error)

    def report(self) -> Report:
        """Computes the gradients and judges them."""
        unkeyed = self.unkeyed_draws()
        with watching_shapes() as of_looped:
            looped = self.gradients(self.loss_fn, "looped", seed=0)
        losses = self.losses
        changed = [name for name, buffer in self.model.named_buffers() if not torch.equal(buffer, self.buffers[name])]
        repeated = self.compared(looped, self.loss_fn, "looped", seed=1)
        copies_differ = len(set(losses)) > 1 or len(set(self.losses)) > 1 or self.one_copy_differs(looped)
        recomputed = None if self.forked else self.compared(looped, self.recomputing, "looped", seed=0)
        stacked, grows = None, False
        ambiguous: tuple[AmbiguousDraw, ...] = ()
        if self.batch_problem is None:
            with watching_shapes() as of_stacked:
                stacked = self.compared(looped, self.loss_fn, "stacked", seed=0)
            ambiguous = find_ambiguous(of_looped, of_stacked, rows=self.rows, copies=self.copies)
            grows = self.losses[:1] != [0] and math.isclose(sum(losses), sum(self.losses), rel_tol=1e-4)
        norms = _batch_norms(self.model)
        report = Report(
            copies=self.copies,
            stacked_looped=stacked,
            recomputed=recomputed,
            repeated=repeated,
            copies_differ=copies_differ,
            loss_grows=grows and self.returns_mean,
            unkeyed=unkeyed,
            ambiguous=ambiguous,
            batch_norms=norms,
            counting=tuple(name for name in changed if name.rpartition(".")[0] not in norms),
            batch_problem=self.batch_problem,
            gradient_problem=_problem_of(looped),
        )
        return replace(report, findings=tuple(judge(report)))

    def gradients(self, loss_fn: LossFunction[Any], plan: PlanLike, *, seed: int) -> Gradients:
        """The gradient of every parameter that has one; `seed` is that of what isn't keyed."""
        self.losses = []
        self.model.zero_grad(set_to_none=True)
        for name, buffer in self.model.named_buffers():
            buffer.detach().copy_(self.buffers[name])
        seed_everything(seed)

        def watched(model: nn.Module, rows: Any) -> Loss:
            loss = loss_fn(model, rows)
            self.returns_mean = isinstance(loss, Tensor)
            total = loss[0] if isinstance(loss, tuple) else loss
            if isinstance(total, Tensor) and total.dim() == 0:  # anything else is refused by what called this
                self.losses.append(float(total.detach()))
                self.loss_dtype = total.dtype
            return loss

        if self.batch_problem is None:
            merged_gradient(
                self.model,
                self.batch,
                watched,
                copies=self.copies,
                plan=plan,
                update=_UPDATE,
                end_update=False,
                keyed=True,
                forked=self.forked,
            )
        else:
            self.one_copy_after_the_other(watched)
        return {
            name: _dense(parameter.grad)
            for name, parameter in self.model.named_parameters()
            if parameter.grad is not None
        }

    def one_copy_differs(self, looped: Gradients) -> bool:
        """Whether copies of equal losses have different gradients, as before a last layer of zeros (LoRA's)."""
        copies, batch = self.copies, self.batch
        self.copies, self.batch = 1, batch if self.batch_problem else own_parts(batch)
        one = self.gradients(self.loss_fn, "looped", seed=0)
        self.copies, self.batch = copies, batch
        return not compare(one, looped, self.half or self.loss_dtype).agrees

    def one_copy_after_the_other(self, loss_fn: LossFunction[Any]) -> None:
        """The looped gradient of a batch whose rows aren't known."""
        for pass_ in passes_of(self.model, self.copies, update=_UPDATE, end_update=False, forked=self.forked):
            with pass_:
                loss = loss_fn(self.model, own_parts(self.batch))
                mean = loss if isinstance(loss, Tensor) else loss[0] / loss[1]
                (mean / self.copies).backward()  # type: ignore[no-untyped-call]

    def recomputing(self, model: nn.Module, rows: Any) -> Loss:
        """The loss, whose forward is run again in the backward."""
        rest: list[Any] = []

        def first_part(model: nn.Module) -> Tensor:
            loss = self.loss_fn(model, own_parts(rows))  # what it changes in place, it would find changed
            rest[:] = [] if isinstance(loss, Tensor) else loss[1:]
            return loss if isinstance(loss, Tensor) else loss[0]

        total: Tensor = checkpoint(first_part, model, use_reentrant=False)
        return cast(Loss, (total, *rest)) if rest else total

    def compared(self, expected: Gradients, loss_fn: LossFunction[Any], plan: PlanLike, *, seed: int) -> Comparison:
        """Another way to the gradient, compared with the looped one."""
        try:
            found = self.gradients(loss_fn, plan, seed=seed)
        except Exception as error:  # whatever a model raises there is what there is to tell
            return Comparison(math.nan, error=f"{type(error).__name__}: {str(error).splitlines()[0]}")
        return compare(found, expected, self.half or self.loss_dtype)

    def unkeyed_draws(self) -> tuple[UnkeyedDraw, ...]:
        """What the forward of one copy draws without a key; notes the half precision that it computes in."""
        doctor = UnkeyedDraws(module_names(self.model))

        def watched(model: nn.Module, rows: Any) -> Loss:
            with nullcontext() if self.losses else doctor:
                return self.loss_fn(model, rows)

        self.gradients(watched, "looped", seed=0)
        self.half = doctor.half
        return doctor.found()


def _dense(gradient: Tensor) -> Tensor:
    """Values of a gradient in memory of their own; an embedding's may be sparse."""
    own = gradient.detach().clone()
    return own if own.layout is torch.strided else own.to_dense()


def _problem_of(gradients: Gradients) -> str | None:
    """What is wrong with a gradient by itself; None for nothing."""
    if not gradients:
        return "no gradient reaches a parameter of the model: the loss is of other tensors than the model's"
    for name, gradient in gradients.items():
        if not gradient.isfinite().all():
            return f"the gradient isn't finite, from {name} on"
    return None


def _batch_norms(model: nn.Module) -> tuple[str, ...]:
    return tuple(
        name
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and not isinstance(module, GhostBatchNorm2d) and module.training
    )
