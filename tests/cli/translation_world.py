"""A tiny data-bin and checkpoints of random weights: enough for everything around a translation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seqba.checkpoints.file import write_checkpoint
from seqba.cli.command import run
from seqba.cli.generate import main
from seqba.cli.preprocess import main as preprocess
from seqba.data.dictionary import Dictionary, dictionary_digest
from seqba.models.builders import build_transformer
from seqba.models.families import resolve_transformer
from seqba.models.options import TransformerOptions

WORDS = {"one": "eins", "two": "zwei", "three": "drei", "four": "vier", "five": "fünf", "six": "sechs"}
LIMITS = ["--max-len-a", "1", "--max-len-b", "5"]


@dataclass(frozen=True)
class World:
    folder: Path
    data: Path
    checkpoint: Path

    def text(self, language: str) -> list[str]:
        return (self.folder / f"test.{language}").read_text(encoding="utf-8").splitlines()

    def write_checkpoint(
        self, name: str, *, seed: int, options: Mapping[str, Any] | None = None, **changes: Any
    ) -> Path:
        """A checkpoint of random weights; `options` are of its model, `changes` replace parts of its state."""
        dictionary = Dictionary.load(self.data / "dict.en.txt")
        chosen = {"share_all_embeddings": True, "max_source_positions": 40, "max_target_positions": 30}
        config = resolve_transformer("transformer_tiny", TransformerOptions(**{**chosen, **(options or {})}))
        torch.manual_seed(seed)
        model = build_transformer(config, len(dictionary), len(dictionary))
        with torch.no_grad():
            model.output_weight.mul_(3)  # opinions strong enough that rounding cannot change them
        digest = dictionary_digest(dictionary)
        state = {
            "args": None,
            "cfg": {
                "task": {},
                "model": {"arch": "transformer_tiny", "options": dataclasses.asdict(config)},
                "training": {},
                "version": "test",
            },
            "model": model.state_dict(),
            "optimizer_history": [{"num_updates": seed}],
            "task_state": {
                "task": "translation",
                "source_lang": "en",
                "target_lang": "de",
                "source_vocabulary": len(dictionary),
                "target_vocabulary": len(dictionary),
                "source_dictionary_sha256": digest,
                "target_dictionary_sha256": digest,
            },
            "extra_state": {},
            "last_optimizer_state": {"state": {}},
            **changes,
        }
        path = self.folder / name
        write_checkpoint(path, state)
        return path


def make_world(folder: Path, *, sentencepiece: bool) -> World:
    """Counting sentences; with its own SentencePiece model, or as tokens with `@@ ` joints."""
    chance = np.random.default_rng(5)
    for split, lines in (("train", 60), ("test", 12)):
        chosen = [chance.choice(list(WORDS), chance.integers(1, 8)).tolist() for _ in range(lines)]
        for language in ("en", "de"):
            texts = [" ".join(word if language == "en" else WORDS[word] for word in words) for words in chosen]
            if sentencepiece:
                texts = [text.capitalize() + "." for text in texts]
            else:
                texts = [text.replace("sechs", "se@@ chs").replace("four", "fo@@ ur") + " ." for text in texts]
            (folder / f"{split}.{language}").write_text("\n".join(texts) + "\n", encoding="utf-8")
    flags = ["--sentencepiece", "60"] if sentencepiece else []
    data = folder / "bin"
    arguments = ["-s", "en", "-t", "de", "--trainpref", folder / "train", "--testpref", folder / "test"]
    assert preprocess([*map(str, arguments), "--destdir", str(data), "--joined-dictionary", *flags]) == 0
    world = World(folder, data, folder / "model.pt")
    world.write_checkpoint("model.pt", seed=1)
    return world


def generate(world: World, *flags: str, path: str | None = None) -> int:
    """The status of seqba-generate on a world's test set, with lengths that keep it quick."""
    limits = [] if "--score-reference" in flags else LIMITS
    return run(main, [str(world.data), "--path", path or str(world.checkpoint), "--cpu", *limits, *flags])
