"""Marian folders become models here that compute what transformers computes, and broken ones give one line."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")
pytest.importorskip("transformers", minversion="5", reason="compares with transformers; pip install -e .[transformers]")

import marian_folders as marian
from marian_folders import MarianFolder

from seqba.checkpoints.model import load_model
from seqba.data.dictionary import Dictionary
from seqba.data.marian import read_marian_text
from seqba.decoding.beam import beam_search
from seqba.decoding.options import SearchOptions
from seqba.errors import UserError
from seqba.models.transformer import Transformer

ENGLISH = marian.sentences("en", 40, seed=7)
GERMAN = marian.sentences("de", 40, seed=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> MarianFolder:
    """A folder as OPUS-MT's usual ones; read only."""
    return marian.write_marian(tmp_path_factory.mktemp("marian") / "opus")


@pytest.fixture
def broken(folder: MarianFolder, tmp_path: Path) -> Path:
    """A copy of it, to break."""
    return Path(shutil.copytree(folder.path, tmp_path / "broken"))


def load(path: Path) -> Transformer:
    model = load_model(path, task="translation").model
    assert isinstance(model, Transformer)
    return model


def change(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, **changes}), encoding="utf-8")


def rows(lines: list[list[int]], pad: int) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(line) for line in lines], batch_first=True, padding_value=pad)


@pytest.mark.parametrize("safetensors", [True, False])
@pytest.mark.parametrize("form", marian.FORMS)
@torch.no_grad()
def test_logits_are_transformers(form: str, safetensors: bool, tmp_path: Path) -> None:
    theirs = marian.write_marian(tmp_path / "opus", safetensors=safetensors, **marian.FORMS[form])
    ours, text = load(theirs.path), read_marian_text(theirs.path)
    inputs = theirs.tokenizer(ENGLISH, return_tensors="pt", padding=True)
    target = theirs.tokenizer(text_target=GERMAN, padding=True, return_tensors="pt").input_ids
    start = theirs.model.config.decoder_start_token_id
    previous = torch.cat([torch.full((len(GERMAN), 1), start), target[:, :-1]], dim=1)
    expected = theirs.model(**inputs, decoder_input_ids=previous).logits

    source = [text.source.dictionary.encode(text.source_subwords.encode(line)).tolist() for line in ENGLISH]
    read = [[2, *text.target.dictionary.lookup(text.target_subwords.encode(line))] for line in GERMAN]
    logits = ours(rows(source, 1), rows(read, 1))
    words = torch.from_numpy(text.target.their_ids[1:])  # <s> is ours alone
    for row, line in enumerate(read):
        torch.testing.assert_close(
            logits[row, : len(line), 1:], expected[row, : len(line)][:, words], atol=1e-5, rtol=1e-5
        )
        probabilities = logits[row, : len(line)].softmax(1)
        assert probabilities[:, Dictionary.bos].max() < 1e-30


@pytest.mark.parametrize("form", ["one vocabulary", "two vocabularies"])
@torch.no_grad()
def test_translations_are_transformers(form: str, tmp_path: Path) -> None:
    """Greedy and beam search over a model that has learned to stop; hypotheses that don't are cut off otherwise."""
    with torch.enable_grad():
        theirs = marian.write_marian(tmp_path / "opus", seed=3, steps=150, **marian.FORMS[form])
    ours, text = load(theirs.path), read_marian_text(theirs.path)
    lines = marian.sentences("en", 100, seed=9)
    inputs = theirs.tokenizer(lines, return_tensors="pt", padding=True)
    source = [text.source.dictionary.encode(text.source_subwords.encode(line)).tolist() for line in lines]
    end, padding = theirs.model.config.eos_token_id, theirs.model.config.pad_token_id
    compared = 0
    for beam in (1, 4):
        search = {"num_beams": beam, "early_stopping": beam > 1, "max_length": 60, "forced_eos_token_id": None}
        found = [line[1:] for line in theirs.model.generate(**inputs, **search).tolist()]
        expected = [[token for token in line if token != padding] for line in found]
        hypotheses = beam_search(ours, rows(source, 1), SearchOptions(beam=beam, min_len=0))
        translated = [[int(text.target.their_ids[token]) for token in each[0].tokens] for each in hypotheses]
        ended = [number for number, line in enumerate(expected) if line[-1] == end]
        compared += len(ended)
        assert [translated[number] for number in ended] == [expected[number] for number in ended]
        assert len({tuple(line) for line in translated}) > 50
    assert compared > 130


