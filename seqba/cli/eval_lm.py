"""seqba-eval-lm: a language model and a split of a data-bin → perplexity."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TypeVar, cast

from seqba.checkpoints.model import LoadedModel, load_model
from seqba.cli.arguments import Parser, read_options
from seqba.cli.command import run
from seqba.cli.fairseq_options import (
    INFERENCE,
    OTHER_SUBWORD_TOOLS,
    PROCESSES,
    SCORERS,
    TOKENISERS,
    WITHOUT_EFFECT,
    hints,
    taken,
    without_effect_line,
)
from seqba.cli.output import warn_on_stderr
from seqba.data.dictionary import Dictionary, is_described_by
from seqba.data.indexed import Corpus
from seqba.data.limits import batch_tokens
from seqba.data.monolingual import open_dictionary, open_monolingual
from seqba.errors import UserError
from seqba.evaluation.perplexity import SCORING_MAX_TOKENS, BlockScoring, Scored, ScoredRow, Tally, score_blocks
from seqba.evaluation.stream_perplexity import StreamScoring, score_streams
from seqba.extras import progress_bar
from seqba.models.awd_lstm import AWDLSTM
from seqba.models.families import ARCHITECTURES
from seqba.models.transformer_lm import TransformerLM
from seqba.options import flag_of, option, options, options_from
from seqba.runtime.devices import choose_device
from seqba.runtime.memory import keep_freed_memory
from seqba.tasks.text_options import BlockOptions, StreamOptions

TaskOptions = TypeVar("TaskOptions", BlockOptions, StreamOptions)

_WORDS = "perplexity is of the tokens of the data-bin; for words, multiply the loss by tokens / words yourself"
_TARGETS = "a language model predicts the next token of its own vocabulary; leave it out"
_SHARDS = "a split is scored by one process; leave it out"
_BAR = "progress is a bar on a terminal; --quiet turns it off"
_PRINTED = "the loss and the perplexity go to standard output; send them to a file with >"
_BLOCKS = "rows are cut to --tokens-per-sample; leave it out"
ACCEPTED = {
    **WITHOUT_EFFECT,
    **taken(_BAR, "log-format", str),
    **taken(_BAR, "log-interval", int),
    **taken(_BAR, "no-progress-bar"),
    **taken("nothing here is random", "seed", int),
    **taken("no result depends on it", "required-batch-size-multiple", int),
    **taken("the softmax is always taken over a few rows at a time", "softmax-batch", int),
    **taken("padding takes part in no arithmetic", "pad-to-fixed-length pad-to-fixed-bsz"),
}
UNSUPPORTED = {
    **INFERENCE,
    **hints(_SHARDS, PROCESSES),
    **hints(_WORDS, f"{TOKENISERS} {OTHER_SUBWORD_TOOLS}"),
    **hints(_PRINTED, f"results-path scoring {SCORERS}"),
    **hints(_BLOCKS, "shorten-method shorten-data-split-list"),
    "--output-word-stats": "add up the lines of --output-word-probs",
    "--model-overrides": "the model is taken as it was trained; see --tokens-per-sample and --sample-break-mode",
    "--remove-bpe": _WORDS,
    "--post-process": _WORDS,
    "--add-bos-token": "it is the model's: <s> stands before each row if it did so in training",
    "--max-target-positions": "it is the model's; --tokens-per-sample says how long rows are",
    "--output-dictionary-size": _TARGETS,
    "--self-target": _TARGETS,
    "--future-target": _TARGETS,
    "--past-target": _TARGETS,
    "--user-dir": "there are no plug-ins; use the library from Python",
    "--num-shards": _SHARDS,
    "--shard-id": _SHARDS,
}


BLOCKS = ("tokens_per_sample", "sample_break_mode", "context_window", "skip_invalid_size_inputs_valid_test")
"""Options of text that is cut into rows which stand for themselves."""


@options
class EvalLMOptions:
    """Options of seqba-eval-lm: the model, the text, how it is cut, and the output."""

    path: str | None = option(None, "the checkpoint", metavar="FILE")
    task: str = option("language_modeling", "the only task with a perplexity", choices=("language_modeling",))
    gen_subset: str = option("test", "the split to score", metavar="SPLIT")
    max_tokens: int | None = option(
        None,
        f"tokens of a batch, rows × longest row; {SCORING_MAX_TOKENS} if --batch-size is not given either",
        minimum=1,
    )
    batch_size: int | None = option(
        None,
        "Transformer: most rows of a batch; AWD-LSTM: streams that the text is cut into (default: 1, the whole text)",
        minimum=1,
        aliases=("max-sentences",),
    )
    bptt: int | None = option(
        None, "AWD-LSTM: tokens of a window (default: the model's); it doesn't change the result", minimum=1
    )
    tokens_per_sample: int | None = option(
        None, "tokens of a row, context included (default: the model's)", minimum=1, maximum=1 << 20
    )
    sample_break_mode: str | None = option(
        None,
        "none: rows of tokens-per-sample, across lines; eos: one line each (default: the model's)",
        choices=("none", "eos"),
    )
    context_window: int = option(0, "each row begins with so many tokens of the text before it, unscored", minimum=0)
    skip_invalid_size_inputs_valid_test: bool = option(
        False, "leave out lines that are too long for the model instead of refusing them"
    )
    output_word_probs: bool = option(
        False, "print each row: its number, and every token with its natural log-probability, as fairseq does"
    )
    quiet: bool = option(False, "print the loss and the perplexity alone")
    cpu: bool = option(False, "run on the CPU even where there is a GPU")
    fp16: bool = option(False, "half precision on a GPU; bfloat16 on a CPU")
    bf16: bool = option(False, "bfloat16")

    def __post_init__(self) -> None:
        """Refuses combinations of options."""
        if self.path is None:
            raise UserError("--path is missing: which checkpoint shall be evaluated? (checkpoints/checkpoint_best.pt)")
        if ":" in self.path:
            raise UserError(f"--path {self.path} names several checkpoints: language models are evaluated one by one")
        if self.fp16 and self.bf16:
            raise UserError("give --fp16 or --bf16, not both")
        if self.quiet and self.output_word_probs:
            raise UserError("--quiet and --output-word-probs exclude each other")


def main(arguments: Sequence[str] | None = None) -> int:
    """Scores a split and prints fairseq's last lines."""
    logging.basicConfig(level=logging.WARNING, format="warning: %(message)s", stream=sys.stderr)
    namespace = build_parser().parse(arguments)
    options = read_options(namespace, EvalLMOptions)
    if namespace.without_effect:
        warn_on_stderr(without_effect_line(namespace.without_effect))
    keep_freed_memory()
    device = choose_device(cpu=options.cpu)
    loaded = load_model(str(options.path), device, task=options.task)
    dictionary = _open_dictionary(namespace.data, loaded, options)
    corpus = open_monolingual(namespace.data, options.gen_subset, dictionary)
    start = time.perf_counter()
    arch = loaded.cfg["model"]["arch"]
    if ARCHITECTURES[arch] not in SCORE_BY_FAMILY:
        raise UserError(f"--path names a {arch}, which is no language model")
    if options.fp16 and device.type == "cpu":
        warn_on_stderr("--fp16 is bfloat16 on a CPU")
    if options.fp16 and device.type != "cpu":
        loaded.model.half()
    elif options.fp16 or options.bf16:
        loaded.model.bfloat16()
    scored = SCORE_BY_FAMILY[ARCHITECTURES[arch]](loaded, corpus, options, vars(namespace))
    tally = _add_up(scored, corpus.tokens, dictionary, options)
    elapsed_s = time.perf_counter() - start
    if not math.isfinite(tally.log_probability):
        raise UserError(
            f"the probabilities of {options.path} are not finite, as its weights aren't: take an earlier one"
        )
    if not options.quiet:
        print(f"Evaluated {tally.tokens} tokens in {elapsed_s:.1f}s ({tally.tokens / elapsed_s:.2f} tokens/s)")
    print(f"Loss (base 2): {tally.bits:.4f}, Perplexity: {tally.perplexity:.2f}")
    return 0


def build_parser() -> Parser:
    """The command line of seqba-eval-lm."""
    parser = Parser(
        "seqba-eval-lm",
        "Perplexity of a language model on a split of a data-bin. Options and lines are fairseq-eval-lm's.",
        unsupported=UNSUPPORTED,
        accepted=ACCEPTED,
    )
    parser.add_argument("data", help="data-bin that seqba-preprocess --only-source or fairseq-preprocess wrote")
    parser.add_options(EvalLMOptions, "model, text and output")
    return parser


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


def entry() -> None:
    """The `seqba-eval-lm` command."""
    sys.exit(run(main))
