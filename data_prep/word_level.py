"""What the corpora of word-level language models share: three texts, taken from a folder or fetched.

The texts become train.txt, valid.txt and test.txt as they are, but for the blanks at the ends of lines. Every line
counts, an empty one too: seqba-preprocess ends each with `</s>`, as AWD-LSTM's released data.py does with `<eos>`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from fetching import Source, fetch, verify
from unpacking import find, opened

from seqba.cli.arguments import Parser
from seqba.data.files import atomic_write
from seqba.data.lines import iterate_lines
from seqba.errors import UserError


@dataclass(frozen=True)
class Corpus:
    """A corpus in the state that papers count in.

    Attributes:
        title: its name to a reader.
        archive: where the public has it.
        members: split → its file in the archive.
        tokens: split → its words and line ends.
        vocabulary: different words of all splits and the line end.
    """

    title: str
    archive: Source
    members: Mapping[str, str]
    tokens: Mapping[str, int]
    vocabulary: int


def command(corpus: Corpus, program: str, arguments: Sequence[str] | None) -> int:
    """The script of a corpus: puts its three texts into a folder, and says when they are not the published ones."""
    parser = Parser(program, f"{corpus.title} as plain text: train.txt, valid.txt, test.txt.")
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="where the text goes")
    parser.add_argument(
        "--from", dest="source", type=Path, metavar="DIR", help="take the texts, or their archive, from this folder"
    )
    options = parser.parse(arguments)
    for split, member in corpus.members.items():
        target = options.to / f"{split}.txt"
        if target.exists():
            continue
        if options.source is not None:
            found = _find(corpus, split, options.source)
        else:
            found = fetch(corpus.archive, options.to / "download")
        options.to.mkdir(parents=True, exist_ok=True)
        with opened(found, member if found.name == corpus.archive.name else None) as stream:
            _write(stream, target, found)
    _compare(corpus, options.to)
    return 0


def count_tokens(path: Path) -> tuple[int, set[str]]:
    """Words and line ends of a text, and its different words, by the rule of AWD-LSTM's released code."""
    tokens, words = 0, set()
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            found = line.split()
            tokens += len(found) + 1
            words.update(found)
    return tokens, words


def _find(corpus: Corpus, split: str, folder: Path) -> Path:
    """The text of a split, plain or .gz, under its published name or ours; or the archive."""
    member = Path(corpus.members[split]).name
    names = [name + suffix for name in (member, f"{split}.txt") for suffix in ("", ".gz")]
    found = find(folder, [*names, corpus.archive.name], takes="the three texts or the archive")
    if found.name == corpus.archive.name:
        verify(found, corpus.archive.digest)
    return found


def _write(lines: IO[bytes], target: Path, found: Path) -> None:
    """Copies a text without the blanks around its lines, whole or not at all.

    Raises:
        UserError: when it is empty or not UTF-8.
    """
    with atomic_write(target) as stream:
        for line in iterate_lines(lines, f"{found} ({target.name})"):
            stream.write(line.encode("utf-8").strip() + b"\n")
        if not stream.tell():
            raise UserError(f"{found} ({target.name}): there is no line in it; fetch it again")


def _compare(corpus: Corpus, folder: Path) -> None:
    """Says on stderr when the texts are others than the published ones, whose perplexities nothing else compares to."""
    counted = {split: count_tokens(folder / f"{split}.txt") for split in corpus.tokens}
    tokens = {split: number for split, (number, _) in counted.items()}
    vocabulary = len(set().union(*(words for _, words in counted.values()))) + 1
    if tokens != corpus.tokens or vocabulary != corpus.vocabulary:
        print(
            f"note: {folder} is not {corpus.title} as published: {_figures(tokens, vocabulary)}, "
            f"not {_figures(corpus.tokens, corpus.vocabulary)}",
            file=sys.stderr,
        )


def _figures(tokens: Mapping[str, int], vocabulary: int) -> str:
    return f"{' / '.join(f'{number:,}' for number in tokens.values())} tokens of {vocabulary:,} kinds"
