"""Checkpoints as folders of Hugging Face's transformers, in Marian's form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

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
from seqba.checkpoints.to_fairseq import THEIR_ACTIVATIONS, fairseq_weights
from seqba.data.dictionary import Dictionary, is_described_by
from seqba.data.files import atomic_write, write_json
from seqba.data.marian import is_marian_folder
from seqba.data.pair_files import choose_languages
from seqba.data.sides import Side, marian_sides, open_side
from seqba.data.staging import staged
from seqba.data.subwords import MODEL_NAME, Subwords
from seqba.data.tokenizer_json import TOKENIZER_NAME
from seqba.errors import UserError
from seqba.extras import needed
from seqba.models.embedding import sinusoids
from seqba.models.transformer import Transformer


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
    ids = {name: config[name] for name in ("pad_token_id", "eos_token_id", "decoder_start_token_id")}
    specials = [[config[name]] for name in ("pad_token_id", "bos_token_id") if config[name] is not None]
    search = {"num_beams": 4, "max_length": config["max_position_embeddings"], "bad_words_ids": specials}
    with staged(folder, f"--output {folder}", last="config.json") as stage:
        _write_tokenizer(stage, sides, orders, models)
        write_json(stage / "config.json", config)
        write_json(stage / "generation_config.json", {**ids, **search})
        with atomic_write(stage / "model.safetensors") as file:
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
