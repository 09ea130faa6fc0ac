from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import StopAfter, make_loop, make_options
from sums import Rows, SquaresTask, poison
from torch import Tensor

from seqba.errors import UserError
from seqba.training.agreement import Interrupted, Status
from seqba.training.batches import UpdateBatch
from seqba.training.folder import LAST
from seqba.training.loop import STOPPED, TrainingLoop
from seqba.training.signals import StopSignal


def names(path: Path) -> list[str]:
    """Checkpoints in a folder."""
    return sorted(file.name for file in path.glob("*.pt"))


def weights(loop: TrainingLoop) -> Tensor:
    return next(loop.trainer.model.parameters()).detach().clone()


def watch(loop: TrainingLoop, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Notes every validation (its update) and every save (its names), instead of writing."""
    events: list[Any] = []
    monkeypatch.setattr(loop.log, "validation", lambda subset, metrics, progress, update: events.append(update))
    monkeypatch.setattr(loop.folder, "save", lambda state, names: events.append(names))
    return events


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # 7 batches, 2 micro-batches per update: 4 updates an epoch.
        ({"max_update": 8}, [4, ["checkpoint1.pt", "best"], 8, ["checkpoint2.pt", "best"]]),
        ({"max_epoch": 2}, [4, ["checkpoint1.pt", "best"], 8, ["checkpoint2.pt", "best"]]),
        ({"max_update": 5}, [4, ["checkpoint1.pt", "best"], 5, ["best"]]),
        ({"max_update": 5, "no_epoch_checkpoints": True}, [4, ["best"], 5, ["best"]]),
        ({"max_update": 8, "save_interval": 2}, [4, ["best"], 8, ["checkpoint2.pt", "best"]]),
        ({"max_update": 8, "validate_interval": 2}, [["checkpoint1.pt"], 8, ["checkpoint2.pt", "best"]]),
        (
            {"max_update": 4, "validate_interval_updates": 3},
            [3, ["best"], 4, ["checkpoint1.pt", "best"]],
        ),
        (
            {"max_update": 6, "save_interval_updates": 2},
            [2, ["checkpoint_1_2.pt", "best"], 4, ["checkpoint1.pt", "best"], 6, ["checkpoint_2_6.pt", "best"]],
        ),
        (
            {"max_update": 4, "keep_best_checkpoints": 3},
            [4, ["checkpoint1.pt", "best", "ranked"]],
        ),
    ],
)
def test_what_is_due_when(
    changes: dict[str, Any], expected: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = make_loop(make_options(tmp_path, **changes))
    events = watch(loop, monkeypatch)
    assert loop.run(StopSignal()) != STOPPED

    def short(name: str) -> str:
        return {"checkpoint_best.pt": "best"}.get(name, "ranked" if name.startswith("checkpoint.best") else name)

    assert [event if isinstance(event, int) else [short(name) for name in event] for event in events] == expected


def test_the_limit_is_named(tmp_path: Path) -> None:
    assert make_loop(make_options(tmp_path / "a", max_update=3)).run(StopSignal()) == "--max-update 3"
    assert make_loop(make_options(tmp_path / "b", max_epoch=1)).run(StopSignal()) == "--max-epoch 1"
    hours = make_loop(make_options(tmp_path / "c", stop_time_hours=1e-15))
    assert hours.run(StopSignal()) == "--stop-time-hours 1e-15"
    assert hours.trainer.updates == 0


def test_a_finished_run_does_nothing_more(tmp_path: Path) -> None:
    options = make_options(tmp_path, max_update=3)
    make_loop(options).run(StopSignal())
    before = (tmp_path / LAST).read_bytes()
    again = make_loop(options)
    assert again.run(StopSignal()) == "--max-update 3"
    assert (tmp_path / LAST).read_bytes() == before


@pytest.mark.parametrize(("event", "update"), [("update", 3), ("validation", 4)])
def test_a_log_whose_reader_has_gone_costs_no_update(
    event: str, update: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = make_loop(make_options(tmp_path / "straight", max_update=6))
    straight.run(StopSignal())
    options = make_options(tmp_path / "broken", max_update=6)
    loop = make_loop(options)
    told = getattr(loop.log, event)

    def tell(*arguments: Any) -> None:
        if loop.trainer.updates == update:
            raise BrokenPipeError
        told(*arguments)

    monkeypatch.setattr(loop.log, event, tell)
    with pytest.raises(BrokenPipeError):
        loop.run(StopSignal())
    again = make_loop(options)
    assert (again.trainer.updates, again.progress.validation_pending) == (update, True)
    again.run(StopSignal())
    assert torch.equal(weights(again), weights(straight))
    assert (again.progress.best, again.progress.validations_since_best) == (
        straight.progress.best,
        straight.progress.validations_since_best,
    )
    assert names(tmp_path / "broken") == names(tmp_path / "straight")


def test_patience_counts_validations_without_a_new_best(tmp_path: Path) -> None:
    scores = iter([3.0, 2.0, 2.5, 1.0, 1.0, 1.5])
    options = make_options(
        tmp_path,
        patience=2,
        validate_interval_updates=1,
        validate_interval=100,
        best_checkpoint_metric="bleu",
        maximize_best_checkpoint_metric=True,
    )
    loop = make_loop(options, extra_metrics=lambda model, subset, should_stop: {"bleu": -next(scores)})
    assert loop.run(StopSignal()) == "--patience 2"
    assert loop.trainer.updates == 6
    assert loop.progress.best == -1.0
    assert torch.load(tmp_path / LAST)["optimizer_history"][0]["num_updates"] == 6
    assert torch.load(tmp_path / "checkpoint_best.pt")["optimizer_history"][0]["num_updates"] == 4


def test_the_learning_rate_ends_the_run_only_on_its_way_down(tmp_path: Path) -> None:
    options = make_options(tmp_path, lr_scheduler="inverse_sqrt", warmup_updates=3, stop_min_lr=0.0251)
    loop = make_loop(options)
    # 0.05 · 1/3 at the first update is below as well; (3 / 12)^0.5 halves the peak.
    assert loop.run(StopSignal()) == "--stop-min-lr 0.0251"
    assert loop.trainer.updates == 11


def test_micro_batches_per_update_may_change_with_the_epoch(tmp_path: Path) -> None:
    loop = make_loop(make_options(tmp_path, update_freq=(2, 4), max_epoch=3))
    loop.run(StopSignal())
    assert loop.trainer.updates == 4 + 2 + 2


def test_tokens_are_counted_once_and_with_copies(tmp_path: Path) -> None:
    loop = make_loop(make_options(tmp_path, max_epoch=2))
    loop.run(StopSignal())
    assert loop.progress.unique == 2 * 7 * 4 * 2
    assert loop.progress.processed == 2 * loop.progress.unique


@pytest.mark.parametrize("stop_after", range(1, 10))
def test_stopped_at_any_update_equals_never_stopped(stop_after: int, tmp_path: Path) -> None:
    changes = {"max_update": 10, "lr_scheduler": "inverse_sqrt", "warmup_updates": 4, "clip_norm": 1.0}
    straight = make_loop(make_options(tmp_path / "straight", **changes))
    straight.run(StopSignal())

    options = make_options(tmp_path / "stopped", **changes)
    loop, updates = make_loop(options), 0
    stop = StopSignal()
    made = loop.trainer.update

    def update_and_stop(batch: UpdateBatch[Rows], status: Status) -> Any:
        nonlocal updates
        updates += 1
        if updates == stop_after:
            stop.received = 15  # type: ignore[assignment]
        return made(batch, status)

    loop.trainer.update = update_and_stop  # type: ignore[method-assign]
    assert loop.run(stop) == STOPPED
    assert loop.trainer.updates == stop_after
    resumed = make_loop(options)
    assert resumed.trainer.updates == stop_after
    resumed.run(StopSignal())
    assert torch.equal(weights(resumed), weights(straight))
    for name in ("best", "unique", "epoch", "updates_in_epoch", "latest", "validations_since_best"):
        assert getattr(resumed.progress, name) == getattr(straight.progress, name)


def test_a_stop_during_validation_leaves_it_for_the_next_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = make_options(tmp_path, max_update=4)

    def interrupted(*_: Any) -> dict[str, float]:
        raise Interrupted

    loop = make_loop(options, extra_metrics=interrupted)
    stop = StopSignal()
    stop_at_last = loop.trainer.update

    def update(batch: UpdateBatch[Rows], status: Status) -> Any:
        if loop.trainer.updates == 3:
            stop.received = 15  # type: ignore[assignment]
        return stop_at_last(batch, status)

    loop.trainer.update = update  # type: ignore[method-assign]
    assert loop.run(stop) == STOPPED
    assert names(tmp_path) == [LAST]
    assert torch.load(tmp_path / LAST)["extra_state"]["progress"]["validation_pending"]

    again = make_loop(options)
    events = watch(again, monkeypatch)
    assert again.run(StopSignal()) == "--max-update 4"
    assert events == [4, ["checkpoint1.pt", "checkpoint_best.pt"]]
    assert (again.progress.epoch, again.progress.validation_pending) == (2, False)


def test_a_signal_is_seen_between_validation_batches(tmp_path: Path) -> None:
    loop = make_loop(make_options(tmp_path, max_update=8, validate_interval_updates=1))
    assert loop.run(StopAfter(2)) == STOPPED  # once before the update, once before the first batch, then
    assert loop.trainer.updates == 1
    assert loop.progress.validation_pending


@pytest.mark.parametrize("looks", range(3, 12))
def test_whenever_a_signal_comes_the_last_checkpoint_has_every_update(looks: int, tmp_path: Path) -> None:
    loop = make_loop(make_options(tmp_path, max_update=8))
    assert loop.run(StopAfter(looks)) == STOPPED
    assert torch.load(tmp_path / LAST)["extra_state"]["trainer"]["updates"] == loop.trainer.updates > 0


def test_a_skipped_update_validates_nothing_and_uses_up_its_micro_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Poisoned(SquaresTask):
        def epoch(self, epoch: int, micro_batches_per_update: int) -> list[Rows]:
            batches = super().epoch(epoch, micro_batches_per_update)
            return [*batches[:2], poison(batches[2]), *batches[3:]]

    loop = make_loop(make_options(tmp_path, max_update=3, validate_interval_updates=1), Poisoned())
    events = watch(loop, monkeypatch)
    loop.run(StopSignal())
    assert [event for event in events if isinstance(event, int)] == [1, 2, 3]
    assert loop.trainer.skipped == 1
    assert loop.progress.epoch == 2  # 4 groups were used up by 3 updates


def test_other_data_than_the_checkpoints_is_refused(tmp_path: Path) -> None:
    make_loop(make_options(tmp_path, max_update=2)).run(StopSignal())
    loop = make_loop(make_options(tmp_path, max_update=9), SquaresTask(batches=20))
    with pytest.raises(UserError, match="has 10 updates, but had 4"):
        loop.run(StopSignal())


def test_no_save_trains_all_the_same(tmp_path: Path) -> None:
    loop = make_loop(make_options(tmp_path / "absent", max_update=5, no_save=True))
    assert loop.run(StopSignal()) == "--max-update 5"
    assert not (tmp_path / "absent").exists()


class Breakable(SquaresTask):
    """A split that raises where batch `broken` of it is read, until it is mended."""

    def __init__(self, split: str, broken: int | None) -> None:
        super().__init__()
        self.split, self.broken = split, broken

    def epoch(self, epoch: int, micro_batches_per_update: int) -> list[Rows]:
        return self._guarded("train", super().epoch(epoch, micro_batches_per_update))

    def validation(self, subset: str) -> list[Rows]:
        return self._guarded("valid", super().validation(subset))

    def _guarded(self, split: str, batches: list[Rows]) -> list[Rows]:
        return BrokenAt(batches, self.broken) if split == self.split else batches


class BrokenAt(list[Rows]):
    def __init__(self, batches: list[Rows], broken: int | None) -> None:
        super().__init__(batches)
        self.broken = broken

    def __getitem__(self, number: Any) -> Any:
        if number == self.broken:
            raise UserError("picture 5.png is broken")
        return super().__getitem__(number)


@pytest.mark.parametrize(("split", "updates"), [("train", 2), ("valid", 4)])
def test_what_was_learned_before_a_broken_batch_is_kept(split: str, updates: int, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="picture 5"):
        make_loop(make_options(tmp_path / "twice", max_update=6), Breakable(split, 5 if split == "train" else 1)).run(
            StopSignal()
        )
    mended = make_loop(make_options(tmp_path / "twice", max_update=6), Breakable(split, None))
    assert mended.trainer.updates == updates
    assert mended.progress.validation_pending == (split == "valid")
    mended.run(StopSignal())
    straight = make_loop(make_options(tmp_path / "straight", max_update=6))
    straight.run(StopSignal())
    assert torch.equal(weights(mended), weights(straight))
    assert mended.progress.latest == straight.progress.latest
    assert names(tmp_path / "twice") == names(tmp_path / "straight")


def test_nothing_is_written_where_the_first_batch_is_broken(tmp_path: Path) -> None:
    loop = make_loop(make_options(tmp_path, max_update=6), Breakable("train", 0))
    with pytest.raises(UserError, match="picture 5"):
        loop.run(StopSignal())
    assert LAST not in names(tmp_path)


def test_updates_counted_anew_are_validated_anew(tmp_path: Path) -> None:
    common = {"validate_interval": 100, "validate_interval_updates": 1}
    make_loop(make_options(tmp_path, max_update=1, **common)).run(StopSignal())
    seen: list[int] = []
    loop = make_loop(make_options(tmp_path, max_update=2, reset_lr_scheduler=True, **common))
    loop.extra_metrics = lambda model, subset, should_stop: seen.append(loop.trainer.updates) or {}
    loop.run(StopSignal())
    assert seen == [1, 2]  # there was another number 1, validated before this start
