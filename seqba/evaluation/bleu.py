"""BLEU of tokens in the forms that papers on WMT English-German report, and of single sentences, by sacreBLEU."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from seqba.errors import UserError
from seqba.extras import needed

TOKENIZERS = ("none", "13a", "intl", "char", "zh")
LINES_LOOKED_AT = 100
COMPOUND_HYPHEN = re.compile(r"(\S)-(\S)")
SENTENCE_END = re.compile(r"(\S*)[.!?]$")


@dataclass(frozen=True)
class Bleu:
    """BLEU score and its parts."""

    score: float
    """0 to 100."""

    precisions: tuple[float, ...]
    """Of 1-grams, 2-grams, …: per cent."""

    brevity_penalty: float
    """exp(1 - reference length / hypothesis length), at most 1."""

    hypothesis_length: int
    """Tokens of all hypotheses."""

    reference_length: int
    """Tokens of all references."""

    def __str__(self) -> str:
        """The line of fairseq: `BLEU4 = 27.30, 58.1/32.5/20.6/13.5 (BP=1.000, ratio=1.002, syslen=640, reflen=639)`."""
        parts = "/".join(f"{precision:.1f}" for precision in self.precisions)
        ratio = self.hypothesis_length / self.reference_length if self.reference_length else math.inf
        return (
            f"BLEU{len(self.precisions)} = {self.score:.2f}, {parts} (BP={self.brevity_penalty:.3f}, "
            f"ratio={ratio:.3f}, syslen={self.hypothesis_length}, reflen={self.reference_length})"
        )


def tokenised_bleu(
    hypotheses: Sequence[str],
    references: Sequence[str],
    *,
    order: int = 4,
    ignore_case: bool = False,
    tokenize: str = "none",
) -> Bleu:
    """Corpus BLEU of text that is tokens separated by spaces: multi-bleu.perl's number, without smoothing.

    BLEU = BP · exp(1/N Σ_n log p_n), with p_n the clipped n-gram precision over the whole corpus

    Args:
        hypotheses: one line per sentence.
        references: as many.
        order: N, longest n-gram.
        ignore_case: lower both sides first.
        tokenize: how to make tokens of plain text: "13a", "intl", "char", "zh"; "none" takes what spaces separate.

    Raises:
        UserError: for an empty corpus or one of other length.

    Source: Papineni et al. 2002; Moses' multi-bleu.perl.
    """
    check_lengths(hypotheses, references)
    metric = _metric()(
        lowercase=ignore_case, force=True, tokenize=tokenize, smooth_method="none", max_ngram_order=order
    )
    return _from_sacrebleu(metric.corpus_score(hypotheses, [references]))


def compound_split_bleu(
    hypotheses: Sequence[str],
    references: Sequence[str],
    *,
    order: int = 4,
    ignore_case: bool = False,
    tokenize: str = "none",
) -> Bleu:
    r"""`tokenised_bleu` after every hyphenated compound, on both sides, has been split in three.

    `well-known` becomes `well ##AT##-##AT## known`, which adds 0.7 to 1.0 to English-German scores: compare such a
    score with such scores alone. Tokenise before splitting: give tokens, or `tokenize`.

    Raises:
        UserError: as `tokenised_bleu`.

    Source: tensor2tensor's get_ende_bleu.sh: s{(\S)-(\S)}{$1 ##AT##-##AT## $2}g.
    """
    split = [[split_compounds(line) for line in _tokenised(lines, tokenize)] for lines in (hypotheses, references)]
    return tokenised_bleu(*split, order=order, ignore_case=ignore_case)


def split_compounds(line: str) -> str:
    """`a-b` → `a ##AT##-##AT## b`, everywhere, as Perl's s///g does it: matches do not overlap."""
    return COMPOUND_HYPHEN.sub(r"\1 ##AT##-##AT## \2", line)


def sentence_bleu(
    hypothesis: str, reference: str, *, order: int = 4, ignore_case: bool = False, tokenize: str = "none"
) -> Bleu:
    """BLEU of one sentence, with 1 added to matches and counts of 2-grams and longer, as in fairseq.

    Source: Lin and Och 2004.
    """
    metric = _metric()(
        lowercase=ignore_case,
        force=True,
        tokenize=tokenize,
        smooth_method="add-k",
        smooth_value=1,
        max_ngram_order=order,
    )
    return _from_sacrebleu(metric.corpus_score([hypothesis], [[reference]]))


def joining_option(lines: Sequence[str], flag: str = "--remove-bpe") -> str | None:
    """The option, as it is written, that joins the subwords which some lines (the first ones) still have.

    Args:
        lines: references, say.
        flag: the option's name.

    Returns:
        The flag, with its value where its bare form joins others; None where lines seem to be words, or plain text.
    """
    words = [word for line in lines[:LINES_LOOKED_AT] for word in line.split()]
    if any(word.endswith("@@") for word in words):
        return flag
    return f"{flag} sentencepiece" if any(word.startswith("▁") for word in words) else None


def looks_tokenised(lines: Sequence[str]) -> bool | None:
    """Whether final punctuation stands apart from the last word in most lines; None for too few lines to tell."""
    ends = [match.group(1) for line in lines if (match := SENTENCE_END.search(line.rstrip()))]
    if 2 * len(ends) < len(lines) or not ends:
        return None
    return 2 * sum(not word for word in ends) > len(ends)


def _from_sacrebleu(result: Any) -> Bleu:
    return Bleu(float(result.score), tuple(result.precisions), float(result.bp), result.sys_len, result.ref_len)


def _tokenised(lines: Sequence[str], tokenize: str) -> list[str]:
    tokenizer = _metric()(tokenize=tokenize, force=True).tokenizer
    return [tokenizer(line) for line in lines]


def check_lengths(hypotheses: Sequence[str], references: Sequence[str]) -> None:
    """Refuses an empty corpus, and one with more or fewer translations than references."""
    if len(hypotheses) != len(references):
        raise UserError(
            f"there are {len(hypotheses)} translations and {len(references)} references; give one line of each "
            "per sentence"
        )
    if not references:
        raise UserError("there is nothing to score: no translation and no reference")


def _metric() -> Any:
    """The class of sacreBLEU's metric."""
    return needed("sacrebleu.metrics.bleu", "BLEU").BLEU
