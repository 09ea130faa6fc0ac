"""What recipes/bench/gpu.py measures: updates as functions of their number, for a device and a dtype."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from awd_lstm import SIZES as LSTM_SIZES
from awd_lstm import our_update as lstm_update
from awd_lstm import plain_update
from marian import build_marian, mean_loss
from torch import Tensor, nn
from workload import SIZES, VOCABULARY, build_ours, fused_loss, training_batches

from seqba import grid_gradient, merged_gradient
from seqba.core import parse_plan
from seqba.data.image_batch import ImageBatch
from seqba.data.pairs import PairBatch
from seqba.models import graphs
from seqba.models.builders import build_network
from seqba.models.config import ImageClassifierConfig
from seqba.modules.walk import gradients_of
from seqba.nn.kernels.casts import shared_casts
from seqba.runtime.devices import to_device
from seqba.tasks.image_options import ViewOptions
from seqba.tasks.image_views import training_view
from seqba.training.optimizers import build_optimizer
from seqba.training.options import OptimisationOptions

Update = Callable[[int], object]
LEARNING_RATE = 1e-4
SGD = OptimisationOptions(optimizer="sgd", momentum=0.9, weight_decay=1e-4)
STREAMS, WINDOW = 20, 70


@dataclass(frozen=True)
class Setting:
    """Where and with what is measured.

    Attributes:
        device: the GPU, or a CPU to try it on.
        dtype: of autocast; None for float32.
        toy: tiny sizes, whose figures mean nothing.
    """

    device: torch.device
    dtype: torch.dtype | None
    toy: bool

    def autocast(self) -> torch.autocast:
        """Autocast, where there is a dtype."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None)

    @property
    def size(self) -> str:
        """Name of the Transformer's size."""
        return "tiny" if self.toy else "base"

    def batches(self, vocabulary: int = VOCABULARY) -> list[PairBatch]:
        """Four micro-batches of 4,096 tokens on the device."""
        batches = training_batches(4, max_tokens=128 if self.toy else 4096, vocabulary=vocabulary)
        return [to_device(batch, self.device) for batch in batches]


def seqba_update(
    setting: Setting, copies: int, plan: str, fork: str | None = None, *, compiled: bool = False
) -> Update:
    """An update of the Transformer as seqba's trainer makes it: the gradient, its norm, a step."""
    torch.manual_seed(1)
    model = build_ours(SIZES[setting.size]).to(setting.device).train()
    model.fork_at(fork)
    if compiled:
        graphs.BACKEND = "eager" if setting.toy else graphs.BACKEND
        graphs.compile_layers(model)
    optimizer, batches, where = fused_adam(model), setting.batches(), parse_plan(plan)

    def loss(model: nn.Module, batch: PairBatch) -> tuple[Tensor, float]:
        with setting.autocast():
            return fused_loss(model, batch)

    def norm() -> list[Tensor]:
        return [nn.utils.get_total_norm(gradients_of(model))]

    def update(number: int) -> None:
        batch = batches[number % len(batches)]
        with shared_casts():
            grid_gradient(
                model,
                [batch],
                loss,
                copies=copies,
                weight=copies * batch.target_tokens,
                plan=where,
                update=number,
                also_read=norm,
                forked=fork is not None,
            )
        optimizer.step()
        optimizer.zero_grad()

    return update


def marian_update(setting: Setting, copies: int) -> Update:
    """A plain loop over Hugging Face's MarianMTModel: as many passes as copies, a step."""
    model, optimizer, batches = _marian(setting)

    def update(number: int) -> None:
        for _ in range(copies):
            with setting.autocast():
                loss = mean_loss(model, batches[number % len(batches)])
            (loss / copies).backward()
        optimizer.step()
        optimizer.zero_grad()

    return update


def keyed_update(setting: Setting, copies: int, plan: str) -> Update:
    """`merged_gradient(..., keyed=True)` of the same MarianMTModel, unchanged."""
    model, optimizer, batches = _marian(setting)

    def loss(model: nn.Module, batch: PairBatch) -> Tensor:
        with setting.autocast():
            return mean_loss(model, batch)

    def update(number: int) -> None:
        batch = batches[number % len(batches)]
        merged_gradient(model, batch, loss, copies=copies, plan=plan, update=number, keyed=True)
        optimizer.step()
        optimizer.zero_grad()

    return update


