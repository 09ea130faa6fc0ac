"""Translator of seqba-generate and seqba-interactive, made of checkpoints and a data-bin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from seqba.checkpoints.model import LoadedModel, load_model
from seqba.cli.jobs.precision import cast_weights
from seqba.cli.jobs.translated_text import open_sides, text_folder, text_forms
from seqba.cli.translator_options import TranslatorChoices
from seqba.data.dictionary import is_described_by
from seqba.data.sides import Side
from seqba.decoding.detokenize import TextForm
from seqba.decoding.ensemble import Ensemble
from seqba.errors import UserError
from seqba.models.prepared import prepared, quantized
from seqba.models.transformer import Transformer
from seqba.nn.kernels.quantized import can_quantize
from seqba.runtime.devices import prepare_device


@dataclass(frozen=True)
class Translator:
    """Models that vote, and both sides' way from text to ids and back."""

    models: tuple[Transformer, ...]
    ensemble: Ensemble
    source: TextForm
    target: TextForm
    languages: tuple[str, str]
    device: torch.device

    @property
    def max_source_positions(self) -> int:
        """Longest source, in tokens, that every model takes; end of sentence counted."""
        return min(model.max_source_positions for model in self.models)

    @property
    def max_target_positions(self) -> int:
        """Longest target, likewise."""
        return self.ensemble.max_target_positions


def load_translator(data: str | None, choices: TranslatorChoices) -> Translator:
    """Loads the models and dictionaries that the flags name, and checks that they belong together.

    Args:
        data: the data-bin with the dictionaries; None for a Marian folder's own.
        choices: models, text and search.

    Raises:
        UserError: for an unreadable file, or files that do not belong together.
    """
    options, text, paths = choices.models, choices.text, choices.paths
    device = prepare_device(cpu=options.cpu)
    if options.int8:
        _check_can_quantize(device)
    torch.manual_seed(choices.search.seed)
    loaded = [load_model(path, device, overrides=choices.overrides, task="translation") for path in paths]
    for path, model in zip(paths, loaded, strict=True):
        _check_is_translation(path, model.task_state)
    folder = text_folder(data, paths)
    sides = open_sides(text, paths[0], loaded[0].task_state, folder)
    languages = (sides[0].language, sides[1].language)
    for path, model in zip(paths, loaded, strict=True):
        _check_belongs(path, model.task_state, sides, folder)
    models = tuple(_transformer_of(each).train(options.retain_dropout) for each in loaded)
    cast_weights(models, device, fp16=options.fp16, bf16=options.bf16)
    models = tuple(quantized(model) if options.int8 else prepared(model) for model in models)
    source, target = text_forms(text, sides, folder)
    ensemble = Ensemble(models, temperature=choices.search.temperature)
    return Translator(models, ensemble, source, target, languages, device)


def _transformer_of(loaded: LoadedModel) -> Transformer:
    if not isinstance(loaded.model, Transformer):
        raise UserError(f"--path names a {loaded.cfg['model']['arch']}, which does not translate")
    return loaded.model


def _check_can_quantize(device: torch.device) -> None:
    if device.type != "cpu":
        raise UserError("--int8 computes on a CPU, and here is a GPU: add --cpu, or take --fp16 in its place")
    if not can_quantize():
        raise UserError(
            "--int8 needs oneDNN's int8 products, which this torch has not for this processor: leave it out"
        )


def _check_is_translation(path: str, task_state: Mapping[str, Any]) -> None:
    for key in ("source_lang", "target_lang", "source_dictionary_sha256", "target_dictionary_sha256"):
        if not isinstance(task_state.get(key, 0), str | None):  # None in one of fairseq, which doesn't say
            raise UserError(f"checkpoint {path} is not of a translation run: its task_state has no {key!r}")


def _check_belongs(
    path: str,
    task_state: Mapping[str, Any],
    sides: tuple[Side, Side],
    folder: Path,
) -> None:
    """Refuses other dictionaries, which would give the model's ids another meaning."""
    theirs = (task_state["source_lang"], task_state["target_lang"])
    languages = (sides[0].language, sides[1].language)
    if theirs not in (languages, (None, None)):
        raise UserError(
            f"the model of {path} translates {theirs[0]} to {theirs[1]}, the first one {languages[0]} to "
            f"{languages[1]}: models that vote must do the same"
        )
    for name, side in zip(("source", "target"), sides, strict=True):
        size, digest = task_state[f"{name}_vocabulary"], task_state[f"{name}_dictionary_sha256"]
        if not is_described_by(side.dictionary, size, digest):
            raise UserError(
                f"checkpoint {path} was trained with another dictionary than {folder / f'dict.{side.language}.txt'}: "
                "give the data-bin it was trained on, or preprocess the text with --srcdict and --tgtdict from there"
            )
