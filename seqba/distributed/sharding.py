"""Sharded parameters: each rank keeps its part of every weight, and a layer is whole only while it computes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, cast, runtime_checkable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from seqba.distributed.lost import collective_errors
from seqba.group import Group, attach_group, group_of
from seqba.modules.walk import is_in_parts

# torch.distributed.fsdp and .tensor are imported where they are used: they take half a second, which only a run with
# sharded parameters shall wait for.


@runtime_checkable
class Shardable(Protocol):
    """Interface of a module with sharded parameters (torch's `FSDPModule`)."""

    def unshard(self) -> Any:
        """Makes its own weights whole; all ranks must call it."""
        ...

    def reshard(self) -> None:
        """Leaves this rank's part of them."""
        ...

    def set_reshard_after_forward(self, reshard_after_forward: bool, recurse: bool = True) -> None:
        """Says whether they stay whole after a forward."""
        ...


class ProcessGroup(Group, Protocol):
    """A group with a process group of torch's beneath it."""

    @property
    def group(self) -> dist.ProcessGroup | None:
        """The process group; None for the default one."""
        ...


class _Part(Protocol):
    """Interface of a sharded tensor (torch's `DTensor`)."""

    device_mesh: Any
    placements: Sequence[Any]

    def to_local(self) -> Tensor: ...

    def full_tensor(self) -> Tensor: ...


def shard_parameters(
    model: nn.Module,
    ranks: ProcessGroup,
    device: torch.device,
    *,
    blocks: Iterable[nn.Module],
    methods: Iterable[str] = (),
) -> None:
    """Leaves on each rank 1/R of every parameter of `model`, and of its gradient and its optimizer's state.

    A block's weights are gathered from all ranks before its forward and before its backward, and given back after each;
    what isn't in a block (embeddings) stays whole from the model's forward to the end of its backward. Gradients come
    out of the backward added up over the ranks, in parts: `grid_gradient` and `merged_gradient` know that. Parameters
    become `DTensor`s, cut along their first dimension; build the optimizer afterwards.

    Every pass is a conversation of all ranks. So all must run as many, and each must go through the same blocks; those
    that a forward doesn't reach have a gradient of zeros. Passes that a rank has fewer than others the merged gradient
    makes up for, which needs the same plan on all ranks: `auto`, which measures, runs looped. A model that is tried
    (validation) has to be called by all ranks equally often.

    Args:
        model: the same weights on each rank, on the device or on the CPU; modules keep their names and so their noise.
        ranks: the processes.
        device: where the parts shall be.
        blocks: modules of it whose weights are gathered together, in any order; their weights aren't used outside of
            their own forward, nor shared with others.
        methods: names of the methods that are called on the model in place of its `forward`.

    Raises:
        ValueError: for a torch before 2.13, which can't do this yet.

    Source: Zhao et al. 2023, "PyTorch FSDP"; Rajbhandari et al. 2020, "ZeRO", stage 3.
    """
    check_torch()
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    for parameter in model.parameters():
        parameter.data = parameter.data.contiguous()  # FSDP knows no other layout (channels last)
    group = cast(dist.ProcessGroup, dist.group.WORLD if ranks.group is None else ranks.group)
    mesh = DeviceMesh.from_group(group, device.type)
    for block in blocks:
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    fully_shard(model, mesh=mesh, reshard_after_forward=False)
    for part in _parts(model):
        fsdp = cast(Any, part)
        fsdp.set_gradient_divide_factor(1.0)  # a sum: there is one division, by the weight of the grid
        fsdp.set_force_sum_reduction_for_comms(True)
        fsdp.set_reduce_scatter_unused_params(True, recurse=False)
        fsdp.set_custom_all_gather(_AllGather())
        fsdp.set_custom_reduce_scatter(_ReduceScatter())
    for name in methods:
        register_fsdp_forward_method(model, name)
    attach_group(model, ranks)


def check_torch() -> None:
    """Refuses a torch whose ranks can't go through different modules of a sharded model in one update.

    Raises:
        ValueError: for one before 2.13.
    """
    from torch.distributed.fsdp import FSDPModule

    if not (hasattr(FSDPModule, "set_reduce_scatter_unused_params") and hasattr(dist, "reduce_scatter_single")):
        raise ValueError(f"sharded parameters need torch 2.13 or later, and this is {torch.__version__}")


def is_sharded(model: nn.Module) -> bool:
    """Whether the parameters of a model are sharded over ranks by `shard_parameters`."""
    return group_of(model) is not None


def check_sharding(model: nn.Module) -> None:
    """Refuses what would come out too large or too small by the number of ranks, unnoticed.

    Raises:
        ValueError: for a model that somebody else's FSDP takes means of.
    """
    if isinstance(model, Shardable) and not is_sharded(model):
        raise ValueError(
            "fully_shard takes means over the ranks, which ranks= would divide again: take shard_parameters"
        )


def whole_tensor(tensor: Tensor) -> Tensor:
    """A sharded tensor from the parts of all ranks, which all must call it; any other tensor itself."""
    if not is_in_parts(tensor):
        return tensor
    with collective_errors():
        return cast(_Part, tensor).full_tensor().detach()


def cut_like(parameter: Tensor, tensor: Tensor) -> Tensor:
    """This rank's part of a whole tensor that all ranks have, cut as `parameter` is; itself where that isn't cut."""
    if not is_in_parts(parameter) or is_in_parts(tensor):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    like = cast(_Part, parameter)
    moved = tensor.to(parameter.device).contiguous()
    return distribute_tensor(moved, like.device_mesh, like.placements, src_data_rank=None)


def reshard(model: nn.Module) -> None:
    """Gives back what the ranks have gathered of a sharded model; what comes next gathers the weights as they are then.

    Needed where weights are changed between two forwards other than by an optimizer's step after a backward.
    """
    for part in _parts(model):
        part.reshard()


@contextmanager
def whole_weights(model: nn.Module) -> Iterator[None]:
    """Inside, every rank has all weights of a sharded model, and may call it as often as it likes, without the others.

    For decoding, which calls parts of a model many times. A model that isn't sharded stays
    as it is. All ranks enter together; weights may not be changed inside.
    """
    parts = list(_parts(model))
    for part in parts:
        with collective_errors():
            part.unshard()
        part.set_reshard_after_forward(False, recurse=False)
    try:
        yield
    finally:
        for part in parts:
            part.set_reshard_after_forward(part is not parts[0], recurse=False)  # all but the model itself
            part.reshard()


def _parts(model: nn.Module) -> Iterator[Shardable]:
    return (module for module in model.modules() if isinstance(module, Shardable))


class _Talk:
    """Collectives of FSDP, in which an error is the loss of another rank."""

    def allocate(self, size: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.empty(*size, dtype=dtype, device=device)


class _AllGather(_Talk):
    def __call__(
        self, output_tensor: Tensor, input_tensor: Tensor, group: dist.ProcessGroup, async_op: bool = False
    ) -> dist.Work | None:
        with collective_errors():
            work = dist.all_gather_single(output_tensor, input_tensor, group=group, async_op=async_op)
        return cast("dist.Work | None", work)


class _ReduceScatter(_Talk):
    def __call__(
        self,
        output_tensor: Tensor,
        input_tensor: Tensor,
        group: dist.ProcessGroup,
        op: Any,
        async_op: bool = False,
    ) -> dist.Work | None:
        with collective_errors():
            work = dist.reduce_scatter_single(output_tensor, input_tensor, op=op, group=group, async_op=async_op)
        return cast("dist.Work | None", work)
