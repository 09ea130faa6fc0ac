"""The end of an update: what modules gather beside the gradient is used once, when the whole grid has run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, Protocol, cast, runtime_checkable

from torch import Tensor, nn

from seqba.modules.walk import modules_of


@runtime_checkable
class UpdateHook(Protocol):
    """A module that gathers something over the passes of an update: batch statistics, say."""

    def gathered(self) -> Iterable[Tensor]:
        """The sums gathered so far, to which other ranks' are added in place: the same shapes on every rank."""
        ...

    def finish_update(self, *, keep: bool) -> None:
        """Uses what the update's passes gathered, or throws it away where `keep` is false; gathers anew from here on.

        It comes once an update, after the last pass, in every plan; with `keep` false also where a pass failed. What is
        made of the passes must not depend on how the cells were grouped into them.
        """
        ...


@runtime_checkable
class HookTogether(UpdateHook, Protocol):
    """An `UpdateHook` whose modules use what they gathered all at once, which is fewer kernels on a GPU."""

    @staticmethod
    def finish_together(modules: Sequence[Any], *, keep: bool) -> None:
        """`finish_update` of all modules of the class."""
        ...


def finish_update(model: nn.Module, *, keep: bool = True) -> None:
    """Tells every module of `model` that gathers over passes that the update is over.

    Both gradient functions do this by themselves. A loop that passes them `end_update=False` does it when it has
    decided about the update: `keep` is false for one whose step isn't made.
    """
    together: dict[type[HookTogether], list[UpdateHook]] = {}
    for module in _hooks_of(model):
        if _is_together(kind := type(module)):
            together.setdefault(cast("type[HookTogether]", kind), []).append(module)
        else:
            module.finish_update(keep=keep)
    for kind, modules in together.items():
        kind.finish_together(modules, keep=keep)


def gathered(model: nn.Module) -> Iterator[Tensor]:
    """What the modules of a model have gathered in the passes of this rank, to be added up over all of them."""
    for module in _hooks_of(model):
        yield from module.gathered()


@contextmanager
def discarding_pending(model: nn.Module) -> Iterator[None]:
    """Inside, modules gather as they do in any pass; afterwards it counts as zeros, added to what was there before.

    So a rank without a cell has sums of zeros, to which others' are added.
    """
    before = [(module, [sums.clone() for sums in module.gathered()]) for module in _hooks_of(model)]
    yield
    for module, earlier in before:
        for number, sums in enumerate(module.gathered()):
            sums.copy_(earlier[number]) if earlier else sums.zero_()


def _hooks_of(model: nn.Module) -> Iterator[UpdateHook]:
    return (cast(UpdateHook, module) for module in modules_of(model) if _is_hook(type(module)))  # type: ignore[arg-type]


@cache
def _is_together(kind: type[UpdateHook]) -> bool:
    return issubclass(kind, HookTogether)


@cache
def _is_hook(kind: type[nn.Module]) -> bool:
    """Whether modules of a class are `UpdateHook`s; asking each of them takes milliseconds."""
    return issubclass(kind, UpdateHook)
