"""Models without initial weights, for those of a checkpoint to take their place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_DRAWS = frozenset({Tensor.normal_, Tensor.uniform_, nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_})


class Undrawn(TorchFunctionMode):
    """Context in which tensors that shall be filled by draws stay as they are: nothing is drawn for a model made in it.

    Drawing initial weights that are overwritten at once takes as long as reading the file, and on torch's meta device
    it imports the compiler: two seconds before a command's first line.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Leaves the tensor of a draw alone, and calls everything else."""
        given = kwargs or {}
        if func in _DRAWS:
            return args[0] if args else given["tensor"]
        return func(*args, **given)
