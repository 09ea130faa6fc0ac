from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from small_network import Network


@pytest.fixture
def network() -> Network:
    torch.manual_seed(1)
    return Network()
