"""Checkpoints for other programs: fairseq's file, a folder of Hugging Face's transformers, and safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seqba.checkpoints.fairseq_names import PAD, their_names
from seqba.checkpoints.model import LoadedModel
from seqba.data.dictionary import Dictionary
from seqba.data.files import atomic_write
from seqba.data.pairs import choose_languages
from seqba.data.subwords import MODEL_NAME, load_subwords
from seqba.errors import UserError
from seqba.extras import needed
from seqba.models.embedding import sinusoids
from seqba.models.transformer import Transformer
from seqba.models.transformer_lm import TransformerLM

OF_FAIRSEQ = {
    "criterion": "label_smoothed_cross_entropy",
    "optimizer": "adam",
    "lr_scheduler": "inverse_sqrt",
    "data": "data-bin",
    "left_pad_source": True,
    "left_pad_target": False,
    "no_token_positional_embeddings": False,
    "adaptive_input": False,
    "adaptive_softmax_cutoff": None,
    "tie_adaptive_weights": False,
}
"""What fairseq asks for beside the model's own options."""


def fairseq_state(loaded: LoadedModel) -> dict[str, Any]:
    """A checkpoint of the form with `args`, which every version of fairseq reads once they are an argparse.Namespace.

    Raises:
        UserError: for a model that fairseq has none of.
    """
    model = loaded.model
    if not isinstance(model, Transformer | TransformerLM):
        raise UserError(f"fairseq has no {loaded.cfg['model']['arch']} that could take these weights")
    options = dict(loaded.cfg["model"]["options"])
    if options.pop("first_position") != PAD + 1 and not _learns_all_positions(options):
        raise UserError(f"fairseq's positions begin at {PAD + 1}, and this model's don't: it would translate otherwise")
    is_lm = isinstance(model, TransformerLM)
    names = ("source_lang", "target_lang")
    task = loaded.cfg["task"].get("blocks", {}) if is_lm else {name: loaded.task_state[name] for name in names}
    args = {
        **OF_FAIRSEQ,
        **options,
        **task,
        "task": "language_modeling" if is_lm else "translation",
        "arch": "transformer_lm" if is_lm else "transformer",
    }
    history = {
        "criterion_name": "LabelSmoothedCrossEntropyCriterion",
        "optimizer_name": "FairseqAdam",
        "lr_scheduler_state": {"best": None},
        "num_updates": loaded.updates,
    }
    return {
        "args": args,
        "model": fairseq_weights(model),
        "optimizer_history": [history],
        "extra_state": {"train_iterator": {"epoch": 1, "iterations_in_epoch": 0}},
        "last_optimizer_state": None,
    }


def fairseq_weights(model: Transformer | TransformerLM) -> dict[str, Tensor]:
    """The model's weights under fairseq's names, as its current version writes them."""
    weights: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        theirs = their_names(name)
        if name.endswith("positions"):  # fairseq's table has a row for each id up to padding's, which nothing reads
            tensor = torch.cat([tensor.new_zeros(PAD + 1, tensor.shape[1]), tensor])
        weights.update(zip(theirs, torch.chunk(tensor, len(theirs)), strict=True))
    weights.setdefault("decoder.output_projection.weight", model.output_weight.detach())
    sides = ("decoder",) if isinstance(model, TransformerLM) else ("encoder", "decoder")
    return {**{f"{side}.version": torch.tensor([3.0]) for side in sides}, **weights}


def write_safetensors(loaded: LoadedModel, path: str | Path) -> None:
    """Writes the weights alone, under seqba's names, with what the model is made of in the file's metadata (JSON)."""
    safetensors = needed("safetensors.torch", "--to safetensors")
    about = {"model": loaded.cfg["model"], "task_state": loaded.task_state, "updates": loaded.updates}
    metadata = {"format": "pt", "seqba": json.dumps(about)}
    weights = {name: tensor.clone().contiguous() for name, tensor in loaded.model.state_dict().items()}
    with atomic_write(path) as file:
        file.write(safetensors.save(weights, metadata))


def write_marian(loaded: LoadedModel, data: Path, folder: Path) -> None:
    """Writes a folder of transformers' Marian form: config, weights, and the tokenizer of the data-bin.

    The table of positions is in the weights, since Marian's own has other rates: what `save_pretrained` of transformers
    writes anew is without it.

    Args:
        loaded: a post-norm Transformer.
        data: the data-bin, whose dictionaries and SentencePiece model become the tokenizer.
        folder: is made if it isn't there.

    Raises:
        UserError: for a model that Marian's form can't hold, or a data-bin without a SentencePiece model.
    """
    safetensors = needed("safetensors.torch", "--to transformers")
    model, options = loaded.model, loaded.cfg["model"]["options"]
    if not isinstance(model, Transformer):
        raise UserError(f"transformers' Marian translates, and a {loaded.cfg['model']['arch']} doesn't")
    _check_is_marian(options)
    languages = choose_languages(data, loaded.task_state["source_lang"], loaded.task_state["target_lang"])
    source, target = (Dictionary.load(data / f"dict.{language}.txt") for language in languages)
    sizes = (loaded.task_state["source_vocabulary"], loaded.task_state["target_vocabulary"])
    if sizes != (len(source), len(target)):
        raise UserError(f"the model was trained with other dictionaries than those of {data}: give its own data-bin")
    subwords = load_subwords(data)
    if subwords is None:
        raise UserError(f"data-bin {data} has no {MODEL_NAME}, which Marian's tokenizer needs")
    folder.mkdir(parents=True, exist_ok=True)
    _write_tokenizer(folder, subwords.model, source, target, languages)
    config = _marian_config(options, len(source), len(target))
    _write_json(folder / "config.json", config)
    ids = {name: config[name] for name in ("pad_token_id", "eos_token_id", "decoder_start_token_id")}
    _write_json(
        folder / "generation_config.json", {**ids, "num_beams": 4, "max_length": config["max_position_embeddings"]}
    )
    with atomic_write(folder / "model.safetensors") as file:
        file.write(safetensors.save(_marian_weights(model, config, options["first_position"]), {"format": "pt"}))


