"""A Marian folder at every command: its text, translations, a fine-tuning with copies, and the way back."""

from __future__ import annotations

import io
import json
import math
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")
pytest.importorskip("transformers", minversion="5", reason="compares with transformers; pip install -e .[transformers]")

import marian_folders as marian
import safetensors.torch
from marian_folders import MarianFolder
from transformers import MarianMTModel, MarianTokenizer
from translation_world import World

import seqba
from seqba.checkpoints.file import read_checkpoint, write_checkpoint
from seqba.checkpoints.model import load_model
from seqba.cli.average_checkpoints import main as average
from seqba.cli.command import run
from seqba.cli.eval_lm import main as evaluate
from seqba.cli.export import main as export
from seqba.cli.generate import main as generate
from seqba.cli.interactive import main as interact
from seqba.cli.preprocess import main as preprocess
from seqba.cli.train import main as train
from seqba.data.marian import read_marian_text
from seqba.models.transformer import Transformer
from seqba.tasks.options import BatchOptions, CriterionOptions
from seqba.tasks.text_options import TranslationOptions
from seqba.tasks.translation import Translation
from seqba.training.folder import LAST

SEARCH = ("--cpu", "--beam", "4", "--max-len-b", "50")


@pytest.fixture(scope="module")
def opus(tmp_path_factory: pytest.TempPathFactory) -> MarianFolder:
    """A trained folder of two vocabularies; read only."""
    folder = tmp_path_factory.mktemp("opus") / "opus"
    return marian.write_marian(folder, seed=3, steps=60, **marian.FORMS["two vocabularies"])


