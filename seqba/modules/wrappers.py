"""Wrappers of other libraries around a model: they change neither the names of its noise nor whose rows are whose."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.utils.weak import WeakIdKeyDictionary

from seqba.modules.walk import modules_of, parameters_of

WRAPPED = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""Where DistributedDataParallel, torch.compile, FSDP and checkpoint wrappers keep the module that they wrap."""


def module_names(model: nn.Module) -> Mapping[int, str]:
    """`id` of each module → its qualified name, less the attributes of wrappers: those of the model in them.

    Where two modules come to one name their draws are numbered on, so that they differ all the same. Names are made
    anew where modules have come, gone or changed names since the last call.
    """
    children = [module._modules for module in modules_of(model) if module._modules]
    tree = (
        list(chain.from_iterable(named.keys() for named in children)),
        [id(child) for named in children for child in named.values()],
    )
    known = _names.get(model)
    if known is not None and known[0] == tree:
        return known[1]
    names = {
        id(module): ".".join(part for part in name.split(".") if part not in WRAPPED)
        for name, module in model.named_modules()
    }
    _names[model] = tree, names
    return names


_Tree = tuple[list[str], list[int]]  # names of all children, and their `id`s

# By identity: a model may define what it is equal to.
_names: MutableMapping[nn.Module, tuple[_Tree, Mapping[int, str]]] = WeakIdKeyDictionary()


def in_words(name: str) -> str:
    """The name of a module that draws, for a message: "" stands for the model itself, or for code outside of it."""
    return name or "the model itself, or loss_fn,"


def check_model(model: nn.Module) -> None:
    """Refuses what an update can't be computed with.

    Raises:
        TypeError: for what isn't a module.
        ValueError: for a model in DataParallel over several devices, whose threads see parts of a copy's rows; in a
            wrapper of another library that exchanges gradients by itself; or with parameters on several devices.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, not a {type(model).__name__}")
    for module in _wrappers_in(model):
        if isinstance(module, DataParallel) and len(module.device_ids) > 1:
            raise ValueError("DataParallel deals a copy's rows out over threads: take DistributedDataParallel")
        # Every library that exchanges gradients in the backward has this switch.
        if callable(getattr(module, "no_sync", None)) and not type(module).__module__.startswith("torch."):
            raise ValueError(
                f"{type(module).__name__} exchanges gradients in a way that isn't known here: pass the model in it, or "
                "wrap that in torch's DistributedDataParallel or FSDP"
            )
    devices = sorted(map(str, {parameter.device for parameter in parameters_of(model)}))
    if len(devices) > 1:
        raise ValueError(
            f"the model's parameters are on several devices ({', '.join(devices)}), and a pass on one: move it, "
            f'model.to("{devices[-1]}"), or spread its parameters by FSDP'
        )


@dataclass(frozen=True)
class Replicas:
    """Processes that each have other rows, under a wrapper that takes the mean of their gradients.

    Attributes:
        rank: of this process, from 0.
        size: how many there are.
        synchronised: the parts of the model whose backward waits for the other processes unless it is told not to.
        is_sharded: whether the processes have parts of the parameters (FSDP), be it one process alone.
    """

    rank: int = 0
    size: int = 1
    synchronised: tuple[DistributedDataParallel, ...] = ()
    is_sharded: bool = False

    @classmethod
    def of(cls, model: nn.Module) -> Replicas:
        """The processes that a model is wrapped for: by DistributedDataParallel or by either FSDP."""
        wrappers = _wrappers_in(model)
        wrapped = tuple(module for module in wrappers if isinstance(module, DistributedDataParallel))
        if wrapped:
            processes = wrapped[0].process_group
            return cls(dist.get_rank(processes), dist.get_world_size(processes), wrapped)
        for module in wrappers:
            group = _group_of_fsdp(module)
            if group is not None:
                return cls(dist.get_rank(group), dist.get_world_size(group), is_sharded=True)
        return cls()

    def running(self, model: nn.Module, *, exchanges: bool, sharded: bool) -> AbstractContextManager[None]:
        """Inside runs a pass of a model in the wrapper, whose backward exchanges gradients or leaves that to another.

        It is for programs of torch's processes (`has_processes`). Where parameters are `sharded`, by anyone, casts that
        autocast keeps of an earlier pass are forgotten: gradients through them come after FSDP has taken those of the
        pass, and would count in the next one alone.

        Raises:
            ValueError: as `watching_forward` and `without_exchange`.
        """
        if sharded:
            torch.clear_autocast_cache()
        return self.watching_forward(model) if exchanges or not self.synchronised else self.without_exchange()

    @contextmanager
    def watching_forward(self, model: nn.Module) -> Iterator[None]:
        """Inside, a pass of the update that exchanges gradients runs; torch exchanges none where another module ran.

        Raises:
            ValueError: where no forward of DistributedDataParallel ran in a model that is wrapped in it, and where one
                ran around a model that isn't.
        """
        if not self.synchronised:
            with _hooked([model], _refuse_wrapper_around):
                yield
        elif self.size == 1 or not all(module.require_backward_grad_sync for module in self.synchronised):
            yield
        else:
            ran: list[nn.Module] = []
            active = DistributedDataParallel._active_ddp_module  # a loop within a forward: Lightning's, by hand
            with _hooked(self.synchronised, lambda module, _: ran.append(module)):
                yield
            if not ran and active not in self.synchronised:
                raise ValueError(
                    "the model is in DistributedDataParallel, and the loss function called another one (model.module, "
                    "or the one that was wrapped), so that no gradient was exchanged: call the model that it is given"
                )

    @contextmanager
    def without_exchange(self) -> Iterator[None]:
        """Inside, a backward leaves gradients to be added up by the one that follows.

        Raises:
            ValueError: for a static graph that hasn't exchanged gradients yet.
        """
        with ExitStack() as stack:
            for module in self.synchronised:
                # torch records a static graph in the first backward, and fails there without an exchange.
                if module.static_graph and not getattr(module, "_static_graph_delay_allreduce_enqueued", True):
                    raise ValueError(
                        "DistributedDataParallel(static_graph=True) must exchange gradients in its first backward, and "
                        "only the last pass of an update does: leave static_graph out, or make the first update with "
                        'plan="stacked" and one micro-batch'
                    )
                stack.enter_context(module.no_sync())
            yield


def has_processes() -> bool:
    """Whether torch's processes have met, so that a model may be wrapped for them."""
    return dist.is_available() and dist.is_initialized()


