"""Checkpoints in the forms of other programs."""

from __future__ import annotations

import argparse
from pathlib import Path

from seqba.checkpoints.file import write_checkpoint
from seqba.checkpoints.model import load_model
from seqba.checkpoints.to_fairseq import fairseq_state
from seqba.checkpoints.to_marian import write_marian
from seqba.checkpoints.to_safetensors import write_safetensors
from seqba.cli.options.export import ExportOptions
from seqba.data.outputs import refuse_overwriting


def export(checkpoint: str, options: ExportOptions) -> None:
    """Writes a checkpoint in another program's form.

    Raises:
        UserError: for a file that can't be used, or weights that the form has no place for.
    """
    output = Path(str(options.output))
    refuse_overwriting(output, [checkpoint])
    loaded = load_model(checkpoint)
    if options.to == "fairseq":
        state = fairseq_state(loaded)
        write_checkpoint(output, {**state, "args": argparse.Namespace(**state["args"])})
    elif options.to == "safetensors":
        write_safetensors(loaded, output)
    else:
        write_marian(loaded, Path(str(options.data)), output)
    print(f"{options.output}: {checkpoint} for {options.to}, after {loaded.updates} updates")
