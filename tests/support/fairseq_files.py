"""fairseq's Transformers read plainly: random weights under its names, its formulas, and its files in every form."""

from __future__ import annotations

import argparse
import io
import math
import sys
import types
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

PAD, EOS = 1, 2
WORDS, DIM, FFN, HEADS, LONGEST = 11, 8, 12, 2, 9

OPTIONS: dict[str, Any] = {
    "arch": "transformer",
    "source_lang": "en",
    "target_lang": "de",
    "encoder_attention_heads": HEADS,
    "decoder_attention_heads": HEADS,
    "encoder_normalize_before": False,
    "decoder_normalize_before": False,
    "encoder_learned_pos": False,
    "decoder_learned_pos": False,
    "no_scale_embedding": False,
    "layernorm_embedding": False,
    "share_all_embeddings": False,
    "share_decoder_input_output_embed": False,
    "activation_fn": "relu",
    "dropout": 0.3,
    "attention_dropout": 0.1,
    "max_source_positions": LONGEST,
    "max_target_positions": LONGEST,
    "adaptive_softmax_cutoff": None,
    "tokens_per_sample": LONGEST,
    "sample_break_mode": "eos",
    "add_bos_token": False,
}


class _Weights(dict[str, Tensor]):
    """Random weights by name."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(3)

    def put(self, name: str, *shape: int) -> None:
        self[name] = torch.randn(shape, generator=self.generator) / 2

    def linear(self, name: str, out: int, into: int) -> None:
        self.put(f"{name}.weight", out, into)
        self.put(f"{name}.bias", out)

    def norm(self, name: str) -> None:
        self.put(f"{name}.weight", DIM)
        self.put(f"{name}.bias", DIM)

    def layer(self, name: str, attentions: tuple[str, ...]) -> None:
        for attention in attentions:
            for part in ("k_proj", "v_proj", "q_proj", "out_proj"):
                self.linear(f"{name}.{attention}.{part}", DIM, DIM)
            self.norm(f"{name}.{attention}_layer_norm")
        self.linear(f"{name}.fc1", FFN, DIM)
        self.linear(f"{name}.fc2", DIM, FFN)
        self.norm(f"{name}.final_layer_norm")


def random_weights(options: dict[str, Any], *, encoder: bool = True) -> dict[str, Tensor]:
    """A state_dict as fairseq writes it: two layers a side, queries, keys and values apart."""
    weights = _Weights()
    for side in ("encoder", "decoder") if encoder else ("decoder",):
        weights[f"{side}.version"] = torch.tensor([3.0])
        weights.put(f"{side}.embed_tokens.weight", WORDS, DIM)
        weights[f"{side}.embed_tokens.weight"][PAD] = 0
        if options[f"{side}_learned_pos"]:
            weights.put(f"{side}.embed_positions.weight", LONGEST + PAD + 1, DIM)
        else:
            weights[f"{side}.embed_positions._float_tensor"] = torch.zeros(1)
        if options["layernorm_embedding"]:
            weights.norm(f"{side}.layernorm_embedding")
        for layer in (f"{side}.layers.0", f"{side}.layers.1"):
            weights.layer(layer, ("self_attn", "encoder_attn") if encoder and side == "decoder" else ("self_attn",))
            if side == "encoder":  # of version 0.12, which nothing reads
                weights[f"{layer}.in_proj_weight"] = torch.zeros(3 * DIM, DIM)
                weights[f"{layer}.fc1_bias"] = torch.zeros(FFN)
        if options[f"{side}_normalize_before"]:
            weights.norm(f"{side}.layer_norm")
    if options["share_all_embeddings"]:
        weights["encoder.embed_tokens.weight"] = weights["decoder.embed_tokens.weight"]
    if options["share_all_embeddings"] or options["share_decoder_input_output_embed"]:
        weights["decoder.output_projection.weight"] = weights["decoder.embed_tokens.weight"]
    else:
        weights.put("decoder.output_projection.weight", WORDS, DIM)
    return dict(weights)


def logits(options: dict[str, Any], weights: dict[str, Tensor], source: Tensor | None, previous: Tensor) -> Tensor:
    """(B, L) and (B, T) int64 → (B, T, V), as fairseq computes them; no source for a language model."""
    memory = padding = None
    if source is not None:
        padding = source == PAD
        memory = _stack("encoder", options, weights, source, None, None)
    return (
        _stack("decoder", options, weights, previous, memory, padding) @ weights["decoder.output_projection.weight"].T
    )


def _stack(
    side: str,
    options: dict[str, Any],
    weights: dict[str, Tensor],
    tokens: Tensor,
    memory: Tensor | None,
    memory_padding: Tensor | None,
) -> Tensor:
    def norm(x: Tensor, name: str) -> Tensor:
        return functional.layer_norm(x, (DIM,), weights[f"{name}.weight"], weights[f"{name}.bias"])

    def linear(x: Tensor, name: str) -> Tensor:
        return functional.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def attend(query: Tensor, keys: Tensor, name: str, mask: Tensor | None) -> Tensor:
        heads = [
            linear(x, f"{name}.{part}_proj").unflatten(2, (HEADS, -1)).transpose(1, 2)
            for x, part in ((query, "q"), (keys, "k"), (keys, "v"))
        ]
        scores = heads[0] @ heads[1].transpose(2, 3) / math.sqrt(DIM // HEADS)
        mixed = (
            scores.masked_fill(torch.zeros(1, dtype=torch.bool) if mask is None else mask, -math.inf).softmax(3)
            @ heads[2]
        )
        return linear(mixed.transpose(1, 2).flatten(2), f"{name}.out_proj")

    before = options[f"{side}_normalize_before"]
    activation = {"relu": functional.relu, "gelu": functional.gelu}[options["activation_fn"]]
    x = functional.embedding(tokens, weights[f"{side}.embed_tokens.weight"])
    x = x * (1 if options["no_scale_embedding"] else math.sqrt(DIM))
    places = PAD + 1 + torch.arange(tokens.shape[1])
    if options[f"{side}_learned_pos"]:
        x = x + weights[f"{side}.embed_positions.weight"][places]
    else:
        rates = torch.exp(torch.arange(DIM // 2) * -(math.log(10000) / (DIM // 2 - 1)))
        angles = places.unsqueeze(1) * rates
        x = x + torch.cat([angles.sin(), angles.cos()], 1)
    if options["layernorm_embedding"]:
        x = norm(x, f"{side}.layernorm_embedding")
    own = (tokens == PAD)[:, None, None, :]
    hidden = None if memory_padding is None else memory_padding[:, None, None, :]
    if side == "decoder":
        own = own | torch.ones(tokens.shape[1], tokens.shape[1], dtype=torch.bool).triu(1)
    for layer in (f"{side}.layers.0", f"{side}.layers.1"):
        sublayers = [("self_attn_layer_norm", lambda y, at=layer: attend(y, y, f"{at}.self_attn", own))]
        if memory is not None:
            sublayers.append(
                ("encoder_attn_layer_norm", lambda y, at=layer: attend(y, memory, f"{at}.encoder_attn", hidden))
            )
        sublayers.append(
            ("final_layer_norm", lambda y, at=layer: linear(activation(linear(y, f"{at}.fc1")), f"{at}.fc2"))
        )
        for name, sublayer in sublayers:
            x = x + sublayer(norm(x, f"{layer}.{name}")) if before else norm(x + sublayer(x), f"{layer}.{name}")
    return norm(x, f"{side}.layer_norm") if before else x


def older_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights as fairseq named them in 2018: one projection for queries, keys and values, numbered norms."""
    older = dict(weights)
    for name in weights:
        head, found, kind = name.partition("q_proj.")
        if found:
            older[f"{head}in_proj_{kind}"] = torch.cat([older.pop(f"{head}{part}_proj.{kind}") for part in "qkv"])
        for side, norms in {
            "encoder": ["self_attn", "final"],
            "decoder": ["self_attn", "encoder_attn", "final"],
        }.items():
            for number, norm in enumerate(norms):
                if name.startswith(f"{side}.layers.") and f".{norm}_layer_norm." in name:
                    older[name.replace(f"{norm}_layer_norm", f"layer_norms.{number}")] = older.pop(name)
    older["decoder.embed_out"] = older.pop("decoder.output_projection.weight")
    older["encoder.embed_positions.weights"] = torch.zeros(5, DIM)
    return older


