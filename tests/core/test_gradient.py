"""The promises of the merged gradient, with dropout on."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from small_network import Network, gradient_of, make_batch, mean_loss, relative_error, summed_loss
from torch import Tensor, nn

import seqba
from seqba.core import Plan
from seqba.group import SingleProcess


def merged(model: nn.Module, batch: Any, loss_fn: Any = summed_loss, **options: Any) -> Tensor:
    model.zero_grad()
    seqba.merged_gradient(model, batch, loss_fn, **options)
    return gradient_of(model)


@pytest.mark.parametrize("loss_fn", [mean_loss, summed_loss])
@pytest.mark.parametrize("plan", ["looped", "auto", 2, 3, 4])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_the_gradient_does_not_depend_on_the_plan(
    network: Network, plan: Any, loss_fn: Any, dtype: torch.dtype, bound: float
) -> None:
    network.to(dtype)
    batch = make_batch(dtype=dtype)
    stacked = merged(network, batch, loss_fn, copies=5, plan="stacked", update=3)
    assert relative_error(merged(network, batch, loss_fn, copies=5, plan=plan, update=3), stacked) < bound


def test_means_and_sums_give_the_same_gradient(network: Network) -> None:
    batch = make_batch()
    means = merged(network, batch, mean_loss, copies=3, plan=2)
    assert relative_error(merged(network, batch, summed_loss, copies=3, plan=2), means) < 1e-5


@pytest.mark.parametrize("loss_fn", [mean_loss, summed_loss])
def test_one_copy_without_dropout_is_an_ordinary_step_bit_for_bit(loss_fn: Any) -> None:
    torch.manual_seed(2)
    model = Network(dropout=0.0)
    batch = make_batch()
    ours = merged(model, batch, loss_fn, copies=1)
    model.zero_grad()
    loss = loss_fn(model, batch)
    (loss if isinstance(loss, Tensor) else loss[0] / loss[1]).backward()
    assert torch.equal(ours, gradient_of(model))


@pytest.mark.filterwarnings("ignore:nothing drew noise")
@pytest.mark.parametrize("copies", [1, 2, 7])
def test_without_dropout_the_gradient_is_the_same_for_every_number_of_copies(copies: int) -> None:
    torch.manual_seed(2)
    model = Network(dropout=0.0).double()
    batch = make_batch(dtype=torch.float64)
    assert relative_error(merged(model, batch, copies=copies), merged(model, batch, copies=1)) < 1e-12


def test_the_merged_gradient_is_the_mean_of_the_copies_own(network: Network) -> None:
    network.double()
    batch = make_batch(dtype=torch.float64)
    each = []
    for copy_number in range(4):
        noise = seqba.core.Noise(0, 0, 0, [copy_number], {id(m): name for name, m in network.named_modules()})
        network.zero_grad()
        with seqba.core.noise_context(noise):
            mean_loss(network, batch).backward()
        each.append(gradient_of(network))
    assert relative_error(merged(network, batch, copies=4), torch.stack(each).mean(0)) < 1e-12


def test_its_variance_falls_as_one_over_the_copies(network: Network) -> None:
    batch = make_batch()

    def variance(copies: int) -> float:
        draws = [merged(network, batch, copies=copies, update=update) for update in range(1, 401)]
        return torch.stack(draws).var(0).sum().item()

    one = variance(1)
    for copies in (2, 4, 8):
        assert variance(copies) * copies / one == pytest.approx(1, rel=0.15)


def test_a_grid_of_unequal_micro_batches_is_one_large_batch(network: Network) -> None:
    network.double()
    micro_batches = [make_batch(rows, seed=rows, dtype=torch.float64) for rows in (3, 6, 1)]
    network.zero_grad()
    step = seqba.grid_gradient(network, micro_batches, summed_loss, copies=2, weight=2 * 10, update=5)
    gradient = gradient_of(network)
    parts = [
        merged(network, micro_batch, copies=2, update=5, micro_batch=number) * len(micro_batch[1])
        for number, micro_batch in enumerate(micro_batches)
    ]
    assert relative_error(gradient, torch.stack(parts).sum(0) / 10) < 1e-12
    assert step.weight == 20


def test_the_same_key_draws_the_same_and_any_other_key_another(network: Network) -> None:
    batch = make_batch()
    keys = [{}, {"seed": 1}, {"update": 1}, {"micro_batch": 1}]
    gradients = [merged(network, batch, copies=2, plan="stacked", **key) for key in keys]
    for number, key in enumerate(keys):
        assert torch.equal(merged(network, batch, copies=2, plan="stacked", **key), gradients[number])
    for number, gradient in enumerate(gradients):
        assert all(relative_error(other, gradient) > 0.01 for other in gradients[:number])


def test_the_global_generator_is_left_alone(network: Network) -> None:
    before = torch.get_rng_state()
    merged(network, make_batch(), copies=3)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.filterwarnings("ignore:this gradient was added to that of a call before")
def test_it_adds_to_gradients_that_are_there(network: Network) -> None:
    batch = make_batch()
    once = merged(network, batch, copies=2)
    seqba.merged_gradient(network, batch, summed_loss, copies=2)
    assert relative_error(gradient_of(network), 2 * once) < 1e-6


def test_the_former_name_of_a_micro_batch_is_taken_with_a_warning(network: Network) -> None:
    expected = merged(network, make_batch(), copies=2, plan="looped", micro_batch=3)
    network.zero_grad()
    with pytest.warns(DeprecationWarning, match="micro_batch= now") as warned:
        seqba.merged_gradient(network, make_batch(), summed_loss, copies=2, plan="looped", shard=3)
    assert warned[0].filename == __file__
    assert torch.equal(gradient_of(network), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_in_half_precision_are_added_up_in_float32(network: Network, dtype: torch.dtype) -> None:
    """In 16 bits 600 of them stop to grow, and where each is large they overflow."""
    network.to(dtype)
    batches = [make_batch(seed=seed, dtype=dtype) for seed in range(300)]
    losses = []

    def loss_fn(model: nn.Module, batch: Any) -> Any:
        total, weight = summed_loss(model, batch)
        losses.append(float(total.detach()))
        return total, weight, {"large": total.detach() * 0 + 32_768}

    step = seqba.grid_gradient(network, batches, loss_fn, copies=2, weight=3600, plan="looped", update=1)
    assert step.loss == pytest.approx(sum(losses) / 3600, rel=1e-5)
    assert step.sums["large"] == 600 * 32_768


@pytest.mark.filterwarnings("ignore:nothing drew noise")
def test_the_step_reports_means(network: Network) -> None:
    batch = make_batch()
    network.eval()

    def loss_fn(model: nn.Module, batch: Any) -> tuple[Tensor, int, dict[str, Tensor]]:
        total, weight = summed_loss(model, batch)
        return total, weight, {"double": 2 * total}

    step = seqba.merged_gradient(network, batch, loss_fn, copies=3, plan="looped")
    assert step.weight == 18
    assert step.loss == pytest.approx(mean_loss(network, batch).item(), rel=1e-6)
    assert step.sums["double"] == pytest.approx(2 * step.loss * step.weight, rel=1e-6)


class Foreign(nn.Module):
    """Nothing of ours in it: ordinary dropout, attention, linear layers."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, dropout=dropout, batch_first=True)
        self.leave = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(self.attention(x, x, x, need_weights=False)[0]).mean()


