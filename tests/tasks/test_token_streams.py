"""Language modelling on streams: the loss by hand, the state of each copy, and the windows of micro-batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from alphabet import write_alphabet
from reversal import write_reversal
from torch import Tensor, nn
from torch.nn import functional

from seqba.errors import UserError
from seqba.models.awd_lstm import AWDLSTM
from seqba.models.config import AWDLSTMConfig
from seqba.tasks.options import BatchOptions, CriterionOptions
from seqba.tasks.text_options import StreamOptions
from seqba.tasks.token_streams import StreamLanguageModeling
from seqba.training.batches import UpdateBatch
from seqba.training.optimisation import Optimisation
from seqba.training.trainer import Trainer, UpdateRules
from seqba.training.update_report import UpdateReport

FIELDS = {kind: set(kind.__dataclass_fields__) for kind in (StreamOptions, BatchOptions, CriterionOptions)}


def open_task(data: Path | str, *, seed: int = 1, **options: Any) -> StreamLanguageModeling:
    given = {"bptt": 10, "batch_size": 4, **options}
    streams, batches, criterion = (
        kind(**{name: value for name, value in given.items() if name in names}) for kind, names in FIELDS.items()
    )
    return StreamLanguageModeling(str(data), streams, batches, criterion, seed=seed)


def update(trainer: Trainer[Any], micro_batches: list[Any]) -> UpdateReport:
    return trainer.update(UpdateBatch.of(micro_batches, trainer.rules.copies))


def make_model(dtype: torch.dtype = torch.float64) -> AWDLSTM:
    torch.manual_seed(1)
    config = AWDLSTMConfig(decoder_layers=2, decoder_embed_dim=6, decoder_hidden_size=10)
    return AWDLSTM(config, vocabulary=16).to(dtype)


def test_loss_and_regularisers_by_hand(alphabet: Path) -> None:
    task, model = (
        open_task(alphabet, activation_regularization=3.0, temporal_activation_regularization=0.5),
        make_model(),
    )
    batch = task.epoch(1, 1)[0]
    torch.manual_seed(9)
    loss, weight, extras = task.loss(model, batch)
    torch.manual_seed(9)
    window = model.window(batch.tokens)
    logits = functional.linear(window.hidden, model.output_weight, model.output_bias)
    entropy = functional.cross_entropy(logits.flatten(0, 1), batch.target.flatten())
    # The released code's lines, batch first.
    expected = entropy + 3.0 * window.hidden.pow(2).mean()
    expected = expected + 0.5 * (window.raw[:, 1:] - window.raw[:, :-1]).pow(2).mean()
    assert weight == task.weight(batch) == task.count(batch) == batch.target.numel()
    assert (loss / weight).item() == pytest.approx(expected.item(), rel=1e-10)
    assert (extras["nll"] / weight).item() == pytest.approx(entropy.item(), rel=1e-10)


def test_evaluation_has_no_regularisers(alphabet: Path) -> None:
    task, model = open_task(alphabet), make_model().eval()
    loss, _, extras = task.loss(model, task.validation("valid")[0])
    assert loss.item() == extras["nll"].item()


def test_a_window_of_one_word_has_no_change_to_regularise(alphabet: Path) -> None:
    task, model = open_task(alphabet), make_model()
    one = task.epoch(1, 1).streams.window(range(4), 0, 1)
    loss, _, _ = task.loss(model, one)
    assert loss.isfinite()


def test_the_learning_rate_follows_the_length(alphabet: Path) -> None:
    task = open_task(alphabet)
    windows = task.epoch(1, 1)
    lengths = [windows[number].tokens.shape[1] for number in range(20)]
    assert len(set(lengths)) > 3
    assert [task.learning_rate_factor(windows[number]) for number in range(20)] == [length / 10 for length in lengths]


def test_validation_carries_its_state_and_repeats_itself(alphabet: Path) -> None:
    task, model = open_task(alphabet, batch_size_valid=2), make_model().eval()
    planned = task.validation("valid")

    def run() -> float:
        return sum(float(task.loss(model, planned[number])[2]["nll"]) for number in range(len(planned)))

    once = run()
    assert run() == once  # the first window begins anew
    streams = planned.streams
    whole = streams.window(range(2), 0, streams.length - 1)
    assert float(task.loss(model, whole)[2]["nll"]) == pytest.approx(once, rel=1e-9)


def train(
    data: Path, plans: list[str], *, micro_batches: int = 2, copies: int = 3, **options: Any
) -> tuple[Tensor, Any]:
    """Weights after an update with each plan in turn, and the carried states."""
    task, model = open_task(data, **options), make_model()
    windows, lr = task.epoch(1, micro_batches), 0.5
    trainer: Trainer[Any] | None = None
    carried = None
    for number, plan in enumerate(plans):
        before = trainer
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        rules = UpdateRules(copies=copies, plan=plan, seed=1, compared=task.consistency > 0)
        optimisation = Optimisation(model, optimizer, lambda _: lr)
        trainer = Trainer(task, optimisation, rules)
        if before is not None:  # as a run that goes on under another plan
            trainer.load_state_dict(before.state_dict(), keep_plan=False, keep_carried=True)
        report = update(
            trainer, [windows[number * micro_batches + micro_batch] for micro_batch in range(micro_batches)]
        )
        carried = trainer.state_dict()["carried"]["shards"]
        assert report.lr == pytest.approx(lr * windows[number * micro_batches].tokens.shape[1] / 10)
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()]), carried


@pytest.mark.parametrize("plans", [["looped"] * 4, ["2"] * 4, ["looped", "stacked", "auto", "2"]])
@pytest.mark.parametrize("consistency", [0.0, 5.0])
def test_training_does_not_depend_on_the_plan_nor_on_changing_it(
    consistency: float, plans: list[str], alphabet: Path
) -> None:
    expected, states = train(alphabet, ["stacked"] * 4, consistency=consistency)
    weights, others = train(alphabet, plans, consistency=consistency)
    torch.testing.assert_close(weights, expected, rtol=1e-9, atol=1e-12)
    for one, other in zip(states, others, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_every_micro_batch_and_copy_has_a_state_of_its_own(alphabet: Path) -> None:
    _, states = train(alphabet, ["stacked"] * 2)
    assert len(states) == 2
    assert [tuple(part.shape) for part in states[0]] == [(12, 10), (12, 10), (12, 6), (12, 6)]
    rows = torch.cat([micro_batch[0].view(3, -1) for micro_batch in states])
    assert len({tuple(row.tolist()) for row in rows}) == 6


def test_fixed_samples_reads_other_streams_of_the_same_length_of_window(alphabet: Path) -> None:
    task = open_task(alphabet)
    one, three = task.epoch(1, 1), task.epoch(1, 3)
    assert one.streams.count == 4
    assert three.streams.count == 12
    assert three.streams.length == task.epoch(1, 1).streams.source.tokens // 12
    first = [three[number] for number in range(3)]
    assert all(batch.is_first for batch in first)
    assert len({tuple(batch.tokens.flatten().tolist()) for batch in first}) == 3


def test_a_skipped_update_leaves_the_states_as_they_were(alphabet: Path) -> None:
    task, model = open_task(alphabet), make_model()
    windows = task.epoch(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    trainer = Trainer(
        task, Optimisation(model, optimizer, lambda _: 0.0), UpdateRules(copies=2, plan="stacked", seed=1)
    )
    update(trainer, [windows[0]])
    before = [part.clone() for part in trainer.state_dict()["carried"]["shards"][0]]
    with torch.no_grad():
        model.output_bias.fill_(float("nan"))
    assert update(trainer, [windows[1]]).skipped
    for one, other in zip(trainer.state_dict()["carried"]["shards"][0], before, strict=True):
        assert torch.equal(one, other)


def test_streams_must_be_counted(alphabet: Path) -> None:
    with pytest.raises(UserError, match="a recurrent model reads streams: give --batch-size"):
        open_task(alphabet, batch_size=None, max_tokens=100)


def test_an_epoch_begins_with_zeros_even_if_its_first_window_is_skipped(alphabet: Path) -> None:
    task, model = open_task(alphabet), make_model()
    windows = task.epoch(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    optimisation = Optimisation(model, optimizer, lambda _: 0.0)
    trainer = Trainer(task, optimisation, UpdateRules(copies=2, plan="looped", seed=1))
    update(trainer, [windows[0]])
    with torch.no_grad():
        model.output_bias.fill_(float("nan"))
    assert update(trainer, [task.epoch(2, 1)[0]]).skipped
    assert trainer.state_dict()["carried"]["shards"] == []


def test_data_bins_take_turns_and_parts_are_read_one_after_the_other(alphabet: Path, tmp_path: Path) -> None:
    other = write_alphabet(tmp_path / "other", seed=5)
    task, lone = open_task(f"{alphabet}:{other}"), open_task(other)
    for epoch in (2, 4):
        assert torch.equal(task.epoch(epoch, 1)[3].tokens, lone.epoch(epoch, 1)[3].tokens)
    assert not torch.equal(task.epoch(1, 1)[3].tokens, lone.epoch(1, 1)[3].tokens)
    for suffix in ("bin", "idx"):
        (other / f"train1.{suffix}").write_bytes((alphabet / f"train.{suffix}").read_bytes())
    joined = open_task(other).epoch(1, 1).streams.source
    assert joined.tokens == lone.epoch(1, 1).streams.source.tokens + task.epoch(1, 1).streams.source.tokens
    shuffled = write_alphabet(tmp_path / "shuffled", letters=list("lkjihgfedcba"))
    with pytest.raises(UserError, match=r"the dictionary of .*shuffled differs"):
        open_task(f"{alphabet}:{shuffled}").epoch(2, 1)


def test_regularisers_add_up_in_float32_under_bfloat16(alphabet: Path) -> None:
    task, model = open_task(alphabet), make_model(torch.float32)
    batch = task.epoch(1, 1)[0]
    with torch.autocast("cpu", torch.bfloat16):
        torch.manual_seed(9)
        loss, _, extras = task.loss(model, batch)
        torch.manual_seed(9)
        window = model.window(batch.tokens)
    squares = window.hidden.double().square().mean() * 2 + window.raw.double().diff(dim=1).square().mean()
    added = (loss - extras["nll"]).item() / batch.size
    assert added == pytest.approx(squares.item(), rel=1e-3)
    assert all(part.dtype == torch.float32 for part in window.state)


def test_bad_data_is_refused(alphabet: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError,
        match=r"the split train in .* tokens, too few to cut into 4000 streams of at least 2: lower --batch-size, and",
    ):
        open_task(alphabet, batch_size=4000).epoch(1, 1)
    with pytest.raises(UserError, match=r"the split valid .* 1000 streams of at least 2: lower --batch-size-valid"):
        open_task(alphabet, batch_size_valid=1000).validation("valid")
    with pytest.raises(UserError, match="holds sentence pairs"):
        open_task(write_reversal(tmp_path / "pairs"))
    other = write_alphabet(tmp_path / "other", letters=list("abc"))
    (other / "dict.txt").write_text("a 1\n", encoding="utf-8")
    with pytest.raises(UserError, match="is beyond the dictionary"):
        open_task(other).epoch(1, 1)


def test_padding_s_name_in_a_text_is_a_word(tmp_path: Path) -> None:
    data = write_alphabet(tmp_path)
    task = open_task(data)
    raw = bytearray((data / "train.bin").read_bytes())
    raw[2:4] = (1).to_bytes(2, "little")
    (data / "train.bin").write_bytes(bytes(raw))
    assert task.epoch(1, 1)[0].tokens[0, 1].item() == 3


@pytest.mark.slow
def test_the_toy_text_is_learned(tmp_path: Path) -> None:
    """With plain SGD and every noise on; a bigram-like text whose entropy is known."""
    task = open_task(write_alphabet(tmp_path, splits={"train": 3000, "valid": 300}), bptt=20, batch_size=20)
    torch.manual_seed(1)
    config = AWDLSTMConfig(
        decoder_layers=2, decoder_embed_dim=24, decoder_hidden_size=48, dropout=0.1, input_dropout=0.1,
        hidden_dropout=0.1, embedding_dropout=0.02, weight_dropout=0.2,
    )  # fmt: skip
    model = AWDLSTM(config, vocabulary=16)
    optimizer: torch.optim.Optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
    trainer = Trainer(
        task, Optimisation(model, optimizer, lambda _: 1e-2), UpdateRules(copies=2, plan="stacked", seed=1)
    )
    for epoch in range(1, 8):
        windows = task.epoch(epoch, 1)
        for number in range(len(windows)):
            update(trainer, [windows[number]])
    model.eval()
    planned = task.validation("valid")
    with torch.no_grad():
        total = sum(float(task.loss(model, planned[number])[2]["nll"]) for number in range(len(planned)))
    nll = total / sum(planned[number].size for number in range(len(planned)))
    # Per line of 7 tokens on average: which of 12 letters begins, and how long it is (3 to 9 letters).
    least = (nn.functional.cross_entropy(torch.zeros(1, 12), torch.tensor([0])) + torch.tensor(7.0).log()) / 7
    assert nll < 1.1 * least.item()