@contextmanager
def _hooked(modules: Iterable[nn.Module], hook: Callable[[nn.Module, Any], None]) -> Iterator[None]:
    """Inside, a hook is called before the forward of each of some modules; scripted ones take none."""
    with ExitStack() as stack:
        for module in modules:
            if not isinstance(module, torch.jit.ScriptModule):
                stack.callback(module.register_forward_pre_hook(hook).remove)
        yield


def _refuse_wrapper_around(model: nn.Module, _: object) -> None:
    active = DistributedDataParallel._active_ddp_module
    if active is not None and dist.get_world_size(active.process_group) > 1:
        raise ValueError(
            "the model is called by a DistributedDataParallel that isn't in it, whose processes would all draw the "
            "same masks, and exchange gradients in every pass: pass the wrapped model, or call the one that is passed"
        )


def _wrappers_in(model: nn.Module) -> list[nn.Module]:
    """The modules that may be another library's around a part of the model."""
    modules = modules_of(model)
    kinds = {kind for kind in set(map(type, modules)) if _may_wrap(kind)}
    return [one for one in modules if type(one) in kinds or "no_sync" in one.__dict__]


@cache
def _may_wrap(kind: type[nn.Module]) -> bool:
    """Whether modules of a class deal rows out or exchange gradients: they say so by their class, FSDP's by a base."""
    bases = [base for base in kind.__mro__ if base is not nn.Module]
    is_sharded = any(base.__module__.startswith("torch.distributed.") for base in bases)
    passes_on = any("__getattr__" in vars(base) for base in bases)
    return is_sharded or passes_on or issubclass(kind, DataParallel) or hasattr(kind, "no_sync")


def _group_of_fsdp(module: nn.Module) -> dist.ProcessGroup | None:
    """The processes over which torch's FSDP, of the one kind or the other, has sharded a module."""
    fsdp = cast(Any, sys.modules.get("torch.distributed.fsdp"))  # half a second to import, and no need to
    if fsdp is None:
        return None
    if isinstance(module, fsdp.FullyShardedDataParallel):
        return cast(dist.ProcessGroup, module.process_group)
    if not isinstance(module, getattr(fsdp, "FSDPModule", ())):
        return None
    meshes = [
        cast(Any, parameter).device_mesh for parameter in module.parameters() if hasattr(parameter, "device_mesh")
    ]
    if not meshes:
        return None
    if meshes[0].ndim > 1:
        raise ValueError(
            f"which of a mesh of {meshes[0].ndim} dimensions have rows of their own isn't known: call fully_shard with "
            "a mesh of one dimension"
        )
    return cast(dist.ProcessGroup, meshes[0].get_group())
