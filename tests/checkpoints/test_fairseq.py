"""fairseq's checkpoints become models here that compute what fairseq's formulas do, and nothing in the files is run."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Any

import fairseq_files as fairseq
import numpy as np
import pytest
import torch

from seqba.checkpoints.model import load_model
from seqba.checkpoints.to_fairseq import fairseq_weights
from seqba.errors import UserError
from seqba.models.transformer import Transformer
from seqba.models.transformer_lm import TransformerLM

SOURCE = torch.tensor([[4, 5, 6, 7, 2], [8, 9, 2, 1, 1]])
PREVIOUS = torch.tensor([[2, 5, 10], [2, 4, 1]])
FORMS = ("args", "args, older", "cfg", "cfg, omegaconf")
MODELS: dict[str, dict[str, Any]] = {
    "post-norm": {},
    "all shared": {"share_all_embeddings": True},
    "output shared": {"share_decoder_input_output_embed": True},
    "pre-norm, GELU": {"encoder_normalize_before": True, "decoder_normalize_before": True, "activation_fn": "gelu"},
    "learned positions": {"encoder_learned_pos": True, "decoder_learned_pos": True},
    "normalised embeddings": {"layernorm_embedding": True, "no_scale_embedding": True},
}


def put(folder: Path, content: bytes) -> Path:
    (folder / "fairseq.pt").write_bytes(content)
    return folder / "fairseq.pt"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", MODELS)
def test_a_transformer_computes_what_fairseq_computes(name: str, form: str, tmp_path: Path) -> None:
    options = {**fairseq.OPTIONS, **MODELS[name]}
    weights = fairseq.random_weights(options)
    loaded = load_model(put(tmp_path, fairseq.file_of(form, options, weights)), task="translation")
    assert isinstance(loaded.model, Transformer)
    assert loaded.updates == 7
    assert (loaded.task_state["source_lang"], loaded.task_state["target_lang"]) == ("en", "de")
    kept = PREVIOUS != fairseq.PAD
    expected = fairseq.logits(options, weights, SOURCE, PREVIOUS)[kept]
    torch.testing.assert_close(loaded.model(SOURCE, PREVIOUS)[kept], expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("form", ["args", "cfg, LM", "cfg, LM, omegaconf"])
def test_a_language_model_computes_what_fairseq_computes(form: str, tmp_path: Path) -> None:
    options = {**fairseq.OPTIONS, "arch": "transformer_lm_gpt", "decoder_normalize_before": True}
    weights = fairseq.random_weights(options, encoder=False)
    loaded = load_model(put(tmp_path, fairseq.file_of(form, options, weights)), task="language_modeling")
    assert isinstance(loaded.model, TransformerLM)
    assert loaded.cfg["task"]["blocks"] == {
        "tokens_per_sample": fairseq.LONGEST,
        "sample_break_mode": "eos",
        "add_bos_token": False,
    }
    kept = PREVIOUS != fairseq.PAD
    expected = fairseq.logits(options, weights, None, PREVIOUS)[kept]
    torch.testing.assert_close(loaded.model(PREVIOUS)[kept], expected, atol=2e-5, rtol=1e-5)


def test_names_of_2018_are_read(tmp_path: Path) -> None:
    weights = fairseq.random_weights(fairseq.OPTIONS)
    now = load_model(put(tmp_path, fairseq.file_of("args", fairseq.OPTIONS, weights))).model.state_dict()
    older = fairseq.file_of("args, older", fairseq.OPTIONS, fairseq.older_names(weights))
    then = load_model(put(tmp_path, older)).model.state_dict()
    assert now.keys() == then.keys()
    assert all(torch.equal(now[name], then[name]) for name in now)


def test_half_precision_is_read(tmp_path: Path) -> None:
    weights = {name: tensor.half() for name, tensor in fairseq.random_weights(fairseq.OPTIONS).items()}
    model = load_model(put(tmp_path, fairseq.file_of("cfg", fairseq.OPTIONS, weights))).model
    assert torch.equal(model.output_weight, weights["decoder.output_projection.weight"].float())


@pytest.mark.parametrize("name", MODELS)
def test_weights_go_back_under_fairseqs_names(name: str, tmp_path: Path) -> None:
    options = {**fairseq.OPTIONS, **MODELS[name]}
    weights = fairseq.random_weights(options)
    model = load_model(put(tmp_path, fairseq.file_of("cfg", options, weights))).model
    assert isinstance(model, Transformer)
    back = fairseq_weights(model)
    expected = {key: tensor for key, tensor in weights.items() if not re.search("_float_tensor|_weight$|_bias$", key)}
    assert back.keys() == expected.keys()
    for key, tensor in expected.items():
        skipped = fairseq.PAD + 1 if key.endswith("embed_positions.weight") else 0
        assert torch.equal(back[key][skipped:], tensor[skipped:]), key


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"no_token_positional_embeddings": True}, "no positions"),
        ({"adaptive_softmax_cutoff": "10,20"}, "an adaptive softmax"),
        ({"activation_fn": "tanh"}, "whose activation_fn is tanh"),
        ({"arch": "fconv"}, "of fairseq's fconv"),
        ({"decoder_attention_heads": "two"}, "its model can't be read"),
    ],
)
def test_a_model_that_is_none_of_here_is_told(changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    options = {**fairseq.OPTIONS, **changes}
    path = put(tmp_path, fairseq.file_of("args", options, fairseq.random_weights(fairseq.OPTIONS)))
    with pytest.raises(UserError, match=told):
        load_model(path)


def test_surplus_and_missing_weights_are_told(tmp_path: Path) -> None:
    weights = fairseq.random_weights(fairseq.OPTIONS)
    more = {**weights, "decoder.layers.0.attn_ln.weight": torch.ones(8)}
    with pytest.raises(UserError, match=r"has a weight 'decoder.layers.0.attn_ln.weight' that no model here has"):
        load_model(put(tmp_path, fairseq.file_of("args", fairseq.OPTIONS, more)))
    del weights["encoder.layers.1.fc1.bias"]
    with pytest.raises(UserError, match=r"has no weight 'encoder.layers.1.fc1.bias'"):
        load_model(put(tmp_path, fairseq.file_of("args", fairseq.OPTIONS, weights)))


def test_a_part_of_a_sharded_model_is_told(tmp_path: Path) -> None:
    part = {"encoder.flat_param_0": torch.ones(8), "decoder.flat_param_0": torch.ones(8)}
    with pytest.raises(UserError, match=r"one process's part of a model \(fairseq's --use-sharded-state\)"):
        load_model(put(tmp_path, fairseq.file_of("cfg", fairseq.OPTIONS, part)))


class Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, ("ran",)


class EvilState:
    def __setstate__(self, state: Any) -> None:
        os.mkdir("ran")


def _evil_state() -> EvilState:
    evil = EvilState()
    evil.way = 1  # type: ignore[attr-defined]
    return evil


@pytest.mark.parametrize("form", ["args", "args, older"])
@pytest.mark.parametrize("make", [Evil, _evil_state])
def test_nothing_in_a_file_is_run(make: Any, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    weights = fairseq.random_weights(fairseq.OPTIONS)
    beside = fairseq.file_of(form, fairseq.OPTIONS, weights, extra_state={"meters": make()})
    assert load_model(put(tmp_path, beside)).updates == 7
    for inside in (
        fairseq.file_of(form, {**fairseq.OPTIONS, "max_source_positions": make()}, weights),
        fairseq.file_of(form, fairseq.OPTIONS, {**weights, "decoder.layers.0.fc1.weight": make()}),
        fairseq.file_of(form, fairseq.OPTIONS, weights, args=make()),
    ):
        with contextlib.suppress(UserError):
            load_model(put(tmp_path, inside))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("form", ["args, older", "cfg, omegaconf"])
def test_mutations_are_read_or_told(form: str, tmp_path: Path) -> None:
    real = fairseq.file_of(form, fairseq.OPTIONS, fairseq.random_weights(fairseq.OPTIONS))
    chance, told = np.random.default_rng(8), 0
    pickled = real.index(b"optimizer_history") + 4000 if "older" in form else len(real)
    for _ in range(150):
        new = bytearray(real)
        place = int(chance.integers(pickled))
        kind = int(chance.integers(3))
        if kind == 0:
            new[place] ^= 1 << int(chance.integers(8))
        elif kind == 1:
            new[place : place + 16] = chance.bytes(int(chance.integers(32)))
        else:
            del new[place:]
        try:
            load_model(put(tmp_path, bytes(new)))
        except UserError:
            told += 1
    assert told > 40