def file_of(form: str, options: dict[str, Any], weights: dict[str, Tensor], **more: Any) -> bytes:
    """A checkpoint file: of `args`, of `args` in torch's older format, of `cfg`, or of `cfg` in omegaconf's nodes."""
    state: dict[str, Any] = {
        "args": None,
        "cfg": None,
        "model": weights,
        "optimizer_history": [{"criterion_name": "CrossEntropyCriterion", "num_updates": 7}],
        "extra_state": {"train_iterator": {"epoch": 3}},
        "last_optimizer_state": None,
        **more,
    }
    file = io.BytesIO()
    if form.startswith("args"):
        state["args"] = argparse.Namespace(**options)
        torch.save(state, file, _use_new_zipfile_serialization="older" not in form)
        return file.getvalue()
    task = {"_name": "translation", **{name: options[name] for name in ("source_lang", "target_lang")}}
    if "LM" in form:
        task = {"_name": "language_modeling", "tokens_per_sample": LONGEST, "sample_break_mode": "eos"}
        options = {**options, "_name": options["arch"], "max_target_positions": "${task.tokens_per_sample}"}
        options = {name: value for name, value in options.items() if name not in ("arch", "tokens_per_sample")}
    cfg = {"common": {"seed": 1}, "optimization": {"lr": [0.1]}, "task": task, "model": options}
    if "omegaconf" in form:
        _save_with_omegaconf(state, cfg, file)
        return file.getvalue()
    state["cfg"] = {**cfg, "model": options if "LM" in form else argparse.Namespace(**options)}
    torch.save(state, file)
    return file.getvalue()


def _save_with_omegaconf(state: dict[str, Any], cfg: dict[str, Any], file: io.BytesIO) -> None:
    """Pickles nodes of classes that have omegaconf's names and are gone afterwards."""
    modules = {name: types.ModuleType(name) for name in ("omegaconf", "omegaconf.dictconfig", "omegaconf.nodes")}
    modules["omegaconf.listconfig"] = types.ModuleType("omegaconf.listconfig")
    kinds = {}
    for module, name in (
        ("omegaconf.dictconfig", "DictConfig"),
        ("omegaconf.listconfig", "ListConfig"),
        ("omegaconf.nodes", "AnyNode"),
    ):
        kinds[name] = type(name, (), {"__module__": module})
        setattr(modules[module], name, kinds[name])

    def node(value: Any, parent: Any) -> Any:
        kind = {dict: "DictConfig", list: "ListConfig"}.get(type(value), "AnyNode")
        made = kinds[kind]()
        made._parent = parent
        made._metadata = {"optional": True}
        if isinstance(value, dict):
            made._content = {key: node(entry, made) for key, entry in value.items()}
        elif isinstance(value, list):
            made._content = [node(entry, made) for entry in value]
        else:
            made._val = value
        return made

    sys.modules.update(modules)
    try:
        torch.save({**state, "cfg": node(cfg, None)}, file)
    finally:
        for name in modules:
            del sys.modules[name]
