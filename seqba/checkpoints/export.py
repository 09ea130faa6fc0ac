"""Checkpoints for other programs: fairseq's file, a folder of Hugging Face's transformers, and safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seqba.checkpoints.fairseq_names import ACTIVATIONS, PAD, their_names
from seqba.checkpoints.marian import (
    ABSENT_BIAS,
    DECODER_POSITIONS,
    ENCODER_POSITIONS,
    OUTPUT,
    SHARED,
    SOURCE,
    TARGET,
)
from seqba.checkpoints.model import LoadedModel
from seqba.data.dictionary import Dictionary, is_described_by
from seqba.data.files import atomic_write, make_folder, write_json
from seqba.data.marian import is_marian_folder
from seqba.data.pairs import choose_languages
from seqba.data.sides import Side, marian_sides, open_side
from seqba.data.subwords import MODEL_NAME, Subwords
from seqba.data.tokenizer_json import TOKENIZER_NAME
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

THEIR_ACTIVATIONS = {ours: theirs for theirs, ours in ACTIVATIONS.items()}
"""Names that our activations have in fairseq and in Marian's configurations."""


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
    if options.pop("sinusoids") != "tensor2tensor" and not _learns_all_positions(options):
        raise UserError("fairseq's sinusoids have tensor2tensor's rates, and this model's the paper's")
    if options.pop("start_symbol", "eos") != "eos" or options.pop("output_bias", False):
        raise UserError("fairseq has no Transformer that starts with padding, or has a bias on its logits")
    options["activation_fn"] = THEIR_ACTIVATIONS[options["activation_fn"]]
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
    """The model's weights under fairseq's names, as its current version writes them; it has no bias on the logits."""
    weights: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        if name == "output_bias":
            continue
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

    Ids get Marian's order: `</s>`, `<unk>`, the words, `<s>`, `<pad>`. Marian's decoder starts with `<pad>`, whose
    embedding is zero (CTranslate2 takes that for granted); for a model that starts with `</s>`, its embedding goes into
    the first row of the decoder's positions, which nothing else reads, and that of `<pad>` becomes zero. Tables of
    positions that aren't Marian's own are written among the weights; what `save_pretrained` of transformers writes anew
    is without them.

    Args:
        loaded: a post-norm Transformer.
        data: the data-bin, whose dictionaries and SentencePiece models become the tokenizer; or a Marian folder, for a
            model that began with it.
        folder: is made if it isn't there.

    Raises:
        UserError: for a model that Marian's form can't hold, or a data-bin without a SentencePiece model.
    """
    safetensors = needed("safetensors.torch", "--to transformers")
    model, options = loaded.model, loaded.cfg["model"]["options"]
    if not isinstance(model, Transformer):
        raise UserError(f"transformers' Marian translates, and a {loaded.cfg['model']['arch']} doesn't")
    _check_is_marian(options)
    sides = _open_sides(loaded, data)
    models = [_model_of(side, data) for side in sides]
    orders = [_their_order(model, len(side.dictionary)) for side in sides]
    config = _marian_config(options, orders)
    weights = _marian_weights(model, config, orders, options)
    make_folder(folder, f"--output {folder}")
    _write_tokenizer(folder, sides, orders, models)
    write_json(folder / "config.json", config)
    ids = {name: config[name] for name in ("pad_token_id", "eos_token_id", "decoder_start_token_id")}
    specials = [[config[name]] for name in ("pad_token_id", "bos_token_id") if config[name] is not None]
    search = {"num_beams": 4, "max_length": config["max_position_embeddings"], "bad_words_ids": specials}
    write_json(folder / "generation_config.json", {**ids, **search})
    with atomic_write(folder / "model.safetensors") as file:
        file.write(safetensors.save(weights, {"format": "pt"}))


def _open_sides(loaded: LoadedModel, data: Path) -> tuple[Side, Side]:
    if is_marian_folder(data):
        sides = marian_sides(data)
    else:
        languages = choose_languages(data, loaded.task_state["source_lang"], loaded.task_state["target_lang"])
        sides = (open_side(data, languages[0]), open_side(data, languages[1]))
    for name, side in zip(("source", "target"), sides, strict=True):
        size, digest = loaded.task_state[f"{name}_vocabulary"], loaded.task_state[f"{name}_dictionary_sha256"]
        if not is_described_by(side.dictionary, size, digest):
            raise UserError(
                f"the model was trained with other dictionaries than those of {data}: give its own data-bin"
            )
    return sides


def _model_of(side: Side, data: Path) -> bytes:
    if side.subwords is None:
        raise UserError(f"data-bin {data} has no {MODEL_NAME}, which Marian's tokenizer needs")
    if not isinstance(side.subwords, Subwords):
        raise UserError(f"data-bin {data} has a {TOKENIZER_NAME}, and Marian's tokenizer needs a {MODEL_NAME}")
    return side.subwords.model


def _their_order(model: Transformer, size: int) -> list[int]:
    """Our ids in the order of Marian's; `<s>` if the model has one."""
    has_bos = model.output_bias is None or model.output_bias[Dictionary.bos] > ABSENT_BIAS / 2
    words = range(len(Dictionary.specials), size)
    return [Dictionary.eos, Dictionary.unk, *words, *([Dictionary.bos] if has_bos else []), Dictionary.pad]


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


