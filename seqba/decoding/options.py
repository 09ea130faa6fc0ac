"""Options of a search, under fairseq's names."""

from __future__ import annotations

from seqba.errors import UserError
from seqba.options import option, options

LENPEN_FORMS = ("fairseq", "gnmt")

SEARCH_MAX_TOKENS = 12_000
"""Tokens of a batch where nothing else is said, as in fairseq."""


@options
class SearchOptions:
    """Options of the search. Defaults are fairseq's.

    Raises:
        UserError: for settings out of range, or that contradict each other.
    """

    beam: int = option(5, "hypotheses kept per sentence; 1 is greedy search", minimum=1, maximum=1000)
    nbest: int = option(1, "translations printed per sentence, at most --beam", minimum=1)
    max_len_a: float = option(
        0.0,
        "longest translation is A*L + B words for a source of L (end of sentence counted)",
        minimum=0,
        maximum=1e6,
        metavar="A",
    )
    max_len_b: float = option(200.0, "see --max-len-a", minimum=0, maximum=1e6, metavar="B")
    min_len: int = option(1, "fewest words of a translation, end of sentence not counted", minimum=0)
    lenpen: float = option(
        1.0, "exponent of the length penalty: above 1 favours longer translations", minimum=-20, maximum=20
    )
    lenpen_form: str = option(
        "fairseq",
        "score = sum / len^lenpen (fairseq) or sum / ((5+len)/6)^lenpen (gnmt: Wu et al. 2016); len counts the end",
        choices=LENPEN_FORMS,
    )
    unkpen: float = option(
        0.0, "taken off the log-probability of the unknown word: above 0 gives fewer of them", minimum=-1e6, maximum=1e6
    )
    unnormalized: bool = option(False, "rank by the plain sum of log-probabilities, without a length penalty")
    no_repeat_ngram_size: int = option(
        0, "no translation has the same n-gram of this size twice (0: allowed)", minimum=0
    )
    temperature: float = option(1.0, "divide logits by this: above 1 evens the distribution out", above=0)
    sampling: bool = option(False, "draw translations at random instead of searching; needs --nbest equal to --beam")
    sampling_topk: int = option(-1, "with --sampling: draw among the K likeliest words (-1: all)", minimum=-1)
    sampling_topp: float = option(
        -1.0, "with --sampling: draw among the fewest words that hold probability P (-1: all)", maximum=1
    )
    seed: int = option(1, "seed of --sampling and of --retain-dropout", minimum=0, maximum=2**63 - 1)

    def __post_init__(self) -> None:
        """Refuses combinations of options."""
        if self.sampling and self.nbest != self.beam:
            raise UserError(f"--sampling needs --nbest equal to --beam; they are {self.nbest} and {self.beam}")
        if self.nbest > self.beam:
            raise UserError(f"--nbest {self.nbest} is more than --beam {self.beam}: raise --beam")
        if not self.sampling and (self.sampling_topk > 0 or self.sampling_topp > 0):
            raise UserError("--sampling-topk and --sampling-topp need --sampling")
        if self.sampling_topk == 0 or not (self.sampling_topp == -1 or 0 < self.sampling_topp <= 1):
            raise UserError("--sampling-topk is at least 1, --sampling-topp above 0 and at most 1; -1 leaves both out")
        if self.unnormalized and (self.lenpen != 1 or self.lenpen_form != "fairseq"):
            raise UserError("--unnormalized ranks without a length penalty: leave out --lenpen and --lenpen-form")
        if self.sampling_topk > 0 and self.sampling_topp > 0:
            raise UserError("give --sampling-topk or --sampling-topp, not both")
