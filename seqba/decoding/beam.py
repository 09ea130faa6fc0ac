"""Beam search, batched and with cached states: fairseq's search, with scores that no batch can change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from seqba.decoding.candidates import Candidates, best_candidates
from seqba.decoding.constraints import constrain, forced_tokens
from seqba.decoding.hypothesis import Hypothesis, length_penalty
from seqba.decoding.options import SearchOptions
from seqba.decoding.sampling import keyed_uniforms, sample_candidates
from seqba.decoding.step_model import EOS, StepModel, check_sources
from seqba.errors import UserError

CACHED_NUMBERS = 1 << 19
"""Log-probabilities that are looked at together on a CPU: 2 MB, what a core's own cache holds."""


@torch.inference_mode()
def beam_search(
    model: StepModel,
    source: Tensor,
    options: SearchOptions,
    *,
    ids: Sequence[int] | None = None,
    prefix: Tensor | None = None,
) -> list[list[Hypothesis]]:
    """Translates a batch of sentences.

    At every step the 2·beam best continuations of a sentence are looked at. Those that end among the first `beam` are
    finished; the first `beam` that do not end live on. A sentence is done, and leaves the batch, when `beam` of its
    hypotheses are finished or when it has reached its greatest length, where only the end is allowed.

    The greatest length is min(A·L + B, the model's positions - 1), with L the sentence's own source length (end of
    sentence counted): fairseq takes the longest of the batch, so that there a translation may depend on its company.

    Args:
        model: gives logits; wrap several, or a temperature, in `Ensemble`. Put it in eval mode first.
        source: (B, L) int64, right-padded with 1, each row with its end of sentence.
        options: the settings; `temperature` and `nbest` are the caller's.
        ids: one number per sentence, the key of its random draws with `options.sampling`; 0..B-1 if not given.
        prefix: (B, P) int64, right-padded: each translation begins with its row.

    Returns:
        Per sentence its finished hypotheses, best first: at most `beam`, at least one.

    Raises:
        UserError: if the model's scores are not numbers, or if the settings leave a sentence no translation.
        ValueError: for a source of padding alone.

    Source: fairseq's `SequenceGenerator`.
    """
    search = _Search(model, source, options, range(source.size(0)) if ids is None else ids, prefix)
    while not search.done:
        search.advance()
    for hypotheses in search.finished:
        hypotheses.sort(key=lambda hypothesis: hypothesis.score, reverse=True)
    return search.finished


@dataclass
class _Beams:
    """The hypotheses of the sentences that are still being translated: B of them, k hypotheses each, t tokens long."""

    tokens: Tensor
    """(B, k, 1 + t) int64; the first is the end of sentence that starts the decoder."""

    totals: Tensor
    """(B, k, 1 + t) float: summed log-probability after 0, 1, … t tokens; -inf for a hypothesis that is not there."""

    @staticmethod
    def empty(rows: int, hypotheses: int, device: torch.device) -> _Beams:
        """Hypotheses of no token."""
        return _Beams(
            torch.full((rows, hypotheses, 1), EOS, dtype=torch.int64, device=device),
            torch.zeros(rows, hypotheses, 1, device=device),
        )

    def extended(self, rows: Tensor, chosen: Candidates) -> _Beams:
        """The hypotheses that the candidates `chosen` (B', C) of the rows `rows` (B',) make, one token longer."""
        rows = rows.unsqueeze(1)
        return _Beams(
            torch.cat([self.tokens[rows, chosen.parents], chosen.tokens.unsqueeze(2)], dim=2),
            torch.cat([self.totals[rows, chosen.parents], chosen.scores.unsqueeze(2)], dim=2),
        )


