"""Folders of Hugging Face's Marian form (OPUS-MT's), converted into seqba's form.

Weights have fairseq's names, mostly. What differs is in the options of the model: SiLU, the paper's sinusoids from 0, a
bias on the logits, `<pad>` as the decoder's first symbol. Ids become seqba's, by moving rows of the embeddings: `<s>`,
`<pad>`, `</s>` and `<unk>` come first. Most of these models have no `<s>`; its row is zeros, and its bias so low that
no probability is left for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seqba.checkpoints import fairseq_names
from seqba.checkpoints.archive import read_archive
from seqba.checkpoints.fairseq_names import count_layers, their_names
from seqba.checkpoints.undrawn import Undrawn
from seqba.data.dictionary import Dictionary, dictionary_digest
from seqba.data.files import open_file
from seqba.data.marian import ABSENT, CONFIG, REMEDY, MarianText, Vocabulary, read_marian_config, read_marian_text
from seqba.errors import UserError
from seqba.extras import needed
from seqba.models.config import TransformerConfig
from seqba.models.embedding import sinusoids
from seqba.models.sizes import Activation, Sinusoids
from seqba.models.transformer import Transformer

ABSENT_BIAS = -100.0
"""Bias of a symbol that the model hasn't: e^-100 is nothing beside the other words, and, unlike -∞, no hindrance to
label smoothing, whose loss has the mean over all words in it: it is 100·ε/(V−1) nats larger, 0.0002 for OPUS-MT's
58,000 words and ε = 0.1."""

ACTIVATIONS: dict[str, Activation] = {**fairseq_names.ACTIVATIONS, "silu": "silu"}
"""Their names of the activations that there are here: fairseq's and one more."""

ENCODER_POSITIONS, DECODER_POSITIONS = (f"model.{side}.embed_positions.weight" for side in ("encoder", "decoder"))

TABLES: tuple[tuple[Sinusoids, int], ...] = (("paper", 0), ("tensor2tensor", 2), ("tensor2tensor", 0))
"""Tables of positions that a file of weights may hold: rates, and the first position."""

SHARED, SOURCE, TARGET, OUTPUT = (
    "model.shared.weight",
    "model.encoder.embed_tokens.weight",
    "model.decoder.embed_tokens.weight",
    "lm_head.weight",
)


def convert_marian(folder: str | Path) -> dict[str, Any]:
    """The folder's model as a checkpoint of seqba's form.

    Raises:
        UserError: for a file that is missing or damaged, and for a model that there is none of here.
    """
    folder = Path(folder)
    config, text = read_marian_config(folder), read_marian_text(folder)
    weights = _read_weights(folder)
    try:
        options = _options(config, weights, text)
        return {
            "args": None,
            "cfg": {
                "task": {},
                "model": {"arch": "transformer", "options": asdict(options)},
                "training": {},
                "version": "of Marian",
            },
            "model": _converted(options, weights, text),
            "optimizer_history": [{"num_updates": 0}],
            "task_state": _task_state(text),
            "extra_state": {},
            "last_optimizer_state": None,
        }
    except _Unfitting as error:
        raise UserError(f"{folder} {error}") from None
    except Exception as error:  # a damaged folder may say anything
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"{folder} is of Marian's form, but its model can't be read: {type(error).__name__}: {reason}"
        ) from None


class _Unfitting(Exception):
    """Property of a model that none here has, as the end of a sentence about its folder."""


def _read_weights(folder: Path) -> dict[str, Tensor]:
    """Weights by their names, of the safetensors file if there is one, else of torch's.

    Raises:
        UserError: for a file that is missing, damaged, or holds more than tensors.
    """
    path = folder / "model.safetensors"
    if path.exists():
        safetensors = needed("safetensors.torch", f"{path}")
        with open_file(path, "weights", REMEDY) as file:
            content = file.read()
        try:
            return dict(safetensors.load(content))
        except Exception as error:  # its own classes of errors, and torch's
            reason = str(error).partition("\n")[0]
            raise UserError(f"{path} is damaged, or no safetensors file ({reason}): fetch the folder anew") from None
    path = folder / "pytorch_model.bin"
    if not path.exists():
        raise UserError(f"{folder} has neither model.safetensors nor pytorch_model.bin: {REMEDY}")
    state, foreign = read_archive(path)
    if foreign or not isinstance(state, dict) or not all(isinstance(each, Tensor) for each in state.values()):
        what = foreign[0] if foreign else type(state).__name__
        raise UserError(f"{path} holds more than tensors ({what}); nothing of it is run: fetch the folder anew")
    return dict(state)


