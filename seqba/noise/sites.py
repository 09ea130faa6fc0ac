"""Which draw of a pass is which: its site, the number of its call there, and its key.

Calls are counted in the forward, and found again where a layer is recomputed in the backward.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

ALL_COPIES = -1
"""Stands for the copy in the key of a draw that all copies of a micro-batch share, as all below a fork."""

KEY_VERSION = 1
"""Which function of the key the draws are; grows with every change that draws other numbers from the same key.

It is written into checkpoints, so that no run goes on under other masks unnoticed; one without it is of version 1.
"""

_WORD = (1 << 64) - 1


@dataclass(frozen=True)
class Place:
    """Where a pass stands at its fork.

    Attributes:
        calls: the number of calls made of each site.
        unnamed: what has drawn that isn't in the model, and its names.
    """

    calls: Mapping[str, int]
    unnamed: Mapping[int, tuple[object, str]]


class Sites:
    """The sites of a pass, one for each call of each object that draws, and the keys of their draws.

    Args:
        key: what the draws of the pass have in common: seed, update, number of the micro-batch.
        names: `id` of a module → its qualified name; what isn't there is named by the order in which it first draws.
        marks: of a pass that forks, as `Calls` takes them; None for one that doesn't.

    Attributes:
        calls: numbers of the calls of each site.
    """

    def __init__(
        self, key: Sequence[int], names: Mapping[int, str], marks: WeakTensorKeyDictionary | None = None
    ) -> None:
        self.calls = Calls(marks, is_above=marks is None)
        self._state = _mixed(0, *key)
        self._names = names
        self._unnamed: dict[int, tuple[object, str]] = {}

    def key(self, owner: object) -> int:
        """The key of a draw that `owner` makes now, for all copies: 64 bits."""
        return _mixed(self._state, self._number(owner))

    def seeds(self, owner: object, copies: Sequence[int]) -> list[int]:
        """The keys of a draw that `owner` makes now, one for each copy: 32 bits, for a generator of torch's."""
        site = self._number(owner)
        return [_folded(_mixed(self._state, copy, site)) for copy in copies]

    def ordinary_seed(self, copy: int) -> int:
        """The key of what a pass, whose first copy it is, draws from torch's own generators: 32 bits."""
        return _folded(_mixed(self._state, copy, _digest("ordinary noise")))

    def go_above(self, place: Place | None) -> Place:
        """Passes the fork, where a pass stands or, of one that has left out what is below, another one stood."""
        if place is None:
            place = Place(self.calls.made, dict(self._unnamed))
        self.calls.go_above(place.calls)
        self._unnamed = dict(place.unnamed)
        return place

    def _number(self, owner: object) -> int:
        name = self._names.get(id(owner))
        if name is None:  # kept with its owner, whose id would be given to another object
            _, name = self._unnamed.setdefault(id(owner), (owner, f"<stranger {len(self._unnamed)}>"))
        return _digest(f"{name}#{self.calls.number(name)}")


