"""Checkpoints of fairseq: Transformers and Transformer language models, converted into seqba's form.

Files of older fairseq hold a Namespace under `args`, later ones dicts or omegaconf nodes under `cfg`, with the model's
options as a Namespace or as a node. Weights have the same values under other names, but that queries, keys and values
are three projections there and one here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seqba.checkpoints.fairseq_names import ACTIVATIONS, PAD, count_layers, current_names, their_names
from seqba.checkpoints.plain_pickle import Foreign, plain
from seqba.checkpoints.undrawn import Undrawn
from seqba.errors import UserError
from seqba.models.config import DecoderConfig, TransformerConfig
from seqba.models.transformer import Transformer
from seqba.models.transformer_lm import TransformerLM

MISSING_HERE = {
    "no_token_positional_embeddings": "no positions",
    "no_decoder_final_norm": "no norm after the last layer",
    "cross_self_attention": "self-attention to the source as well",
    "no_cross_attention": "no attention to the source",
    "adaptive_input": "an adaptive input",
    "adaptive_softmax_cutoff": "an adaptive softmax",
    "character_embeddings": "embeddings of characters",
}
"""Options of fairseq whose models there are none of here, and what such a model has."""


def is_fairseq(state: Any) -> bool:
    """Whether an unpickled file is a checkpoint of fairseq, by the form and the names of its options."""
    if not isinstance(state, dict) or not isinstance(state.get("model"), dict):
        return False
    args, cfg = state.get("args"), state.get("cfg")
    if isinstance(args, Foreign):
        return args.origin == "argparse.Namespace"
    if isinstance(cfg, Foreign):
        return cfg.origin.startswith("omegaconf.")
    return isinstance(cfg, dict) and "optimization" in cfg and "common" in cfg


def convert_fairseq(state: Mapping[str, Any], path: str | Path) -> dict[str, Any]:
    """The checkpoint in seqba's form: weights, the model's options and what the file says of its task.

    Its digests of dictionaries are None, since fairseq keeps none. What its run would need to go on is left out.

    Raises:
        UserError: for a model that there is none of here, naming what is different, and for a damaged file.
    """
    try:
        return _convert(state, path)
    except UserError:
        raise
    except Exception as error:  # a damaged file may hold anything
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"checkpoint {path} is of fairseq, but its model can't be read: {type(error).__name__}: {reason}"
        ) from None


def _convert(state: Mapping[str, Any], path: str | Path) -> dict[str, Any]:
    """`convert_fairseq`; a damaged file raises whatever it may."""
    if "shard_metadata" in state or any("flat_param" in name for name in state["model"]):
        raise UserError(
            f"checkpoint {path} has one process's part of a model (fairseq's --use-sharded-state): give one of a "
            "run without it, whose weights are whole"
        )
    weights = current_names(plain(state["model"]))
    options = _options(state)
    is_lm = not any(name.startswith("encoder.") for name in weights)
    arch = str(options.get("arch") or options.get("_name") or "transformer")
    if not arch.startswith("transformer"):
        raise UserError(
            f"checkpoint {path} is of fairseq's {arch}, which there is none of here: Transformers and Transformer "
            "language models are read"
        )
    _refuse_options(options, path)
    config = (_lm_config if is_lm else _transformer_config)(options, weights)
    with torch.device("meta"), Undrawn():
        outline = _outline(config, weights)
    history = plain(state.get("optimizer_history")) or [{}]
    return {
        "args": None,
        "cfg": {
            "task": {"blocks": _blocks(options)} if is_lm else {},
            "model": {"arch": "transformer_lm" if is_lm else "transformer", "options": asdict(config)},
            "training": {},
            "version": "of fairseq",
        },
        "model": _converted(outline, weights, path),
        "optimizer_history": [{"num_updates": int(history[-1].get("num_updates", 0))}],
        "task_state": _lm_task(weights) if is_lm else _translation_task(options, weights),
        "extra_state": {},
        "last_optimizer_state": None,
    }


def _options(state: Mapping[str, Any]) -> dict[str, Any]:
    """All options that concern the model and its task, by their flat names.

    Nested ones (`encoder: {embed_dim: …}`) get the name of their group, and references (`${task.tokens_per_sample}`)
    what they refer to.
    """
    if state.get("args") is not None:
        return dict(plain(state["args"]))
    cfg = plain(state["cfg"])
    flat: dict[str, Any] = {}
    for group in (cfg.get("task") or {}, cfg["model"]):
        for name, value in group.items():
            flat.update(
                {f"{name}_{key}": entry for key, entry in value.items()} if isinstance(value, dict) else {name: value}
            )
    return {name: _referred(value, cfg) for name, value in flat.items()}


def _referred(value: Any, cfg: Mapping[str, Any]) -> Any:
    reference = re.fullmatch(r"\$\{(\w+)\.(\w+)\}", value) if isinstance(value, str) else None
    return cfg[reference[1]].get(reference[2]) if reference else value


def _transformer_config(options: Mapping[str, Any], weights: Mapping[str, Tensor]) -> TransformerConfig:
    return TransformerConfig(
        **_decoder_fields(options, weights),
        encoder_layers=count_layers("encoder", weights),
        encoder_embed_dim=weights["encoder.embed_tokens.weight"].shape[1],
        encoder_ffn_embed_dim=weights["encoder.layers.0.fc1.weight"].shape[0],
        encoder_attention_heads=options["encoder_attention_heads"],
        encoder_normalize_before=bool(options.get("encoder_normalize_before")),
        encoder_learned_pos=bool(options.get("encoder_learned_pos")),
        share_all_embeddings=bool(options.get("share_all_embeddings")),
        max_source_positions=options.get("max_source_positions") or 1024,
    )


def _lm_config(options: Mapping[str, Any], weights: Mapping[str, Tensor]) -> DecoderConfig:
    longest = options.get("max_target_positions") or options["tokens_per_sample"]
    return DecoderConfig(**{**_decoder_fields(options, weights), "max_target_positions": longest})


def _decoder_fields(options: Mapping[str, Any], weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Sizes as the weights have them, and the rest as the options do, with fairseq's defaults."""
    return {
        "decoder_layers": count_layers("decoder", weights),
        "decoder_embed_dim": weights["decoder.embed_tokens.weight"].shape[1],
        "decoder_ffn_embed_dim": weights["decoder.layers.0.fc1.weight"].shape[0],
        "decoder_attention_heads": options["decoder_attention_heads"],
        "decoder_normalize_before": bool(options.get("decoder_normalize_before")),
        "activation_fn": ACTIVATIONS[options.get("activation_fn") or "relu"],
        "dropout": options.get("dropout", 0.1),
        "attention_dropout": options.get("attention_dropout") or 0.0,
        "activation_dropout": options.get("activation_dropout") or options.get("relu_dropout") or 0.0,
        "share_decoder_input_output_embed": bool(options.get("share_decoder_input_output_embed")),
        "max_target_positions": options.get("max_target_positions") or 1024,
        "first_position": PAD + 1,
        "decoder_learned_pos": bool(options.get("decoder_learned_pos")),
        "no_scale_embedding": bool(options.get("no_scale_embedding")),
        "layernorm_embedding": bool(options.get("layernorm_embedding")),
    }


