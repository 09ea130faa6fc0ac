"""Models of checkpoints are made without initial weights."""

from __future__ import annotations

import subprocess
import sys

import torch
from torch import nn

from seqba.checkpoints.undrawn import Undrawn
from seqba.models.builders import build_network, build_transformer
from seqba.models.config import ImageClassifierConfig
from seqba.models.families import resolve_transformer
from seqba.models.options import TransformerOptions


def test_nothing_is_drawn_and_what_is_computed_is_there() -> None:
    before = torch.get_rng_state()
    config = resolve_transformer("transformer_tiny", TransformerOptions())
    with Undrawn():
        model = build_transformer(config, 20, 20)
        build_network("resnet8", ImageClassifierConfig(), 10, 32)
        nn.LSTM(3, 4)
    assert torch.equal(torch.get_rng_state(), before)
    drawn = build_transformer(config, 20, 20)
    assert not torch.equal(torch.get_rng_state(), before)
    assert torch.equal(model.source_embedding.positions, drawn.source_embedding.positions)
    norms = [(ours, theirs) for ours, theirs in zip(model.modules(), drawn.modules(), strict=True)
             if isinstance(ours, nn.LayerNorm)]  # fmt: skip
    assert norms
    assert all(torch.equal(ours.weight, theirs.weight) for ours, theirs in norms)


def test_an_outline_does_not_wait_for_the_compiler() -> None:
    made = (
        "import sys, torch; from seqba.checkpoints.undrawn import Undrawn; from seqba.models.builders import *;"
        "from seqba.models.families import *; from seqba.models.options import *\n"
        "with torch.device('meta'), Undrawn():\n"
        "    build_transformer(resolve_transformer('transformer_tiny', TransformerOptions()), 20, 20)\n"
        "    build_awd_lstm(AWD_LSTMS['awd_lstm'], 20)\n"
        "    build_network('resnet8', ImageClassifierConfig(), 10, 32)\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    process = subprocess.run([sys.executable, "-c", made], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
