"""Small models that hold nothing of seqba's, each with noise of another kind."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

WIDTH = 8
LENGTH = 5
ROWS = 3


def make_rows(rows: int = ROWS, seed: int = 0) -> Tensor:
    """(R, T, D) float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, LENGTH, WIDTH, generator=generator, dtype=torch.float64)


def square_loss(model: nn.Module, rows: Tensor) -> Tensor:
    return model(rows).square().mean()


class Around(nn.Module):
    """Two layers with a noisy function between them, whose noise is drawn by this module's own code."""

    def __init__(self, noisy: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.enter = nn.Linear(WIDTH, WIDTH)
        self.leave = nn.Linear(WIDTH, WIDTH)
        self.noisy = noisy

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(self.noisy(self, torch.tanh(self.enter(x))))


class Attention(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.layer = nn.MultiheadAttention(WIDTH, 2, dropout=0.3, batch_first=True)
        self.options = options

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x, x, x, **self.options)[0]


class Translator(nn.Module):
    """`nn.Transformer` as it is, with rows or with time on dimension 0."""

    def __init__(self, *, batch_first: bool) -> None:
        super().__init__()
        self.batch_first = batch_first
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "enable_nested_tensor is True")  # torch tells of a shortcut not taken
            self.layers = nn.Transformer(WIDTH, 2, 1, 1, 12, dropout=0.2, batch_first=batch_first)

    def forward(self, x: Tensor) -> Tensor:
        given = x if self.batch_first else x.transpose(0, 1)
        mask = self.layers.generate_square_subsequent_mask(LENGTH, dtype=x.dtype)
        return self.layers(given, given.tanh(), tgt_mask=mask)


class DropPath(nn.Module):
    """Stochastic depth as image models write it: a row's branch is kept or dropped as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        kept = x.new_empty((x.shape[0],) + (1,) * (x.dim() - 1)).bernoulli_(0.6)
        return x + self.branch(x) * kept.div_(0.6)


class LayerDrop(nn.Module):
    """A layer that one number drops for the whole pass."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(6))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            if torch.rand([]) < 0.5:
                x = torch.tanh(layer(x))
        return x


class Shared(nn.Module):
    """Noise that is made for all rows alike: on a table of positions, and a number for each of five features."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.randn(1, LENGTH, WIDTH))
        self.leave = nn.Linear(WIDTH, WIDTH)
        self.dropout = nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(self.dropout(x + nn.functional.dropout(self.positions, 0.3))) * torch.rand(LENGTH, 1)


class Checkpointed(nn.Module):
    """Layers that are checkpointed inside the model's own forward, and noise in a function inside a method."""

    def __init__(self, recompute: bool, **options: Any) -> None:
        super().__init__()
        self.p = 0.3
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.dropout = nn.Dropout(0.3)
        self.recompute = recompute
        self.options = options

    def block(self, x: Tensor, layer: nn.Module) -> Tensor:
        drop_more = lambda y: nn.functional.dropout(y, self.p, self.training)  # noqa: E731
        return drop_more(self.dropout(torch.tanh(layer(x))))

    def forward(self, x: Tensor) -> Tensor:
        x = x.requires_grad_()
        for layer in self.layers:
            x = checkpoint(self.block, x, layer, **self.options) if self.recompute else self.block(x, layer)
        return x


def _picture(x: Tensor) -> Tensor:
    return x.reshape(len(x), LENGTH, 2, WIDTH // 2)


def _sampled(module: nn.Module, x: Tensor) -> Tensor:
    """The latent of a variational model."""
    return torch.distributions.Normal(x, torch.ones_like(x) / 3).rsample()


def _diffused(module: nn.Module, x: Tensor) -> Tensor:
    time = torch.randint(1, 9, (len(x),))
    return x + torch.randn_like(x) * time.view(-1, 1, 1) / 9


def _masked(module: nn.Module, x: Tensor) -> Tensor:
    return x * torch.bernoulli(torch.sigmoid(x)) * torch.rand(len(x), 1, 1).to(x.dtype)


FUNCTIONAL = nn.functional
MODELS: dict[str, Callable[[], nn.Module]] = {
    "nn.Dropout": lambda: nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Dropout(0.3), nn.Linear(WIDTH, WIDTH)),
    "in place": lambda: nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Dropout(0.3, inplace=True), nn.Linear(WIDTH, 1)),
    "F.dropout": lambda: Around(lambda module, x: FUNCTIONAL.dropout(x, 0.3, module.training)),
    "torch.dropout": lambda: Around(lambda module, x: torch.dropout(x, 0.3, module.training)),
    "F.dropout1d": lambda: Around(lambda module, x: FUNCTIONAL.dropout1d(x, 0.3)),
    "F.dropout2d": lambda: Around(lambda module, x: FUNCTIONAL.dropout2d(_picture(x), 0.3).reshape(x.shape)),
    "F.dropout3d": lambda: Around(lambda module, x: FUNCTIONAL.dropout3d(_picture(x)[..., None], 0.3).reshape(x.shape)),
    "F.alpha_dropout": lambda: Around(lambda module, x: FUNCTIONAL.alpha_dropout(x, 0.3, True)),
    "F.feature_alpha_dropout": lambda: Around(lambda module, x: FUNCTIONAL.feature_alpha_dropout(x, 0.3, True)),
    "F.gumbel_softmax": lambda: Around(lambda module, x: FUNCTIONAL.gumbel_softmax(x)),
    "attention": lambda: Attention(need_weights=False),
    "attention with weights": lambda: Attention(need_weights=True),
    "Transformer": lambda: Translator(batch_first=True),
    "Transformer, time first": lambda: Translator(batch_first=False),
    "drop path": DropPath,
    "LayerDrop": LayerDrop,
    "noise for all rows": Shared,
    "a latent": lambda: Around(_sampled),
    "diffusion": lambda: Around(_diffused),
    "bernoulli and rand": lambda: Around(_masked),
}


def make_model(name: str) -> nn.Module:
    torch.manual_seed(1)
    return MODELS[name]().double().train()


def gradient(model: nn.Module) -> Tensor:
    """All parameters' gradients; zero where no pass has reached one."""
    return torch.cat(
        [
            (torch.zeros_like(parameter) if parameter.grad is None else parameter.grad).flatten()
            for parameter in model.parameters()
        ]
    )