def _refuse_options(options: Mapping[str, Any], path: str | Path) -> None:
    activation = options.get("activation_fn") or "relu"
    if activation not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise UserError(f"checkpoint {path} is of a model whose activation_fn is {activation}; here are {known}")
    for name, what in MISSING_HERE.items():
        if options.get(name):
            raise UserError(f"checkpoint {path} is of a model with {what} (fairseq's {name}): there is none here")


def _outline(config: DecoderConfig, weights: Mapping[str, Tensor]) -> nn.Module:
    target = weights["decoder.embed_tokens.weight"].shape[0]
    if not isinstance(config, TransformerConfig):
        return TransformerLM(config, vocabulary=target)
    source = weights["encoder.embed_tokens.weight"].shape[0]
    return Transformer(config, source_vocabulary=source, target_vocabulary=target)


def _converted(outline: nn.Module, weights: Mapping[str, Tensor], path: str | Path) -> dict[str, Tensor]:
    converted: dict[str, Tensor] = {}
    used: set[str] = set()
    for name in outline.state_dict():
        theirs = their_names(name)
        for each in theirs:
            if each not in weights:
                raise UserError(f"checkpoint {path} is of fairseq, but has no weight {each!r}: it is no model of here")
        used.update(theirs)
        tensor = torch.cat([weights[each] for each in theirs]) if len(theirs) > 1 else weights[theirs[0]]
        converted[name] = tensor[PAD + 1 :] if name.endswith("positions") else tensor
    if not outline.has_own_output:  # fairseq writes a shared matrix once more
        used.add("decoder.output_projection.weight")
    surplus = [name for name in weights if name not in used]
    if surplus:
        raise UserError(f"checkpoint {path} has a weight {surplus[0]!r} that no model here has")
    return converted


def _translation_task(options: Mapping[str, Any], weights: Mapping[str, Tensor]) -> dict[str, Any]:
    return {
        "task": "translation",
        "source_lang": options.get("source_lang"),
        "target_lang": options.get("target_lang"),
        "source_vocabulary": weights["encoder.embed_tokens.weight"].shape[0],
        "target_vocabulary": weights["decoder.embed_tokens.weight"].shape[0],
        "source_dictionary_sha256": None,
        "target_dictionary_sha256": None,
    }


def _lm_task(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    return {
        "task": "language_modeling",
        "vocabulary": weights["decoder.embed_tokens.weight"].shape[0],
        "dictionary_sha256": None,
    }


def _blocks(options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "tokens_per_sample": options["tokens_per_sample"],
        "sample_break_mode": options.get("sample_break_mode") or "none",
        "add_bos_token": bool(options.get("add_bos_token")),
    }