def _learns_all_positions(options: Mapping[str, Any]) -> bool:
    return bool(options["decoder_learned_pos"]) and bool(options.get("encoder_learned_pos", True))


def _check_is_marian(options: Mapping[str, Any]) -> None:
    """Refuses what transformers' Marian hasn't."""
    for name, flag in (
        ("encoder_normalize_before", "--encoder-normalize-before"),
        ("decoder_normalize_before", "--decoder-normalize-before"),
        ("layernorm_embedding", "--layernorm-embedding"),
    ):
        if options[name]:
            raise UserError(f"transformers' Marian is post-norm without normalised embeddings, and this has {flag}")
    if options["encoder_learned_pos"] or options["decoder_learned_pos"]:
        raise UserError("transformers' Marian has no learned positions")
    if options["encoder_embed_dim"] != options["decoder_embed_dim"]:
        raise UserError("transformers' Marian has one width for both sides")


def _marian_config(options: Mapping[str, Any], source: int, target: int) -> dict[str, Any]:
    shared = options["share_all_embeddings"]
    return {
        "model_type": "marian",
        "architectures": ["MarianMTModel"],
        "is_encoder_decoder": True,
        "vocab_size": source,
        "decoder_vocab_size": target,
        "d_model": options["encoder_embed_dim"],
        **{f"{side}_layers": options[f"{side}_layers"] for side in ("encoder", "decoder")},
        **{f"{side}_attention_heads": options[f"{side}_attention_heads"] for side in ("encoder", "decoder")},
        **{f"{side}_ffn_dim": options[f"{side}_ffn_embed_dim"] for side in ("encoder", "decoder")},
        "activation_function": options["activation_fn"],
        **{name: options[name] for name in ("dropout", "attention_dropout", "activation_dropout")},
        "max_position_embeddings": max(options["max_source_positions"], options["max_target_positions"]),
        "scale_embedding": not options["no_scale_embedding"],
        "share_encoder_decoder_embeddings": shared,
        "tie_word_embeddings": shared or options["share_decoder_input_output_embed"],
        "bos_token_id": Dictionary.bos,
        "pad_token_id": Dictionary.pad,
        "eos_token_id": Dictionary.eos,
        "forced_eos_token_id": Dictionary.eos,
        "decoder_start_token_id": Dictionary.eos,
        "dtype": "float32",
    }


def _marian_weights(model: Transformer, config: Mapping[str, Any], first_position: int) -> dict[str, Tensor]:
    weights = {f"model.{name}": tensor for name, tensor in fairseq_weights(model).items() if "version" not in name}
    weights["lm_head.weight"] = weights.pop("model.decoder.output_projection.weight")
    if config["share_encoder_decoder_embeddings"]:  # one matrix is written once
        weights["model.shared.weight"] = weights.pop("lm_head.weight")
        del weights["model.encoder.embed_tokens.weight"], weights["model.decoder.embed_tokens.weight"]
    weights["final_logits_bias"] = torch.zeros(1, config["decoder_vocab_size"])
    table = sinusoids(config["max_position_embeddings"], config["d_model"], first_position)
    for side in ("encoder", "decoder"):
        weights[f"model.{side}.embed_positions.weight"] = table
    return {name: tensor.detach().clone().contiguous() for name, tensor in weights.items()}


def _write_tokenizer(
    folder: Path, spm: bytes, source: Dictionary, target: Dictionary, languages: tuple[str, str]
) -> None:
    settings: dict[str, Any] = {
        "tokenizer_class": "MarianTokenizer",
        "source_lang": languages[0],
        "target_lang": languages[1],
        "unk_token": "<unk>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "separate_vocabs": source != target,
    }
    _write_json(folder / "vocab.json", {symbol: number for number, symbol in enumerate(source.symbols)})
    if source != target:
        _write_json(folder / "target_vocab.json", {symbol: number for number, symbol in enumerate(target.symbols)})
    _write_json(folder / "tokenizer_config.json", settings)
    for name in ("source.spm", "target.spm"):
        with atomic_write(folder / name) as file:
            file.write(spm)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    with atomic_write(path) as file:
        file.write(json.dumps(content, ensure_ascii=False, indent=2).encode() + b"\n")