def _options(config: Mapping[str, Any], weights: Mapping[str, Tensor], text: MarianText) -> TransformerConfig:
    """Sizes as the weights have them, and the rest as `config.json` does, with transformers' defaults."""
    activation = config.get("activation_function", "gelu")
    if activation not in ACTIVATIONS:
        raise _Unfitting(
            f"is of a model whose activation_function is {activation!r}; here are {', '.join(ACTIVATIONS)}"
        )
    ties = config.get("tie_word_embeddings", True)
    shares = ties and config.get("share_encoder_decoder_embeddings", True)
    if shares and text.source.dictionary != text.target.dictionary:
        raise _Unfitting("shares its embeddings, but has two vocabularies")
    rates, first = _positions(weights)
    longest = config.get("max_position_embeddings", 1024)
    return TransformerConfig(
        encoder_layers=count_layers("model.encoder", weights),
        encoder_embed_dim=config["d_model"],
        encoder_ffn_embed_dim=weights["model.encoder.layers.0.fc1.weight"].shape[0],
        encoder_attention_heads=config.get("encoder_attention_heads", 16),
        share_all_embeddings=shares,
        max_source_positions=longest,
        decoder_layers=count_layers("model.decoder", weights),
        decoder_embed_dim=config["d_model"],
        decoder_ffn_embed_dim=weights["model.decoder.layers.0.fc1.weight"].shape[0],
        decoder_attention_heads=config.get("decoder_attention_heads", 16),
        share_decoder_input_output_embed=ties and not shares,
        max_target_positions=longest,
        activation_fn=ACTIVATIONS[activation],
        dropout=config.get("dropout", 0.1),
        attention_dropout=config.get("attention_dropout", 0.0),
        activation_dropout=config.get("activation_dropout", 0.0),
        first_position=first,
        sinusoids=rates,
        no_scale_embedding=not config.get("scale_embedding", False),
        start_symbol="pad" if _starts_with_pad(config, weights, text.target, (rates, first)) else "eos",
        output_bias=bool(_lacks_bos(text.target) or weights.get("final_logits_bias", torch.zeros(1)).any()),
    )


def _starts_with_pad(
    config: Mapping[str, Any], weights: Mapping[str, Tensor], target: Vocabulary, positions: tuple[Sinusoids, int]
) -> bool:
    """Whether the decoder's first symbol is `<pad>`; in a folder of `seqba-export` it may stand for `</s>`.

    The embedding of `</s>` is then in the first row of the decoder's positions.
    """
    start, pad, eos = (
        config.get("decoder_start_token_id", 58100),
        target.their_ids[Dictionary.pad],
        target.their_ids[Dictionary.eos],
    )
    if start not in (pad, eos):
        raise _Unfitting(f"has a decoder_start_token_id of {start} ({CONFIG}), which is neither <pad> nor </s>")
    table = weights.get(DECODER_POSITIONS)
    if start == eos or table is None:
        return bool(start == pad)
    rates, first = positions
    moved = table[0].float() - sinusoids(1, table.shape[1], first, rates)[0]
    if torch.allclose(moved, torch.zeros_like(moved), atol=1e-3):
        return True
    embedding = next(weights[name] for name in (TARGET, SHARED, OUTPUT) if name in weights).float()
    scale = math.sqrt(table.shape[1]) if config.get("scale_embedding", False) else 1.0
    if torch.allclose(moved, scale * (embedding[int(eos)] - embedding[int(pad)]), atol=1e-3):
        return False
    raise _Unfitting("has a table of positions that no model here has")


def _lacks_bos(vocabulary: Vocabulary) -> bool:
    return bool(vocabulary.their_ids[Dictionary.bos] == ABSENT)


