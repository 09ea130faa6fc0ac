"""What seqba-export writes for transformers goes through CTranslate2's converter, and is the same model there.

CTranslate2 begins with a zero embedding, has no `<pad>` among its words, and as many attention heads on both sides.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")
pytest.importorskip("transformers", minversion="5", reason="compares with transformers; pip install -e .[transformers]")
pytest.importorskip("ctranslate2", reason="pip install ctranslate2")

import ctranslate2
import marian_folders as marian
from translation_world import World

from seqba.checkpoints.model import load_model
from seqba.cli.command import run
from seqba.cli.export import main as export
from seqba.data.dictionary import Dictionary
from seqba.data.sides import Side, marian_sides, open_side
from seqba.decoding.beam import beam_search
from seqba.decoding.options import SearchOptions
from seqba.models.transformer import Transformer

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]
LONGEST = 25


def converted(folder: Path, out: Path) -> Any:
    """CTranslate2's model of a folder of transformers."""
    converters = pytest.importorskip("ctranslate2.converters")
    converters.TransformersConverter(str(folder)).convert(str(out))
    return ctranslate2.Translator(str(out), device="cpu", compute_type="float32", inter_threads=1, intra_threads=1)


def model_of(path: Path) -> Transformer:
    model = load_model(path, task="translation").model
    assert isinstance(model, Transformer)
    return model


@torch.no_grad()
def check_alike(model: Transformer, sides: tuple[Side, Side], theirs: Any, source: list[str], target: list[str]) -> int:
    """Checks scores of given translations, and translations themselves where they end; returns how many do."""
    ended = 0
    for line, wanted in zip(source, target, strict=True):
        assert sides[0].subwords is not None
        assert sides[1].subwords is not None
        read, said = sides[0].subwords.encode(line), sides[1].subwords.encode(wanted)
        ids = torch.from_numpy(sides[0].dictionary.encode(read))[None]
        words = [*sides[1].dictionary.lookup(said), Dictionary.eos]
        logits = model(ids, torch.tensor([[Dictionary.eos, *words[:-1]]]))[0]
        logits[:, Dictionary.pad] = -torch.inf
        scores = logits.log_softmax(1)[range(len(words)), words]
        (scored,) = theirs.score_batch([[*read, "</s>"]], [said])
        torch.testing.assert_close(scores, torch.tensor(scored.log_probs), atol=1e-4, rtol=1e-4)
        (ours,) = beam_search(model, ids, SearchOptions(beam=1, min_len=0, max_len_a=0, max_len_b=LONGEST))
        (found,) = theirs.translate_batch(
            [[*read, "</s>"]], beam_size=1, min_decoding_length=0, max_decoding_length=LONGEST
        )
        if len(found.hypotheses[0]) < LONGEST:
            ended += 1
            assert sides[1].dictionary.decode(ours[0].tokens) == found.hypotheses[0]
    return ended


@pytest.mark.slow
def test_a_model_like_opus_mts(tmp_path: Path) -> None:
    opus = marian.write_marian(tmp_path / "opus", seed=3, steps=60, decoder_attention_heads=4)
    with torch.no_grad():  # as in published models: <pad> is never said, and begins as zeros
        opus.model.model.shared.weight[-1] = 0
        opus.model.final_logits_bias[0, -1] = -100
    opus.model.save_pretrained(opus.path)
    out = tmp_path / "out"
    given = [str(opus.path), "--to", "transformers", "--data", str(opus.path), "--output", str(out)]
    assert run(export, given) == 0
    theirs = converted(out, tmp_path / "converted")
    lines = (marian.sentences("en", 30, seed=9), marian.sentences("de", 30, seed=10))
    assert check_alike(model_of(opus.path), marian_sides(opus.path), theirs, *lines) > 20


@pytest.mark.slow
def test_a_model_of_ours(plain_world: World, tmp_path: Path) -> None:
    out = tmp_path / "out"
    given = [str(plain_world.checkpoint), "--to", "transformers", "--data", str(plain_world.data), "--output", str(out)]
    assert run(export, given) == 0
    theirs = converted(out, tmp_path / "converted")
    sides = (open_side(plain_world.data, "en"), open_side(plain_world.data, "de"))
    lines = [
        (plain_world.data.parent / f"test.{language}").read_text(encoding="utf-8").splitlines()
        for language in ("en", "de")
    ]
    check_alike(model_of(plain_world.checkpoint), sides, theirs, *lines)
