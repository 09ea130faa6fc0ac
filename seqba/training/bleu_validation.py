"""BLEU of a validation split, from translations that the model writes by itself."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from seqba.core import ALONE, Group
from seqba.data.moses import Moses
from seqba.data.subwords import load_subwords
from seqba.decoding.detokenize import TextForm
from seqba.decoding.ensemble import Ensemble
from seqba.decoding.options import SEARCH_MAX_TOKENS, SearchOptions
from seqba.decoding.step_model import StepModel
from seqba.decoding.translation import translate_corpus
from seqba.distributed import whole_weights
from seqba.errors import UserError, quoted
from seqba.evaluation.bleu import joining_option, tokenised_bleu
from seqba.tasks.text_options import BleuOptions
from seqba.tasks.translation import Translation
from seqba.training.agreement import Interrupted, Status

logger = logging.getLogger(__name__)


class BleuScorer:
    """Translates a validation split with the model as it is, and scores that against the references.

    BLEU is counted on sacreBLEU's 13a tokens where the data-bin gives plain text back (its own SentencePiece model, or
    `--eval-bleu-remove-bpe sentencepiece`, or `--eval-bleu-detok moses`), else on the tokens as they are.

    Args:
        task: dictionaries and splits.
        options: see there.
        ranks: the processes that translate together.

    Raises:
        UserError: as `search_options`.
    """

    def __init__(self, task: Translation, options: BleuOptions, ranks: Group = ALONE) -> None:
        self.task = task
        self.ranks = ranks
        self.options = options
        self.search = search_options(options.eval_bleu_args)
        subwords = load_subwords(task.folders[0], task.target_lang, task.target_dictionary)
        words = detokenizer(options, task.target_lang)
        self.form = TextForm(task.target_dictionary, subwords, options.eval_bleu_remove_bpe, words)
        self.tokenizer = "none" if options.eval_tokenized_bleu else self.form.bleu_tokenizer
        self._has_told = False

    def __call__(self, model: nn.Module, subset: str, should_stop: Callable[[], bool]) -> dict[str, float]:
        """BLEU of a model in evaluation mode, {"bleu": 0 to 100}; several ranks translate a part of the sentences each.

        They also gather all weights of a sharded model meanwhile: asking for layer after layer and token after token
        would take longer than the search.

        Raises:
            Interrupted: as soon as `should_stop()`, on any rank.
            UserError: if a sentence can't be translated, here or on another rank.
        """
        texts: tuple[list[str], list[str]] = ([], [])
        status, unreadable = Status(), None
        rows = np.sort(self.task.validation(subset).batches.rows)
        try:
            with whole_weights(model):
                texts = self._translate(model, subset, rows[self.ranks.rank :: self.ranks.size], should_stop)
        except Interrupted:
            status = Status(stop=True)
        except UserError as error:
            status, unreadable = Status(unreadable=True), error
        parts = self.ranks.gather((texts, status))
        Status.merged([own for _, own in parts]).raise_if_ended(unreadable)
        hypotheses, references = ([text for own, _ in parts for text in own[side]] for side in (0, 1))
        self._tell_of_subwords(references)
        if self.options.eval_bleu_print_samples:
            logger.info("example translation: %s", hypotheses[0])
            logger.info("example reference:   %s", references[0])
        return {"bleu": tokenised_bleu(hypotheses, references, tokenize=self.tokenizer).score}

    def _tell_of_subwords(self, references: list[str]) -> None:
        """Warns, once, of a BLEU that isn't of words."""
        joining = None if self._has_told else joining_option(references, "--eval-bleu-remove-bpe")
        if joining is not None:
            logger.warning("BLEU is of subwords, not words: %s joins them", joining)
            self._has_told = True

    def _translate(
        self, model: nn.Module, subset: str, rows: npt.NDArray[np.int64], should_stop: Callable[[], bool]
    ) -> tuple[list[str], list[str]]:
        """Hypotheses and references of the given rows."""
        translated = translate_corpus(
            Ensemble([_Stoppable(cast(StepModel, model), should_stop)], temperature=self.search.temperature),
            self.task.validation(subset).examples,
            rows,
            self.form,
            self.search,
            device=next(model.parameters()).device,
            max_tokens=self.task.batches.max_tokens_valid or self.task.batches.max_tokens or SEARCH_MAX_TOKENS,
        )
        return list(translated.hypotheses), list(translated.references)


class _Stoppable:
    """Model that refuses to begin another batch once it shall stop."""

    def __init__(self, model: StepModel, should_stop: Callable[[], bool]) -> None:
        self._model = model
        self._should_stop = should_stop
        self.max_target_positions = model.max_target_positions

    def begin(self, source: Tensor, beam_size: int) -> Any:
        if self._should_stop():
            raise Interrupted
        return self._model.begin(source, beam_size)

    def step(self, state: Any, tokens: Tensor) -> Tensor:
        return self._model.step(state, tokens)

    def reorder(self, state: Any, sentences: Tensor, parents: Tensor) -> None:
        self._model.reorder(state, sentences, parents)


def detokenizer(options: BleuOptions, target_lang: str) -> Moses | None:
    """Detokenizer that `--eval-bleu-detok` names; None where words stay as they are.

    Raises:
        UserError: for `--eval-bleu-detok-args` that are no JSON object, or say more than a language.
    """
    values = _json_object("--eval-bleu-detok-args", options.eval_bleu_detok_args, '{"target_lang": "de"}')
    for name, value in values.items():
        if name not in ("source_lang", "target_lang") or not isinstance(value, str):
            raise UserError("--eval-bleu-detok-args takes source_lang and target_lang, each the code of a language")
    return Moses(values.get("target_lang", target_lang)) if options.eval_bleu_detok == "moses" else None


def search_options(text: str) -> SearchOptions:
    """Options of the search that `--eval-bleu-args` describes.

    Raises:
        UserError: for a text that is no JSON object, or names an option or a value that no search has, or one without
            effect.
    """
    known = {field.name: field for field in dataclasses.fields(SearchOptions)}
    values = _json_object("--eval-bleu-args", text, '{"beam": 4}')
    for name, value in values.items():
        if name not in known:
            raise UserError(f"--eval-bleu-args: a search has no option {quoted(name)}; it has: {', '.join(known)}")
        if not _is_like(value, known[name].default):
            given = quoted(value) if isinstance(value, str) else repr(value)
            raise UserError(f"--eval-bleu-args: {name} is {given}; it must be like {known[name].default!r}")
    options = SearchOptions(**values)
    if options.nbest > 1 and not options.sampling:
        raise UserError("--eval-bleu-args: nbest prints more translations, and BLEU is of the best: leave it out")
    return options


def _json_object(flag: str, text: str, example: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{flag} is not JSON ({error.msg}); write it like '{example}'") from None
    if not isinstance(values, dict):
        raise UserError(f"{flag} is no JSON object; write it like '{example}'")
    return values


def _is_like(value: Any, default: Any) -> bool:
    """Whether a JSON value has the type of a field with this default; a whole number is a real one too."""
    return type(value) is type(default) or (type(default) is float and type(value) is int)
