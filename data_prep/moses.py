"""The Moses steps of the classical WMT recipe, over files of any size: tokenise, clean, join and split BPE, detokenise.

    python data_prep/moses.py detokenize --lang de < tokens.de > text.de

Tokens are sacremoses' (the Python port of Moses' tokenizer.perl, escapes included), which pip installs wherever seqba
runs; the Perl scripts want a clone and a Perl. Lengths are cut as by Moses' clean-corpus-n.perl.
"""

from __future__ import annotations

import functools
import io
import itertools
import multiprocessing
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from fetching import main_entry, refuse

from seqba.cli.arguments import Parser
from seqba.data.files import atomic_text, atomic_write, read_lines
from seqba.data.lines import iterate_lines
from seqba.errors import UserError

try:
    from sacremoses import MosesDetokenizer, MosesTokenizer
    from subword_nmt.apply_bpe import BPE
    from subword_nmt.learn_bpe import learn_bpe
except ImportError as error:
    refuse(f"{error.name} is not installed, and the text is prepared with it: pip install 'seqba[wmt]'")

CHUNK_LINES = 2000
LONGEST_WORD = 1000  # characters; clean-corpus-n.perl drops pairs with longer ones

Transform = Callable[[list[str]], list[str]]


def tokenize(lines: list[str], *, language: str) -> list[str]:
    """Sentences → Moses tokens between single spaces, with Moses' escapes (`&apos;`, `&quot;`, …)."""
    tokenizer = _tokenizer(language)
    # The split also takes the exotic spaces that some corpora hold for spaces.
    return [" ".join(tokenizer.tokenize(line, return_str=True).split()) for line in lines]


def detokenize(lines: list[str], *, language: str) -> list[str]:
    """Moses tokens → sentences."""
    detokenizer = _detokenizer(language)
    return [detokenizer.detokenize(line.split()) for line in lines]


def apply_bpe(lines: list[str], *, codes: Path) -> list[str]:
    """Tokens → BPE subwords, continued with `@@` as in subword-nmt."""
    return [_bpe(codes).process_line(line) for line in lines]


def transform_file(source: Path, target: Path, transform: Transform, *, workers: int) -> None:
    """Writes every line of a file transformed, in order, on several processes; whole or not at all."""
    with open(source, "rb") as lines, atomic_write(target) as stream, multiprocessing.Pool(workers) as pool:
        for chunk in pool.imap(transform, _chunks(iterate_lines(lines, str(source)))):
            stream.writelines(line.encode("utf-8") + b"\n" for line in chunk)
        # Leaving the block sends SIGTERM, which a worker that has only just been forked loses: it would wait for ever.
        pool.close()
        pool.join()


def clean_pairs(
    sources: tuple[Path, Path], targets: tuple[Path, Path], *, shortest: int, longest: int, ratio: float
) -> tuple[int, int]:
    """Keeps the pairs of tokenised lines whose lengths are plausible, as clean-corpus-n.perl does.

    A pair goes when a side has fewer than `shortest` or more than `longest` tokens, when one is more than `ratio` times
    as long as the other, or when a token is longer than 1,000 characters.

    Returns:
        Pairs kept, pairs read.

    Raises:
        UserError: when one file has more lines than the other, or no pair is left.
    """
    kept = read = 0
    with (
        open(sources[0], "rb") as first,
        open(sources[1], "rb") as second,
        atomic_write(targets[0]) as first_out,
        atomic_write(targets[1]) as second_out,
    ):
        files = zip((first, second), sources, strict=True)
        for pair in itertools.zip_longest(*(iterate_lines(file, str(path)) for file, path in files)):
            if None in pair:
                raise UserError(
                    f"{sources[0]} and {sources[1]} differ in their number of lines; remove both, run again"
                )
            read += 1
            sides = [line.split() for line in pair]
            if _plausible(len(sides[0]), len(sides[1]), shortest, longest, ratio) and _short_words(sides):
                first_out.write(" ".join(sides[0]).encode("utf-8") + b"\n")
                second_out.write(" ".join(sides[1]).encode("utf-8") + b"\n")
                kept += 1
        if not kept:
            raise UserError(f"{sources[0]}: no pair is left of {read} after cleaning; look at the text")
    return kept, read


def learn_joint_bpe(sources: Sequence[Path], codes: Path, *, merges: int) -> None:
    """Learns one list of BPE merges from the text of both languages together (subword-nmt)."""
    with ExitStack() as stack:
        texts = [iterate_lines(stack.enter_context(open(path, "rb")), str(path)) for path in sources]
        learn_bpe(itertools.chain(*texts), stack.enter_context(atomic_text(codes)), merges)


def _plausible(first: int, second: int, shortest: int, longest: int, ratio: float) -> bool:
    within = shortest <= min(first, second) and max(first, second) <= longest
    return within and max(first, second) <= ratio * min(first, second)


def _short_words(sides: list[list[str]]) -> bool:
    return all(len(word) <= LONGEST_WORD for side in sides for word in side)


def _chunks(lines: Iterator[str]) -> Iterator[list[str]]:
    while chunk := list(itertools.islice(lines, CHUNK_LINES)):
        yield chunk


# One of each per process: they compile hundreds of patterns, and BPE remembers the words it has split.
@functools.cache
def _tokenizer(language: str) -> MosesTokenizer:
    return MosesTokenizer(language)


@functools.cache
def _detokenizer(language: str) -> MosesDetokenizer:
    return MosesDetokenizer(language)


@functools.cache
def _bpe(codes: Path) -> BPE:
    return BPE(io.StringIO("".join(f"{line}\n" for line in read_lines(codes, "BPE merges"))))


def main(arguments: Sequence[str] | None = None) -> int:
    """Tokenises or detokenises stdin to stdout."""
    parser = Parser("moses.py", "Moses tokens from text, or text from Moses tokens; stdin to stdout.")
    parser.add_argument("what", choices=("tokenize", "detokenize"))
    parser.add_argument("--lang", required=True, metavar="XX", help="language code")
    options = parser.parse(arguments)
    transform = tokenize if options.what == "tokenize" else detokenize
    for chunk in _chunks(iterate_lines(sys.stdin.buffer, "standard input")):
        for line in transform(chunk, language=options.lang):
            sys.stdout.buffer.write(line.encode("utf-8") + b"\n")
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    main_entry(main)
