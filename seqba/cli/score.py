"""seqba-score: BLEU in the three forms that papers report, chrF and TER, and whether two systems differ."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from seqba.cli.arguments import Parser, read_options
from seqba.cli.command import run_process
from seqba.cli.output import warn_on_stderr
from seqba.data.files import read_lines
from seqba.data.lines import decode_text, split_lines
from seqba.errors import UserError
from seqba.evaluation.bleu import (
    TOKENIZERS,
    compound_split_bleu,
    joining_option,
    looks_tokenised,
    sentence_bleu,
    tokenised_bleu,
)
from seqba.evaluation.text_metrics import compare_systems, read_metrics, sacre_bleu, text_scores
from seqba.options import option, options

DESCRIPTION = (
    "Scores translations against references, line by line. Prints three numbers: BLEU of tokens as multi-bleu.perl "
    "counts it, the same after compounds have been split at hyphens (the tradition of WMT English-German), and "
    "sacreBLEU with its signature. The first two take tokenised text, separated by spaces: for plain text make tokens "
    "with --tokenize 13a. sacreBLEU takes plain (detokenised) text and tokenises it itself: what it says of tokenised "
    "text cannot be compared with published scores. --metrics bleu,chrf,ter prints sacreBLEU's metrics instead, "
    "--bootstrap with their 95% intervals; --compare says whether two systems differ."
)
COMPARED = 1000
"""Resamples of a comparison where no other number is given; sacreBLEU's."""


@options
class ScoreOptions:
    """Options of seqba-score: two files, and how to count."""

    sys: str = option("-", "the translations, one a line; - is standard input", aliases=("-s",), metavar="FILE")
    ref: str | None = option(None, "the references, one a line (needed)", aliases=("-r",), metavar="FILE")
    order: int = option(4, "longest n-gram of the first two scores", minimum=1, maximum=16, aliases=("-o",))
    ignore_case: bool = option(False, "lower both sides first, as sacreBLEU's TER always does")
    tokenize: str = option(
        "none",
        "how the first two scores make tokens: none takes the words between spaces, the others are sacreBLEU's",
        choices=TOKENIZERS,
    )
    sacrebleu: bool = option(False, "print sacreBLEU alone")
    sentence_bleu: bool = option(
        False, "print a score for every line instead (1 is added to counts of 2-grams and longer, as in fairseq)"
    )
    metrics: str | None = option(
        None, "print these of sacreBLEU's metrics alone: bleu, chrf, ter (of plain text)", metavar="NAME[,NAME]"
    )
    bootstrap: int | None = option(
        None,
        f"resamples for 95% intervals of --metrics (default: none) and of --compare (default: {COMPARED})",
        minimum=100,
        maximum=1_000_000,
        metavar="N",
    )
    compare: str | None = option(
        None,
        "another system's translations: each of --metrics (default: bleu) for both, and by paired bootstrap resampling "
        "the probability of such a difference between equal systems",
        metavar="FILE",
    )

    def __post_init__(self) -> None:
        """Refuses combinations of options."""
        if self.ref is None:
            raise UserError("--ref is missing: which file has the references?")
        if self.ref == "-" and self.sys == "-":
            raise UserError("--sys and --ref cannot both be standard input")
        if self.sacrebleu and (self.sentence_bleu or self.tokenize != "none" or self.order != 4):
            raise UserError("--sacrebleu fixes tokens and order: leave out --sentence-bleu, --tokenize and --order")
        if self.metrics is not None:
            read_metrics(self.metrics)
        if self.bootstrap is not None and self.metrics is None and self.compare is None:
            raise UserError("--bootstrap is for --metrics and --compare: give one of them")
        if (self.metrics is not None or self.compare is not None) and (
            self.sacrebleu or self.sentence_bleu or self.tokenize != "none" or self.order != 4
        ):
            raise UserError(
                "--metrics and --compare fix tokens and order: leave out --sacrebleu, --sentence-bleu, --tokenize and "
                "--order"
            )


