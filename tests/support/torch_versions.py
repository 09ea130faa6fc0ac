"""What of this project needs a newer torch than the oldest one that pyproject.toml names, by what its documents say."""

from __future__ import annotations

import torch

SHARDS_PARAMETERS = torch.torch_version.TorchVersion(torch.__version__) >= (2, 13)
"""docs/distributed.md: `--shard-params`, `shard_parameters`. Earlier ones are refused, which has tests of its own."""


FAKES_A_GPU = torch.torch_version.TorchVersion(torch.__version__) >= (2, 10)
"""recipes/bench/fake_gpu.py: devices that are made known to torch in Python."""


def complete_cpu_streams() -> None:
    """Gives the CPU's stand-in for streams what FSDP asks of it, without which that of torch 2.6 is for GPUs alone."""
    for name in ("record_event", "wait_event"):
        if not hasattr(torch.cpu.Stream, name):
            setattr(torch.cpu.Stream, name, lambda self, event=None: None)
