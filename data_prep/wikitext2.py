"""WikiText-2, word level: 2,088,628 training, 217,646 validation and 245,569 test tokens of Wikipedia's good articles.

    python data_prep/wikitext2.py --to DIR                # downloads wikitext-2-v1.zip
    python data_prep/wikitext2.py --to DIR --from FOLDER  # wiki.{train,valid,test}.tokens or {train,valid,test}.txt,
                                                          # plain or .gz, or the archive

Writes train.txt, valid.txt and test.txt: a paragraph or heading a line, empty lines included, rare words as `<unk>`.
Tokens count the end of each line, an empty one's too, as in AWD-LSTM's released code; with it the vocabulary is 33,278.

Another text is taken as it is, and one line says that it is not the published one.

Source: Merity, Xiong, Bradbury, Socher: "Pointer Sentinel Mixture Models", 2017. The published address
(s3.amazonaws.com/research.metamind.io) no longer answers; this one is the first author's own. The checksum is the one
that DataDeps.jl and others published for the old address. The download has been tried against local servers only.
"""

from __future__ import annotations

from collections.abc import Sequence

from fetching import Source, main_entry
from word_level import Corpus, command

CORPUS = Corpus(
    title="WikiText-2",
    archive=Source(
        "https://wikitext.smerity.com/wikitext-2-v1.zip",
        "sha256:92675f1d63015c1c8b51f1656a52d5bdbc33aafa60cc47a218a66e7ee817488c",
    ),
    members={
        "train": "wikitext-2/wiki.train.tokens",
        "valid": "wikitext-2/wiki.valid.tokens",
        "test": "wikitext-2/wiki.test.tokens",
    },
    tokens={"train": 2_088_628, "valid": 217_646, "test": 245_569},
    vocabulary=33_278,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Puts the three texts into a folder."""
    return command(CORPUS, "wikitext2.py", arguments)


if __name__ == "__main__":
    main_entry(main)