@pytest.mark.parametrize("plan", ["stacked", "looped", 2])
def test_a_model_of_others_trains_with_any_optimizer(plan: Any) -> None:
    torch.manual_seed(3)
    model = Foreign(0.1)
    batch = {"x": torch.randn(4, 5, 8)}
    optimizer = torch.optim.RMSprop(model.parameters(), lr=0.01)
    losses = []
    for update in range(30):
        step = seqba.merged_gradient(model, batch, lambda m, b: m(b["x"]) ** 2 + 1, copies=4, plan=plan, update=update)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(step.loss)
    assert losses[-1] < losses[0]


def test_ordinary_dropout_differs_between_stacked_and_between_looped_copies() -> None:
    torch.manual_seed(3)
    seen: list[Tensor] = []
    model = nn.Sequential(nn.Dropout(0.5))
    batch = torch.ones(1, 64, requires_grad=True)

    def loss_fn(model: nn.Module, batch: Tensor) -> Tensor:
        seen.append(model(batch))
        return seen[-1].sum(1).mean()

    seqba.merged_gradient(model, batch, loss_fn, copies=2, plan="stacked")
    seqba.merged_gradient(model, batch, loss_fn, copies=2, plan="looped")
    assert not torch.equal(seen[0][0], seen[0][1])
    assert not torch.equal(seen[1], seen[2])


