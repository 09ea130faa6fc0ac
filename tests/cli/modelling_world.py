"""Checkpoints of untrained language models: enough for everything around an evaluation."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from seqba.checkpoints.file import write_checkpoint
from seqba.data.monolingual import open_dictionary
from seqba.models.builders import build_transformer_lm
from seqba.models.families import resolve_transformer_lm
from seqba.models.options import TransformerLMOptions
from seqba.tasks.monolingual import vocabulary_state
from seqba.tasks.text_options import BlockOptions

SIZES = TransformerLMOptions(
    decoder_layers=1, decoder_embed_dim=16, decoder_ffn_embed_dim=24, decoder_attention_heads=2
)


def write_language_model(path: Path, data: Path, *, blocks: BlockOptions | None = None, **changes: Any) -> Path:
    """A checkpoint of random weights; `changes` replace parts of its state."""
    blocks = blocks or BlockOptions(tokens_per_sample=12)
    dictionary = open_dictionary(data)
    options = dataclasses.replace(SIZES, max_target_positions=blocks.longest_row)
    config = resolve_transformer_lm("transformer_lm", options)
    torch.manual_seed(5)
    state = {
        "args": None,
        "cfg": {
            "task": {"name": "language_modeling", "blocks": dataclasses.asdict(blocks)},
            "model": {"arch": "transformer_lm", "options": dataclasses.asdict(config)},
            "training": {},
            "version": "test",
        },
        "model": build_transformer_lm(config, len(dictionary)).state_dict(),
        "optimizer_history": [{"num_updates": 5}],
        "task_state": vocabulary_state(dictionary),
        "extra_state": {},
        "last_optimizer_state": {"state": {}},
        **changes,
    }
    write_checkpoint(path, state)
    return path
