"""Copies in Lightning's Trainer: one text file → a Transformer over bytes → bits per byte of what was held out.

    python data_prep/phrases.py runs/phrases
    python recipes/lightning_language_model.py runs/phrases/train.de --copies 4 --updates 400

The model is torch's own nn.TransformerEncoder, with ordinary dropout. --copies 0 is the plain trainer.

Needs    pip install -e '.[lightning]'
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from seqba.integrations.lightning import BatchAugmentation


class LanguageModel(lightning.LightningModule):
    """Predicts each byte from those before it."""

    def __init__(self, given: argparse.Namespace) -> None:
        super().__init__()
        self.lr, self.updates = given.lr, given.updates
        self.embedding = nn.Embedding(256, given.width)
        self.positions = nn.Parameter(torch.randn(given.context, given.width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            given.width, given.heads, 4 * given.width, given.dropout, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, given.layers, nn.LayerNorm(given.width), enable_nested_tensor=False)
        self.output = nn.Linear(given.width, 256)

    def loss(self, text: Tensor) -> Tensor:  # (B, context + 1) bytes
        before, after = text[:, :-1].long(), text[:, 1:].long()
        causal = nn.Transformer.generate_square_subsequent_mask(before.shape[1], text.device)
        states = self.layers(self.embedding(before) + self.positions, mask=causal, is_causal=True)  # (B, T, width)
        return functional.cross_entropy(self.output(states).flatten(0, 1), after.flatten())

    def training_step(self, text: Tensor, number: int) -> Tensor:
        return self.loss(text)

    def test_step(self, text: Tensor, number: int) -> None:
        self.log("bits per byte", self.loss(text) / math.log(2))

    def configure_optimizers(self) -> dict[str, object]:
        optimizer = torch.optim.AdamW(self.parameters(), self.lr)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.lr, self.updates)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("text", type=Path)
    sizes = {"--layers": 2, "--width": 128, "--heads": 4, "--context": 128}
    lengths = {"--copies": 4, "--updates": 400, "--batch": 32, "--accumulation": 1, "--seed": 1}
    for name, number in {**sizes, **lengths, "--dropout": 0.1, "--lr": 2e-3}.items():
        parser.add_argument(name, type=type(number), default=number, help=f"({number})")
    given = parser.parse_args()
    if not given.text.is_file():
        parser.error(f"no file {given.text}")
    data = torch.frombuffer(bytearray(given.text.read_bytes()), dtype=torch.uint8)
    blocks = data[: len(data) - len(data) % (given.context + 1)].view(-1, given.context + 1)
    held_out = len(blocks) // 20
    if len(blocks) - held_out < given.batch or not held_out:
        parser.error(f"{given.text} has {len(blocks)} blocks of {given.context + 1} bytes: too few")

    lightning.seed_everything(given.seed, verbose=False)
    callbacks: list[Callback] = [BatchAugmentation(copies=given.copies)] if given.copies else []
    trainer = lightning.Trainer(
        max_steps=given.updates,
        callbacks=callbacks,
        accumulate_grad_batches=given.accumulation,
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    model = LanguageModel(given)
    trainer.fit(model, DataLoader(blocks[held_out:], given.batch, shuffle=True, drop_last=True))
    trainer.test(model, DataLoader(blocks[:held_out], given.batch))


if __name__ == "__main__":
    main()
