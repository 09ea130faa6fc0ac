from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from reversal import write_reversal
from torch import nn
from torch.nn import functional

from seqba.errors import UserError
from seqba.models.builders import build_transformer
from seqba.models.families import resolve_transformer
from seqba.models.options import TransformerOptions
from seqba.models.transformer import Transformer
from seqba.tasks.options import BatchOptions, CriterionOptions
from seqba.tasks.text_options import TranslationOptions
from seqba.tasks.translation import Translation


def open_task(data: Path | str, **options: Any) -> Translation:
    batches = {"max_tokens": 60, **{name: value for name, value in options.items() if name in BATCH_FIELDS}}
    criterion = {name: value for name, value in options.items() if name in CRITERION_FIELDS}
    languages = {name: value for name, value in options.items() if name in ("source_lang", "target_lang")}
    return Translation(
        str(data),
        TranslationOptions(**languages),
        BatchOptions(**batches),
        CriterionOptions(**criterion),
        seed=options.get("seed", 1),
        max_positions=(options.get("positions", 1024), options.get("positions", 1024)),
    )


BATCH_FIELDS = set(BatchOptions.__dataclass_fields__)
CRITERION_FIELDS = set(CriterionOptions.__dataclass_fields__)


@pytest.fixture
def model() -> Transformer:
    torch.manual_seed(1)
    options = resolve_transformer(
        "transformer_tiny", TransformerOptions(encoder_layers=1, decoder_layers=1, dropout=0.0)
    )
    return build_transformer(options, 16, 16)


def rows_of(planned: Any) -> list[list[int]]:
    return [planned[number].ids.tolist() for number in range(len(planned))]


def pairs_of(planned: Any) -> list[int]:
    return sorted(row for rows in rows_of(planned) for row in rows)


def test_languages_come_from_the_file_names(reversal: Path) -> None:
    for options, expected in (
        ({}, ("xx", "yy")),
        ({"source_lang": "yy"}, ("yy", "xx")),
        ({"target_lang": "xx"}, ("yy", "xx")),
        ({"source_lang": "xx", "target_lang": "yy"}, ("xx", "yy")),
    ):
        task = open_task(reversal, **options)
        assert (task.source_lang, task.target_lang) == expected


def test_an_epoch_has_every_pair_once_in_an_order_of_its_own(reversal: Path) -> None:
    task = open_task(reversal)
    first, again, second = rows_of(task.epoch(1)), rows_of(open_task(reversal).epoch(1)), rows_of(task.epoch(2))
    assert first == again
    assert first != second
    assert first != rows_of(open_task(reversal, seed=2).epoch(1))
    assert pairs_of(task.epoch(1)) == pairs_of(task.epoch(2)) == list(range(400))


@pytest.mark.parametrize("options", [{"max_tokens": 60}, {"max_tokens": None, "batch_size": 10}])
def test_micro_batches_keep_to_their_budget(options: dict[str, Any], reversal: Path) -> None:
    planned = open_task(reversal, **options).epoch(1)
    for number in range(len(planned)):
        batch = planned[number]
        assert max(batch.source.numel(), batch.target.numel()) <= 60 or options["max_tokens"] is None
        assert len(batch.ids) <= 10 or "batch_size" not in options


def test_the_loss_equals_torchs_cross_entropy(reversal: Path, model: Transformer) -> None:
    # fairseq spreads ε over the V − 1 other words, torch over all V: the same for ε' = ε · V / (V − 1).
    task = open_task(reversal, criterion="label_smoothed_cross_entropy", label_smoothing=0.1)
    batch = task.epoch(1)[0]
    loss, weight, extras = task.loss(model, batch)
    logits = model(batch.source, batch.previous).flatten(0, 1)
    expected = functional.cross_entropy(
        logits, batch.target.flatten(), ignore_index=1, label_smoothing=0.1 * 16 / 15, reduction="sum"
    )
    nll = functional.cross_entropy(logits, batch.target.flatten(), ignore_index=1, reduction="sum")
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert extras["nll"].item() == pytest.approx(nll.item(), rel=1e-5)
    assert weight == task.weight(batch) == task.count(batch) == int((batch.target != 1).sum())


def test_without_smoothing_loss_and_nll_are_one(reversal: Path, model: Transformer) -> None:
    task = open_task(reversal)
    loss, _, extras = task.loss(model, task.epoch(1)[0])
    assert loss.item() == extras["nll"].item()


def test_sentence_avg_weighs_by_sentences_and_counts_tokens_all_the_same(reversal: Path, model: nn.Module) -> None:
    task = open_task(reversal, sentence_avg=True)
    batch = task.epoch(1)[0]
    assert task.loss(model, batch)[1] == task.weight(batch) == len(batch.ids)
    assert task.count(batch) == int((batch.target != 1).sum())


def test_validation_is_the_same_at_every_call_and_sorted(reversal: Path) -> None:
    planned = open_task(reversal).validation("valid")
    assert pairs_of(planned) == list(range(40))
    lengths = [planned[number].target.shape[1] for number in range(len(planned))]
    assert lengths == sorted(lengths)
    assert rows_of(planned) == rows_of(open_task(reversal, seed=9).validation("valid"))


