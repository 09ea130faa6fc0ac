"""Refusals of seqba-preprocess before any work: of contradicting options, of results that are there, of texts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from seqba.data.dictionary import Dictionary
from seqba.data.mixing import weights_path
from seqba.data.preprocess_options import PreprocessOptions
from seqba.data.splits import with_suffix
from seqba.data.subwords import MODEL_NAME, model_name, read_subwords
from seqba.data.tables import texts_of
from seqba.data.tokenizer_json import TOKENIZER_NAME, read_tokenizer
from seqba.errors import UserError, quoted
from seqba.options import is_given

Rule = tuple[bool, str]
"""Whether it is broken, and what is said then."""

MAKING = (
    "sentencepiece",
    "sentencepiece_model",
    "srcdict",
    "tgtdict",
    "thresholdsrc",
    "thresholdtgt",
    "nwordssrc",
    "nwordstgt",
    "joined_dictionary",
    "padding_factor",
    "tokenizer_json",
)
"""Options that make dictionaries and SentencePiece models, or name them one by one."""


GOING_WITH_A_TOKENIZER = ("joined_dictionary", "padding_factor", "tokenizer_json")
"""Those of them that mean something beside a tokenizer.json, whose vocabulary is one dictionary."""


def check_consistency(options: PreprocessOptions) -> None:
    """Refuses options that contradict each other, or of which one would have no effect.

    Raises:
        UserError: naming both options.
    """
    for rules in (_rules_of_languages, _rules_of_texts, _rules_of_subwords, _rules_of_dictionaries):
        for is_broken, sentence in rules(options):
            if is_broken:
                raise UserError(sentence)


def _rules_of_languages(options: PreprocessOptions) -> Iterator[Rule]:
    source, target = options.source_lang, options.target_lang
    lacks_one = source is None or target is None
    of_the_target = (options.tgtdict, options.thresholdtgt, options.nwordstgt, options.joined_dictionary)
    yield (
        options.dataset_impl != "mmap",
        f"--dataset-impl {options.dataset_impl} is not written here: mmap is the one format, and the default",
    )
    yield (
        options.from_model is not None and lacks_one,
        "--from-model needs --source-lang and --target-lang: the names of its two languages",
    )
    yield (
        not options.only_source and lacks_one,
        "give --source-lang and --target-lang, or --only-source for the text of a language model",
    )
    yield (
        not options.only_source and source == target,
        f"--source-lang and --target-lang are both {quoted(str(source))}",
    )
    yield (
        options.only_source and of_the_target != (None, 0, -1, False),
        "--only-source has no target side: leave out --tgtdict, --thresholdtgt, --nwordstgt, --joined-dictionary",
    )


def _rules_of_texts(options: PreprocessOptions) -> Iterator[Rule]:
    """Rules of texts that are mixed, and of columns of tables."""
    training_texts = sum(split.startswith("train") for split in options.texts(None))
    source, target = options.source_column, options.target_column
    yield (
        len(options.weights) not in (0, training_texts),
        f"--weights are of {len(options.weights)} texts, and --trainpref names {training_texts}: give one for each",
    )
    yield bool(options.weights) and options.dict_only, "--dict-only writes no texts to mix: leave out --weights"
    yield (
        options.only_source and target is not None,
        "--only-source has no target side: leave out --target-column",
    )
    yield (
        not options.only_source and (source is None) != (target is None),
        "a table has both sides: give --source-column and --target-column",
    )
    yield (
        source is not None and source == target,
        f"--source-column and --target-column are both {quoted(str(source))}",
    )


def _rules_of_subwords(options: PreprocessOptions) -> Iterator[Rule]:
    """Rules of what makes dictionaries and subwords: one thing alone."""
    making = [name for name in MAKING if is_given(options, name)]
    yield (
        options.joined_dictionary and options.srcdict is not None and options.tgtdict is not None,
        "--joined-dictionary is one dictionary: give it as --srcdict or as --tgtdict, not both",
    )
    yield (
        options.sentencepiece is not None and options.sentencepiece_model is not None,
        "--sentencepiece learns a model, --sentencepiece-model takes one: give one of them",
    )
    yield (
        options.from_model is not None and bool(making),
        "--from-model takes dictionaries and SentencePiece models as they are: leave out the options that make or name "
        "others",
    )
    yield (
        options.tokenizer_json is not None and bool(set(making) - set(GOING_WITH_A_TOKENIZER)),
        "--tokenizer-json brings its own vocabulary: leave out --sentencepiece…, --srcdict, --tgtdict, --threshold… "
        "and --nwords…",
    )
    yield (
        options.sentencepiece is not None and (options.srcdict or options.tgtdict) is not None,
        "--sentencepiece makes the dictionary from its own pieces; with --srcdict or --tgtdict, give the model that "
        "belongs to the dictionary as --sentencepiece-model",
    )


def _rules_of_dictionaries(options: PreprocessOptions) -> Iterator[Rule]:
    limits_source = (options.thresholdsrc, options.nwordssrc)
    limits_target = (options.thresholdtgt, options.nwordstgt)
    unlimited = (0, -1)
    yield (
        options.is_joined
        and any(
            own not in (free, source) for own, free, source in zip(limits_target, unlimited, limits_source, strict=True)
        ),
        "a joined dictionary is limited by --thresholdsrc and --nwordssrc; give the target's the same or not at all",
    )
    yield (
        options.srcdict is not None and limits_source != unlimited,
        "--srcdict is taken as it is: leave out --thresholdsrc and --nwordssrc",
    )
    yield (
        options.tgtdict is not None and limits_target != unlimited,
        "--tgtdict is taken as it is: leave out --thresholdtgt and --nwordstgt",
    )
    yield (
        options.trainpref is None and _makes_dictionary(options),
        "--trainpref is missing: it makes the dictionaries that are not given by --srcdict and --tgtdict",
    )


def _makes_dictionary(options: PreprocessOptions) -> bool:
    if options.takes_dictionaries:
        return False
    if options.sentencepiece is not None:
        return True
    if options.is_joined:
        return options.srcdict is None and options.tgtdict is None
    return options.srcdict is None or (not options.only_source and options.tgtdict is None)


def check_destination(options: PreprocessOptions) -> None:
    """Refuses results that are there already."""
    destination = Path(options.destdir)
    given = dict(zip(options.languages, (options.srcdict, options.tgtdict), strict=False))
    for language, dictionary in given.items():
        path = destination / f"{with_suffix('dict', language)}.txt"
        if dictionary is None and path.exists() and not _goes_on_with(options, destination):
            raise UserError(
                f"{path} exists and is not overwritten: choose another --destdir, remove the folder, or keep the "
                "dictionary by giving it as --srcdict/--tgtdict"
            )
    if weights_path(destination, "train").exists() and options.trainpref is not None and not options.weights:
        raise UserError(
            f"{weights_path(destination, 'train')} holds the weights of other training texts: give --weights of these, "
            "or remove it"
        )
    if (destination / TOKENIZER_NAME).exists() and options.tokenizer_json is None:
        raise UserError(
            f"{options.destdir} holds a tokenizer: give it as --tokenizer-json {destination / TOKENIZER_NAME}, or "
            "choose another --destdir"
        )
    if (destination / MODEL_NAME).exists() and not options.has_subwords:
        raise UserError(
            f"{options.destdir} holds a SentencePiece model: give --sentencepiece-model {destination / MODEL_NAME}, "
            "or choose another --destdir"
        )
    own = next((name for name in map(model_name, options.languages) if (destination / name).exists()), None)
    if own is not None and own != MODEL_NAME and options.from_model is None:
        raise UserError(
            f"{options.destdir} holds a SentencePiece model of a Marian folder, {own}: give that folder as "
            "--from-model, or choose another --destdir"
        )


def _goes_on_with(options: PreprocessOptions, destination: Path) -> bool:
    """Whether the dictionaries that a folder may have are those that this command takes."""
    if options.tokenizer_json is None:
        return options.from_model is not None
    own = destination / TOKENIZER_NAME
    return own.is_file() and own.read_bytes() == read_tokenizer(options.tokenizer_json).model


def check_files(options: PreprocessOptions) -> None:
    """Refuses files that are missing, empty or not what they are given for, and then sides of different length."""
    for path in filter(None, (options.srcdict, options.tgtdict)):
        Dictionary.load(path)
    if options.sentencepiece_model is not None:
        read_subwords(options.sentencepiece_model)
    if options.tokenizer_json is not None:
        read_tokenizer(options.tokenizer_json)
    counts = {
        text: text.count_lines() for language in options.languages for text in texts_of(options, language).values()
    }
    for text, count in counts.items():
        if not count:
            raise UserError(f"text {text} is empty; check the prefix and the language")
    if options.only_source:
        return
    for split, text in texts_of(options, options.source_lang).items():
        other = texts_of(options, options.target_lang)[split]
        here, there = counts[text], counts[other]
        if here != there:
            raise UserError(
                f"{text} has {here} lines and {other} has {there}: line i of one must translate line i of the other; "
                "mend the texts (a carriage return inside a line ends it)"
            )
