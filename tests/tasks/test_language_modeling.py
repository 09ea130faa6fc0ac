from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from alphabet import LETTERS, write_alphabet
from reversal import write_reversal
from torch.nn import functional

import seqba
from seqba.errors import UserError
from seqba.models.config import DecoderConfig
from seqba.models.transformer_lm import TransformerLM
from seqba.tasks.language_modeling import LanguageModeling
from seqba.tasks.options import BatchOptions, CriterionOptions
from seqba.tasks.text_options import BlockOptions

FIELDS = {kind: set(kind.__dataclass_fields__) for kind in (BlockOptions, BatchOptions, CriterionOptions)}


def open_task(data: Path | str, **options: Any) -> LanguageModeling:
    given = {"tokens_per_sample": 24, "max_tokens": 100, **options}
    blocks, batches, criterion = (
        kind(**{name: value for name, value in given.items() if name in names}) for kind, names in FIELDS.items()
    )
    positions = options.get("positions", 1024)
    return LanguageModeling(str(data), blocks, batches, criterion, seed=options.get("seed", 1), max_positions=positions)


@pytest.fixture
def model() -> TransformerLM:
    torch.manual_seed(1)
    config = DecoderConfig(
        decoder_layers=1, decoder_embed_dim=16, decoder_ffn_embed_dim=24, decoder_attention_heads=2, dropout=0.0
    )
    return TransformerLM(config, vocabulary=16)


def rows_of(planned: Any) -> list[list[int]]:
    return [planned[number].ids.tolist() for number in range(len(planned))]


def blocks_of(planned: Any) -> list[int]:
    return sorted(row for rows in rows_of(planned) for row in rows)


def test_an_epoch_has_every_block_once_in_an_order_of_its_own(alphabet: Path) -> None:
    task = open_task(alphabet)
    first, again, second = rows_of(task.epoch(1)), rows_of(open_task(alphabet).epoch(1)), rows_of(task.epoch(2))
    assert first == again
    assert first != second
    assert first != rows_of(open_task(alphabet, seed=2).epoch(1))
    assert blocks_of(task.epoch(1)) == blocks_of(task.epoch(2)) == list(range(len(task.epoch(1).examples)))
    assert rows_of(task.epoch(1, 4)) == first


def test_the_whole_text_is_predicted_once_in_an_epoch(alphabet: Path) -> None:
    planned = open_task(alphabet).epoch(1)
    tokens = sum(open_task(alphabet).count(planned[number]) for number in range(len(planned)))
    assert tokens == planned.examples.corpus.tokens


@pytest.mark.parametrize("mode", ["none", "eos"])
@pytest.mark.parametrize("options", [{"max_tokens": 100}, {"max_tokens": None, "batch_size": 3}])
def test_micro_batches_keep_to_their_budget(mode: str, options: dict[str, Any], alphabet: Path) -> None:
    planned = open_task(alphabet, sample_break_mode=mode, **options).epoch(1)
    for number in range(len(planned)):
        batch = planned[number]
        assert batch.previous.numel() <= (options["max_tokens"] or 1 << 20)
        assert len(batch.ids) <= options.get("batch_size", 1 << 20)


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("mode", ["none", "eos"])
def test_the_loss_equals_torchs_cross_entropy(bos: bool, mode: str, alphabet: Path, model: TransformerLM) -> None:
    task = open_task(
        alphabet,
        sample_break_mode=mode,
        add_bos_token=bos,
        criterion="label_smoothed_cross_entropy",
        label_smoothing=0.1,
    )
    batch = task.epoch(1)[0]
    loss, weight, extras = task.loss(model, batch)
    logits, target = model(batch.previous).flatten(0, 1), batch.target.flatten()
    expected = functional.cross_entropy(logits, target, ignore_index=1, label_smoothing=0.1 * 16 / 15, reduction="sum")
    nll = functional.cross_entropy(logits, target, ignore_index=1, reduction="sum")
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert extras["nll"].item() == pytest.approx(nll.item(), rel=1e-5)
    assert weight == task.weight(batch) == task.count(batch) == int((batch.target != 1).sum())
    assert task.learning_rate_factor(batch) == 1


