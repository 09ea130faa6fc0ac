"""Warnings of draws in which the stacked plan differs from the looped one, or copies don't; each once for a model."""

from __future__ import annotations

import warnings

from torch import nn
from torch.utils.weak import WeakIdKeyDictionary

from seqba.modules.walk import modules_of
from seqba.noise.noise import Noise

# By identity: a model may define what it is equal to.
_told: WeakIdKeyDictionary = WeakIdKeyDictionary()


def warn_of_draws(model: nn.Module, noise: Noise) -> None:
    """Warns of what a pass drew without a key, and of a draw whose shape doesn't say whose it is.

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
    if noise.ambiguous is not None:
        name, shape = noise.ambiguous
        rows = (noise.rows or 0) // len(noise.copies)
        _warn_once(
            model,
            "ambiguous",
            f"{name or 'the model itself, or loss_fn,'} draws a tensor of shape {shape} for all rows, which looped "
            f"passes, of {rows} rows, take for numbers of theirs: so the stacked plan draws other noise than the "
            "looped one; name one plan, or draw it in a shape whose dimension 0 is no multiple of the rows",
        )


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


def _warn_once(model: nn.Module, kind: str, line: str) -> None:
    told: set[str] = _told.setdefault(model, set())  # type: ignore[no-untyped-call]
    if kind not in told:
        told.add(kind)
        warnings.warn(line, stacklevel=3)
