from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import flop
import page
import prepare
import pytest
import tables
import torch
from record import read_records
from run import chosen_runs
from run_facts import seconds_of_updates
from studies import STUDIES
from study import SEEDS, Arm, Run, Study
from summary import Spread, sides_of
from torch.utils.flop_counter import FlopCounterMode

from seqba.cli.train import build_parser, read_config
from seqba.data.cifar import CIFAR10
from seqba.data.images import open_images
from seqba.errors import UserError
from seqba.models.evolved import EvolvedNetwork
from seqba.models.genotypes import GENOTYPES
from seqba.models.resnet import resnet_cifar
from seqba.plotting.logs import RunLines
from seqba.training.rules import validate_config

ROOT = Path(__file__).resolve().parents[2]
(LANGUAGE,) = (study for study in STUDIES if study.name == "language-twentieth")


def a_record(study: Study, arm: Arm, seed: int, values: list[float], **others: Any) -> dict[str, Any]:
    """A record of a finished run with a validation after every ten updates, each of a million operations."""
    updates = [10 * number for number in range(1, len(values) + 1)]
    return {
        "study": study.name,
        "arm": arm.name,
        "variant": arm.variant,
        "copies": arm.copies,
        "seed": seed,
        "finished": True,
        "updates": updates[-1],
        "of_updates": updates[-1],
        "unit": "tokens",
        "unique": 100 * updates[-1],
        "passes": 3,
        "processed": 100 * updates[-1] * arm.copies,
        "flop": 1e6 * updates[-1] * arm.copies,
        "seconds_of_updates": 60.0,
        "scores": {"test_ppl": 100.0 + seed, "valid_ppl": 110.0},
        "machine": {"processor": "a processor"},
        "versions": {"torch": "2.13.0"},
        "date": "2026-11-26",
        "measured": {},
        "curves": {"valid": {"update": updates, study.metric: values}, "train": {}},
        **others,
    }


def test_the_page_is_that_of_the_records() -> None:
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    records = read_records(ROOT / "recipes" / "results")
    assert text == page.page(text, records), "run bash recipes/evidence.sh --page yes"
    for study in STUDIES:
        assert (page.BEGIN.format(name=study.name) in text) == bool(sides_of(study, records))


