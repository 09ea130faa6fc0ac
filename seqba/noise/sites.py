"""Which call of a module a draw is: counted in the forward, found again where a layer is recomputed in the backward."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary


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
                "function that is checkpointed takes that module as its first argument)"
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
