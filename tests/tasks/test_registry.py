"""The tables of tasks and of families of models: every record works by itself, and names what is there."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from seqba.cli.jobs import eval_lm
from seqba.models.builders import fresh_model
from seqba.models.families import ARCHITECTURES, FAMILIES
from seqba.models.options import TransformerLMOptions
from seqba.tasks.opening import open_task
from seqba.tasks.options import BatchOptions, CriterionOptions
from seqba.tasks.registry import TASKS, VARIANTS
from seqba.tasks.text_options import BlockOptions
from seqba.training.options import ValidationOptions

SIDE = {"layers": 1, "embed_dim": 16, "ffn_embed_dim": 16, "attention_heads": 2}
DECODER = {f"decoder_{name}": size for name, size in SIDE.items()}
TOY_SIZES: dict[str, dict[str, Any]] = {
    "transformer": {**DECODER, **{f"encoder_{name}": size for name, size in SIDE.items()}},
    "transformer_lm": DECODER,
    "awd_lstm": {"decoder_layers": 1, "decoder_embed_dim": 16, "decoder_hidden_size": 16},
    "image_classifier": {},
}
TOY_DATA = {"translation": "reversal", "language_modeling": "alphabet", "image_classification": "pictures"}
TOY_OPTIONS: dict[tuple[str, str], dict[str, Any]] = {
    ("language_modeling", "transformer_lm"): {"tokens_per_sample": 12}
}
PACKED = {"max_tokens": 64}


@pytest.mark.parametrize(("task_name", "family_name"), VARIANTS)
def test_every_variant_opens_on_its_data_and_trains_a_model_of_its_family(
    task_name: str, family_name: str, request: pytest.FixtureRequest
) -> None:
    torch.manual_seed(3)
    variant, family = VARIANTS[task_name, family_name], FAMILIES[family_name]
    options = variant.options(**TOY_OPTIONS.get((task_name, family_name), {}))
    batches = BatchOptions(**({"batch_size": 4} if "max_tokens" in variant.excluded_options else PACKED))
    arch = next(iter(family.architectures))
    config = family.resolve(arch, variant.fit_model(options, family.options(**TOY_SIZES[family_name])))
    data: Path = request.getfixturevalue(TOY_DATA[task_name])
    task = open_task(variant, str(data), options, batches, CriterionOptions(), 1, config)
    assert task.state()["task"] == task_name
    assert task.resized(batches).batches == batches

    state = task.state()
    model = fresh_model(arch, config, {name: state[name] for name in family.data_sizes})
    assert all(hasattr(model, method) for method in family.forward_methods)
    batch = task.epoch(1, 1)[0]
    loss, weight, sums = task.loss(model.train(), batch)
    loss.backward()
    assert weight == task.weight(batch)
    assert {"nll", *sums} <= {*TASKS[task_name].metrics}
    if family_name != "image_classifier":
        assert family.width(config) == 16


@pytest.mark.parametrize("name", TASKS)
def test_a_task_names_what_there_is(name: str) -> None:
    spec = TASKS[name]
    assert spec.variants.keys() <= FAMILIES.keys()
    assert ARCHITECTURES[spec.default_arch] in spec.variants
    (choices,) = (
        field.metadata["choices"]
        for field in dataclasses.fields(ValidationOptions)
        if field.name == "best_checkpoint_metric"
    )
    assert set(spec.metrics) <= set(choices)
    scripts = Path(__file__).parents[2].joinpath("pyproject.toml").read_text(encoding="utf-8")
    assert f"\n{spec.reader} = " in scripts


def test_every_metric_and_every_family_is_some_tasks() -> None:
    metrics = {metric for spec in TASKS.values() for metric in spec.metrics}
    assert metrics == {"loss", "nll", "ppl", "bleu", "top1", "top5"}
    assert {family for _, family in VARIANTS} == FAMILIES.keys()
    groups = [variant.group for variant in VARIANTS.values()]
    assert len(set(groups)) == len(groups)


@pytest.mark.parametrize(("task_name", "family_name"), VARIANTS)
def test_a_variant_names_options_that_there_are(task_name: str, family_name: str) -> None:
    variant, family = VARIANTS[task_name, family_name], FAMILIES[family_name]
    every_run = (BatchOptions, CriterionOptions)
    assert set(variant.excluded_options) <= names_of(*every_run)
    assert {*variant.update_defining, *variant.weight_moving} <= names_of(variant.options)
    for kind in (*variant.groups.values(), family.options):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(kind(), next(iter(names_of(kind)), "any"), None)
        assert all("help" in field.metadata for field in dataclasses.fields(kind))


def test_a_language_models_positions_are_its_datas_unless_given() -> None:
    variant, family = VARIANTS["language_modeling", "transformer_lm"], FAMILIES["transformer_lm"]
    blocks = BlockOptions(tokens_per_sample=127, add_bos_token=True)
    for given, expected in ((None, 128), (64, 64)):
        options = variant.fit_model(blocks, TransformerLMOptions(max_target_positions=given, decoder_layers=2))
        config = family.resolve("transformer_lm", options)
        assert (config.max_target_positions, config.decoder_layers, config.decoder_embed_dim) == (expected, 2, 512)


def test_every_family_of_language_models_is_evaluated() -> None:
    assert eval_lm.SCORE_BY_FAMILY.keys() == TASKS["language_modeling"].variants.keys()


def names_of(*kinds: type) -> set[str]:
    return {field.name for kind in kinds for field in dataclasses.fields(kind)}
