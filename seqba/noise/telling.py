"""Warnings of what the passes of an update drew, or didn't: what the user would not notice."""

from __future__ import annotations

import warnings
from collections.abc import MutableMapping

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils.weak import WeakIdKeyDictionary

from seqba.modules.walk import gradients_of, is_in_parts, modules_of, reaches_others, trained_parameters
from seqba.noise.noise import Noise
from seqba.noise.placed import find_misplaced
from seqba.noise.repeated import Key, gradient_to_add_to, is_repeated, is_uncleared, remember
from seqba.rows.replicate import labels_repeat

_Pass = tuple[int, tuple[int, ...]]  # number of a micro-batch, and those of its copies

# By identity: a model may define what it is equal to.
_told: MutableMapping[nn.Module, set[str]] = WeakIdKeyDictionary()


class NoiseWarnings:
    """Watches what the passes of an update draw, and warns: of a repeated key each time, of the rest once for a model.

    Args:
        model: that is computed.
        key: seed, update, and number of the first micro-batch.
        keyed: whether passes key what the model draws by torch's functions.
    """

    def __init__(self, model: nn.Module, key: Key, *, keyed: bool) -> None:
        self._model = model
        self._key = key
        self._keyed = keyed
        self._added_to = gradient_to_add_to(model, key)
        self._has_drawn = False  # by a key, or from generators that the pass has seeded
        self._is_forked = False
        self._is_noisy = False
        self._faults: dict[str, str] = {}  # kind of a fault in what passes drew → the line that tells of it
        self._has_one_pass = False  # which has all copies, so that no losses can be compared
        self._of_micro_batch = 0
        self._losses: dict[int, Tensor] = {}  # number of copies of a pass → what they added to the loss
        self._quiet: dict[_Pass, Tensor | None] = {}  # passes without noise (above a fork) → losses
        self._is_mean = False
        self._passes = 0
        self._is_trial = key[1] < 0  # an update of `seqba.check`, after which a run is to be looked at anew
        self._is_uncleared = self._begins_uncleared()
        self._gradients_before = len(gradients_of(model)) if self._is_uncleared else 0
        self._versions = [] if self._is_told("step looked for") else _versions(model)
        self._has_stepped = False

    def note(self, noise: Noise, loss: Tensor | None = None, *, is_mean: bool = False) -> None:
        """Takes the noise of a pass that has ended.

        Args:
            noise: of the pass.
            loss: its 0-dim loss; None where only the caller knows it.
            is_mean: whether that was taken for a mean over rows.
        """
        self._passes += 1
        if self._keyed:
            self._note_faults(noise)
        self._is_mean = is_mean
        if loss is not None and (not self._losses or noise.micro_batch == self._of_micro_batch):
            self._of_micro_batch = noise.micro_batch
            self._losses.setdefault(len(noise.pass_copies), loss.detach())
        self._has_drawn = self._has_drawn or noise.draws > 0
        self._is_forked = noise.trunk is not None
        if noise.draws_above or noise.drew_ordinary or noise.copies_differ:
            self._is_noisy = True
        else:
            self._quiet[noise.micro_batch, tuple(noise.pass_copies)] = None if loss is None else loss.detach()

    def note_labels(self, batch: object, copies: int, *, replicated: bool) -> None:
        """Takes a batch, the first one of the model, and whether it was said to hold all copies."""
        if copies == 1 or self._is_trial or not self._is_first("labels looked for"):
            return
        repeat = labels_repeat(batch, copies)
        if repeat is False and replicated:
            self._faults["labels"] = (
                "replicated=True says that the batch holds all copies of each example, copy after copy, but its labels "
                "are other ones in each copy, so that it seems to hold other examples: make it by "
                "RepeatingBatchSampler, or leave replicated out"
            )
        elif repeat and not replicated:
            self._faults["labels"] = (
                "the labels of the batch come again copy after copy, so that it seems to hold all copies already, and "
                "each is copied anew: pass replicated=True"
            )

    def note_reach(self, loss: Tensor) -> None:
        """Takes the loss of a pass whose gradient, less that of other parameters than the model's, is added up."""
        if "others" not in self._faults and not self._is_told("others") and reaches_others(loss, self._model):
            self._faults["others"] = (
                "the loss reaches parameters outside of the model, whose gradients ranks= neither adds up nor divides: "
                "pass a model that holds them as well (nn.ModuleList), or freeze them, requires_grad_(False), where "
                "this update doesn't train them"
            )

    def warn(self, stacklevel: int) -> None:
        """Warns of an update whose passes have run.

        Of draws in which stacked copies differ from looped ones, of a sum that is taken for a mean or a mean for a sum,
        of labels that tell of a wrong `replicated`, of gradients that reach no parameter, or others than the model's
        on several processes, or weren't cleared, of weights that moved between passes, of equal copies, and of masks
        that came before.

        Args:
            stacklevel: of the line that shall be named, as `warnings.warn` counts from the caller on.
        """
        if len(self._losses) > 1 and self._is_first("sum looked for"):
            self._look_for_a_sum()
        if not self._is_trial and self._is_first("step looked for"):
            self._look_for_a_step()
        if self._losses and not self._is_trial and self._is_first("gradient looked for"):
            self._look_for_a_gradient()
        if self._is_uncleared and self._losses and len(gradients_of(self._model)) == self._gradients_before:
            self._faults["uncleared"] = (
                "this gradient was added to that of the update before, after which the weights have moved: call "
                "optimizer.zero_grad() between updates"
            )
        for kind, line in self._faults.items():
            self._warn_once(kind, line, stacklevel + 1)
        if not self._is_told("equal") and self._has_equal_copies():
            self._warn_once("equal", self._why_equal(), stacklevel + 1)
        if self._has_drawn:
            self._warn_of_a_repeated_key(stacklevel + 1)
        elif not self._is_trial and not self._is_told("uncleared looked for"):
            remember(self._model, self._key)

    def _warn_of_a_repeated_key(self, stacklevel: int) -> None:
        seed, update, micro_batch = self._key
        key = f"(seed {seed}, update {update}, micro-batch {micro_batch})"
        if is_repeated(self._model, self._key):
            warnings.warn(
                f"the weights have changed, but this update draws the same masks as the one before {key}: pass "
                "update= with the number of the update (a closure of LBFGS and the second pass of SAM draw the same on "
                "purpose, and may ignore this)",
                stacklevel=stacklevel + 1,
            )
        elif self._added_to is not None and self._added_to.any():
            warnings.warn(
                f"this gradient was added to that of a call before, which drew the same masks {key}: give each "
                "micro-batch of an update its number, micro_batch=0, 1, …, or clear the gradient in between",
                stacklevel=stacklevel + 1,
            )

    def _begins_uncleared(self) -> bool:
        """Looks once the weights have moved: a gradient that is still there then was forgotten.

        Unless a caller's own passes clear it before their backward, or the update trains a part that was cleared.
        """
        if self._is_trial or self._is_told("uncleared looked for"):
            return False
        is_there = is_uncleared(self._model, self._key)
        return is_there is not None and self._is_first("uncleared looked for") and is_there

    def _look_for_a_step(self) -> None:
        """Looks whether weights have moved since the update began: a step within it, or in its only backward.

        All that the loss reaches: a forward may change some parameter in place.
        """
        moved = [one for one, before in self._versions if one._version != before]
        others = [one for one, before in self._versions if one._version == before]
        self._has_stepped = bool(moved) and not any(one.grad is not None or is_in_parts(one) for one in others)
        if self._has_stepped and self._passes > 1 and not _are_shortened(moved, self._model):
            self._faults["step"] = (
                "the weights moved between the passes of this update: call optimizer.step() after the last one"
            )

    def _look_for_a_gradient(self) -> None:
        trained = trained_parameters(self._model)
        is_held_elsewhere = any(map(is_in_parts, trained))  # by FSDP, under no_sync
        is_used_up = self._has_stepped  # by optimizers that step and clear in the backward
        if trained and not (is_held_elsewhere or is_used_up or gradients_of(self._model)):
            self._faults["gradient"] = (
                "no gradient reached a parameter of the model: the loss is of another model's output, or detached from "
                "this one's; call the model that loss_fn is given"
            )

    def _look_for_a_sum(self) -> None:
        """Notes losses that grow with the copies of a pass, as a sum's do; a mean's differ by their noise alone.

        Passes of less than three times as many copies tell nothing: noise may do as much.
        """
        (few, of_few), *_, (many, of_many) = sorted(self._losses.items())
        growth = many / few
        if growth < 3:
            return
        one, other = float(of_few) / few, float(of_many) / many
        if one and not self._is_mean and 0.8 < other / one * growth < 1.25:
            self._faults["mean"] = (
                f"the sum that loss_fn returned of {many} copies in one pass is about that of {few}, as a mean's would "
                "be, so that it is divided by its weight twice: return the sum over rows, or the mean alone"
            )
        if one and self._is_mean and 0.8 * growth < other / one < 1.25 * growth:
            self._faults["sum"] = (
                f"the loss of {many} copies in one pass is about {growth:.3g} times that of {few}, as a sum's would be "
                "that is taken for a mean, and the gradient depends on the plan then: return the mean over rows, or "
                "(sum, weight); seqba.check(model, batch, loss_fn) knows for sure"
            )

    def _has_equal_copies(self) -> bool:
        """Whether nothing was drawn (above a fork), and passes of several copies of a micro-batch have one loss."""
        if self._is_noisy or not self._quiet:
            return False
        number, copies = max(self._quiet, key=lambda each: len(each[1]))
        self._has_one_pass = len(self._quiet) == 1
        losses = [loss for (other, some), loss in self._quiet.items() if (other, len(some)) == (number, len(copies))]
        known = [loss for loss in losses if loss is not None]
        return len(losses) * len(copies) > 1 and all(torch.equal(known[0], loss) for loss in known[1:])

    def _why_equal(self) -> str:
        if not any(module.training for module in modules_of(self._model)):
            reason, advice = "in this update (the model is in evaluation mode)", "call model.train()"
        elif self._is_forked:
            reason, advice = "above seqba.fork in this update", "fork below some of the noise, or leave copies out"
        elif self._has_drawn:
            reason, advice = (
                "but what copies share in this update",
                "give copies noise of their own, or leave copies out",
            )
        else:
            reason = "in this update (no dropout, nothing from torch's generators)"
            advice = "give the model noise, or leave copies out"
            if self._has_one_pass:  # a loss for each copy tells of noise from elsewhere, one for all doesn't
                advice += "; noise of NumPy, Python or a generator of its own isn't seen here"
        return f"nothing drew noise {reason}: its copies are equal, M times the work for the gradient of one; {advice}"

    def _note_faults(self, noise: Noise) -> None:
        if noise.drew_ordinary and len(noise.pass_copies) > 1:
            self._faults["unkeyed"] = (
                "the model draws noise that can't be keyed, so the stacked plan draws other noise than the looped one: "
                'seqba.check(model, batch, loss_fn) names it; plan="looped" is repeatable'
            )
        if "ambiguous" not in self._faults and not self._is_told("ambiguous"):
            fault = find_misplaced(self._model, noise)
            if fault is not None:
                self._faults["ambiguous"] = fault

    def _is_told(self, kind: str) -> bool:
        return kind in _told.get(self._model, ())

    def _is_first(self, kind: str) -> bool:
        """Whether a kind comes up for the model for the first time; from then on it is told."""
        is_first = not self._is_told(kind)
        _told.setdefault(self._model, set()).add(kind)
        return is_first

    def _warn_once(self, kind: str, line: str, stacklevel: int) -> None:
        if self._is_first(kind):
            warnings.warn(line, stacklevel=stacklevel + 1)


def _versions(model: nn.Module) -> list[tuple[nn.Parameter, int]]:
    """Each trained parameter, and how often it was changed in place; none of a model whose sizes aren't known yet."""
    trained = trained_parameters(model)
    return [] if any(map(is_lazy, trained)) else [(parameter, parameter._version) for parameter in trained]


def _are_shortened(moved: list[nn.Parameter], model: nn.Module) -> bool:
    """Whether all of these are tables whose rows a forward itself shortens in place (`max_norm`)."""
    tables = [module for module in modules_of(model) if isinstance(module, (nn.Embedding, nn.EmbeddingBag))]
    shortened = {id(table.weight) for table in tables if table.max_norm is not None}
    return all(id(parameter) in shortened for parameter in moved)
