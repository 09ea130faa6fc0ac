"""Scores of a split of text: a language model → fairseq's last lines."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TypeVar, cast

from seqba.checkpoints.model import LoadedModel, load_model
from seqba.cli.jobs.precision import cast_weights
from seqba.cli.options.eval_lm import BLOCKS, EvalLMOptions
from seqba.data.dictionary import Dictionary, is_described_by
from seqba.data.indexed import Corpus
from seqba.data.limits import batch_tokens
from seqba.data.monolingual import open_dictionary, open_monolingual
from seqba.errors import UserError
from seqba.evaluation.options import SCORING_MAX_TOKENS
from seqba.evaluation.perplexity import BlockScoring, Scored, ScoredRow, Tally, score_blocks
from seqba.evaluation.stream_perplexity import StreamScoring, score_streams
from seqba.extras import progress_bar
from seqba.models.awd_lstm import AWDLSTM
from seqba.models.families import ARCHITECTURES
from seqba.models.transformer_lm import TransformerLM
from seqba.options import flag_of, options_from
from seqba.runtime.devices import prepare_device
from seqba.tasks.text_options import BlockOptions, StreamOptions

TaskOptions = TypeVar("TaskOptions", BlockOptions, StreamOptions)


def evaluate(data: str, options: EvalLMOptions, given: Collection[str]) -> None:
    """Scores a split of the data-bin `data` and prints fairseq's last lines.

    Args:
        data: the folder.
        options: model, text and output.
        given: names of the options that were given.

    Raises:
        UserError: for files that can't be used, or options that the model has no use for.
    """
    device = prepare_device(cpu=options.cpu)
    loaded = load_model(str(options.path), device, task=options.task)
    dictionary = _open_dictionary(data, loaded, options)
    corpus = open_monolingual(data, options.gen_subset, dictionary)
    start = time.perf_counter()
    arch = loaded.cfg["model"]["arch"]
    if ARCHITECTURES[arch] not in SCORE_BY_FAMILY:
        raise UserError(f"--path names a {arch}, which is no language model")
    cast_weights([loaded.model], device, fp16=options.fp16, bf16=options.bf16)
    scored = SCORE_BY_FAMILY[ARCHITECTURES[arch]](loaded, corpus, options, given)
    tally = _add_up(scored, corpus.tokens, dictionary, options)
    elapsed_s = time.perf_counter() - start
    if not math.isfinite(tally.log_probability):
        raise UserError(
            f"the probabilities of {options.path} are not finite, as its weights aren't: take an earlier one"
        )
    if not options.quiet:
        print(f"Evaluated {tally.tokens} tokens in {elapsed_s:.1f}s ({tally.tokens / elapsed_s:.2f} tokens/s)")
    print(f"Loss (base 2): {tally.bits:.4f}, Perplexity: {tally.perplexity:.2f}")


def _open_dictionary(folder: str, loaded: LoadedModel, options: EvalLMOptions) -> Dictionary:
    """Opens the data-bin's dictionary, if it is the model's: another one would give its ids another meaning."""
    if not Path(folder).is_dir():
        raise UserError(f"there is no data-bin {folder}: give the folder that the model was trained on")
    dictionary = open_dictionary(folder)
    size, digest = loaded.task_state["vocabulary"], loaded.task_state.get("dictionary_sha256", "")
    if not is_described_by(dictionary, size, digest):
        raise UserError(
            f"checkpoint {options.path} was trained with another dictionary than that of {folder}: give the data-bin "
            "it was trained on, or preprocess the text with --srcdict from there"
        )
    return dictionary


def _score_blocks(loaded: LoadedModel, corpus: Corpus, options: EvalLMOptions, given: Collection[str]) -> Scored:
    """Scores with a Transformer, as asked for, and for the rest as it was trained; options of streams are refused."""
    _refuse(given, ("bptt",), "recurrent models; a Transformer has --tokens-per-sample")
    trained = _trained_with(BlockOptions, "blocks", loaded, options)
    scoring = BlockScoring(
        tokens_per_sample=options.tokens_per_sample or trained.tokens_per_sample,
        break_mode=options.sample_break_mode or trained.sample_break_mode,
        add_bos=trained.add_bos_token,
        context_window=options.context_window,
        max_tokens=batch_tokens(options.max_tokens, options.batch_size, SCORING_MAX_TOKENS),
        max_rows=options.batch_size,
        skip_overlong=options.skip_invalid_size_inputs_valid_test,
    )
    return score_blocks(cast(TransformerLM, loaded.model), corpus, scoring)


def _score_streams(loaded: LoadedModel, corpus: Corpus, options: EvalLMOptions, given: Collection[str]) -> Scored:
    """Scores with an AWD-LSTM, as asked for, and for the rest as it was trained; options of blocks are refused."""
    _refuse(given, ("max_tokens", *BLOCKS), "Transformers; a recurrent model has --batch-size and --bptt")
    trained = _trained_with(StreamOptions, "streams", loaded, options)
    scoring = StreamScoring(batch_size=options.batch_size or 1, bptt=options.bptt or trained.bptt)
    return score_streams(cast(AWDLSTM, loaded.model), corpus, scoring)


SCORE_BY_FAMILY: dict[str, Callable[[LoadedModel, Corpus, EvalLMOptions, Collection[str]], Scored]] = {
    "transformer_lm": _score_blocks,
    "awd_lstm": _score_streams,
}
"""For every family of language models: (checkpoint, text, options, names of those on the command line) → its scores."""


def _trained_with(kind: type[TaskOptions], group: str, loaded: LoadedModel, options: EvalLMOptions) -> TaskOptions:
    """The task's options that a checkpoint keeps under the name of their group."""
    try:
        trained = options_from(kind, loaded.cfg["task"][group])
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"checkpoint {options.path} doesn't say how its text was cut: {error}") from None
    return trained


def _refuse(given: Collection[str], names: Sequence[str], owner: str) -> None:
    """Refuses an option that was given and would do nothing for this model."""
    for name in names:
        if name in given:
            raise UserError(f"{flag_of(name)} is for {owner}")


def _add_up(scored: Scored, tokens: int, dictionary: Dictionary, options: EvalLMOptions) -> Tally:
    """Sums the scores, with a bar on stderr if that is a terminal, and prints each row if asked to."""
    tally = Tally()
    hidden = True if options.quiet or (options.output_word_probs and sys.stdout.isatty()) else None
    with progress_bar()(
        total=tokens, desc=f"Evaluate {options.gen_subset}", unit="tok", leave=False, disable=hidden
    ) as bar:
        for rows in scored:
            for row in rows:
                tally.add(row)
                if options.output_word_probs:
                    print(_word_line(row, dictionary))
                bar.update(len(row.tokens))
    return tally


def _word_line(row: ScoredRow, dictionary: Dictionary) -> str:
    r"""Line `12 the [-1.204000]\tdog [-5.332000]\t…`, fairseq's, with natural logarithms."""
    pairs = zip(row.tokens.tolist(), row.log_probabilities.tolist(), strict=True)
    return f"{row.id} " + "\t".join(f"{dictionary.symbols[token]} [{score:2f}]" for token, score in pairs)
