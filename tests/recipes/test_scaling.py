"""The model of recipes/bench/scaling.py: what each of its terms must do, and numbers worked by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parents[2] / "recipes" / "bench"


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(BENCH)
    import scaling_model

    return scaling_model


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(BENCH)
    import scaling

    return scaling


def network(model: Any, **changes: Any) -> Any:
    links = {"inner_bandwidth": 100e9, "inner_latency": 0.0, "outer_bandwidth": 10e9, "outer_latency": 0.0}
    return model.Network(**{"ranks_per_node": 1, **links, **changes})


def work(model: Any, **changes: Any) -> Any:
    return model.Work(**{"micro_batches": 4, "cell_s": 0.25, "gradient_bytes": 100e6, **changes})


def test_one_rank_exchanges_nothing_and_is_efficient(model: Any) -> None:
    links = network(model, inner_latency=1.0, outer_latency=1.0)
    for tree in (False, True):
        assert model.exchange_s(1, 100e6, replace(links, tree=tree)) == 0
    assert model.update_s(1, 10, work(model, straggler_s=9.0), links) == 40 * 0.25
    assert model.efficiency(1, 10, work(model, straggler_s=9.0), links) == 1


def test_numbers_worked_by_hand(model: Any) -> None:
    # 2 · 3/4 · 100 MB / 10 GB/s + 2 · 3 · 1 ms, then two cells of 0.25 s on the slowest rank, and 0.1 s for a straggler
    links = network(model, outer_latency=1e-3)
    assert model.exchange_s(4, 100e6, links) == pytest.approx(0.021)
    assert model.update_s(4, 2, work(model, straggler_s=0.1), links) == pytest.approx(0.621)
    assert model.efficiency(4, 2, work(model), links) == pytest.approx(2 / (4 * 0.521))
    # the tree: 2 · 100 MB / 10 GB/s + 2 · log₂ 4 · 1 ms
    assert model.exchange_s(4, 100e6, replace(links, tree=True)) == pytest.approx(0.024)
    # 8 ranks on 2 nodes: 2 · 3/4 · 100 MB / 100 GB/s + 6 · 1 µs within, 2 · 1/2 · 100 MB / 10 GB/s + 2 · 1 ms between
    nodes = replace(links, ranks_per_node=4, inner_latency=1e-6)
    assert model.exchange_s(8, 100e6, nodes) == pytest.approx(0.0015 + 6e-6 + 0.01 + 0.002)
    # 3 ranks fill no node: a ring of three, and no other node
    assert model.exchange_s(3, 100e6, nodes) == pytest.approx(4 / 3 * 1e-3 + 4e-6)


def test_twice_the_bandwidth_halves_the_volume_and_leaves_the_latency(model: Any) -> None:
    for tree in (False, True):
        slow, late = network(model, tree=tree), network(model, tree=tree, outer_latency=1e-3)
        fast = replace(slow, outer_bandwidth=20e9)
        assert model.exchange_s(16, 1e8, slow) == pytest.approx(2 * model.exchange_s(16, 1e8, fast))
        rest = model.exchange_s(16, 1e8, late) - model.exchange_s(16, 1e8, slow)
        assert rest == pytest.approx((8 if tree else 30) * 1e-3)


@pytest.mark.parametrize("overlap", [0.0, 0.5, 1.0])
def test_no_rank_does_more_than_its_time(model: Any, overlap: float) -> None:
    for ranks in (1, 2, 3, 7, 8, 16, 40):
        for per_node in (1, 4, 8):
            links = network(model, ranks_per_node=per_node, outer_latency=1e-6)
            assert 0 < model.efficiency(ranks, 10, work(model, overlap=overlap), links) <= 1 + 1e-12
    assert model.efficiency(3, 10, work(model, gradient_bytes=0.0), network(model)) == pytest.approx(40 / (3 * 14))


def test_no_more_hides_than_the_last_backward_covers(model: Any) -> None:
    links = network(model)
    exchange = model.exchange_s(16, 100e6, links)
    half, slow = work(model, overlap=0.5), work(model, overlap=1.0, gradient_bytes=100e9)
    assert model.update_s(16, 4, half, links) == pytest.approx(0.25 + exchange / 2)
    assert model.update_s(16, 4, slow, links) == pytest.approx(0.25 + 1000 * exchange - 0.25 * 2 / 3)


def test_more_ranks_than_cells_are_refused(model: Any) -> None:
    assert model.update_s(16, 4, work(model), network(model)) > 0
    with pytest.raises(ValueError, match="17 ranks for 4 micro-batches × 4 copies = 16 cells"):
        model.update_s(17, 4, work(model), network(model))


def test_ten_copies_on_ten_times_the_nodes_take_the_time_of_four_on_four_times(benchmark: Any, capsys: Any) -> None:
    assert benchmark.main(["--table", "model"]) == 0
    printed = capsys.readouterr().out.splitlines()
    paper, ours, slowed = (line for line in printed if line.startswith("figure 5"))
    assert "1.43 +- 0.13 at M = 1 on 4, 1.47 +- 0.13 at M = 4 on 16, 1.46 +- 0.14 at M = 10 on 40" in paper
    for line in (ours, slowed):  # "the difference in runtime is negligible"
        ratio = float(line.partition("M = 10 : M = 4 ")[2].split()[0])
        assert 1 <= ratio < 1.03
    assert "1.47 at M = 4 on 16" in slowed
    assert any("102.2 MB" in line for line in printed)
    (full,) = (line.split() for line in printed if line.split()[:2] == ["4", "16"])
    # as many ranks as cells: 64 / 234.4 s, and 2 · 15/16 · 102.2 MB / 10 GB/s + 30 · 5 us
    assert float(full[2]) == pytest.approx(0.2730 + 0.0193, abs=1e-3)
    (row,) = (line.split() for line in printed if line.split()[:2] == ["4", "32"])
    assert row[2:4] == ["refused", ">cells"]
    assert float(row[5]) == pytest.approx(40 / (32 * 2), rel=0.05)  # 40 cells on 32 ranks: two on the slowest


def test_every_network_makes_updates(benchmark: Any) -> None:
    spec = {"transformer_size": "tiny", "lstm_size": "tiny", "resnet": "resnet8", "batch": 4, "max_tokens": 200}
    for name in benchmark.NETWORKS:
        update, tensors = benchmark.build_work({**spec, "network": name, "copies": 2}, None)
        for number in range(2):
            update(number)
        assert sum(tensor.numel() for tensor in tensors) > 1000


@pytest.mark.parametrize(
    "arguments", [["--table", "both"], ["--networks", "vgg"], ["--copies", "3"], ["--ranks", "1"], ["--overlap", "2"]]
)
def test_mistakes_are_one_line(benchmark: Any, capsys: Any, arguments: list[str]) -> None:
    assert benchmark.main(arguments) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert told.count("\n") == 1
