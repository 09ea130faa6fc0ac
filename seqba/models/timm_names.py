"""Names of timm's networks; what builds them is in `seqba.models.foreign`."""

from __future__ import annotations

import difflib
from typing import Any

from seqba.errors import UserError, quoted
from seqba.extras import needed

TIMM = "timm:"
"""What the names of timm's networks begin with."""

TIMM_OPTIONS = ("dropout", "drop_path")
"""Options of networks that timm's may have a place for."""


def check_timm(arch: str) -> None:
    """Refuses a network that timm doesn't have.

    Raises:
        UserError: for an unknown name, with the closest ones; without timm.
    """
    timm, name = imported_timm(), arch.removeprefix(TIMM)
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), cutoff=0.5)
        nearest = f"; the closest are {', '.join(TIMM + each for each in close)}" if close else ""
        raise UserError(f"--arch {quoted(arch)}: timm {timm.__version__} has no such network{nearest}")


def imported_timm() -> Any:
    """The package.

    Raises:
        UserError: where it isn't installed, or is broken.
    """
    return needed("timm", f"--arch {TIMM}NAME")
