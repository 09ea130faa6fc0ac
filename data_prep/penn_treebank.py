"""Penn Treebank as Mikolov prepared it for language models: 929,589 training, 73,760 validation and 82,430 test tokens.

    python data_prep/penn_treebank.py --to DIR                # downloads Mikolov's simple-examples.tgz
    python data_prep/penn_treebank.py --to DIR --from FOLDER  # ptb.{train,valid,test}.txt or {train,valid,test}.txt,
                                                              # plain or .gz, or the archive

Writes train.txt, valid.txt and test.txt: lower case, numbers as `N`, no punctuation, words beyond the 9,999 most
frequent as `<unk>`, one sentence a line. Tokens count the end of each line; with it the vocabulary is 10,000.

AWD-LSTM's released code collects its vocabulary over all three splits, seqba-preprocess from the training text. On this
corpus that is the same: every word of valid.txt and test.txt is in train.txt, and `<unk>` is the dictionary's own.

Another text is taken as it is, and one line says that it is not the published one.

Source: T. Mikolov, RNNLM toolkit, basic examples; Marcus, Santorini, Marcinkiewicz: "Building a Large Annotated Corpus
of English", 1993 (LDC99T42). The archive's checksum is the one that PaddlePaddle published for the same URL. The
download has been tried against local servers only. Licence and checksums of the texts: data_prep/README.md.
"""

from __future__ import annotations

from collections.abc import Sequence

from fetching import Source, main_entry
from word_level import Corpus, command

CORPUS = Corpus(
    title="Penn Treebank (Mikolov)",
    archive=Source(
        "http://www.fit.vutbr.cz/~imikolov/rnnlm/simple-examples.tgz", "md5:30177ea32e27c525793142b6bf2c8e2d"
    ),
    members={
        "train": "simple-examples/data/ptb.train.txt",
        "valid": "simple-examples/data/ptb.valid.txt",
        "test": "simple-examples/data/ptb.test.txt",
    },
    tokens={"train": 929_589, "valid": 73_760, "test": 82_430},
    vocabulary=10_000,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Puts the three texts into a folder."""
    return command(CORPUS, "penn_treebank.py", arguments)


if __name__ == "__main__":
    main_entry(main)
