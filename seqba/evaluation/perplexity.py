"""Perplexity of a text under a language model."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from seqba.data.batching import fitting, plan_batches
from seqba.data.blocks import BlockBatch, Blocks
from seqba.data.dictionary import Dictionary
from seqba.data.indexed import Corpus
from seqba.data.limits import longest_sides, refuse_or_leave_out
from seqba.data.splits import name_rows
from seqba.errors import UserError
from seqba.evaluation.options import SCORING_MAX_TOKENS
from seqba.models.transformer_lm import TransformerLM
from seqba.nn.kernels.scores import target_log_probabilities

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ScoredRow:
    """Predicted tokens of a row, and their log-probabilities.

    Attributes:
        id: its number in the split: of the block, or of the line.
        tokens: (n,) int64, the predicted tokens.
        log_probabilities: (n,) float64, of each of them, in nats.
    """

    id: int
    tokens: npt.NDArray[np.int64]
    log_probabilities: npt.NDArray[np.float64]


Scored = Iterator[list[ScoredRow]]
"""What a scorer gives: the rows of one batch after the other."""


@dataclass
class Tally:
    """Sums over a text.

    Attributes:
        tokens: predicted so far.
        log_probability: of them all, in nats.
    """

    tokens: int = 0
    log_probability: float = 0.0

    def add(self, row: ScoredRow) -> None:
        """Adds a stretch of the text."""
        self.tokens += len(row.tokens)
        self.log_probability += float(row.log_probabilities.sum())

    @property
    def bits(self) -> float:
        """Mean negative log-likelihood of a token, base 2."""
        return -self.log_probability / (self.tokens * math.log(2))

    @property
    def perplexity(self) -> float:
        """2^bits; infinite where that overflows."""
        return 2**self.bits if self.bits < 1024 else math.inf


@dataclass(frozen=True)
class BlockScoring:
    """Settings of cutting a text for a model that sees each row alone.

    Attributes:
        tokens_per_sample: tokens of a row, context included.
        break_mode: "none" for blocks of running text, "eos" for lines.
        add_bos: whether `<s>` stands before each row.
        context_window: so many tokens of the text before a row are read again, and not scored.
        max_tokens: tokens of a batch, rows × longest row; None for no limit.
        max_rows: rows of a batch; None for no limit.
        skip_overlong: leave out lines that are too long for the model instead of refusing them.
    """

    tokens_per_sample: int
    break_mode: str = "none"
    add_bos: bool = False
    context_window: int = 0
    max_tokens: int | None = SCORING_MAX_TOKENS
    max_rows: int | None = None
    skip_overlong: bool = False


def score_blocks(model: TransformerLM, corpus: Corpus, options: BlockScoring) -> Scored:
    """Scores every token of a text, each in one block, given what comes before it in the block and its context.

    Args:
        model: in evaluation mode.
        corpus: the text.
        options: how it is cut.

    Returns:
        The rows of each batch: blocks in their order, lines by their length.

    Raises:
        UserError: for rows that the model or the batch can't hold.

    Source: fairseq's `eval_lm`: with a context window, blocks are shorter by as much.
    """
    _check_sizes(model, options)
    blocks = Blocks(
        corpus,
        options.tokens_per_sample - options.context_window,
        break_mode=options.break_mode,
        add_bos=options.add_bos,
        context=options.context_window,
        longest=options.tokens_per_sample,
    )
    rows = _fitting_rows(model, blocks, options)
    if options.break_mode == "eos":
        rows = rows[np.argsort(blocks.sizes[rows], kind="stable")]
    batches = plan_batches(blocks.sizes, blocks.sizes, rows, max_tokens=options.max_tokens, max_rows=options.max_rows)
    return (_score_batch(model, blocks.batch(batches[number])) for number in range(len(batches)))


def _check_sizes(model: TransformerLM, options: BlockScoring) -> None:
    if options.context_window >= options.tokens_per_sample:
        raise UserError(
            f"--context-window {options.context_window} leaves nothing to score of --tokens-per-sample "
            f"{options.tokens_per_sample}: lower it"
        )
    if options.break_mode == "eos" and not options.context_window:
        return
    longest = options.tokens_per_sample + options.add_bos
    bos = " and <s>" if options.add_bos else ""
    if longest > model.max_target_positions:
        raise UserError(
            f"--tokens-per-sample {options.tokens_per_sample}{bos} makes rows of {longest} tokens, and the model takes "
            f"{model.max_target_positions}: lower it"
        )
    if options.max_tokens is not None and longest > options.max_tokens:
        raise UserError(
            f"--tokens-per-sample {options.tokens_per_sample}{bos} makes rows of {longest} tokens, more than "
            f"--max-tokens {options.max_tokens}: lower the one or raise the other"
        )


def _fitting_rows(model: TransformerLM, blocks: Blocks, options: BlockScoring) -> npt.NDArray[np.int64]:
    positions = (model.max_target_positions, model.max_target_positions)
    limit, _ = limits = longest_sides(positions, options.max_tokens)
    rows, dropped = fitting(blocks.sizes, blocks.sizes, *limits)
    if len(dropped):
        complaint = f"{len(dropped)} lines longer than {limit} tokens (lines {name_rows(dropped)}, from 0)"
        refuse_or_leave_out(complaint, leave_out=options.skip_overlong, warn=logger.warning)
    if not len(rows):
        raise UserError("the split has no line that the model can take")
    return rows


@torch.inference_mode()
def _score_batch(model: TransformerLM, batch: BlockBatch) -> list[ScoredRow]:
    device = model.output_weight.device
    scored = batch.target != Dictionary.pad  # (B, T)
    hidden = model.features(batch.previous.to(device))  # (N, D), of which N' are scored
    hidden = hidden[scored[batch.previous != Dictionary.pad].to(device)]
    target = batch.target[scored]  # (N',)
    scores = target_log_probabilities(hidden, model.output_weight, target.to(device)).double().cpu().numpy()
    ends = np.cumsum(scored.sum(1).numpy())[:-1]
    rows = zip(batch.ids.tolist(), np.split(target.numpy(), ends), np.split(scores, ends), strict=True)
    return [ScoredRow(number, tokens, parts) for number, tokens, parts in rows]