def test_pictures_have_a_line_for_each_drawn_arm(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    records = read_records(ROOT / "recipes" / "results")
    kept = {path.name for path in (ROOT / "docs" / "img").glob("*.svg")}
    for study in STUDIES:
        pictures = page.pictures(study, sides_of(study, records))
        assert {name for name in kept if name.startswith(study.name)} == set(pictures)
        for name, sides in pictures.items():
            page.draw(study, sides, tmp_path / name)
            shown, made = ((folder / name).read_text(encoding="utf-8") for folder in (ROOT / "docs" / "img", tmp_path))
            assert made.count('id="line-') == shown.count('id="line-') >= len(sides)


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_arms_differ_in_nothing_but_the_arm(study: Study) -> None:
    assert study.arms[0] == Arm("baseline")
    assert len({arm.label for arm in study.arms}) == len(study.arms)
    for arm in study.arms:
        run = Run(study, arm, seed=2)
        assert run.updates == study.updates * arm.share
        assert run.updates >= 5 * study.validate_every * arm.share
    plain = [Run(study, arm, 2).options for arm in study.arms if not arm.options and arm.share == 1]
    for options in plain:
        start = options.index("--seed")
        assert options[start:] == plain[0][plain[0].index("--seed") :]


def test_every_command_of_training_passes_the_rules() -> None:
    for study in STUDIES:
        for arm in study.arms:
            given = build_parser().parse(["data", "--save-dir", "x", *Run(study, arm, 1).options])
            validate_config(read_config(given))


def test_a_shorter_run_has_a_shorter_schedule() -> None:
    (study,) = (study for study in STUDIES if study.name == "images-5000")
    whole, half = (Run(study, Arm("ba", 4), 1, most).options for most in (None, study.updates // 2))
    drops = [options[options.index("--lr-drops") + 1] for options in (whole, half)]
    assert drops == ["2080,2600", "1040,1300"]
    quarter = Run(study, Arm("ba", 4, "quarter", share=Fraction(1, 4)), 1)
    assert quarter.options[quarter.options.index("--lr-drops") + 1] == "520,650"
    assert quarter.updates * 4 == study.updates


def test_only_names_runs_in_its_order() -> None:
    runs = chosen_runs("translation-5000.ba-4.,images-5000.baseline", "3,1", None)
    assert [run.name for run in runs][:3] == [
        "translation-5000.ba-4.3",
        "translation-5000.ba-4.1",
        "images-5000.baseline.3",
    ]
    with pytest.raises(UserError):
        chosen_runs("no-such-study", "1", None)


def test_operations_of_a_network_are_those_that_torch_counts() -> None:
    model, images = resnet_cifar(10, depth=8), torch.randn(2, 3, 32, 32)
    with FlopCounterMode(display=False) as counter:
        model(images)
    assert counter.get_total_flops() / 2 * flop.FORWARD_AND_BACKWARD == pytest.approx(
        flop.ResNet(8).whole(10), rel=0.01
    )


def test_operations_of_searched_cells_are_those_that_torch_counts() -> None:
    (study,) = (study for study in STUDIES if study.name == "images-darts")
    model = EvolvedNetwork(10, GENOTYPES["darts"], init_channels=16, layers=8)
    with FlopCounterMode(display=False) as counter:
        model(torch.randn(2, 3, 32, 32))
    assert study.cost.whole(10) == counter.get_total_flops() / 2 * flop.FORWARD_AND_BACKWARD
    options = Run(study, study.arms[0], 1).options
    sizes = [options[options.index(name) + 1] for name in ("--arch", "--init-channels", "--layers")]
    assert sizes == ["darts", "16", "8"]


def test_operations_of_an_lstm_by_hand() -> None:
    # layers: 4·3·(2 + 3) + 4·2·(3 + 2) = 100 weights, output 5·2
    assert flop.AWDLSTM(layers=2, embedding=2, hidden=3).whole(5) == 6 * 110


def test_a_fork_saves_what_is_below_it() -> None:
    cost = flop.Transformer(layers=2, width=128, inner=512, length=20)
    assert 0.2 < cost.below_fork(2000) / cost.whole(2000) < 0.5


def test_parts_of_cifar_are_the_first_pictures_of_each_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(script: str, to: Path, raw: Path | None, *options: str) -> None:
        folder = to / CIFAR10.folder
        folder.mkdir(parents=True)
        for number, name in enumerate(CIFAR10.train):
            (folder / name).write_bytes(bytes([number] * CIFAR10.record_bytes) * 501)
        (folder / CIFAR10.test).write_bytes(bytes(CIFAR10.record_bytes) * 3)
        (folder / CIFAR10.names).write_text("\n".join("abcdefghij"), encoding="utf-8")

    monkeypatch.setattr(prepare, "_fetch", write)
    folder = prepare.prepare("cifar10-2500", tmp_path, None)
    images = open_images(folder, "train", decode_size=32)
    assert [int((images.labels == number).sum()) for number in range(6)] == [500] * 5 + [0]
    assert len(open_images(folder, "test", decode_size=32)) == 3
    assert prepare.prepare("cifar10-2500", tmp_path, None) == folder  # made once: another call of write would fail


def test_spreads_by_hand() -> None:
    one, other = Spread((1.0, 2.0, 3.0)), Spread((4.0, 4.0, 7.0))
    assert one.text(1) == "2.0 ± 1.0"
    assert other.against(one, 2) == f"+3.00 ± {math.sqrt((1 + 3) / 3):.2f}"
    assert Spread((5.0,)).text(1) == "5.0"


def test_equal_cost_and_equal_updates() -> None:
    baseline = [a_record(LANGUAGE, LANGUAGE.arms[0], seed, [6.0, 5.0, 4.5, 4.4]) for seed in (1, 2)]
    ba = [a_record(LANGUAGE, Arm("ba", 4), seed, [5.0, 4.4, 4.3, 4.2]) for seed in (1, 2)]
    first, second = sides_of(LANGUAGE, [*ba, *baseline])
    assert first.best().mean == 4.4
    assert second.best().mean == 4.2
    assert second.best(flop=first.records[0]["flop"]).mean == 5.0  # ten updates of four copies cost forty of one
    assert (first.updates_to(4.4), second.updates_to(4.4), first.updates_to(4.2)) == (40, 20, None)
    rows = tables.equal_table([first, second]).splitlines()
    assert rows[3].split(" | ")[1:] == ["4.200 ± 0.000", "4.200 ± 0.000", "5.000 ± 0.000", "20", "0.50 |"]

    both = tables.side_by_side([*baseline, *ba]).splitlines()[2].split(" | ")
    assert both[2:] == [
        "ba, M = 4 (2 seeds): 4.200 ± 0.000",
        "ba, M = 4 (2 seeds): 4.200 ± 0.000",
        "baseline (2 seeds): 4.400 ± 0.000",
        "ba, M = 4 (2 seeds): 5.000 ± 0.000 |",
    ]


def test_copies_against_as_many_examples() -> None:
    kept = [a_record(LANGUAGE, LANGUAGE.arms[0], 1, [5.0])]
    for arm, ends in ((Arm("ba", 4), (4.2, 4.4)), (Arm("fixed-samples", 4), (4.6, 4.8))):
        kept += [
            a_record(LANGUAGE, arm, seed, [4.1, end], passes=arm.copies * seed) for seed, end in enumerate(ends, 1)
        ]
    row = tables.copies_or_examples(kept).splitlines()[2]
    assert row == f"| {LANGUAGE.title} | 6 | 6 | test perplexity | +0.0 ± 0.7 | −0.400 ± 0.141 |"


def test_rows_of_the_paper_stand_beside_its_figures() -> None:
    records = [a_record(LANGUAGE, arm, 3, [5.0]) for arm in (LANGUAGE.arms[0], LANGUAGE.arms[0], Arm("ba", 8))]
    for record in records[1:]:
        record |= {"study": "table2-darts-cifar10", "scores": {"top1": 48.0}, "command": "bash recipes/paper.sh"}
        record |= {"paper": {"baseline": 97.65}, "paper_unit": "top-1 %", "unit": "images"}
    row = "| table2-darts-cifar10 | {} | 3 | 10 | {} M images | top1 48.00 | {} | `bash recipes/paper.sh` |"
    expected = [row.format("baseline", "0.00", "97.65 top-1 %"), row.format("ba, M = 8", "0.01", "–")]
    assert tables.rows_of_the_paper(records).splitlines()[2:] == expected


def test_times_are_compared_on_one_kind_of_machine() -> None:
    records = [a_record(LANGUAGE, LANGUAGE.arms[0], 1, [5.0])]
    records.append(a_record(LANGUAGE, Arm("ba", 4), 1, [5.0], seconds_of_updates=90.0))
    assert "| 4.00 | 1.50 |" in page.section(LANGUAGE, records)
    records[1]["machine"] = {"processor": "a processor", "gpu": "a GPU"}
    assert "| 4.00 | – |" in page.section(LANGUAGE, records)
    records += [a_record(LANGUAGE, LANGUAGE.arms[0], 2, [5.0], machine=records[1]["machine"])]
    records += [a_record(LANGUAGE, Arm("ba", 4), 2, [5.0])]
    assert "| 4.00 | – |" in page.section(LANGUAGE, records)


def test_unfinished_runs_are_named_and_left_out() -> None:
    records = [a_record(LANGUAGE, LANGUAGE.arms[0], seed, [5.0, 4.0]) for seed in SEEDS]
    records.append(a_record(LANGUAGE, Arm("ba", 4), 1, [5.0], of_updates=20, finished=False, scores={}))
    text = page.section(LANGUAGE, records)
    assert "Stopped before their end, and not in the tables: ba-4 seed 1 (10 of 20 updates)." in text
    assert "ba, M = 4" not in text
    assert "| baseline | 20 | 3 | 0.00 M | 2.0·10⁷ | 1.00 | 1.00 | 102.0 ± 1.0 | 110.0 ± 0.0 |  |" in text


def test_a_run_without_its_evaluation_is_there_with_a_dash() -> None:
    records = [a_record(LANGUAGE, LANGUAGE.arms[0], 1, [5.0, 4.0])]
    records.append(a_record(LANGUAGE, Arm("ba", 4), 1, [5.0, 3.9], finished=False, scores={}))
    (row,) = (
        line for line in page.section(LANGUAGE, records).splitlines() if line.startswith("| ba, M = 4 (1 seed) | 20")
    )
    assert row.endswith("| 4.00 | 1.00 | – | – | – |")


def test_runs_that_patience_ended_are_trained() -> None:
    patient = replace(LANGUAGE, patience=3)
    records = [a_record(LANGUAGE, LANGUAGE.arms[0], 1, [5.0, 4.0])]
    records.append(a_record(LANGUAGE, LANGUAGE.arms[0], 2, [5.0, 3.0, 3.5, 3.9], of_updates=90, trained=True))
    records.append(a_record(LANGUAGE, LANGUAGE.arms[0], 3, [5.0, 3.0, 3.5], of_updates=90, trained=True))
    records.append(a_record(LANGUAGE, Arm("ba", 4), 1, [5.0], of_updates=90, trained=False, finished=False, scores={}))
    text = page.section(patient, records)
    assert "Stopped before their end, and not in the tables: ba-4 seed 1 (10 of 90 updates)." in text
    assert "in all, beside other work. `--patience 3` ended 2 of them, after 30 to 40 updates." in text
    assert "| baseline | 30 | 3 | 0.00 M | 3.0·10⁷ | 1.00 | 1.00 | 102.0 ± 1.0 |" in text
    assert "| baseline | 3.333 ± 0.577 | 3.800 ± 0.265 | 3.333 ± 0.577 | 20 | 1.00 |" in text
    assert "--patience" not in page.section(LANGUAGE, records)


@pytest.mark.parametrize(("slow", "total"), [(3.0, 50.0), (15.0, 25.0)])
def test_a_pause_is_no_time_of_a_runs_updates(slow: float, total: float) -> None:
    """Six times the usual is a busy machine's and counts; minutes of a process that was stopped do not."""
    times = enumerate([0.5, 0.5, slow, 0.5, 0.5], 1)
    lines = [{"event": "train", "update": 10 * line, "seconds_per_update": each} for line, each in times]
    assert seconds_of_updates(RunLines("run", None, 1, None, tuple(lines))) == total
