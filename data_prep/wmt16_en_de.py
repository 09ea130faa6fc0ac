"""The WMT16 English-German corpus of the Transformer papers, rebuilt from its public parts.

    python data_prep/wmt16_en_de.py --to DIR                # downloads 1.7 GB, resumable
    python data_prep/wmt16_en_de.py --to DIR --from FOLDER  # takes the archives, or the files in them, that you have

The archive that most toolkits point at (Google's wmt16_en_de.tar.gz) has been gone since 2021. This goes the way of
google/seq2seq's wmt16_en_de.sh: Europarl v7 + Common Crawl + News Commentary v11, Moses tokens, pairs of 1 to 80 tokens
(clean-corpus-n), and one BPE of 32,000 merges learned on both languages together (subword-nmt: the recipe's tokenised
BLEU and everybody's `@@ ` both ask for BPE over Moses tokens, which SentencePiece on raw text would not give). About
4.5 million pairs are left. newstest2013 to 2016 are tokenised and split, never cleaned: every sentence counts.

    DIR/archives/   the downloads
    DIR/raw/        train, newstest2013 … newstest2016, each .en and .de: sentences
    DIR/tok/        the same in Moses tokens; train.clean: what is left of it
    DIR/bpe.codes   the merges
    DIR/bpe/        train and the newstests in subwords: what seqba-preprocess takes

Every file is written whole or not at all, and one that is there is not made again: a second call goes on. Sources,
licences and checksums: data_prep/README.md. On 16 cores allow an hour or two after the downloads, and 12 GB of disk.
The downloads have been tried against local servers only; all later steps run in the tests at toy size.
"""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import moses
from fetching import Source, fetch, main_entry, verify
from unpacking import opened

from seqba.cli.arguments import Parser, read_options
from seqba.data.files import atomic_write
from seqba.data.lines import BYTE_ORDER_MARK, HEAD_BYTES, check_is_text
from seqba.data.text import count_lines
from seqba.errors import UserError
from seqba.options import option, options

LANGUAGES = ("en", "de")
NEWSTESTS = ("newstest2013", "newstest2014", "newstest2015", "newstest2016")

EUROPARL = Source(
    "http://www.statmt.org/wmt13/training-parallel-europarl-v7.tgz",
    "sha256:0224c7c710c8a063dfd893b0cc0830202d61f4c75c17eb8e31836103d27d96e7",
    657_632_379,
)
COMMON_CRAWL = Source(
    "http://www.statmt.org/wmt13/training-parallel-commoncrawl.tgz",
    "sha256:c7a74e2ea01ac6c920123108627e35278d4ccb5701e15428ffa34de86fa3a9e5",
    918_311_367,
)
NEWS_COMMENTARY = Source(
    "http://data.statmt.org/wmt16/translation-task/training-parallel-nc-v11.tgz",
    "sha256:cfe8ab047e05043476e498ee765c98e939c7b7d6d294e856344c84476b619d6a",
    75_178_032,
)
# The tests of several years in one archive.
DEV = Source(
    "http://data.statmt.org/wmt19/translation-task/dev.tgz",
    "sha256:7a7deccf82ebb05ba508dba5eb21356492224e8f630ec4f992132b029b4b25e7",
    38_654_961,
)


@dataclass(frozen=True)
class Part:
    """A pair of files inside an archive: English, German."""

    archive: Source
    members: tuple[str, str]


TRAIN = (
    Part(EUROPARL, ("training/europarl-v7.de-en.en", "training/europarl-v7.de-en.de")),
    Part(COMMON_CRAWL, ("commoncrawl.de-en.en", "commoncrawl.de-en.de")),
    Part(
        NEWS_COMMENTARY,
        (
            "training-parallel-nc-v11/news-commentary-v11.de-en.en",
            "training-parallel-nc-v11/news-commentary-v11.de-en.de",
        ),
    ),
)
TESTS = {
    "newstest2013": Part(DEV, ("dev/newstest2013.en", "dev/newstest2013.de")),
    "newstest2014": Part(DEV, ("dev/newstest2014-deen-src.en.sgm", "dev/newstest2014-deen-ref.de.sgm")),
    "newstest2015": Part(DEV, ("dev/newstest2015-ende-src.en.sgm", "dev/newstest2015-ende-ref.de.sgm")),
    "newstest2016": Part(DEV, ("dev/newstest2016-ende-src.en.sgm", "dev/newstest2016-ende-ref.de.sgm")),
}
SEGMENT = re.compile(rb"<seg[^>]*>(.*)</seg>", re.IGNORECASE)