def build_parser() -> Parser:
    """The command line of seqba-score."""
    parser = Parser("seqba-score", DESCRIPTION)
    parser.add_options(ScoreOptions, "what is scored")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the scores of two files."""
    options = read_options(build_parser().parse(arguments), ScoreOptions)
    references = _read_lines(str(options.ref), "references")
    hypotheses = _read_translations(options.sys, references, options)
    if not references:
        raise UserError(f"{options.ref} is empty: there is nothing to score")
    if joining_option(references) is not None:
        warn_on_stderr("scores are of subwords, not words: join them in both files (seqba-generate --remove-bpe does)")
    if options.compare is not None:
        _print_comparison(hypotheses, _read_translations(options.compare, references, options), references, options)
    elif options.metrics is not None:
        metrics, resamples = read_metrics(options.metrics), options.bootstrap or 0
        for score in text_scores(hypotheses, references, metrics, ignore_case=options.ignore_case, resamples=resamples):
            print(score)
    elif options.sentence_bleu:
        _print_sentences(hypotheses, references, options)
    else:
        _print_corpus(hypotheses, references, options)
    return 0


def _read_translations(name: str, references: list[str], options: ScoreOptions) -> list[str]:
    lines = _read_lines(name, "translations")
    if len(lines) != len(references):
        raise UserError(
            f"{_name(name)} has {len(lines)} lines and {options.ref} has {len(references)}: give files with one line "
            "of each per sentence"
        )
    return lines


def _print_comparison(hypotheses: list[str], others: list[str], references: list[str], options: ScoreOptions) -> None:
    """A line for each metric: both scores with their intervals, and the p-value."""
    resamples = options.bootstrap or COMPARED
    compared = compare_systems(
        others,
        hypotheses,
        references,
        read_metrics(options.metrics or "bleu"),
        ignore_case=options.ignore_case,
        resamples=resamples,
    )
    names = (_name(options.sys), str(options.compare))
    for each in compared:
        other, own = (
            f"{score:.2f} ({mean:.2f} ± {interval:.2f})"
            for score, mean, interval in zip(each.scores, each.means, each.intervals, strict=True)
        )
        print(f"{each.metric}: {names[0]} {own}, {names[1]} {other}, p = {each.p_value:.4f}")
    print(f"paired bootstrap of {len(references)} sentences, {resamples} resamples; ± is the 95% interval of a score")


def _print_sentences(hypotheses: list[str], references: list[str], options: ScoreOptions) -> None:
    for number, (hypothesis, reference) in enumerate(zip(hypotheses, references, strict=True)):
        bleu = sentence_bleu(
            hypothesis,
            reference,
            order=options.order,
            ignore_case=options.ignore_case,
            tokenize=options.tokenize,
        )
        print(number, bleu)


def _print_corpus(hypotheses: list[str], references: list[str], options: ScoreOptions) -> None:
    sacre = sacre_bleu(hypotheses, references, ignore_case=options.ignore_case)
    tokenised = looks_tokenised(references)
    if options.sacrebleu:
        print(sacre)
    else:
        for title, metric in (("", tokenised_bleu), ("Compound-split ", compound_split_bleu)):
            bleu = metric(
                hypotheses,
                references,
                order=options.order,
                ignore_case=options.ignore_case,
                tokenize=options.tokenize,
            )
            print(f"{title}{bleu}")
        print(f"sacreBLEU {sacre}")
        if tokenised is False and options.tokenize == "none":
            print(
                "note: this looks like plain text, whose words carry their punctuation: for the first two scores give "
                "tokenised text, or --tokenize 13a",
                file=sys.stderr,
            )
    if tokenised:
        print(
            "note: this looks like tokenised text: sacreBLEU is comparable only when it is given detokenised text",
            file=sys.stderr,
        )


def _read_lines(name: str, what: str) -> list[str]:
    if name != "-":
        return read_lines(name, what)
    return split_lines(decode_text(sys.stdin.buffer.read(), "standard input"))


def _name(file: str) -> str:
    return "standard input" if file == "-" else file


def entry() -> None:
    """The `seqba-score` command."""
    run_process(main)
