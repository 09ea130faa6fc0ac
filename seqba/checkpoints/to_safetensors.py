"""Weights as a safetensors file."""

from __future__ import annotations

import json
from pathlib import Path

from seqba.checkpoints.model import LoadedModel
from seqba.data.files import atomic_write
from seqba.extras import needed


def write_safetensors(loaded: LoadedModel, path: str | Path) -> None:
    """Writes the weights alone, under seqba's names, with what the model is made of in the file's metadata (JSON)."""
    safetensors = needed("safetensors.torch", "--to safetensors")
    about = {"model": loaded.cfg["model"], "task_state": loaded.task_state, "updates": loaded.updates}
    metadata = {"format": "pt", "seqba": json.dumps(about)}
    weights = {name: tensor.clone().contiguous() for name, tensor in loaded.model.state_dict().items()}
    with atomic_write(path) as file:
        file.write(safetensors.save(weights, metadata))
