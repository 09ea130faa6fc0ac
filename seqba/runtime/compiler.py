"""torch.compile on the machine at hand: it needs a C++ compiler for a CPU, and Triton for a GPU."""

from __future__ import annotations

import torch

from seqba.errors import UserError


def check_compiler(device: torch.device) -> None:
    """Compiles a trifle for a device, so that a machine that can't is told of before a run begins.

    Raises:
        UserError: with the reason.
    """
    try:
        torch.compile(torch.sin, fullgraph=True)(torch.zeros(2, device=device))
    except Exception as error:  # the compiler's own errors, of every kind, have no base but this
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(f"--compile: torch can't compile for this machine's {device.type}: {reason}") from error
