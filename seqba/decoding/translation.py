"""Translation of a whole split: planned batches in, hypotheses out, in any order or in the corpus's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch

from seqba.data.batching import Batches, plan_batches
from seqba.data.pairs import PairBatch, PairCorpus
from seqba.decoding.beam import beam_search
from seqba.decoding.detokenize import TextForm
from seqba.decoding.hypothesis import Hypothesis
from seqba.decoding.options import SEARCH_MAX_TOKENS, SearchOptions
from seqba.decoding.step_model import StepModel

Rows = npt.NDArray[np.int64]


def plan_translation(
    pairs: PairCorpus,
    rows: Rows,
    *,
    max_tokens: int | None = SEARCH_MAX_TOKENS,
    max_rows: int | None = None,
    multiple: int = 8,
) -> Batches:
    """Batches of `rows` (n,), shortest source first, then shortest target, as fairseq generates them."""
    order = rows[np.lexsort((pairs.target_sizes[rows], pairs.source_sizes[rows]))]
    return plan_batches(
        pairs.source_sizes, pairs.target_sizes, order, max_tokens=max_tokens, max_rows=max_rows, multiple=multiple
    )


def translate_batches(
    model: StepModel,
    pairs: PairCorpus,
    batches: Sequence[Rows] | Batches,
    options: SearchOptions,
    *,
    device: torch.device,
    prefix_size: int = 0,
) -> Iterator[tuple[PairBatch, list[list[Hypothesis]]]]:
    """Translates batch after batch.

    Args:
        model: in eval mode; wrap several, or a temperature, in `Ensemble`.
        pairs: the corpus.
        batches: rows of each batch.
        options: the settings of the search.
        device: where the model is.
        prefix_size: each translation begins with this many words of its reference.

    Yields:
        The batch, on the CPU, and for each of its rows the hypotheses, best first.
    """
    for number in range(len(batches)):
        batch = pairs.batch(batches[number])
        prefix = batch.target[:, :prefix_size].to(device) if prefix_size else None
        found = beam_search(model, batch.source.to(device), options, ids=batch.ids.tolist(), prefix=prefix)
        yield batch, found


@dataclasses.dataclass(frozen=True)
class TranslatedCorpus:
    """Lines of text in the corpus's order; `references[i]` belongs to `hypotheses[i]`."""

    hypotheses: list[str]
    references: list[str]


def translate_corpus(
    model: StepModel,
    pairs: PairCorpus,
    rows: Rows,
    target_form: TextForm,
    options: SearchOptions,
    *,
    device: torch.device,
    max_tokens: int | None = SEARCH_MAX_TOKENS,
) -> TranslatedCorpus:
    """Translates a split and returns text that is ready for BLEU: what validation during training needs.

        translated = translate_corpus(model.eval(), pairs, rows, form, SearchOptions(beam=4), device=device)
        bleu = tokenised_bleu(translated.hypotheses, translated.references, tokenize=form.bleu_tokenizer)

    Args:
        model: in eval mode.
        pairs: the corpus.
        rows: (n,) which of its rows, ascending; `np.arange(len(pairs))` for all.
        target_form: how ids become text.
        options: the settings of the search; only the best translation is taken.
        device: where the model is.
        max_tokens: of a batch; no score depends on it.
    """
    batches = plan_translation(pairs, rows, max_tokens=max_tokens)
    lines: dict[int, tuple[str, str]] = {}
    for batch, found in translate_batches(model, pairs, batches, options, device=device):
        for row, target, hypotheses in zip(batch.ids.tolist(), batch.target.tolist(), found, strict=True):
            lines[row] = (target_form.plain(hypotheses[0].tokens), target_form.plain(target, reference=True))
    ordered = [lines[row] for row in rows.tolist()]
    return TranslatedCorpus([hypothesis for hypothesis, _ in ordered], [reference for _, reference in ordered])
