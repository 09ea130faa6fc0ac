"""The options of seqba-preprocess, the file names that follow from them, and which of them exclude each other."""

from __future__ import annotations

from dataclasses import fields

from seqba.data.limits import LARGEST_WEIGHT
from seqba.data.splits import with_suffix
from seqba.errors import quoted
from seqba.options import option, options


@options
class PreprocessOptions:
    """Options of `seqba-preprocess`, named as fairseq names them."""

    source_lang: str | None = option(None, "source language: the text's file suffix", aliases=("-s",), metavar="SRC")
    target_lang: str | None = option(None, "target language: the text's file suffix", aliases=("-t",), metavar="TRG")
    trainpref: str | None = option(
        None, "training text: prefixes, comma-separated (train, train1, …)", metavar="FP[,FP]"
    )
    weights: tuple[float, ...] = option(
        (),
        "how often an example of each training text comes in an epoch of seqba-train, 3,1 say (its own --weights goes "
        "before); 0.5: every second epoch",
        above=0,
        maximum=LARGEST_WEIGHT,
    )
    validpref: str | None = option(
        None, "validation text: prefixes, comma-separated (valid, valid1, …)", metavar="FP[,FP]"
    )
    testpref: str | None = option(None, "test text: prefixes, comma-separated (test, test1, …)", metavar="FP[,FP]")
    source_column: str | None = option(
        None,
        "the texts are tables, .jsonl, .tsv or .parquet, given by their whole names, and this column is the source; "
        "translation.en is en inside translation, and 1 the first column of a .tsv without a header",
        metavar="NAME",
    )
    target_column: str | None = option(None, "likewise the target's column", metavar="NAME")
    destdir: str = option("data-bin", "data folder to write", metavar="DIR")
    thresholdsrc: int = option(0, "leave out source words seen less often than this", minimum=0)
    thresholdtgt: int = option(0, "leave out target words seen less often than this", minimum=0)
    nwordssrc: int = option(-1, "most symbols of the source dictionary, the 4 special ones included; -1: all")
    nwordstgt: int = option(-1, "most symbols of the target dictionary, the 4 special ones included; -1: all")
    srcdict: str | None = option(None, "take this source dictionary instead of making one", metavar="FP")
    tgtdict: str | None = option(None, "take this target dictionary instead of making one", metavar="FP")
    joined_dictionary: bool = option(False, "one dictionary for both languages")
    only_source: bool = option(False, "only the source language, for a language model")
    padding_factor: int = option(8, "pad the dictionary to a multiple of this size", minimum=1)
    workers: int = option(1, "processes; the result does not depend on them", minimum=1)
    dict_only: bool = option(False, "write the dictionaries and nothing else")
    dataset_impl: str = option("mmap", "file format; memory-mapped is the only one")
    sentencepiece: int | None = option(
        None, "learn a joint SentencePiece model (BPE) of this many pieces and encode all text with it", minimum=8
    )
    sentencepiece_model: str | None = option(None, "encode all text with this SentencePiece model", metavar="FP")
    tokenizer_json: str | None = option(
        None,
        "encode all text with this tokenizer of Hugging Face's (extra tokenizers); its vocabulary is the dictionary",
        metavar="FILE",
    )
    from_model: str | None = option(
        None,
        "take dictionaries and SentencePiece models from this Marian folder, to fine-tune its model",
        metavar="FOLDER",
    )

    def __str__(self) -> str:
        """Options that were given, paths as they were given."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        told = (f"{name}={quoted(value) if isinstance(value, str) else value}" for name, value in values)
        return f"{type(self).__name__}({', '.join(told)})"

    @property
    def languages(self) -> tuple[str | None, ...]:
        """The languages to binarise; None stands for text files without a suffix."""
        return (self.source_lang,) if self.only_source else (self.source_lang, self.target_lang)

    @property
    def has_subwords(self) -> bool:
        """Whether text goes through SentencePiece."""
        return (self.sentencepiece, self.sentencepiece_model, self.from_model) != (None, None, None)

    @property
    def takes_dictionaries(self) -> bool:
        """Whether dictionaries come from a model or a tokenizer, as they are."""
        return (self.from_model, self.tokenizer_json) != (None, None)

    @property
    def is_joined(self) -> bool:
        """Whether both languages share a dictionary; the pieces of a joint SentencePiece model do."""
        given = self.srcdict is not None or self.tgtdict is not None
        if self.only_source or self.from_model is not None:
            return False
        return self.joined_dictionary or (self.has_subwords and not given)

    def texts(self, language: str | None) -> dict[str, str]:
        """Every split's name and text file: {"train": …, "valid": …, "valid1": …}."""
        found = {}
        for split, prefixes in (("train", self.trainpref), ("valid", self.validpref), ("test", self.testpref)):
            for number, prefix in enumerate(prefixes.split(",") if prefixes else ()):
                path = prefix if self.source_column is not None else with_suffix(prefix, language)
                found[split + (str(number) if number else "")] = path
        return found

    def column(self, language: str | None) -> str | None:
        """The column of a language in every table; None where texts are files of their own."""
        return self.source_column if language == self.source_lang else self.target_column

    def corpus_name(self, split: str, language: str | None) -> str:
        """`train.en-de.en`, or `train` for text without a language; fairseq's own names."""
        return f"{split}.{self.source_lang}-{self.target_lang}.{language}" if language is not None else split
