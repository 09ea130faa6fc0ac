"""What of this project needs a newer torch than the oldest one that pyproject.toml names, by what its documents say."""

from __future__ import annotations

import torch

SHARDS_PARAMETERS = torch.torch_version.TorchVersion(torch.__version__) >= (2, 13)
"""docs/distributed.md: `--shard-params`, `shard_parameters`. Earlier ones are refused, which has tests of its own."""
