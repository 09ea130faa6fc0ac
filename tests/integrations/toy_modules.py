"""A tiny LightningModule and Trainers over made-up rows, the same at every call."""

from __future__ import annotations

import os
from typing import Any

import lightning
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler, TensorDataset

import seqba
from seqba.distributed import Ranks
from seqba.integrations.lightning import BatchAugmentation

COPIES = 3
CLIP = 0.5
OF_LIGHTNING = [
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning"),
]
"""Marks of tests: what Lightning warns of that is not the tests' matter."""


class Toy(lightning.LightningModule):
    """Ordinary dropout between two layers; notes what its training steps see."""

    def __init__(self, dropout: float = 0.4) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.net = nn.Sequential(nn.Linear(8, 16), nn.Dropout(dropout), nn.Tanh(), nn.Linear(16, 4))
        self.batches: list[tuple[Tensor, Tensor]] = []
        self.losses: list[float] = []
        self.exchanges: list[bool] = []

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return functional.cross_entropy(self.net(batch[0]), batch[1])

    def training_step(self, batch: tuple[Tensor, Tensor], number: int) -> Tensor:
        loss = self.loss(batch)
        self.log("loss", loss, on_step=True, on_epoch=True)
        self.batches.append(batch)
        self.losses.append(loss.item())
        wrapped = self.trainer.strategy.model
        self.exchanges.append(getattr(wrapped, "require_backward_grad_sync", True))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.2)


class ByHand(Toy):
    """Writes its passes itself, as docs/lightning.md has it."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: tuple[Tensor, Tensor], number: int) -> None:
        optimizer = self.optimizers()
        optimizer.zero_grad()
        for pass_ in seqba.copies(self.trainer.strategy.model, COPIES, update=self.global_step + 1, seed=5):
            with pass_:
                self.manual_backward(self.loss(batch) / COPIES)
        optimizer.step()


def make_rows() -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(20, 8, generator=generator), torch.randint(4, (20,), generator=generator))


def make_trainer(copies: int = COPIES, *, forked: bool = False, **options: Any) -> lightning.Trainer:
    """`copies=0` is the plain one."""
    given: dict[str, Any] = {
        "max_epochs": 2,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "callbacks": [BatchAugmentation(copies=copies, seed=5, forked=forked)] if copies else [],
    }
    return lightning.Trainer(**{**given, **options})


def make_loader(batch: int = 4, rank: int = 0, size: int = 1) -> DataLoader[Any]:
    """Every `size`-th batch from `rank` on."""
    batches = list(BatchSampler(SequentialSampler(make_rows()), batch, drop_last=False))
    return DataLoader(make_rows(), batch_sampler=batches[rank::size])


def trained(
    module: Toy, *, loader: DataLoader[Any] | None = None, copies: int = COPIES, path: Any = None, **options: Any
) -> lightning.Trainer:
    trainer = make_trainer(copies, **options)
    trainer.fit(module, loader or make_loader(), ckpt_path=path)
    return trainer


def weights(module: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def distance(one: nn.Module, other: nn.Module) -> float:
    return float((weights(one) - weights(other)).abs().max())


def trained_on_processes(ranks: Ranks) -> dict[str, Any]:
    """The weights after training on several processes, and which passes exchanged gradients."""
    os.environ.update(RANK=str(ranks.rank), LOCAL_RANK=str(ranks.rank), WORLD_SIZE=str(ranks.size))
    # As torchrun would have started them.
    os.environ.update(GROUP_RANK="0", LOCAL_WORLD_SIZE=str(ranks.size), TORCHELASTIC_RUN_ID="test")
    os.environ.update(MASTER_ADDR="localhost", MASTER_PORT="0")
    found: dict[str, Any] = {}
    for copies in (COPIES, 0):
        module = Toy()
        # Lightning's own sampler deals out rows: other batches than one process has.
        options = {"strategy": "ddp", "devices": ranks.size, "use_distributed_sampler": False}
        trainer = trained(
            module, loader=make_loader(2, ranks.rank, ranks.size), copies=copies, gradient_clip_val=CLIP, **options
        )
        found[f"weights {copies}"] = weights(module)
        found[f"exchanges {copies}"] = module.exchanges
        found[f"steps {copies}"] = trainer.global_step
        found["processes"] = trainer.world_size
    modules = Toy(), ByHand()
    for module, copies in zip(modules, (COPIES, 0), strict=True):
        trained(module, loader=make_loader(2, ranks.rank, ranks.size), copies=copies, **options)
    found["by hand"] = distance(*modules)
    return found