def _positions(weights: Mapping[str, Tensor]) -> tuple[Sinusoids, int]:
    """Rates and first position of the tables among the weights; Marian's own where there are none."""
    tables = {name: weights[name].float() for name in (ENCODER_POSITIONS, DECODER_POSITIONS) if name in weights}
    for rates, first in TABLES:
        if all(
            torch.allclose(table[start:], sinusoids(table.shape[0], table.shape[1], first, rates)[start:], atol=1e-3)
            for name, table in tables.items()
            for start in (1 if name == DECODER_POSITIONS else 0,)  # of the decoder's first row, see _starts_with_pad
        ):
            return rates, first
    raise _Unfitting("has a table of positions that no model here has")


def _converted(options: TransformerConfig, weights: Mapping[str, Tensor], text: MarianText) -> dict[str, Tensor]:
    """Weights under seqba's names, embeddings in the order of its ids."""
    source, target, output = _embeddings(options, weights)
    taken = {
        "source_embedding.tokens.weight": _moved(source, text.source),
        "target_embedding.tokens.weight": _moved(target, text.target),
        "output_projection": _moved(output, text.target),
    }
    if options.output_bias:
        bias = weights.get("final_logits_bias", target.new_zeros(1, target.shape[0]))
        taken["output_bias"] = _moved(bias.reshape(-1, 1), text.target, absent=ABSENT_BIAS).squeeze(1)
    with torch.device("meta"), Undrawn():
        outline = Transformer(
            options,
            source_vocabulary=len(text.source.dictionary),
            target_vocabulary=len(text.target.dictionary),
        )
    used = {SHARED, SOURCE, TARGET, OUTPUT, "final_logits_bias"}
    used.update((ENCODER_POSITIONS, DECODER_POSITIONS))
    converted: dict[str, Tensor] = {}
    for name in outline.state_dict():
        if name in taken:
            converted[name] = taken[name]
            continue
        theirs = [f"model.{each}" for each in their_names(name)]
        for each in theirs:
            if each not in weights:
                raise _Unfitting(f"has no weight {each!r}: it is no model of here")
        used.update(theirs)
        converted[name] = torch.cat([weights[each] for each in theirs])
    surplus = [name for name in weights if name not in used]
    if surplus:
        raise _Unfitting(f"has a weight {surplus[0]!r} that no model here has")
    return converted


def _embeddings(options: TransformerConfig, weights: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings of source and target and the output's matrix, (V, D) each; a shared one may be there under one name.

    Where the configuration shares them and a file has several all the same, they must be equal.
    """
    shared = weights.get(SHARED)
    if options.share_all_embeddings:
        names = [name for name in (SHARED, SOURCE, TARGET, OUTPUT) if name in weights]
    elif options.share_decoder_input_output_embed:
        names = [name for name in (TARGET, OUTPUT) if name in weights]
    else:
        names = []
    for name in names[1:]:
        if not torch.equal(weights[name], weights[names[0]]):
            raise _Unfitting(f"shares embeddings ({CONFIG}), but {name} and {names[0]} differ")
    if options.share_all_embeddings and names:
        shared = weights[names[0]]
    source, target = weights.get(SOURCE, shared), weights.get(TARGET, shared)
    if target is None and options.share_decoder_input_output_embed:
        target = weights.get(OUTPUT)
    output = weights.get(OUTPUT, target if options.share_decoder_input_output_embed else shared)
    if source is None or target is None or output is None:
        raise _Unfitting("lacks an embedding or the matrix of its output")
    return source, target, output


def _moved(rows: Tensor, vocabulary: Vocabulary, *, absent: float = 0.0) -> Tensor:
    """Rows (V, …) in the order of our ids; that of a symbol which they haven't is `absent` throughout."""
    ids = torch.from_numpy(vocabulary.their_ids)
    size = int((ids != ABSENT).sum())
    if rows.shape[0] != size:
        raise _Unfitting(f"has a matrix of {rows.shape[0]} rows for a vocabulary of {size} ({CONFIG})")
    moved = rows[ids.clamp(min=0)]
    moved[ids == ABSENT] = absent
    return moved


def _task_state(text: MarianText) -> dict[str, Any]:
    """State of a translation task; languages are left to the data-bin, whose names for them may be others."""
    return {
        "task": "translation",
        "source_lang": None,
        "target_lang": None,
        "source_vocabulary": len(text.source.dictionary),
        "target_vocabulary": len(text.target.dictionary),
        "source_dictionary_sha256": dictionary_digest(text.source.dictionary),
        "target_dictionary_sha256": dictionary_digest(text.target.dictionary),
    }