def test_ids_are_ours_and_rows_move_with_them(folder: MarianFolder) -> None:
    text = read_marian_text(folder.path)
    vocabulary = json.loads((folder.path / "vocab.json").read_text(encoding="utf-8"))
    assert text.source.dictionary.symbols[:4] == ["<s>", "<pad>", "</s>", "<unk>"]
    assert text.source.their_ids[:6].tolist() == [-1, len(vocabulary) - 1, 0, 1, 2, 3]
    assert all(vocabulary[text.source.dictionary.symbols[n]] == text.source.their_ids[n] for n in range(1, 30))
    table = folder.model.model.shared.weight
    model = load(folder.path)
    for word in ("▁house", "</s>", "<pad>", "<unk>"):
        own = model.target_embedding.tokens.weight[text.target.dictionary.symbols.index(word)]
        assert torch.equal(own, table[vocabulary[word]])
    assert not model.target_embedding.tokens.weight[Dictionary.bos].any()


def test_ids_without_a_symbol_are_filled(broken: Path) -> None:
    vocabulary = json.loads((broken / "vocab.json").read_text(encoding="utf-8"))
    del vocabulary["▁house"]
    (broken / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    dictionary = read_marian_text(broken).source.dictionary
    assert (len(dictionary), "madeupword0000" in dictionary, "▁house" in dictionary) == (
        len(vocabulary) + 2,
        True,
        False,
    )
    assert load(broken).output_weight.shape[0] == len(dictionary)


def test_half_precision_is_read(folder: MarianFolder, broken: Path) -> None:
    (broken / "model.safetensors").unlink()
    torch.save({name: each.half() for name, each in folder.model.state_dict().items()}, broken / "pytorch_model.bin")
    table = folder.model.model.shared.weight.half().float()
    assert torch.equal(load(broken).target_embedding.tokens.weight[Dictionary.eos], table[0])


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("touch executed",))


