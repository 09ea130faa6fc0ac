"""Checkpoints as files of fairseq."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from seqba.checkpoints.fairseq_names import ACTIVATIONS, PAD, their_names
from seqba.checkpoints.model import LoadedModel
from seqba.errors import UserError
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


def _learns_all_positions(options: Mapping[str, Any]) -> bool:
    return bool(options["decoder_learned_pos"]) and bool(options.get("encoder_learned_pos", True))