def test_sentence_avg_weighs_by_blocks_and_counts_tokens_all_the_same(alphabet: Path, model: TransformerLM) -> None:
    task = open_task(alphabet, sentence_avg=True)
    batch = task.epoch(1)[0]
    assert task.loss(model, batch)[1] == task.weight(batch) == len(batch.ids)
    assert task.count(batch) == int((batch.target != 1).sum())


@pytest.mark.parametrize("bos", [False, True])
def test_the_tasks_gradient_does_not_depend_on_the_plan(bos: bool, alphabet: Path) -> None:
    torch.manual_seed(1)
    config = DecoderConfig(decoder_layers=1, decoder_embed_dim=16, decoder_attention_heads=2, attention_dropout=0.1)
    model = TransformerLM(config, vocabulary=16)
    task = open_task(alphabet, add_bos_token=bos)
    batch = task.epoch(1)[0]

    def gradient(plan: Any) -> torch.Tensor:
        model.zero_grad()
        loss = lambda model, batch: task.loss(model, batch)[:2]  # noqa: E731
        seqba.merged_gradient(model, batch, loss, copies=3, plan=plan, update=5)
        return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])

    stacked = gradient("stacked")
    assert ((gradient("looped") - stacked).norm() / stacked.norm()).item() < 1e-5


def test_validation_is_the_same_at_every_call_and_sorted(alphabet: Path) -> None:
    planned = open_task(alphabet, sample_break_mode="eos").validation("valid")
    assert blocks_of(planned) == list(range(40))
    lengths = [planned[number].target.shape[1] for number in range(len(planned))]
    assert lengths == sorted(lengths)
    assert rows_of(planned) == rows_of(open_task(alphabet, sample_break_mode="eos", seed=9).validation("valid"))


def test_validation_has_its_own_budget(alphabet: Path) -> None:
    usual, larger = open_task(alphabet), open_task(alphabet, max_tokens_valid=600)
    assert len(larger.validation("valid")) < len(usual.validation("valid"))
    single = open_task(alphabet, batch_size_valid=1).validation("valid")
    assert len(single) == len(single.examples)


def test_overlong_training_lines_are_named_and_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    task = open_task(write_alphabet(tmp_path, long_line=30), sample_break_mode="eos", positions=20)
    with caplog.at_level(logging.WARNING):
        blocks = blocks_of(task.epoch(1))
        task.epoch(2)
    assert blocks == list(range(1, 400))
    (record,) = caplog.records  # once, not at every epoch
    assert "1 lines longer than 20 tokens (lines 0, from 0)" in record.getMessage()


def test_overlong_validation_lines_are_refused_unless_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_alphabet(tmp_path, long_line=30)
    options: dict[str, Any] = {"sample_break_mode": "eos", "positions": 20}
    with pytest.raises(UserError, match=r"1 lines longer .* of valid .*--skip-invalid-size-inputs-valid-test"):
        open_task(tmp_path, **options).validation("valid")
    task = open_task(tmp_path, **options, skip_invalid_size_inputs_valid_test=True)
    with caplog.at_level(logging.WARNING):
        assert blocks_of(task.validation("valid")) == list(range(1, 40))
    assert "left out" in caplog.text