class Calls:
    """Numbers the draws of each site of one pass, so that a module that draws three times has three sites.

    Activation checkpointing runs a part of the forward again during the backward: later, in another order, and perhaps
    only some of the calls. Which calls these are is known from the state of torch's generator: whatever recomputes
    layers reads it before it runs them first and sets it before it runs them again, so that ordinary dropout repeats
    its masks. `mark` keeps the numbers that hold at the one, `return_to` goes back to them at the other.

    Args:
        marks: where they are kept, by passes that have a part of their forward in common; None for a pass by itself.
        is_above: whether the pass begins above a fork, as one without a fork does.
    """

    def __init__(self, marks: WeakTensorKeyDictionary | None = None, *, is_above: bool = True) -> None:
        self._made: dict[str, int] = {}
        self._repeated: dict[str, int] | None = None  # None where the place in the forward isn't known
        self._marks = WeakTensorKeyDictionary() if marks is None else marks
        self._is_above = is_above
        self._repeats_above = True
        self._outer_task = _graph_task()  # the pass itself may run inside a backward

    @property
    def made(self) -> dict[str, int]:
        """How many calls of each site the forward has made so far."""
        return dict(self._made)

    @property
    def is_above(self) -> bool:
        """Whether the pass is above its fork; what is recomputed is where its forward was.

        Raises:
            RuntimeError: in a backward, where it isn't known what is recomputed.
        """
        if not self.is_recomputing:
            return self._is_above
        if self._repeated is None:
            raise RuntimeError(
                "whether what is recomputed is below or above seqba.fork can't be told without the generator's state: "
                "leave preserve_rng_state=True"
            )
        return self._repeats_above

    def go_above(self, made: Mapping[str, int]) -> None:
        """Passes the fork, with so many calls of each site made below it."""
        self._made, self._is_above = dict(made), True

    @property
    def is_recomputing(self) -> bool:
        """Whether a backward of this pass is running: what draws now has drawn before."""
        return _graph_task() != self._outer_task

    def number(self, site: str) -> int:
        """The number of the draw that `site` makes now, from 0; a recomputed one has the number it had in the forward.

        Raises:
            RuntimeError: for a draw during the backward that the forward didn't make, or of which it made several
                without leaving a way to tell them apart.
        """
        made = self._made.get(site, 0)
        if not self.is_recomputing:
            self._made[site] = made + 1
            return made
        if self._repeated is None:
            if made > 1:
                raise RuntimeError(
                    f"{site} draws noise during the backward, and {made} times in the forward: which of them is "
                    "recomputed can't be told without the generator's state, so leave preserve_rng_state=True"
                )
            call = 0
        else:
            call = self._repeated.get(site, 0)
            self._repeated[site] = call + 1
        if call >= made:
            raise RuntimeError(
                f"{site} draws noise during the backward for the {call + 1}. time, but drew {made} times in the "
                "forward: a layer that is recomputed must draw what its forward drew, and under the same module (a "
                "function that is checkpointed takes that module as its first argument); noise of the gradient itself "
                "(a hook, a backward of one's own) has no key: add it after the update, or draw it with generator="
            )
        return call

    def mark(self, state: Tensor) -> None:
        """Notes that `state`, a state of torch's generator, was read at this point of the pass."""
        numbers, is_above = (
            (self._repeated, self._repeats_above) if self.is_recomputing else (self._made, self._is_above)
        )
        self._marks[state] = None if numbers is None else (dict(numbers), is_above)

    def return_to(self, state: Tensor) -> None:
        """Goes on from the point of the pass where `state` was read, if a layer is being recomputed."""
        if self.is_recomputing:
            mark = self._marks.get(state)  # type: ignore[no-untyped-call]
            numbers, self._repeats_above = (None, True) if mark is None else mark
            self._repeated = None if numbers is None else dict(numbers)


@contextmanager
def watching_the_generator(current: Callable[[], Calls | None]) -> Iterator[None]:
    """Inside, `torch.get_rng_state` and `torch.set_rng_state` tell the calls that are current of it.

    They do what they do otherwise, and are put back afterwards. Plain attributes of the module rather than a torch
    function mode: a mode isn't in force on the threads of a backward.
    """
    read, write = torch.get_rng_state, torch.set_rng_state

    def get_rng_state() -> Tensor:
        state = read()
        calls = current()
        if calls is not None:
            calls.mark(state)
        return state

    def set_rng_state(new_state: Tensor) -> None:
        write(new_state)
        calls = current()
        if calls is not None:
            calls.return_to(new_state)

    torch.get_rng_state, torch.set_rng_state = get_rng_state, set_rng_state
    try:
        yield
    finally:
        torch.get_rng_state, torch.set_rng_state = read, write


def in_backward() -> bool:
    """Whether this thread is computing a backward."""
    return _graph_task() != -1


def _graph_task() -> int:
    """The backward that this thread is computing, or -1; torch has no public word for it."""
    return torch._C._current_graph_task_id()


@cache
def _digest(site: str) -> int:
    return int.from_bytes(hashlib.blake2b(site.encode(), digest_size=8).digest(), "little")


def _folded(key: int) -> int:
    """64 bits in 32: a CPU generator keeps the low ones of a seed, and all shall count."""
    return (key ^ (key >> 32)) & 0xFFFFFFFF


def _mixed(state: int, *numbers: int) -> int:
    """Mixes numbers of a key into 64 bits: SplitMix64's finaliser (Steele et al. 2014) over the running sum."""
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) & _WORD
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _WORD
        state ^= state >> 31
    return state