class _Search:
    """State of the search in one batch. Rows leave it when they are done; `places` has the sentence of each row."""

    def __init__(
        self, model: StepModel, source: Tensor, options: SearchOptions, ids: Sequence[int], prefix: Tensor | None
    ) -> None:
        rows, beam = source.size(0), options.beam
        self.model = model
        self.options = options
        self.prefix = prefix
        self.finished: list[list[Hypothesis]] = [[] for _ in range(rows)]
        self.places = torch.arange(rows, device=source.device)
        self.counts = torch.zeros_like(self.places)
        self.max_lengths = _max_lengths(source, options, model.max_target_positions)
        # All hypotheses of a search are the same empty one at first. Those that are drawn part at once.
        self.beams = _Beams.empty(rows, beam if options.sampling else 1, source.device)
        self.uniforms: Tensor | None = None
        if options.sampling:
            self.uniforms = keyed_uniforms(options.seed, ids, int(self.max_lengths.max()) + 1, beam).to(source.device)
        self.state = model.begin(source, beam)

    @property
    def done(self) -> bool:
        """Whether no sentence is left."""
        return self.places.numel() == 0

    def advance(self) -> None:
        """Extends every hypothesis of every sentence that is not done by one token."""
        beam = self.options.beam
        candidates = self._candidates()
        ends = candidates.tokens == EOS
        ending = (ends & (candidates.scores > -torch.inf))[:, :beam]
        ending &= self.counts.unsqueeze(1) + ending.cumsum(1) <= beam
        self._finish(candidates, ending)
        going_on = candidates.scores.masked_fill(ends, -torch.inf).topk(min(beam, ends.size(1)), dim=1)
        kept = _closing_ranks((self.counts < beam) & (going_on.values[:, 0] > -torch.inf))
        self._check_all_finished(kept)
        chosen = candidates.select(kept, going_on.indices[kept], going_on.values[kept])
        self.beams = self.beams.extended(kept, chosen)
        if kept.numel() < self.places.numel():
            self._leave(kept)
        if not self.done:
            self.model.reorder(self.state, kept, chosen.parents)

    def _candidates(self) -> Candidates:
        logits = self.model.step(self.state, self.beams.tokens[:, :, -1])
        forced = forced_tokens(self.beams.tokens.size(2) - 1, self.max_lengths, self.prefix)
        parts = [self._candidates_of(part, logits[part], forced[part]) for part in _parts(logits)]
        candidates = Candidates.joined(parts)
        if bool(candidates.scores.isnan().any()):
            raise UserError(
                "the model's scores are not numbers (NaN): its training diverged; take an earlier checkpoint"
            )
        return candidates

    def _candidates_of(self, part: slice, logits: Tensor, forced: Tensor) -> Candidates:
        """Candidates of some sentences; their logits (B', k, V) are overwritten where they are float32."""
        options = self.options
        log_probs = logits.float().contiguous()
        torch.log_softmax(log_probs, dim=2, out=log_probs)
        constrain(log_probs, self.beams.tokens[part, :, 1:], forced, options)
        totals = self.beams.totals[part, :, -1]
        if self.uniforms is None:
            return best_candidates(log_probs, totals, 2 * options.beam)
        uniforms = self.uniforms[part, self.beams.tokens.size(2) - 1]
        return sample_candidates(log_probs, totals, uniforms, topk=options.sampling_topk, topp=options.sampling_topp)

    def _finish(self, candidates: Candidates, ending: Tensor) -> None:
        """Turns the candidates under `ending` (B, K) bool into hypotheses."""
        rows, columns = ending.nonzero(as_tuple=True)
        if rows.numel() == 0:
            return
        ended = self.beams.extended(rows, candidates.select(rows, columns.unsqueeze(1)))
        tokens = ended.tokens[:, 0, 1:].tolist()
        scores = ended.totals[:, 0].diff(dim=1).tolist()
        totals = ended.totals[:, 0, -1].tolist()
        options, length = self.options, ended.tokens.size(2) - 1
        penalty = 1.0 if options.unnormalized else length_penalty(length, options.lenpen, options.lenpen_form)
        for place, words, total, parts in zip(self.places[rows].tolist(), tokens, totals, scores, strict=True):
            self.finished[place].append(Hypothesis(tuple(words), total / penalty, tuple(parts)))
        self.counts = self.counts + ending.sum(1)

    def _check_all_finished(self, kept: Tensor) -> None:
        """Refuses options that leave a sentence no word: no hypothesis goes on, and none is finished."""
        stuck = self.counts == 0
        stuck[kept] = False
        if bool(stuck.any()):
            raise UserError(
                "no word is left that the options allow: lower --min-len, or raise --no-repeat-ngram-size or --beam"
            )

    def _leave(self, kept: Tensor) -> None:
        self.places = self.places[kept]
        self.counts = self.counts[kept]
        self.max_lengths = self.max_lengths[kept]
        if self.prefix is not None:
            self.prefix = self.prefix[kept]
        if self.uniforms is not None:
            self.uniforms = self.uniforms[kept]


def _parts(logits: Tensor) -> list[slice]:
    """Sentences of logits (B, k, V) that are looked at together: a few on a CPU, whose numbers stay in its cache."""
    rows = logits.size(0)
    size = max(1, CACHED_NUMBERS // logits[0].numel()) if logits.device.type == "cpu" else rows
    return [slice(start, start + size) for start in range(0, rows, size)]


def _closing_ranks(stays: Tensor) -> Tensor:
    """Rows that stay, `stays` (B,) bool → (B',) int64; the last of them fill the gaps, so that few rows move."""
    kept = stays.nonzero().squeeze(1)
    front = stays[: kept.numel()]
    ranks = torch.arange(kept.numel(), device=kept.device)
    ranks[~front] = kept[int(front.sum()) :]
    return ranks


def _max_lengths(source: Tensor, options: SearchOptions, positions: int) -> Tensor:
    """(B,) int64: the greatest length of each sentence's translations, end of sentence not counted."""
    limits = (options.max_len_a * check_sources(source).double() + options.max_len_b).long().clamp(max=positions - 1)
    if limits.numel() and int(limits.min()) < options.min_len:
        raise UserError(
            f"--min-len {options.min_len} is more than the {int(limits.min())} words that --max-len-a, --max-len-b and "
            "the model's positions allow"
        )
    return limits
