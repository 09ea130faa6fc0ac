"""Memory of activations: what a forward keeps for its backward, and what a device has room for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

CPU_PASS_BYTES = 256 << 20
"""Activations that a CPU pass may hold under `auto`: more rows than that make no kernel faster, only memory larger."""

FREE_SHARE = 0.6
"""Share of a GPU's free memory that `auto` fills with activations; the backward's temporaries need the rest."""


class SavedBytes:
    """Counts the bytes that a forward keeps for its backward, each storage once; parameters count as nothing.

    Attributes:
        total: the bytes.
        device: of the largest storage, which may be another one than that of parameters (FSDP keeps them on the CPU
            on demand); the CPU where nothing was kept.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        made = (parameter for parameter in model.parameters() if not is_lazy(parameter))
        self._seen = {parameter.untyped_storage().data_ptr() for parameter in made}
        self.total = 0
        self.device = torch.device("cpu")
        self._largest = 0

    def so_far(self) -> int:
        """The bytes counted until now."""
        return self.total

    def _note(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._seen:
            self._seen.add(storage.data_ptr())
            self.total += storage.nbytes()
            if storage.nbytes() > self._largest:
                self._largest, self.device = storage.nbytes(), tensor.device
        return tensor

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Counts what is saved inside."""
        with torch.autograd.graph.saved_tensors_hooks(self._note, lambda tensor: tensor):
            yield


def room_bytes(device: torch.device) -> int:
    """The bytes of activations that a pass may hold under `auto`."""
    if device.type != "cuda":
        return CPU_PASS_BYTES
    free, _ = torch.cuda.mem_get_info(device)
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(FREE_SHARE * (free + cached))