def test_a_long_line_is_no_matter_to_blocks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    task = open_task(write_alphabet(tmp_path, long_line=300), positions=24)
    with caplog.at_level(logging.WARNING):
        task.epoch(1)
        task.validation("valid")
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"positions": 23}, "--tokens-per-sample 24 makes rows of 24 tokens, more than --max-target-positions 23"),
        ({"max_tokens": 20}, "--tokens-per-sample 24 makes rows of 24 tokens, more than --max-tokens 20"),
        ({"max_tokens_valid": 20}, "more than --max-tokens-valid 20"),
        ({"positions": 24, "add_bos_token": True}, "--tokens-per-sample 24 and <s> makes rows of 25 tokens"),
    ],
)
def test_blocks_that_nothing_can_hold_are_refused(options: dict[str, Any], message: str, alphabet: Path) -> None:
    with pytest.raises(UserError, match=message):
        open_task(alphabet, **options)


def test_nothing_that_fits_is_told(alphabet: Path) -> None:
    options: dict[str, Any] = {"sample_break_mode": "eos", "positions": 1}
    with pytest.raises(UserError, match="no training line that fits"):
        open_task(alphabet, **options).epoch(1)
    with pytest.raises(UserError, match="no line to validate on"):
        open_task(alphabet, **options, skip_invalid_size_inputs_valid_test=True).validation("valid")


def test_parts_of_the_data_take_turns(tmp_path: Path) -> None:
    for name, count in (("a", 30), ("b", 50)):
        write_alphabet(tmp_path / name, splits={"train": count, "valid": count // 10})
    task = open_task(f"{tmp_path / 'a'}:{tmp_path / 'b'}", sample_break_mode="eos")
    assert [sum(map(len, rows_of(task.epoch(epoch)))) for epoch in (1, 2, 3)] == [30, 50, 30]
    assert sum(map(len, rows_of(task.validation("valid")))) == 3


def test_parts_with_other_dictionaries_are_refused(tmp_path: Path) -> None:
    write_alphabet(tmp_path / "a")
    write_alphabet(tmp_path / "b", letters=LETTERS[::-1])
    with pytest.raises(UserError, match=r"the dictionary of .*b differs from the one of .*a"):
        open_task(f"{tmp_path / 'a'}:{tmp_path / 'b'}").epoch(2)


def test_train1_belongs_to_train(tmp_path: Path) -> None:
    write_alphabet(tmp_path)
    for kind in ("idx", "bin"):
        shutil.copy(tmp_path / f"valid.{kind}", tmp_path / f"train1.{kind}")
    assert sum(map(len, rows_of(open_task(tmp_path, sample_break_mode="eos").epoch(1)))) == 440


def test_data_of_another_kind_is_told(tmp_path: Path, alphabet: Path) -> None:
    with pytest.raises(UserError, match=r"holds sentence pairs \(xx-yy\)"):
        open_task(write_reversal(tmp_path / "pairs"))
    with pytest.raises(UserError, match="there is no data-bin"):
        open_task(tmp_path / "absent")
    with pytest.raises(UserError, match="has no split 'nowhere'"):
        open_task(alphabet).validation("nowhere")


def test_the_state_tells_dictionaries_apart(alphabet: Path, tmp_path: Path) -> None:
    state = open_task(alphabet).state()
    assert (state["task"], state["vocabulary"]) == ("language_modeling", 16)
    changed = open_task(write_alphabet(tmp_path, letters=LETTERS[::-1])).state()
    assert [name for name in state if state[name] != changed[name]] == ["dictionary_sha256"]


@pytest.mark.parametrize("mode", ["none", "eos"])
def test_texts_are_mixed_by_their_weights(mode: str, tmp_path: Path) -> None:
    data = write_alphabet(tmp_path / "bin", splits={"train": 40, "train1": 60, "valid": 2})
    plain = open_task(data, sample_break_mode=mode).epoch(1).examples
    first, everything = int(plain.text_ends[0]), len(plain)
    assert (first, everything) == ((40, 100) if mode == "eos" else (first, everything))
    blocks = blocks_of(open_task(data, sample_break_mode=mode, weights=(3.0, 1.0)).epoch(1))
    assert blocks == [row for row in range(first) for _ in range(3)] + list(range(first, everything))