def image_update(setting: Setting, copies: int, plan: str) -> Update:
    """An update of ResNet44 on 64 pictures of 32 × 32, views included."""
    torch.manual_seed(1)
    name, rows = ("resnet8", 4) if setting.toy else ("resnet44", 64)
    model = build_network(name, ImageClassifierConfig(), 10, 32).to(setting.device).train()
    optimizer, view, where = build_optimizer(model.parameters(), SGD), training_view(ViewOptions(cutout=16), 32), plan
    images = torch.randint(0, 256, (rows, 3, 32, 32), dtype=torch.uint8)
    batch = to_device(ImageBatch(images, torch.full((rows, 2), 32), torch.randint(0, 10, (rows,))), setting.device)

    def loss(model: nn.Module, batch: ImageBatch) -> tuple[Tensor, float]:
        with setting.autocast():
            logits = model(view(batch.images, batch.sizes))
        return nn.functional.cross_entropy(logits.float(), batch.labels, reduction="sum"), float(len(batch.labels))

    def update(number: int) -> None:
        grid_gradient(model, [batch], loss, copies=copies, weight=copies * rows, plan=where, update=number)
        optimizer.step()
        optimizer.zero_grad()

    return update


def awd_lstm_update(setting: Setting, model: str, copies: int, plan: str) -> Update:
    """An update of the AWD-LSTM on windows of 70 words in 20 streams, in float32; see recipes/bench/awd_lstm.py."""
    torch.manual_seed(1)
    size = LSTM_SIZES["tiny" if setting.toy else "paper"]
    generator = torch.Generator().manual_seed(2)
    text = torch.randint(0, size.vocabulary, (STREAMS, WINDOW + 1), generator=generator).to(setting.device)
    spec = {"copies": copies, "plan": plan, "shared": False}
    return (plain_update if model == "plain" else lstm_update)(size, spec, text)


def training_sides(setting: Setting) -> dict[str, Callable[[], Update]]:
    """Sides of the Transformer's table, by name, each made when it is asked for."""
    sides: dict[str, Callable[[], Update]] = {
        "Marian M=1": partial(marian_update, setting, 1),
        "Marian M=4": partial(marian_update, setting, 4),
        "seqba M=1": partial(seqba_update, setting, 1, "stacked"),
    }
    for copies in (2, 4, 8):
        for plan in ("stacked", "looped"):
            sides[f"seqba M={copies} {plan}"] = partial(seqba_update, setting, copies, plan)
    sides["seqba M=1 compiled"] = partial(seqba_update, setting, 1, "stacked", compiled=True)
    sides["seqba M=4 stacked, compiled"] = partial(seqba_update, setting, 4, "stacked", compiled=True)
    sides["seqba M=4 forked at the encoder"] = partial(seqba_update, setting, 4, "stacked", "encoder")
    sides["keyed Marian M=4 stacked"] = partial(keyed_update, setting, 4, "stacked")
    return sides


def float32_sides(setting: Setting) -> dict[str, Callable[[], Update]]:
    """The same in float32, the main ones."""
    return {
        "Marian M=1": partial(marian_update, setting, 1),
        "seqba M=1": partial(seqba_update, setting, 1, "stacked"),
        "seqba M=4 stacked": partial(seqba_update, setting, 4, "stacked"),
        "seqba M=4 looped": partial(seqba_update, setting, 4, "looped"),
    }


def lstm_sides(setting: Setting) -> dict[str, Callable[[], Update]]:
    """Sides of the AWD-LSTM's table."""
    return {
        "plain, 200 rows that share their weight noise": partial(awd_lstm_update, setting, "plain", 10, "stacked"),
        "seqba M=1": partial(awd_lstm_update, setting, "seqba", 1, "stacked"),
        "seqba M=10 stacked": partial(awd_lstm_update, setting, "seqba", 10, "stacked"),
        "seqba M=10 looped": partial(awd_lstm_update, setting, "seqba", 10, "looped"),
    }


def image_sides(setting: Setting) -> dict[str, Callable[[], Update]]:
    """Sides of the images' table."""
    sides: dict[str, Callable[[], Update]] = {"seqba M=1": partial(image_update, setting, 1, "stacked")}
    for copies in (4, 10):
        for plan in ("stacked", "looped"):
            sides[f"seqba M={copies} {plan}"] = partial(image_update, setting, copies, plan)
    return sides


def fused_adam(model: nn.Module) -> torch.optim.Optimizer:
    """Adam as seqba-train builds it."""
    optimizer = build_optimizer(model.parameters(), OptimisationOptions())
    for group in optimizer.param_groups:
        group["lr"] = LEARNING_RATE
    return optimizer


def _marian(setting: Setting) -> tuple[nn.Module, torch.optim.Optimizer, list[PairBatch]]:
    torch.manual_seed(1)
    model = build_marian(SIZES[setting.size]).to(setting.device).train()
    return model, torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=True), setting.batches()