def _marian_config(options: Mapping[str, Any], orders: Sequence[list[int]]) -> dict[str, Any]:
    shared, ids = options["share_all_embeddings"], orders[1]
    pad, eos = ids.index(Dictionary.pad), ids.index(Dictionary.eos)
    return {
        "model_type": "marian",
        "architectures": ["MarianMTModel"],
        "is_encoder_decoder": True,
        "vocab_size": len(orders[0]),
        "decoder_vocab_size": len(ids),
        "d_model": options["encoder_embed_dim"],
        **{f"{side}_layers": options[f"{side}_layers"] for side in ("encoder", "decoder")},
        **{f"{side}_attention_heads": options[f"{side}_attention_heads"] for side in ("encoder", "decoder")},
        **{f"{side}_ffn_dim": options[f"{side}_ffn_embed_dim"] for side in ("encoder", "decoder")},
        "activation_function": THEIR_ACTIVATIONS[options["activation_fn"]],
        **{name: options[name] for name in ("dropout", "attention_dropout", "activation_dropout")},
        "max_position_embeddings": max(options["max_source_positions"], options["max_target_positions"]),
        "scale_embedding": not options["no_scale_embedding"],
        "share_encoder_decoder_embeddings": shared,
        "tie_word_embeddings": shared or options["share_decoder_input_output_embed"],
        "bos_token_id": ids.index(Dictionary.bos) if Dictionary.bos in ids else None,
        "pad_token_id": pad,
        "eos_token_id": eos,
        "forced_eos_token_id": eos,
        "decoder_start_token_id": pad,
        "dtype": "float32",
    }


def _marian_weights(
    model: Transformer, config: Mapping[str, Any], orders: Sequence[list[int]], options: Mapping[str, Any]
) -> dict[str, Tensor]:
    weights = {f"model.{name}": tensor for name, tensor in fairseq_weights(model).items() if "version" not in name}
    weights[OUTPUT] = weights.pop("model.decoder.output_projection.weight")
    for name, order in ((SOURCE, orders[0]), (TARGET, orders[1]), (OUTPUT, orders[1])):
        weights[name] = weights[name][order]
    if config["share_encoder_decoder_embeddings"]:  # one matrix is written once
        weights[SHARED] = weights.pop(OUTPUT)
        del weights[SOURCE], weights[TARGET]
    bias = torch.zeros(model.output_weight.shape[0]) if model.output_bias is None else model.output_bias
    weights["final_logits_bias"] = bias[orders[1]].unsqueeze(0)
    if (options["sinusoids"], options["first_position"]) != ("paper", 0) or not model.starts_with_pad:
        table = sinusoids(
            config["max_position_embeddings"], config["d_model"], options["first_position"], options["sinusoids"]
        )
        weights.update({ENCODER_POSITIONS: table, DECODER_POSITIONS: table})
    weights = {name: tensor.detach().clone().contiguous() for name, tensor in weights.items()}
    if not model.starts_with_pad:
        embedding = model.target_embedding
        start = embedding.scale * embedding.tokens.weight[Dictionary.eos].detach()
        weights[DECODER_POSITIONS][0] += start
        for name in (SHARED, SOURCE, TARGET):
            if name in weights:  # a matrix that is the output's too has learned something there
                weights[name][config["pad_token_id"]] = 0
    return weights


def _write_tokenizer(
    folder: Path, sides: tuple[Side, Side], orders: Sequence[list[int]], models: Sequence[bytes]
) -> None:
    source, target = sides
    separate = source.dictionary != target.dictionary
    settings: dict[str, Any] = {
        "tokenizer_class": "MarianTokenizer",
        "source_lang": source.language,
        "target_lang": target.language,
        "unk_token": "<unk>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "separate_vocabs": separate,
    }
    for name, side, order in zip(("vocab.json", "target_vocab.json"), sides, orders, strict=True):
        if separate or side is source:
            symbols = side.dictionary.symbols
            write_json(folder / name, {symbols[own]: number for number, own in enumerate(order)})
    write_json(folder / "tokenizer_config.json", settings)
    for name, model in zip(("source.spm", "target.spm"), models, strict=True):
        with atomic_write(folder / name) as file:
            file.write(model)