@pytest.fixture(scope="module")
def data(opus: MarianFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data-bin of its vocabularies."""
    folder = tmp_path_factory.mktemp("text")
    write_text(folder)
    assert run(preprocess, arguments(opus.path, folder)) == 0
    return folder / "bin"


def write_text(folder: Path) -> None:
    for split, count in (("train", 40), ("valid", 10), ("test", 20)):
        for language in ("en", "de"):
            lines = marian.sentences(language, count, seed=count)
            (folder / f"{split}.{language}").write_text("\n".join(lines) + "\n", encoding="utf-8")


def arguments(model: Path, folder: Path, *more: str) -> list[str]:
    splits = [f"--{split}pref={folder / split}" for split in ("train", "valid", "test")]
    return ["--from-model", str(model), "-s", "en", "-t", "de", *splits, f"--destdir={folder / 'bin'}", *more]


def fine_tuning(data: Path, opus: Path, save_dir: Path, *more: str) -> list[str]:
    return [
        *(str(data), "--finetune-from-model", str(opus), "--save-dir", str(save_dir), "--cpu", "--log-format", "json"),
        *("--max-update", "1", "--max-tokens", "4000", "--optimizer", "sgd", "--lr-scheduler", "fixed", "--lr", "0.5"),
        *("--log-interval", "1", *more),
    ]


def open_task(data: Path) -> Translation:
    batches = BatchOptions(max_tokens=4000)
    return Translation(str(data), TranslationOptions(), batches, CriterionOptions(), seed=1, max_positions=(64, 64))


def translations(output: str) -> list[tuple[str, str]]:
    return re.findall(r"^D-(\d+)\t\S+\t(.*)$", output, re.MULTILINE)


def test_a_data_bin_is_of_the_models_ids(opus: MarianFolder, data: Path) -> None:
    text = read_marian_text(opus.path)
    for language, side in (("en", text.source), ("de", text.target)):
        lines = (data / f"dict.{language}.txt").read_text(encoding="utf-8").splitlines()
        assert [line.rsplit(" ", 1)[0] for line in lines] == side.dictionary.symbols[4:]
    assert (data / "sentencepiece.en.model").read_bytes() == (opus.path / "source.spm").read_bytes()
    assert (data / "sentencepiece.de.model").read_bytes() == (opus.path / "target.spm").read_bytes()
    task = open_task(data)
    batch = task.validation("test").examples.batch(np.arange(20))
    expected = opus.tokenizer(
        marian.sentences("en", 20, seed=20), text_target=marian.sentences("de", 20, seed=20), padding=True
    )
    for ours, ids, theirs in (
        (batch.source, text.source.their_ids, expected["input_ids"]),
        (batch.target, text.target.their_ids, expected["labels"]),
    ):
        assert ids[ours.numpy()].tolist() == theirs


def test_text_is_translated_with_the_folder_alone(
    opus: MarianFolder, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same lines without a data-bin, with one, and from transformers, which cuts off what doesn't end."""
    lines = marian.sentences("en", 20, seed=20)
    outcomes = []
    for given in ([], [str(data)], [str(opus.path)]):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\n".join(lines).encode())))
        assert run(interact, [*given, "--path", str(opus.path), *SEARCH]) == 0
        outcomes.append(translations(capsys.readouterr().out))
    assert len(outcomes[0]) == 20
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert run(generate, [str(data), "--path", str(opus.path), *SEARCH]) == 0
    assert dict(translations(capsys.readouterr().out)) == dict(outcomes[0])
    inputs = opus.tokenizer(lines, return_tensors="pt", padding=True)
    search = {"num_beams": 4, "early_stopping": True, "max_length": 52, "forced_eos_token_id": None}
    found = opus.model.generate(**inputs, **search)
    ended = [number for number, line in enumerate(found.tolist()) if 0 in line]
    assert len(ended) > 10
    expected = opus.tokenizer.batch_decode(found, skip_special_tokens=True)
    assert [outcomes[0][number][1] for number in ended] == [expected[number] for number in ended]


def test_a_language_is_named_in_the_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opus = marian.write_marian(tmp_path / "opus", codes=True)
    write_text(tmp_path)
    lines = [">>nld<< one two", ">>deu<<three", ">>fra<< four", "five >>deu<<"]
    (tmp_path / "test.en").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (tmp_path / "test.de").write_text("eins\n" * 4, encoding="utf-8")
    assert run(preprocess, arguments(opus.path, tmp_path, "--workers", "2")) == 0
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\n".join(lines).encode())))
    capsys.readouterr()
    assert run(interact, ["--path", str(opus.path), *SEARCH]) == 0
    sources = re.findall(r"^S-\d\t(.*)$", capsys.readouterr().out, re.MULTILINE)
    assert sources[0] == ">>nld<< ▁one ▁two"
    assert sources[1].startswith(">>deu<< ▁three")
    assert not any(source.startswith(">>") for source in sources[2:])
    assert run(generate, [str(tmp_path / "bin"), "--path", str(opus.path), *SEARCH]) == 0
    found = dict(re.findall(r"^S-(\d)\t(.*)$", capsys.readouterr().out, re.MULTILINE))
    texts = [source.replace(" ", "").replace("▁", " ").strip() for source in sources]
    assert [found[str(number)] for number in range(4)] == texts


def test_an_update_of_four_copies_is_merged_gradients(
    opus: MarianFolder, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The options of the model are the folder's own; dropout given on the command line goes before."""
    command = fine_tuning(data, opus.path, tmp_path / "run", "--copies", "4", "--dropout", "0.2")
    assert run(train, command) == 0
    tuned = read_checkpoint(tmp_path / "run" / LAST)
    loaded = load_model(opus.path, overrides={"dropout": 0.2})
    options = {**loaded.cfg["model"]["options"], "dropout": 0.2}
    assert tuned["cfg"]["model"] == {"arch": "transformer", "options": options}

    task = open_task(data)
    model = loaded.model.train()
    (batch,) = list(task.epoch(1))
    seqba.merged_gradient(
        model, batch, lambda model, batch: task.loss(model, batch)[:2], copies=4, plan="looped", seed=1, update=1
    )
    moved = 0.0
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        expected = parameter.detach() - 0.5 * parameter.grad
        torch.testing.assert_close(tuned["model"][name], expected, atol=1e-6, rtol=1e-5)
        moved = max(moved, float(parameter.grad.abs().max()))
    assert moved > 0.1
    caplog.set_level("INFO")
    assert run(train, command) == 0  # the same command finds the run where it ended
    assert "going on from" in caplog.text


@pytest.mark.filterwarnings("ignore:nothing drew noise")
def test_a_fine_tuning_begins_with_the_models_loss(
    opus: MarianFolder, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(train, fine_tuning(data, opus.path, tmp_path / "run", "--copies", "4", "--dropout", "0.0")) == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    first = next(line for line in lines if line.get("event", "train") == "train" and "loss" in line)
    inputs = opus.tokenizer(
        marian.sentences("en", 40, seed=40),
        text_target=marian.sentences("de", 40, seed=40),
        return_tensors="pt",
        padding=True,
    )
    labels = inputs.labels.masked_fill(inputs.labels == opus.tokenizer.pad_token_id, -100)
    with torch.no_grad():
        theirs = opus.model(input_ids=inputs.input_ids, attention_mask=inputs.attention_mask, labels=labels).loss
    assert first["loss"] == pytest.approx(float(theirs), abs=2e-3)


@pytest.mark.parametrize("form", marian.FORMS)
def test_what_was_read_is_written_as_it_was(form: str, tmp_path: Path) -> None:
    opus = marian.write_marian(tmp_path / "opus", **marian.FORMS[form])
    out = tmp_path / "out"
    command = [str(opus.path), "--to", "transformers", "--output", str(out), "--data", str(opus.path)]
    assert run(export, command) == 0
    before, after = (safetensors.torch.load_file(folder / "model.safetensors") for folder in (opus.path, out))
    if not opus.model.config.tie_word_embeddings or not opus.model.config.share_encoder_decoder_embeddings:
        before.setdefault("lm_head.weight", before["model.decoder.embed_tokens.weight"])
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    for name in ("vocab.json", "target_vocab.json", "source.spm", "target.spm"):
        if (opus.path / name).exists() and name.endswith("json"):
            assert json.loads((opus.path / name).read_bytes()) == json.loads((out / name).read_bytes())
        elif (opus.path / name).exists():
            assert (opus.path / name).read_bytes() == (out / name).read_bytes()
    config = json.loads((out / "config.json").read_bytes())
    theirs = opus.model.config.to_dict()
    same = ("vocab_size", "pad_token_id", "eos_token_id", "decoder_start_token_id", "activation_function")
    assert [config[name] for name in same] == [theirs[name] for name in same]


def test_a_tuned_model_is_transformers_again(opus: MarianFolder, data: Path, tmp_path: Path) -> None:
    assert run(train, fine_tuning(data, opus.path, tmp_path / "run", "--copies", "2")) == 0
    checkpoint, out = tmp_path / "run" / LAST, tmp_path / "out"
    assert run(export, [str(checkpoint), "--to", "transformers", "--output", str(out), "--data", str(data)]) == 0
    theirs, tokenizer = MarianMTModel.from_pretrained(out).eval(), MarianTokenizer.from_pretrained(out)
    ours = load_model(checkpoint).model
    assert isinstance(ours, Transformer)
    ids = torch.from_numpy(read_marian_text(out).target.their_ids)
    source = tokenizer(["one two house."], return_tensors="pt").input_ids
    lines = torch.tensor([[2, 9, 11, 30]])
    read = torch.cat([torch.tensor([[theirs.config.decoder_start_token_id]]), ids[lines[:, 1:]]], dim=1)
    own = {int(number): place for place, number in enumerate(read_marian_text(out).source.their_ids)}
    with torch.no_grad():
        expected = theirs(input_ids=source, decoder_input_ids=read).logits[0][:, ids[1:]]
        logits = ours(torch.tensor([[own[int(number)] for number in source[0]]]), lines)[0, :, 1:]
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


def test_a_plain_model_comes_back_from_transformers_form(plain_world: World, tmp_path: Path) -> None:
    """The folder that other models of ours get, whose table of positions is in its weights."""
    out = tmp_path / "out"
    command = [
        str(plain_world.checkpoint),
        "--to",
        "transformers",
        "--output",
        str(out),
        "--data",
        str(plain_world.data),
    ]
    assert run(export, command) == 0
    before, after = load_model(plain_world.checkpoint), load_model(out)
    weights = after.model.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in before.model.state_dict().items())
    assert len(weights) == len(before.model.state_dict())
    assert after.task_state["source_dictionary_sha256"] == before.task_state["source_dictionary_sha256"]


def test_other_commands_say_what_it_is_not_for(
    opus: MarianFolder, alphabet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(evaluate, [str(alphabet), "--path", str(opus.path), "--cpu"]) == 2
    assert "is of translation: use seqba-generate" in capsys.readouterr().err
    assert run(export, [str(opus.path), "--to", "fairseq", "--output", str(tmp_path / "x.pt")]) == 2
    assert "fairseq's positions begin at 2" in capsys.readouterr().err
    assert run(average, ["--inputs", str(opus.path), str(opus.path), "--output", str(tmp_path / "mean.pt")]) == 0
    mean, own = load_model(tmp_path / "mean.pt").model.state_dict(), load_model(opus.path).model.state_dict()
    assert all(torch.equal(own[name], mean[name]) for name in own)


def test_mistakes_are_one_line(
    opus: MarianFolder, data: Path, reversal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_text(tmp_path)

    def told(main: Callable[[Sequence[str]], int], *given: str) -> str:
        capsys.readouterr()
        assert run(main, list(given)) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        return error

    checkpoint = tmp_path / "seqba.pt"
    write_checkpoint(checkpoint, read_checkpoint(opus.path))
    assert "DATA is missing" in told(interact, "--path", str(checkpoint), "--cpu")
    assert "was trained with another dictionary" in told(generate, str(reversal), "--path", str(opus.path), "--cpu")
    assert "--from-model takes dictionaries" in told(preprocess, *arguments(opus.path, tmp_path, "--joined-dictionary"))
    assert "needs --source-lang and --target-lang" in told(preprocess, "--from-model", str(opus.path), "--only-source")
    assert "holds a SentencePiece model of a Marian folder" in told(
        preprocess,
        *("-s", "en", "-t", "de", "--testpref", str(tmp_path / "test"), "--destdir", str(data)),
        *("--srcdict", str(data / "dict.en.txt"), "--tgtdict", str(data / "dict.de.txt")),
    )
    assert "config.json does not exist" in told(preprocess, *arguments(tmp_path, tmp_path))
    wrong = fine_tuning(data, opus.path, tmp_path / "run", "--encoder-layers", "1")
    assert "can't go on with --encoder-layers 1 (it had 2)" in told(train, *wrong)
    other = fine_tuning(reversal, opus.path, tmp_path / "run")
    assert "was trained on other data" in told(train, *other)


def test_references_have_transformers_scores(
    opus: MarianFolder, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(generate, [str(data), "--path", str(opus.path), "--cpu", "--score-reference"]) == 0
    scores = dict(re.findall(r"^H-(\d+)\t(\S+)\t", capsys.readouterr().out, re.MULTILINE))
    for number, (source, target) in enumerate(
        zip(marian.sentences("en", 20, seed=20), marian.sentences("de", 20, seed=20), strict=True)
    ):
        inputs = opus.tokenizer(source, text_target=target, return_tensors="pt")
        with torch.no_grad():
            loss = opus.model(input_ids=inputs.input_ids, labels=inputs.labels).loss
        assert float(scores[str(number)]) * math.log(2) == pytest.approx(-float(loss), abs=1e-4)


def test_validation_translates_to_plain_text(
    opus: MarianFolder, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    bleu = ("--eval-bleu", "--eval-bleu-print-samples", "--eval-bleu-args", '{"max_len_b": 30}')
    assert run(train, fine_tuning(data, opus.path, tmp_path / "run", *bleu)) == 0
    references = re.findall(r"example reference:   (.*)", caplog.text)
    assert references
    assert set(references) <= set(marian.sentences("de", 10, seed=10))