def test_nothing_of_a_hostile_file_is_run(broken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(broken)
    (broken / "model.safetensors").unlink()
    torch.save({"model.shared.weight": torch.ones(2), "more": Hostile()}, broken / "pytorch_model.bin")
    with pytest.raises(
        UserError, match=r"pytorch_model.bin holds more than tensors \(\w+.system\); nothing of it is run"
    ):
        load_model(broken)
    assert not Path("executed").exists()


BREAKINGS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no JSON": (lambda path: (path / "config.json").write_text("{"), "config.json is no JSON, or is damaged"),
    "no UTF-8": (lambda path: (path / "config.json").write_bytes(b"\xff{}"), "config.json is no JSON"),
    "nested": (lambda path: (path / "config.json").write_text("[" * 100_000), "config.json is no JSON"),
    "a list": (lambda path: (path / "vocab.json").write_text("[]"), "vocab.json holds a list"),
    "another kind": (lambda path: change(path / "config.json", model_type="bart"), "a model of the kind 'bart'"),
    "activation": (lambda path: change(path / "config.json", activation_function="tanh"), "is 'tanh'; here are swish"),
    "heads": (lambda path: change(path / "config.json", encoder_attention_heads=5), "can't be read"),
    "heads as text": (lambda path: change(path / "config.json", decoder_attention_heads="2"), "can't be read"),
    "dropout": (lambda path: change(path / "config.json", dropout=[]), "can't be read"),
    "positions": (lambda path: change(path / "config.json", max_position_embeddings=10**9), "must be at most"),
    "size": (lambda path: change(path / "config.json", vocab_size=10**12), "must be a whole number below"),
    "smaller": (lambda path: change(path / "config.json", vocab_size=30), "ids are whole numbers below 30"),
    "larger": (
        lambda path: change(path / "config.json", vocab_size=70, decoder_vocab_size=70),
        "for a vocabulary of 70",
    ),
    "width": (lambda path: change(path / "config.json", d_model=16), "of shape"),
    "start": (lambda path: change(path / "config.json", decoder_start_token_id=5), "decoder_start_token_id of 5"),
    "end": (lambda path: change(path / "config.json", eos_token_id=3), "has </s> as 0, and .* as 3"),
    "an id twice": (lambda path: change(path / "vocab.json", more=4), "ids are whole numbers below .*, each once"),
    "an id as text": (lambda path: change(path / "vocab.json", more="4"), "gives 'more' the id '4'"),
    "half a character": (lambda path: change(path / "vocab.json", **{"\ud800": 4}), "a symbol that is no text"),
    "no </s>": (lambda path: (path / "vocab.json").write_text('{"<pad>": 1, "<unk>": 2}'), "lacks one of <pad>, </s>"),
    "no vocabulary": (lambda path: (path / "vocab.json").unlink(), "vocab.json does not exist; a Marian folder has"),
    "two that are one": (
        lambda path: (
            change(path / "tokenizer_config.json", separate_vocabs=True),
            shutil.copy(path / "vocab.json", path / "target_vocab.json"),
            change(path / "target_vocab.json", **{"▁house": 2, "▁Haus": 3}),
        ),
        "each once|has two vocabularies",
    ),
    "no target vocabulary": (
        lambda path: change(path / "tokenizer_config.json", separate_vocabs=True),
        "target_vocab.json does not exist",
    ),
    "SentencePiece": (lambda path: (path / "source.spm").write_bytes(b"no"), "source.spm is not a SentencePiece model"),
    "no SentencePiece": (lambda path: (path / "target.spm").unlink(), "target.spm does not exist"),
    "no weights": (lambda path: (path / "model.safetensors").unlink(), "neither model.safetensors nor"),
    "empty weights": (lambda path: (path / "model.safetensors").write_bytes(b""), "is damaged, or no safetensors file"),
    "cut weights": (
        lambda path: (path / "model.safetensors").write_bytes((path / "model.safetensors").read_bytes()[:-9]),
        "is damaged, or no safetensors file",
    ),
}


@pytest.mark.parametrize("name", BREAKINGS)
def test_a_broken_folder_is_one_line(name: str, broken: Path) -> None:
    breaking, told = BREAKINGS[name]
    breaking(broken)
    with pytest.raises(UserError, match=told) as raised:
        load_model(broken)
    assert "\n" not in str(raised.value)
    assert str(broken) in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model.encoder.layers.0.fc1.bias": None}, "has no weight 'model.encoder.layers.0.fc1.bias'"),
        ({"model.encoder.layers.0.more": torch.ones(2)}, "has a weight 'model.encoder.layers.0.more'"),
        ({"lm_head.weight": torch.ones(62, 32)}, "lm_head.weight and model.shared.weight differ"),
        ({"model.encoder.embed_positions.weight": torch.ones(64, 32)}, "a table of positions that no model here has"),
        ({"final_logits_bias": torch.ones(1, 5)}, "a matrix of 5 rows"),
        ({"model.encoder.layers.0.fc1.bias": torch.ones(3)}, "of shape"),
        ({"model.encoder.layers.0.fc1.bias": "text"}, "more than tensors"),
    ],
)
def test_weights_of_another_model_are_told(
    changes: dict[str, Any], told: str, folder: MarianFolder, broken: Path
) -> None:
    (broken / "model.safetensors").unlink()
    weights = {**folder.model.state_dict(), **changes}
    torch.save({name: each for name, each in weights.items() if each is not None}, broken / "pytorch_model.bin")
    with pytest.raises(UserError, match=told):
        load_model(broken)