@options
class PreparationOptions:
    """How the text is prepared; the defaults are the classical recipe's."""

    merges: int = option(32000, "BPE merges, learned on both languages together", minimum=1)
    min_length: int = option(1, "shortest training sentence kept, in Moses tokens", minimum=1)
    max_length: int = option(80, "longest training sentence kept, in Moses tokens", minimum=1)
    max_ratio: float = option(9.0, "how many times longer one side of a pair may be (Moses' own limit)", minimum=1)
    workers: int = option(os.cpu_count() or 1, "processes that tokenise and split", minimum=1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Makes the corpus, or what is still missing of it."""
    parser = Parser("wmt16_en_de.py", "WMT16 English-German, from its public parts to joint BPE.")
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="where everything goes")
    parser.add_argument("--from", dest="source", type=Path, metavar="DIR", help="take the parts from this folder")
    parser.add_options(PreparationOptions, "preparation")
    namespace = parser.parse(arguments)
    options = read_options(namespace, PreparationOptions)
    for folder in ("raw", "tok", "bpe"):
        (namespace.to / folder).mkdir(parents=True, exist_ok=True)
    assemble(namespace.to, namespace.source)
    tokenize(namespace.to, options)
    clean(namespace.to, options)
    split(namespace.to, options)
    return 0


def assemble(to: Path, source: Path | None) -> None:
    """The archives' parts → `raw/`: the training parts one after the other, and each newstest."""
    splits = {"train": TRAIN, **{name: (part,) for name, part in TESTS.items()}}
    for name, parts in splits.items():
        for side, language in enumerate(LANGUAGES):
            target = to / "raw" / f"{name}.{language}"
            if target.exists():
                continue
            _say(f"assembling {target}")
            with atomic_write(target) as stream:
                for part in parts:
                    for line in lines_of(part.archive, part.members[side], to / "archives", source):
                        stream.write(line + b"\n")
        _check_pairs(to / "raw" / name)


def lines_of(archive: Source, member: str, downloads: Path, source: Path | None) -> Iterator[bytes]:
    """The sentences of one file of an archive: a plain file in the user's folder, or from the archive itself.

    A line of the published files ends with a newline; a carriage return within it, which ends a line wherever the text
    is read afterwards, becomes a space. A byte order mark is left out.

    Sentences of .sgm files are taken as they stand between their tags, as by Moses' input-from-sgm.perl.

    Raises:
        UserError: when the file is nowhere or no text, or the archive is damaged.
    """
    if source is not None:
        for plain in (source / member, source / Path(member).name):
            if plain.is_file():
                with open(plain, "rb") as stream:
                    yield from _sentences(stream, member, str(plain))
                return
        if not (source / archive.name).is_file():
            raise UserError(
                f"{source}: neither {Path(member).name} nor {archive.name} is there ({archive.url} has both)"
            )
    path = _archive(archive, downloads, source)
    with opened(path, member) as stream:
        yield from _sentences(stream, member, f"{path} ({member})")


def tokenize(to: Path, options: PreparationOptions) -> None:
    """`raw/` → `tok/`: Moses tokens, for every split."""
    for name in ("train", *NEWSTESTS):
        for language in LANGUAGES:
            target = to / "tok" / f"{name}.{language}"
            if not target.exists():
                _say(f"tokenising {target}")
                step = functools.partial(moses.tokenize, language=language)
                moses.transform_file(to / "raw" / target.name, target, step, workers=options.workers)


def clean(to: Path, options: PreparationOptions) -> None:
    """`tok/train` → `tok/train.clean`: the pairs of plausible lengths."""
    sources = (to / "tok" / "train.en", to / "tok" / "train.de")
    targets = (to / "tok" / "train.clean.en", to / "tok" / "train.clean.de")
    if all(path.exists() for path in targets):
        return
    kept, read = moses.clean_pairs(
        sources, targets, shortest=options.min_length, longest=options.max_length, ratio=options.max_ratio
    )
    _say(f"kept {kept:,} of {read:,} training pairs")


def split(to: Path, options: PreparationOptions) -> None:
    """`tok/` → `bpe/`: joint BPE, learned on the clean training text."""
    codes = to / "bpe.codes"
    sides = [to / "tok" / f"train.clean.{language}" for language in LANGUAGES]
    if not codes.exists():
        _say(f"learning {options.merges:,} merges")
        moses.learn_joint_bpe(sides, codes, merges=options.merges)
    step = functools.partial(moses.apply_bpe, codes=codes)
    for name in ("train", *NEWSTESTS):
        for language in LANGUAGES:
            target = to / "bpe" / f"{name}.{language}"
            if not target.exists():
                _say(f"splitting {target}")
                source = to / "tok" / (f"train.clean.{language}" if name == "train" else target.name)
                moses.transform_file(source, target, step, workers=options.workers)


@functools.cache  # one check per archive, not one per file in it
def _archive(archive: Source, downloads: Path, source: Path | None) -> Path:
    if source is None:
        return fetch(archive, downloads)
    verify(source / archive.name, archive.digest)
    return source / archive.name


def _sentences(stream: Iterable[bytes], member: str, where: str) -> Iterator[bytes]:
    damaged = 0
    for number, line in enumerate(stream):
        if number == 0:
            check_is_text(line[:HEAD_BYTES], where)
            line = line.removeprefix(BYTE_ORDER_MARK)
        text = line.decode("utf-8", errors="replace").encode("utf-8")
        damaged += text != line
        if not member.endswith(".sgm"):
            yield text.rstrip(b"\r\n").replace(b"\r", b" ")
        elif found := SEGMENT.search(text):
            yield found.group(1).strip().replace(b"\r", b" ")
    if damaged:
        _say(f"note: {where}: {damaged:,} lines hold bytes that are not UTF-8; U+FFFD stands for them")


def _check_pairs(prefix: Path) -> None:
    paths = [prefix.with_name(f"{prefix.name}.{language}") for language in LANGUAGES]
    counts = [count_lines(path) for path in paths]
    if counts[0] != counts[1] or not counts[0]:
        raise UserError(
            f"{paths[0]} has {counts[0]} lines and {paths[1]} has {counts[1]}: not translations of each other, line "
            "by line; look at the parts, remove both and run again"
        )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main_entry(main)
