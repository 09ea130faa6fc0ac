from __future__ import annotations

import builtins
import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from update_reports import report

from seqba.errors import UserError
from seqba.training.log import TrainingLog
from seqba.training.options import LogOptions
from seqba.training.progress import Progress

CPU = torch.device("cpu")


def test_tensorboard_without_its_package_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def without_tensorboard(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("tensorboard"):
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_tensorboard)
    monkeypatch.delitem(importlib.sys.modules, "torch.utils.tensorboard", raising=False)  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="pip install tensorboard"):
        TrainingLog(LogOptions(tensorboard_logdir=str(tmp_path)), CPU)


def test_tensorboard_gets_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    written: dict[str, tuple[float, int]] = {}

    class Writer:
        def __init__(self, folder: str) -> None:
            self.folder = folder

        def add_scalar(self, name: str, value: float, update: int) -> None:
            written[name] = (value, update)

        def close(self) -> None:
            written["closed"] = (0.0, 0)

    board = SimpleNamespace(SummaryWriter=Writer)
    monkeypatch.setattr("seqba.training.log.importlib.import_module", lambda name: board)
    log = TrainingLog(LogOptions(log_format="none", log_interval=1, tensorboard_logdir="logs"), CPU)
    log.update(report(1), Progress(), 0, 1.0)
    log.validation("valid", {"loss": 1.25}, Progress(), 1)
    log.close()
    assert written["train/loss"] == (2.0, 1)
    assert written["train/lr"] == (0.1, 1)
    assert written["valid/valid/loss"] == (1.25, 1)
    assert "closed" in written


def test_tensorboard_gets_names_in_utf8_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    writer = SimpleNamespace(add_scalar=lambda name, value, update: written.append(name), close=lambda: None)
    board = SimpleNamespace(SummaryWriter=lambda folder: writer)
    monkeypatch.setattr("seqba.training.log.importlib.import_module", lambda name: board)
    log = TrainingLog(LogOptions(log_format="none", tensorboard_logdir="logs"), CPU)
    log.validation("caf\udce9", {"loss": 1.25}, Progress(), 1)
    log.close()
    assert written == [r"valid/caf\xe9/loss"]
    with pytest.raises(UserError, match="--tensorboard-logdir logs\udce9: TensorBoard takes names in UTF-8 alone"):
        LogOptions(tensorboard_logdir="logs\udce9")
