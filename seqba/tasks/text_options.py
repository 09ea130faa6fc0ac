"""Options of the tasks on text: what one can say of the languages, of how a text is read, and of BLEU."""

from __future__ import annotations

import dataclasses

from seqba.errors import UserError
from seqba.options import option, options


@options
class TranslationOptions:
    """Options of the languages."""

    source_lang: str | None = option(
        None, "source language (default: from the data-bin's file names)", aliases=("-s",), metavar="SRC"
    )
    target_lang: str | None = option(
        None, "target language (default: from the data-bin's file names)", aliases=("-t",), metavar="TRG"
    )
    subword_sampling: float = option(
        0.0,
        "in training, each copy cuts its words into subwords anew, by the BPE merges that made them, each of which is "
        "dropped with this probability (BPE-dropout, 0.1 say; 0 = the subwords of the data-bin): the more and shorter "
        "the larger it is, so that a batch has about 1.2 times its --max-tokens at 0.1. Needs the data-bin's "
        "sentencepiece.model (seqba-preprocess --sentencepiece), or subword-nmt's codes as bpe.codes in it (not in "
        "fairseq)",
        minimum=0,
        below=1,
        metavar="P",
    )


@options
class BleuOptions:
    """Options of translating the validation splits."""

    eval_bleu: bool = option(False, "translate the validation splits and measure BLEU as well")
    eval_bleu_args: str = option(
        "{}", 'options of the search as JSON, \'{"beam": 4, "max_len_a": 1.2, "max_len_b": 10}\' say', metavar="JSON"
    )
    eval_bleu_remove_bpe: str | None = option(
        None,
        "join subwords: subword_nmt (when nothing is given: '@@ '), sentencepiece, or any symbol to remove; a data-bin "
        "with its own SentencePiece model needs no such option",
        bare="subword_nmt",
        metavar="SYMBOL",
    )
    eval_bleu_detok: str = option(
        "space",
        "moses: Moses' tokens are made plain text first (extra wmt), which sacreBLEU tokenises itself; space: words "
        "stay as they are",
        choices=("space", "moses"),
    )
    eval_bleu_detok_args: str = option(
        "{}", 'the language whose rules hold, \'{"target_lang": "de"}\' say (default: the target\'s)', metavar="JSON"
    )
    eval_tokenized_bleu: bool = option(False, "compare tokens as spaces separate them, plain text as well")
    eval_bleu_print_samples: bool = option(False, "show the first translation of a split and its reference")

    def __post_init__(self) -> None:
        """Refuses options without effect."""
        if not self.eval_bleu and any(getattr(self, field.name) != field.default for field in dataclasses.fields(self)):
            raise UserError("--eval-bleu-… options and --eval-tokenized-bleu need --eval-bleu")


@options
class BlockOptions:
    """Options of cutting a text into the rows of a Transformer."""

    tokens_per_sample: int = option(
        1024,
        "tokens of a block; with sample-break-mode eos, of the longest line that the model shall take",
        minimum=1,
        maximum=1 << 20,
    )
    sample_break_mode: str = option(
        "none", "none: blocks of tokens-per-sample, across lines; eos: one line each", choices=("none", "eos")
    )
    add_bos_token: bool = option(False, "put <s> before each block; it is read, not predicted")

    @property
    def longest_row(self) -> int:
        """Tokens of the longest row, `<s>` included, that a model for these blocks must take."""
        return self.tokens_per_sample + self.add_bos_token


@options
class StreamOptions:
    """Options of reading running text with a recurrent model, and of the regularisers of its activations."""

    bptt: int = option(
        70,
        "mean length of a window; half of it in 1 window of 20, ± 5 throughout; lr is scaled by length / bptt",
        minimum=1,
    )
    activation_regularization: float = option(
        2.0, "AR: this × the mean square of the last layer's output after dropout", minimum=0, aliases=("alpha",)
    )
    temporal_activation_regularization: float = option(
        1.0, "TAR: this × the mean square of the output's change from word to word", minimum=0, aliases=("beta",)
    )
