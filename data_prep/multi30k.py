"""Multi30k, English and German: 29,000 training, 1,014 validation and 1,000 test sentences (test_2016_flickr).

    python data_prep/multi30k.py --to DIR                # downloads task 1's raw text from the corpus's own repository
    python data_prep/multi30k.py --to DIR --from FOLDER  # takes the files you have, plain or .gz

Writes train, val and test_2016_flickr, each with .en and .de: raw sentences, one a line, as they were published.

Source: https://github.com/multi30k/dataset (Elliott, Frank, Sima'an, Specia: "Multi30K: Multilingual English-German
Image Descriptions", 2016). The German sentences translate captions of Flickr30K, whose terms ask for non-commercial
research and education. The checksums are those that torchtext published for the same files. The download itself has
been tried against local servers only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fetching import Source, fetch, main_entry
from unpacking import find, opened

from seqba.cli.arguments import Parser
from seqba.data.files import atomic_write
from seqba.data.lines import decode_text
from seqba.data.text import count_lines
from seqba.errors import UserError

BASE_URL = "https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw"
DIGESTS = {
    "train.en": "md5:0065d13af80720a55ca8153d126e6627",
    "train.de": "md5:81ff90b99829c0cd4b1b587d394afd39",
    "val.en": "md5:2b69aa9253948ac9f67e94917272dd40",
    "val.de": "md5:6e0e229eb049e3fc99a1ef02fb2d5f91",
    "test_2016_flickr.en": "md5:ff2c0fcb4893a13bd73414306bc250ae",
    "test_2016_flickr.de": "md5:efd67d314d98489b716b145475101932",
}
SPLITS = ("train", "val", "test_2016_flickr")


def main(arguments: Sequence[str] | None = None) -> int:
    """Puts the six plain text files into a folder."""
    parser = Parser("multi30k.py", "Multi30k (English, German) as plain text files.")
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="where the text goes")
    parser.add_argument("--from", dest="source", type=Path, metavar="DIR", help="take the files from this folder")
    options = parser.parse(arguments)
    for name, digest in DIGESTS.items():
        target = options.to / name
        if target.exists():
            continue
        if options.source is not None:
            found = find(options.source, (name, f"{name}.gz"), takes=", ".join(DIGESTS))
        else:
            found = fetch(Source(f"{BASE_URL}/{name}.gz", digest), options.to / "download")
        options.to.mkdir(parents=True, exist_ok=True)
        with opened(found) as source, atomic_write(target) as stream:
            text = source.read()
            decode_text(text, str(found))  # or refuses it
            stream.write(text)
    for split in SPLITS:
        check_pairs(options.to / f"{split}.en", options.to / f"{split}.de")
    return 0


def check_pairs(source: Path, target: Path) -> None:
    """Checks that two files have the same number of lines, and some.

    Raises:
        UserError: when they do not, or one of them is no text.
    """
    lines = {path: count_lines(path) for path in (source, target)}
    if lines[source] != lines[target] or not lines[source]:
        raise UserError(
            f"{source} has {lines[source]} lines and {target} has {lines[target]}: they are not translations of each "
            "other, line by line; remove both and run again"
        )


if __name__ == "__main__":
    main_entry(main)