def test_recomputed_layers_draw_their_masks_again(network: Network) -> None:
    batch = make_batch()

    def recomputed(model: nn.Module, batch: Any) -> Tensor:
        logits = torch.utils.checkpoint.checkpoint(model, batch[0], use_reentrant=False)
        return nn.functional.cross_entropy(logits, batch[1])

    assert (
        relative_error(merged(network, batch, recomputed, copies=3), merged(network, batch, mean_loss, copies=3)) < 1e-6
    )


def test_auto_weighs_the_first_copy_and_stacks_what_fits(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []

    def loss_fn(model: nn.Module, batch: Any) -> Tensor:
        passes.append(len(batch[1]) // 6)
        return mean_loss(model, batch)

    weighed = Plan(is_auto=True)
    seqba.merged_gradient(network, make_batch(), loss_fn, copies=4, plan=weighed)
    assert passes == [1, 3]
    passes.clear()
    seqba.merged_gradient(network, make_batch(), loss_fn, copies=9, plan=weighed, update=1)
    assert passes == [9]  # what fits doesn't depend on how many copies were there to be weighed

    passes.clear()
    monkeypatch.setattr("seqba.runtime.activations.CPU_PASS_BYTES", 1)
    seqba.merged_gradient(network, make_batch(), loss_fn, copies=3, plan=Plan(is_auto=True))
    assert passes == [1, 1, 1]


@pytest.mark.parametrize("fails_in", ["forward", "backward"])
def test_auto_takes_smaller_passes_when_memory_runs_out(network: Network, fails_in: str) -> None:
    class Exhausting(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.rows = len(x)
            if fails_in == "forward" and len(x) > 12:
                raise torch.OutOfMemoryError("as a GPU would")
            return x.clone()

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            if fails_in == "backward" and ctx.rows > 12:
                raise torch.OutOfMemoryError("as a GPU would")
            return grad

    def loss_fn(model: Network, batch: Any) -> Tensor:
        hidden = Exhausting.apply(torch.tanh(model.enter(batch[0])))
        return nn.functional.cross_entropy(model.leave(model.dropout(hidden)), batch[1])

    plan = Plan(copies_per_pass=4, is_auto=True)
    model = copy.deepcopy(network)
    survived = merged(model, make_batch(), loss_fn, copies=4, plan=plan)
    assert plan.copies_per_pass == 2
    assert relative_error(survived, merged(model, make_batch(), loss_fn, copies=4, plan="looped")) < 1e-5
    with pytest.raises(torch.OutOfMemoryError):
        merged(model, make_batch(), loss_fn, copies=4, plan="stacked")


@pytest.mark.parametrize("plan", ["stacked", "looped"])
def test_a_micro_batch_of_padding_alone_adds_nothing(network: Network, plan: Any) -> None:
    def loss_fn(model: nn.Module, batch: Any) -> Any:
        (rows, *_), counts = batch[0], batch[1]
        return (model(rows).square().sum(-1) * counts).sum(), counts.sum()

    rows = make_batch()[0]
    counted, none = ([rows], torch.ones(len(rows))), ([rows], torch.zeros(len(rows)))
    weight = 2 * len(rows)
    expected = seqba.grid_gradient(network, [counted], loss_fn, copies=2, weight=weight, plan=plan)
    gradients = [parameter.grad.clone() for parameter in network.parameters()]
    network.zero_grad()
    step = seqba.grid_gradient(network, [counted, none], loss_fn, copies=2, weight=weight, plan=plan)
    assert (step.loss, step.weight) == (expected.loss, expected.weight)
    for parameter, gradient in zip(network.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"weight 0\.0; it must be positive"):
        seqba.merged_gradient(network, none, loss_fn, copies=2, plan=plan)
    with pytest.raises(ValueError, match="weight is 0 over all ranks"):
        seqba.grid_gradient(network, [none], loss_fn, copies=2, weight=0, plan=plan, ranks=SingleProcess())
    for parameter, gradient in zip(network.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=0, atol=0)


@pytest.mark.parametrize("replicated", [False, True])
@pytest.mark.parametrize("plan", ["stacked", "looped", 2])
def test_what_a_pass_changes_in_place_no_other_pass_sees(network: Network, plan: Any, replicated: bool) -> None:
    """Features that a model masks where they lie, labels that it takes out of the batch."""
    network.double()
    x, labels = make_batch(rows=12, dtype=torch.float64)
    labels = labels[:4].repeat(3) if replicated else labels
    batch = {"x": x.clone(), "labels": labels, "names": [""] * 12, "words": [[1] for _ in range(12)]}

    def careless(model: nn.Module, batch: Any) -> Tensor:
        taken = batch.pop("labels")
        batch["names"].pop()
        for words in batch["words"]:
            words.append(2)
            assert words == [1, 2]
        return mean_loss(model, (batch["x"].mul_(torch.linspace(0, 2, 7)), taken))

    def careful(model: nn.Module, batch: Any) -> Tensor:
        return mean_loss(model, (batch["x"] * torch.linspace(0, 2, 7), batch["labels"]))

    options: Any = {"copies": 3, "update": 1, "plan": plan, "replicated": replicated}
    seqba.merged_gradient(network, batch, careless, **options)
    found = gradient_of(network)
    assert torch.equal(batch["x"], x)
    assert batch["labels"] is labels
    assert len(batch["names"]) == 12
    assert batch["words"] == [[1]] * 12
    network.zero_grad()
    seqba.merged_gradient(network, batch, careful, **options)
    assert torch.equal(found, gradient_of(network))


@pytest.mark.parametrize("plan", ["looped", "stacked", 2, "auto"])
def test_a_batch_that_holds_its_copies_already_is_not_repeated(network: Network, plan: Any) -> None:
    """Every copy has rows of its own, as a data set's random transforms make them."""
    network.double()
    x, labels = make_batch(rows=12, dtype=torch.float64)
    batch = {"x": x, "labels": labels, "names": [str(number) for number in range(12)]}
    seen: list[list[str]] = []

    def loss_fn(model: nn.Module, batch: Any) -> Tensor:
        seen.append(batch["names"])
        return mean_loss(model, (batch["x"], batch["labels"]))

    seqba.merged_gradient(network, batch, loss_fn, copies=4, plan=plan, update=3, replicated=True)
    assert [name for names in seen for name in names] == batch["names"]
    gradient = gradient_of(network)
    each = []
    for number in range(4):
        names = {id(module): name for name, module in network.named_modules()}
        network.zero_grad()
        with seqba.core.noise_context(seqba.core.Noise(0, 3, 0, [number], names)):
            mean_loss(network, (x[3 * number : 3 * number + 3], labels[3 * number : 3 * number + 3])).backward()
        each.append(gradient_of(network))
    assert relative_error(gradient, torch.stack(each).mean(0)) < 1e-12
    with pytest.raises(ValueError, match="12"):
        seqba.merged_gradient(network, batch, loss_fn, copies=5, plan=plan, update=4, replicated=True)
