"""Mistakes on the command line of seqba-train, and its help: one line each, before any work."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from commands import train_complaint
from reversal import train_arguments, write_reversal

from seqba.cli.fairseq_train import UNSUPPORTED
from seqba.cli.flags import Off
from seqba.cli.train import COMMON, SOME, build_parser, main, read_config
from seqba.models.families import FAMILIES
from seqba.models.options import TransformerLMOptions, TransformerOptions
from seqba.tasks.registry import VARIANTS
from seqba.tasks.text_options import BlockOptions, TranslationOptions

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("flags", [["--curriculum", "4"], ["--adaptive-input"], ["--offload-activations"]])
def test_usual_options_of_fairseq_say_what_to_do(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert "leave it out" in train_complaint(["data-bin", "--lr", "1", *flags], capsys)


def test_min_lr_is_the_former_name_of_stop_min_lr(
    reversal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    schedule = ["--lr-scheduler", "inverse_sqrt", "--warmup-updates", "1", "--max-update", "9", "--no-save"]
    arguments = [*train_arguments(reversal, tmp_path, *schedule), "--min-lr", "0.0055"]
    assert main(arguments) == 0
    assert caplog.messages[-1] == "done after update 3: --stop-min-lr 0.0055"
    capsys.readouterr()
    assert "--min-lr is the former name of --stop-min-lr" in train_complaint(
        [*arguments, "--stop-min-lr", "1e-9"], capsys
    )


def test_validation_needs_both_sides(reversal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data-bin"
    shutil.copytree(reversal, data)
    for path in data.glob("valid.xx-yy.yy.*"):
        path.unlink()
    told = train_complaint(train_arguments(data, tmp_path / "run", "--max-update", "1"), capsys)
    assert "split 'valid' of" in told
    assert "has no references" in told


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--max-tokens", "0"], "--max-tokens is 0; it must be at least 1"),
        (
            ["--criterion", "label_smoothed_cross_entropy", "--label-smoothing", "1"],
            "--label-smoothing is 1; it must be less than 1",
        ),
        (["--lr", "nan"], "--lr is nan; it must be a finite number"),
        (["--lr", "inf"], "--lr is inf; it must be a finite number"),
        (["--update-freq", "1e999"], "is not a list of whole numbers"),
        (["--seed", "9" * 30], "it must be at most"),
        (["--copies", "9" * 20], "it must be at most 2147483647"),
        (["--copies", "two"], "argument --copies: 'two' is neither a number nor a schedule like 1:0,4:2000"),
        (["--update-freq", "1.5"], "not a list of whole numbers"),
        (["--adam-betas", "a,b"], "not a list of numbers"),
        (["--plan", "sideways"], "--plan is 'sideways'"),
        (["--arch", "resnet0"], "invalid choice: 'resnet0'"),
        (["--arch", "fconv"], "--arch fconv is not one here: it is a convolutional network; take a transformer"),
        (["--criterion", "adaptive_loss"], "--criterion adaptive_loss is not one here: it belongs to an adaptive"),
        (["--optimizer", "nag"], "--optimizer nag is not one here: take adam"),
        (["--fp16", "--bf16"], "give --fp16 or --bf16, not both"),
        (["--amp-init-scale", "4"], "--fp16-init-scale belongs to --fp16, which isn't given"),
        (["--disable-validation", "--patience", "3"], "--patience needs validations, and --disable-validation excl"),
        (["--task", "summarisation"], "invalid choice: 'summarisation'"),
        (["--task", "language_modeling"], "--arch transformer_tiny is not for --task language_modeling; choose one of"),
        (["--arch", "transformer_lm"], "--arch transformer_lm is not for --task translation; choose one of"),
        (["--valid-subset", "nowhere"], "nowhere"),
        (["--valid-subset", ","], "--valid-subset names no split"),
        (["--restore-file", "absent.pt"], "absent.pt does not exist"),
        (["--best-checkpoint-metric", "bleu", "--maximize-best-checkpoint-metric"], "needs --eval-bleu"),
        (["--encoder-attention-heads", "3"], "3"),
        (["--learning-rate", "1"], "unknown argument '--learning-rate'"),
        (
            ["--tokens-per-sample", "512"],
            "--tokens-per-sample belongs to --task language_modeling --arch transformer_lm (or another size of it); ",
        ),
        (["--add-bos-token"], "--add-bos-token belongs to --task language_modeling --arch transformer_lm (or another"),
        (["--bptt", "70"], "--bptt belongs to --task language_modeling --arch awd_lstm; this is --task translation"),
        (["--output-dictionary-size", "9"], "a language model predicts"),
        (["--warmup-update", "5"], "did you mean --warmup-updates?"),
    ],
)
def test_mistakes_are_one_line(
    more: list[str], message: str, reversal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = train_arguments(reversal, tmp_path / "run", "--max-update", "1")
    assert message in train_complaint([*arguments, *more], capsys)
    assert not list(tmp_path.glob("run/*"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--encoder-layers", "2"], "--encoder-layers belongs to --task translation; this is --task language_modeling"),
        (["-s", "en"], "--source-lang belongs to --task translation; this is"),
        (["--eval-bleu"], "--eval-bleu belongs to --task translation; this is"),
        (["--encoder-normalize-before"], "--encoder-normalize-before belongs to --task translation; this is"),
        (
            ["--best-checkpoint-metric", "bleu", "--maximize-best-checkpoint-metric"],
            "--best-checkpoint-metric bleu belongs to --task translation",
        ),
    ],
)
def test_a_language_model_refuses_what_it_would_ignore(
    more: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["data-bin", "--task", "language_modeling", "--max-tokens", "99", "--lr", "1", "--save-dir", "run"]
    assert message in train_complaint([*arguments, *more], capsys)


def test_a_flag_at_its_default_is_given_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    """What is refused is the flag, not a value that differs from the default."""
    line = ["data-bin", "--max-tokens", "99", "--lr", "1", "--sample-break-mode", "none"]
    assert "--sample-break-mode belongs to --task language_modeling" in train_complaint(line, capsys)


def test_the_task_chooses_the_architecture_and_its_options() -> None:
    common = ["data-bin", "--max-tokens", "99", "--lr", "1", "--dropout", "0.3", "--decoder-layers", "2"]
    translation = read_config(build_parser().parse(common))
    assert (translation.arch, translation.task_options) == ("transformer_wmt_en_de", TranslationOptions())
    assert translation.model == TransformerOptions(dropout=0.3, decoder_layers=2)
    more = ["--task", "language_modeling", "--tokens-per-sample", "32", "--sample-break-mode", "eos"]
    modelling = read_config(build_parser().parse([*common, *more]))
    assert modelling.arch == "transformer_lm"
    assert modelling.task_options == BlockOptions(tokens_per_sample=32, sample_break_mode="eos")
    assert modelling.model == TransformerLMOptions(dropout=0.3, decoder_layers=2)


def test_every_task_and_family_has_its_flags_and_every_flag_its_owner() -> None:
    owned = {options for variant in VARIANTS.values() for options in variant.groups.values()}
    owned |= {family.options for family in FAMILIES.values()}
    assert owned == set(SOME.values())
    assert not owned & set(COMMON.values())


def test_where_an_option_belongs_names_architectures_when_not_all_have_it(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["data-bin", "--batch-size", "9", "--lr", "1", "--task", "language_modeling"]
    # The first one on the command line is named.
    told = train_complaint([*arguments, "--arch", "awd_lstm", "--tokens-per-sample", "9", "--max-tokens", "99"], capsys)
    assert "--tokens-per-sample belongs to --task language_modeling --arch transformer_lm (or another size" in told
    told = train_complaint([*arguments, "--bptt", "70"], capsys)
    assert "--bptt belongs to --task language_modeling --arch awd_lstm; this is --task language_modeling --arch" in told


def test_a_missing_data_bin_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no data-bin" in train_complaint(train_arguments(tmp_path / "absent", tmp_path / "run"), capsys)
    assert "arguments are required: DATA" in train_complaint(["--max-tokens", "9", "--lr", "1"], capsys)


def test_a_joined_dictionary_is_needed_to_share_all_embeddings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_reversal(tmp_path / "data")
    lines = (data / "dict.yy.txt").read_text(encoding="utf-8").splitlines()
    (data / "dict.yy.txt").write_text("\n".join(lines[::-1]) + "\n", encoding="utf-8")
    assert "needs a joined dictionary" in train_complaint(train_arguments(data, tmp_path / "run"), capsys)


@pytest.mark.parametrize("flag", ["--zero-sharding", "--no-reshard-after-forward"])
def test_what_micro_batches_parameters_elsewhere_names_our_option(flag: str) -> None:
    assert "--shard-params" in UNSUPPORTED[flag]


@pytest.mark.parametrize("flag", sorted(UNSUPPORTED))
def test_fairseqs_other_options_are_refused_by_name(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    message = train_complaint(["data-bin", "--lr", "1", flag, "1"], capsys)
    assert f"{flag} is not an option here: {UNSUPPORTED[flag]}" in message


def test_no_option_is_both_known_and_refused() -> None:
    known = {flag for action in build_parser()._actions for flag in action.option_strings}
    assert not known & set(UNSUPPORTED)


def test_fairseqs_command_line_of_a_wmt_run_is_understood() -> None:
    line = (
        "data-bin/wmt16_en_de --arch transformer_wmt_en_de --share-all-embeddings --optimizer adam "
        "--adam-betas (0.9,0.98) --clip-norm 0.0 --lr 0.0007 --lr-scheduler inverse_sqrt --warmup-updates 4000 "
        "--warmup-init-lr 1e-07 --dropout 0.1 --weight-decay 0.0 --criterion label_smoothed_cross_entropy "
        "--label-smoothing 0.1 --max-tokens 4096 --update-freq 8 --bf16 -s en -t de --max-sentences 512 --max-epoch 0 "
        "--stop-min-lr 1e-09 --keep-interval-updates -1 --keep-last-epochs -1 --patience -1 --save-interval-updates 0 "
        "--log-format simple --log-interval 100 --seed 1 --no-progress-bar --copies 4 --eval-bleu "
        "--eval-bleu-remove-bpe"
    )
    given = build_parser().parse(line.split())
    assert (given.adam_betas, given.update_freq, given.batch_size) == ((0.9, 0.98), (8,), 512)
    assert (given.source_lang, given.eval_bleu_remove_bpe, given.copies) == ("en", "subword_nmt", 4)


def test_fairseqs_command_line_of_a_language_model_is_understood() -> None:
    line = (
        "data-bin/wikitext-103 --task language_modeling --arch transformer_lm --share-decoder-input-output-embed "
        "--dropout 0.1 --optimizer adam --adam-betas (0.9,0.98) --weight-decay 0.01 --clip-norm 0.0 --lr 0.0005 "
        "--lr-scheduler inverse_sqrt --warmup-updates 4000 --warmup-init-lr 1e-07 --tokens-per-sample 512 "
        "--sample-break-mode none --max-tokens 2048 --update-freq 16 --max-update 50000 --save-dir checkpoints"
    )
    config = read_config(build_parser().parse(line.split()))
    assert (config.task, config.arch) == ("language_modeling", "transformer_lm")
    assert config.task_options == BlockOptions(tokens_per_sample=512)
    assert config.model == TransformerLMOptions(share_decoder_input_output_embed=True, dropout=0.1)


def flags_shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> set[str]:
    """Flags that `--help` explains, each at the beginning of its entry."""
    with pytest.raises(SystemExit) as stopped:
        main([*arguments])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert "transformer_lm for language_modeling" in " ".join(shown.split())
    return {flag for line in shown.splitlines() if line.startswith("  -") for flag in re.findall(r"--[\w-]+", line)}


def test_help_is_of_the_task_and_architecture_that_are_given(capsys: pytest.CaptureFixture[str]) -> None:
    common = {"--copies", "--arm", "--plan", "--update-freq", "--lr-scheduler", "--task", "--arch"}
    translation = flags_shown(capsys, "--help")
    assert translation > common | {"--source-lang", "--eval-bleu", "--encoder-layers", "--max-tokens"}
    assert not translation & {"--tokens-per-sample", "--bptt", "--crop-padding", "--num-workers", "--ddp-backend"}
    streams = flags_shown(capsys, "data-bin", "-h", "--lr", "1", "--task", "language_modeling", "--arch", "awd_lstm")
    assert streams > common | {"--bptt", "--wdrop"}
    assert not streams & {"--source-lang", "--tokens-per-sample", "--max-tokens", "--encoder-layers"}
    assert flags_shown(capsys, "--help", "all") > translation | streams
    parser = build_parser()
    actions = [action for action in parser._actions if not isinstance(action, Off)]
    every = {flag for action in actions for flag in action.option_strings if flag.startswith("--")}
    assert flags_shown(capsys, "--help", "all") >= every - set(parser.accepted)


def test_help_on_what_there_is_none_of_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--arch fconv is not one here" in train_complaint(["--help", "--arch", "fconv"], capsys)
    assert "--arch awd_lstm is not for --task translation" in train_complaint(["--help", "--arch", "awd_lstm"], capsys)
