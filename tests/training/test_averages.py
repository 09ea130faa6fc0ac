"""Averages of the weights: what they are of, who sees them, and that a resumed run has the same."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from small_runs import make_loop, make_options
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from seqba.checkpoints.file import read_checkpoint
from seqba.training.averages import MovingAverage, exchanged
from seqba.training.folder import BEST, LAST
from seqba.training.signals import StopSignal


def averages(average: MovingAverage) -> list[float]:
    return [value for _, kept in average.pairs() for value in kept.flatten().tolist()]


def test_it_is_torchs_moving_average() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    average = MovingAverage(model, 0.75)
    reference = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.75), use_buffers=True)
    for number in range(1, 6):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        model(torch.randn(8, 3))
        average.update(number)
        reference.update_parameters(model)
        if number == 1:  # torch's begins with the weights of its first step
            for tensor, kept in average.pairs():
                kept.copy_(tensor)
    with exchanged(average.pairs()):
        own = {name: value.clone() for name, value in model.state_dict().items()}
    expected = reference.module.state_dict()
    assert own.keys() == expected.keys()
    for name in own.keys() - {"1.num_batches_tracked"}:
        torch.testing.assert_close(own[name], expected[name])


def test_it_is_worked_out_by_hand() -> None:
    weight = nn.Linear(1, 1, bias=False)
    nn.init.constant_(weight.weight, 8.0)

    def kept(start: int, every: int) -> list[float]:
        nn.init.constant_(weight.weight, 8.0)
        average = MovingAverage(weight, 0.5, start=start, every=every)
        seen = []
        for number in (1, 2, 3, 4):
            nn.init.constant_(weight.weight, float(8 * number + 8))
            average.update(number)
            seen += averages(average)
        return seen

    assert kept(start=0, every=1) == [12, 18, 25, 32.5]
    assert kept(start=3, every=1) == [16, 24, 28, 34]
    assert kept(start=0, every=2) == [8, 16, 16, 28]


def test_tied_weights_are_averaged_once_and_counts_never() -> None:
    embedding, output, norm = nn.Embedding(3, 2), nn.Linear(2, 3, bias=False), nn.BatchNorm1d(2)
    output.weight = embedding.weight
    pairs = MovingAverage(nn.ModuleList([embedding, output, norm]), 0.9).pairs()
    assert len(pairs) == 1 + 4
    assert all(kept.is_floating_point() for _, kept in pairs)


def test_weights_come_back_after_an_error_and_tensors_taken_inside_keep_the_average() -> None:
    weight, average = nn.Parameter(torch.tensor([1.0])), torch.tensor([3.0])
    with exchanged([(weight, average)]):
        taken = weight.detach()
    with pytest.raises(KeyError), exchanged([(weight, average)]):
        raise KeyError
    assert (weight.tolist(), taken.tolist(), average.tolist()) == ([1], [3], [3])


def state(folder: Path, name: str = LAST) -> dict[str, torch.Tensor]:
    checkpoint = read_checkpoint(folder / name)
    return {"average": checkpoint["model"]["weight"], "raw": checkpoint["raw_model"]["weight"]}


EMA = {"store_ema": True, "ema_decay": 0.75, "ema_start_update": 2}


def test_a_resumed_run_has_the_same_weights_and_averages_to_the_bit(tmp_path: Path) -> None:
    for folder, ends in (("whole", [9]), ("parts", [4, 7, 9])):
        for end in ends:
            make_loop(make_options(tmp_path / folder, max_update=end, **EMA)).run(StopSignal())
    whole, parts = state(tmp_path / "whole"), state(tmp_path / "parts")
    assert torch.equal(whole["average"], parts["average"])
    assert torch.equal(whole["raw"], parts["raw"])
    assert not torch.equal(whole["raw"], whole["average"])


def test_the_weights_themselves_are_those_of_a_run_without_averages(tmp_path: Path) -> None:
    make_loop(make_options(tmp_path / "with", max_update=6, **EMA)).run(StopSignal())
    make_loop(make_options(tmp_path / "without", max_update=6)).run(StopSignal())
    without = read_checkpoint(tmp_path / "without" / LAST)
    assert without["raw_model"] is None
    assert torch.equal(state(tmp_path / "with")["raw"], without["model"]["weight"])


def test_validation_sees_the_average(tmp_path: Path) -> None:
    loop = make_loop(make_options(tmp_path, max_update=6, **EMA))
    loop.run(StopSignal())
    batches = loop.splits["valid"]
    with torch.no_grad():
        losses = [float((row.values @ state(tmp_path)["average"] - row.target).square().sum()) for row in batches]
    assert loop.progress.latest["loss"] == pytest.approx(sum(losses) / sum(len(row.target) for row in batches))
    assert state(tmp_path, BEST).keys() == {"average", "raw"}


def test_what_begins_with_averages_goes_on_with_what_it_asks_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_loop(make_options(tmp_path, max_update=4, **EMA)).run(StopSignal())
    kept = state(tmp_path)
    without = make_loop(make_options(tmp_path, max_update=6))
    assert torch.equal(without.trainer.model.weight, kept["raw"])
    assert "--store-ema False (it had True)" in caplog.text
    fresh = make_loop(make_options(tmp_path, max_update=6, reset_optimizer=True, **EMA))
    assert torch.equal(fresh.trainer.model.weight, kept["average"])
    assert averages(fresh.trainer.optimisation.average) == kept["average"].tolist()
    named = str(tmp_path / LAST)
    tuned = make_loop(make_options(tmp_path / "tuned", max_update=6, finetune_from_model=named, **EMA))
    assert torch.equal(tuned.trainer.model.weight, kept["average"])
    assert averages(tuned.trainer.optimisation.average) == kept["average"].tolist()


def test_averages_that_begin_on_the_way_begin_with_the_weights_of_then(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_loop(make_options(tmp_path, max_update=4)).run(StopSignal())
    with caplog.at_level(logging.WARNING):
        loop = make_loop(make_options(tmp_path, max_update=6, **EMA))
    assert averages(loop.trainer.optimisation.average) == loop.trainer.model.weight.tolist()
    assert "--store-ema True (it had False)" in caplog.text


def test_an_update_without_a_finite_gradient_moves_no_average(tmp_path: Path) -> None:
    loop = make_loop(make_options(tmp_path, max_update=2, **EMA))
    before = averages(loop.trainer.optimisation.average)
    with torch.no_grad():
        loop.trainer.model.weight.fill_(float("inf"))
    batch, status = next(loop._batches(StopSignal()))
    assert loop.trainer.update(batch, status).skipped
    assert averages(loop.trainer.optimisation.average) == before
