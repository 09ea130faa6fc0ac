"""Warnings of draws in which the stacked plan differs from the looped one, or copies don't; each once for a model."""

from __future__ import annotations

import warnings
from collections import Counter

from torch import nn
from torch.utils.weak import WeakIdKeyDictionary

from seqba.modules.walk import modules_of
from seqba.noise.noise import Noise
from seqba.noise.placed import PlacedDraw

_Site = tuple[str, int]  # name of a module, and which of its draws in a pass
_BatchKey = tuple[int, int, int]  # seed, update, micro-batch

# By identity: a model may define what it is equal to.
_told: WeakIdKeyDictionary = WeakIdKeyDictionary()
_placed: WeakIdKeyDictionary = WeakIdKeyDictionary()  # of the last pass that had them, by site


def warn_of_draws(model: nn.Module, noise: Noise) -> None:
    """Warns of what a pass drew without a key, and of draws whose shape doesn't say whose they are.

    Args:
        model: that was computed.
        noise: of the pass, which has ended.
    """
    if noise.drew_ordinary and len(noise.pass_copies) > 1:
        _warn_once(
            model,
            "unkeyed",
            "the model draws noise that can't be keyed, so the stacked plan draws other noise than the looped one: "
            'seqba.check(model, batch, loss_fn) names it; plan="looped" is repeatable',
        )
    if not _is_told(model, "ambiguous"):
        _warn_of_shapes(model, noise)


def _warn_of_shapes(model: nn.Module, noise: Noise) -> None:
    """Warns of a draw that would be another one in a looped pass, or that was placed otherwise in a pass before."""
    before: dict[_Site, tuple[PlacedDraw, _BatchKey]] = _placed.setdefault(model, {})  # type: ignore[no-untyped-call]
    batch = (noise.seed, noise.update, noise.micro_batch)
    numbers: Counter[str] = Counter()
    for draw in noise.placed:
        site = draw.module, numbers[draw.module]
        numbers[draw.module] += 1
        name = draw.module or "the model itself, or loss_fn,"
        if draw.is_of_rows_when_looped:
            _warn_once(
                model,
                "ambiguous",
                f"{name} draws a tensor of shape {draw.shape} for all rows, which looped passes, of "
                f"{draw.rows // draw.copies} rows, take for numbers of theirs: so the stacked plan draws other "
                "noise than the looped one; name one plan, or draw it in a shape whose dimension 0 is no multiple of "
                "the rows",
            )
            return
        earlier, of_batch = before.get(site, (draw, batch))
        if draw.contradicts(earlier, same_batch=of_batch == batch and not noise.copies_differ):
            _warn_once(
                model,
                "ambiguous",
                f"{name} draws a tensor of shape {earlier.shape} in a pass of {earlier.rows} rows and of shape "
                f"{draw.shape} in one of {draw.rows}, and these shapes don't tell the rows of the copies from other "
                "sizes: so copies draw otherwise from batch to batch, and in the stacked plan than in the looped one; "
                "seqba.check(model, batch, loss_fn) says what helps",
            )
            return
        before[site] = draw, batch


def warn_of_equal_copies(model: nn.Module) -> None:
    """Warns where nothing made the copies of an update differ: M times the work for the gradient of one."""
    is_off = not any(module.training for module in modules_of(model))
    reason = "the model is in evaluation mode" if is_off else "no dropout, nothing from torch's generators"
    _warn_once(
        model,
        "equal",
        f"nothing drew noise in this update ({reason}): its copies are equal, M times the work for the gradient of "
        f"one; {'call model.train()' if is_off else 'give the model noise, or leave copies out'}",
    )


def _is_told(model: nn.Module, kind: str) -> bool:
    return kind in _told.get(model, ())  # type: ignore[no-untyped-call]


def _warn_once(model: nn.Module, kind: str, line: str) -> None:
    if not _is_told(model, kind):
        _told.setdefault(model, set()).add(kind)  # type: ignore[no-untyped-call]
        warnings.warn(line, stacklevel=3)
