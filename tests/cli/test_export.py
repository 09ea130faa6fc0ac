"""seqba-export: what other programs get is the same model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from modelling_world import write_language_model
from translation_world import World

from seqba.checkpoints.model import load_model
from seqba.cli.command import run
from seqba.cli.export import main


def export(checkpoint: Path, form: str, output: Path, *more: str) -> int:
    return run(main, [str(checkpoint), "--to", form, "--output", str(output), *more])


def test_a_fairseq_file_of_a_transformer_is_the_same_model(plain_world: World, tmp_path: Path) -> None:
    assert export(plain_world.checkpoint, "fairseq", tmp_path / "fairseq.pt") == 0
    ours, theirs = load_model(plain_world.checkpoint), load_model(tmp_path / "fairseq.pt", task="translation")
    assert ours.cfg["model"]["options"] == theirs.cfg["model"]["options"]
    assert (theirs.updates, theirs.task_state["source_lang"], theirs.task_state["target_lang"]) == (1, "en", "de")
    weights = theirs.model.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in ours.model.state_dict().items())


def test_a_fairseq_file_of_a_language_model_is_the_same_model(alphabet: Path, tmp_path: Path) -> None:
    ours = write_language_model(tmp_path / "ours.pt", alphabet)
    assert export(ours, "fairseq", tmp_path / "fairseq.pt") == 0
    theirs = load_model(tmp_path / "fairseq.pt", task="language_modeling")
    assert theirs.cfg["task"]["blocks"]["tokens_per_sample"] == 12
    assert all(
        torch.equal(theirs.model.state_dict()[name], tensor)
        for name, tensor in load_model(ours).model.state_dict().items()
    )


@pytest.mark.parametrize("form", ["fairseq", "safetensors"])
def test_an_export_does_not_take_the_place_of_its_checkpoint(
    form: str, plain_world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a run goes on from, its optimizer's state for one, isn't in an export."""
    checkpoint = tmp_path / "checkpoint_last.pt"
    shutil.copy(plain_world.checkpoint, checkpoint)
    before = checkpoint.read_bytes()
    assert export(checkpoint, form, checkpoint) == 2
    assert f"--output {checkpoint} would take the place of {checkpoint}, which is read" in capsys.readouterr().err
    assert checkpoint.read_bytes() == before


def test_safetensors_have_the_weights_and_say_whose(plain_world: World, tmp_path: Path) -> None:
    assert export(plain_world.checkpoint, "safetensors", tmp_path / "a.safetensors") == 0
    weights = safetensors.torch.load_file(tmp_path / "a.safetensors")
    loaded = load_model(plain_world.checkpoint)
    assert all(torch.equal(weights[name], tensor) for name, tensor in loaded.model.state_dict().items())
    with safetensors.safe_open(tmp_path / "a.safetensors", "pt") as file:
        about = json.loads(file.metadata()["seqba"])
    assert about["model"]["arch"] == "transformer_tiny"
    assert about["task_state"]["source_lang"] == "en"


def test_a_folder_of_transformers_has_marians_names(plain_world: World, tmp_path: Path) -> None:
    folder = tmp_path / "marian"
    assert export(plain_world.checkpoint, "transformers", folder, "--data", str(plain_world.data)) == 0
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    size = len(vocabulary)
    assert config["vocab_size"] == size == weights["model.shared.weight"].shape[0]
    assert (vocabulary["</s>"], vocabulary["<unk>"], vocabulary["<s>"], vocabulary["<pad>"]) == (
        0,
        1,
        size - 2,
        size - 1,
    )
    assert config["decoder_start_token_id"] == config["pad_token_id"] == size - 1
    model = load_model(plain_world.checkpoint).model
    positions, start = model.target_embedding.positions, model.output_weight[2] * model.target_embedding.scale
    encoder, decoder = (weights[f"model.{side}.embed_positions.weight"] for side in ("encoder", "decoder"))
    assert torch.equal(encoder[: len(model.source_embedding.positions)], model.source_embedding.positions)
    assert torch.equal(decoder[1 : len(positions)], positions[1:])
    torch.testing.assert_close(decoder[0], positions[0] + start)  # <pad> is zero, and stands for </s> there
    again = load_model(folder).model
    source, previous = torch.tensor([[4, 5, 6, 2]]), torch.tensor([[2, 7, 8]])
    torch.testing.assert_close(again(source, previous), model(source, previous))
    assert (folder / "source.spm").read_bytes() == (plain_world.data / "sentencepiece.model").read_bytes()


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--to", "transformers", "-o", "x"], "--to transformers needs --data"),
        (["--to", "fairseq", "-o", "x", "--data", "bin"], "--to fairseq has no use for --data"),
        (["--to", "fairseq"], "--output is missing"),
        (["-o", "x"], "--to is missing"),
        (["--to", "fairseq", "-o", "absent/x"], "there is no folder absent"),
    ],
)
def test_what_does_not_go_together_is_told(
    more: list[str], told: str, plain_world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(main, [str(plain_world.checkpoint), *more]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"encoder_normalize_before": True}, "this has --encoder-normalize-before"),
        ({"decoder_learned_pos": True}, "no learned positions"),
        ({"decoder_embed_dim": 32}, "one width for both sides"),
    ],
)
def test_a_model_that_marian_cannot_hold_is_told(
    changes: dict[str, Any], told: str, plain_world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = plain_world.write_checkpoint("other.pt", seed=3, options={"share_all_embeddings": False, **changes})
    assert export(checkpoint, "transformers", tmp_path / "x", "--data", str(plain_world.data)) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"first_position": 0}, "fairseq's positions begin at 2"),
        ({"sinusoids": "paper"}, "fairseq's sinusoids have tensor2tensor's rates"),
        ({"start_symbol": "pad"}, "fairseq has no Transformer that starts with padding"),
        ({"output_bias": True}, "or has a bias on its logits"),
    ],
)
def test_a_model_that_fairseq_does_not_have_is_told(
    changes: dict[str, Any], told: str, plain_world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = plain_world.write_checkpoint("other.pt", seed=3, options=changes)
    assert export(checkpoint, "fairseq", tmp_path / "x.pt") == 2
    assert told in capsys.readouterr().err


def test_fairseqs_name_of_an_activation_is_written_and_read(plain_world: World, tmp_path: Path) -> None:
    checkpoint = plain_world.write_checkpoint("silu.pt", seed=3, options={"activation_fn": "silu"})
    assert export(checkpoint, "fairseq", tmp_path / "fairseq.pt") == 0
    written = torch.load(tmp_path / "fairseq.pt", weights_only=False)["args"]
    assert written.activation_fn == "swish"
    assert load_model(tmp_path / "fairseq.pt").cfg["model"]["options"]["activation_fn"] == "silu"
