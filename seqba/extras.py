"""Packages beyond torch and numpy: imported where they are needed, and missed in one line that says how to get them."""

from __future__ import annotations

import importlib
from typing import Any

from seqba.errors import UserError

EXTRA_OF = {
    "sacrebleu": "text",
    "sentencepiece": "text",
    "tqdm": "text",
    "sacremoses": "wmt",
    "subword_nmt": "wmt",
    "PIL": "vision",
    "scipy": "imagenet",
    "matplotlib": "plot",
    "safetensors": "export",
    "safetensors.torch": "export",
    "tensorboard": "tensorboard",
    "torch.utils.tensorboard": "tensorboard",
    "pyarrow": "parquet",
    "tokenizers": "tokenizers",
    "transformers": "transformers",
    "accelerate": "transformers",
    "lightning": "lightning",
    "timm": "timm",
    "yaml": "yaml",
    "wandb": "wandb",
    "mlflow": "mlflow",
    "trackio": "trackio",
}
"""Module → the extra of seqba that brings it."""


def needed(module: str, purpose: str) -> Any:
    """Imports a module of an extra.

    Args:
        module: its name; its package must be in `EXTRA_OF`.
        purpose: what needs it, to begin the message with ("seqba-plot", "--tensorboard-logdir").

    Raises:
        UserError: if the package isn't installed, or is broken.
    """
    package = module if module in EXTRA_OF else module.partition(".")[0]
    extra = EXTRA_OF[package]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        raise UserError(
            f"{purpose} needs a package that isn't installed, {package}: pip install 'seqba[{extra}]'"
        ) from None
    except ImportError as error:
        raise UserError(
            f"{purpose} needs {package}, which can't be imported ({error}): pip install 'seqba[{extra}]'"
        ) from None


def progress_bar() -> Any:
    """The class of tqdm's progress bars."""
    return needed("tqdm", "a progress bar").tqdm