def test_validation_has_its_own_budget(reversal: Path) -> None:
    usual, larger = open_task(reversal).validation("valid"), open_task(reversal, max_tokens_valid=600)
    assert len(larger.validation("valid")) < len(usual)
    single = open_task(reversal, batch_size_valid=1).validation("valid")
    assert len(single) == 40


def test_overlong_training_pairs_are_named_and_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    task = open_task(write_reversal(tmp_path, long_line=30), positions=20, skip_invalid_size_inputs_valid_test=True)
    with caplog.at_level(logging.WARNING):
        pairs = pairs_of(task.epoch(1))
        task.epoch(2)
    assert pairs == list(range(1, 400))
    (record,) = caplog.records  # once, not at every epoch
    assert "1 pairs longer than 20 source or 20 target tokens (lines 0, from 0)" in record.getMessage()


def test_a_line_beyond_max_tokens_is_overlong_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    task = open_task(write_reversal(tmp_path, long_line=70), max_tokens=60)
    with caplog.at_level(logging.WARNING):
        assert pairs_of(task.epoch(1)) == list(range(1, 400))
    assert "longer than 60 source" in caplog.text


def test_overlong_validation_pairs_are_refused_unless_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_reversal(tmp_path, long_line=30)
    with pytest.raises(UserError, match=r"1 pairs longer .* of valid .*--skip-invalid-size-inputs-valid-test"):
        open_task(tmp_path, positions=20).validation("valid")
    task = open_task(tmp_path, positions=20, skip_invalid_size_inputs_valid_test=True)
    with caplog.at_level(logging.WARNING):
        assert pairs_of(task.validation("valid")) == list(range(1, 40))
    assert "left out" in caplog.text


def test_nothing_that_fits_is_told(reversal: Path) -> None:
    with pytest.raises(UserError, match="no training pair that fits"):
        open_task(reversal, positions=1).epoch(1)
    with pytest.raises(UserError, match="no pair to validate on"):
        open_task(reversal, positions=1, skip_invalid_size_inputs_valid_test=True).validation("valid")


def test_parts_of_the_data_take_turns(tmp_path: Path) -> None:
    for name, count in (("a", 30), ("b", 50)):
        write_reversal(tmp_path / name, splits={"train": count, "valid": count // 10})
    task = open_task(f"{tmp_path / 'a'}:{tmp_path / 'b'}")
    assert [sum(map(len, rows_of(task.epoch(epoch)))) for epoch in (1, 2, 3)] == [30, 50, 30]
    assert sum(map(len, rows_of(task.validation("valid")))) == 3


def test_parts_with_other_dictionaries_are_refused(tmp_path: Path) -> None:
    for name in "ab":
        write_reversal(tmp_path / name)
    (tmp_path / "b" / "dict.yy.txt").write_text("z 1\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"b/dict\.yy\.txt differs"):
        open_task(f"{tmp_path / 'a'}:{tmp_path / 'b'}").epoch(2)


def test_train1_belongs_to_train(tmp_path: Path) -> None:
    write_reversal(tmp_path)
    for side in ("xx", "yy"):
        for kind in ("idx", "bin"):
            shutil.copy(tmp_path / f"valid.xx-yy.{side}.{kind}", tmp_path / f"train1.xx-yy.{side}.{kind}")
    assert sum(map(len, rows_of(open_task(tmp_path).epoch(1)))) == 440


def test_another_train_subset(reversal: Path) -> None:
    assert sum(map(len, rows_of(open_task(reversal, train_subset="test").epoch(1)))) == 40


def test_a_missing_data_bin_or_split_is_told(tmp_path: Path, reversal: Path) -> None:
    with pytest.raises(UserError, match="there is no data-bin"):
        open_task(tmp_path / "absent")
    with pytest.raises(UserError, match="no data-bin is given"):
        open_task("")
    with pytest.raises(UserError, match="nowhere"):
        open_task(reversal).validation("nowhere")


def test_the_state_tells_dictionaries_apart(reversal: Path, tmp_path: Path) -> None:
    state = open_task(reversal).state()
    assert (state["source_lang"], state["target_vocabulary"]) == ("xx", 16)
    other = write_reversal(tmp_path)
    lines = (other / "dict.yy.txt").read_text(encoding="utf-8").splitlines()
    (other / "dict.yy.txt").write_text("\n".join(lines[::-1]) + "\n", encoding="utf-8")
    changed = open_task(other).state()
    assert [name for name in state if state[name] != changed[name]] == ["target_dictionary_sha256"]


def test_texts_are_mixed_by_their_weights(tmp_path: Path) -> None:
    data = write_reversal(tmp_path / "bin", splits={"train": 20, "train1": 30, "valid": 2})
    task = open_task(data, weights=(2.0, 0.5))
    first, second = pairs_of(task.epoch(1)), pairs_of(task.epoch(2))
    twice = [row for row in range(20) for _ in range(2)]
    assert first[:40] == second[:40] == twice
    assert sorted(first[40:] + second[40:]) == list(range(20, 50))  # the fraction takes turns
    assert rows_of(task.epoch(1)) == rows_of(open_task(data, weights=(2.0, 0.5)).epoch(1))
    assert rows_of(open_task(data, weights=(1.0, 1.0)).epoch(3)) == rows_of(open_task(data).epoch(3))
    with pytest.raises(UserError, match=r"epoch 1 has no pair: raise --weights"):
        open_task(data, weights=(0.001, 0.001)).epoch(1)
