"""Ghost batch normalisation: groups of different images, the same in every plan, running statistics moved once."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from seqba import finish_update, grid_gradient, merged_gradient
from seqba.nn import Dropout, GhostBatchNorm2d
from seqba.noise.context import noise_context
from seqba.noise.noise import Noise

Batch = tuple[Tensor, Tensor]


def network(ghost_batch: int | None, *, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        Dropout(0.3),
        GhostBatchNorm2d(4, ghost_batch),
        nn.ReLU(),
        nn.Conv2d(4, 5, 3),
        GhostBatchNorm2d(5, ghost_batch),
        nn.Flatten(),
        nn.Linear(5 * 6 * 6, 2),
    ).double()


def batch(rows: int, *, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(rows, 3, 8, 8, generator=generator, dtype=torch.float64),
        torch.randint(2, (rows,), generator=generator),
    )


def loss_fn(model: nn.Module, examples: Batch) -> tuple[Tensor, float]:
    images, labels = examples
    return nn.functional.cross_entropy(model(images), labels, reduction="sum"), len(labels)


def everything(model: nn.Module) -> dict[str, Tensor]:
    """Gradients and buffers."""
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {**{name: grad for name, grad in gradients.items() if grad is not None}, **dict(model.named_buffers())}


@pytest.mark.parametrize("ghost_batch", [None, 6, 3, 2])
@pytest.mark.parametrize("plan", ["stacked", 2, 3])
def test_the_plan_changes_neither_gradients_nor_running_statistics(ghost_batch: int | None, plan: str | int) -> None:
    results = []
    for each in ("looped", plan):
        model = network(ghost_batch)
        for update in (1, 2):
            micro_batches = [batch(6, seed=update), batch(6, seed=update + 10)]
            grid_gradient(model, micro_batches, loss_fn, copies=4, weight=48, plan=each, update=update)
        results.append(everything(model))
    for name, expected in results[0].items():
        torch.testing.assert_close(results[1][name], expected, rtol=1e-12, atol=1e-14, msg=name)


@pytest.mark.parametrize("ghost_batch", [None, 6])
def test_one_copy_in_one_group_is_torchs_own_to_the_last_bit(ghost_batch: int | None) -> None:
    ours, theirs = network(ghost_batch), network(ghost_batch)
    for name in ("2", "5"):
        norm = ours.get_submodule(name)
        assert isinstance(norm, nn.BatchNorm2d)
        plain = nn.BatchNorm2d(norm.num_features).double()
        plain.load_state_dict(norm.state_dict())
        setattr(theirs, name, plain)
    for model in (ours, theirs):
        model.get_submodule("1").train(False)
    for update in (1, 2, 3):
        merged_gradient(ours, batch(6, seed=update), loss_fn, copies=1, update=update)
        loss, weight = loss_fn(theirs, batch(6, seed=update))
        (loss / weight).backward()  # type: ignore[no-untyped-call]
    assert everything(ours).keys() == everything(theirs).keys()
    for name, expected in everything(theirs).items():
        if "running" in name:  # (1 − m)·r + m·s there, in a kernel of its own
            torch.testing.assert_close(everything(ours)[name], expected, rtol=1e-15, atol=1e-16, msg=name)
        else:
            assert torch.equal(everything(ours)[name], expected), name


def test_groups_are_contiguous_images_of_one_copy() -> None:
    norm = GhostBatchNorm2d(2, 3).double()
    x = torch.randn(12, 2, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with noise_context(Noise(0, 0, 0, (0, 1))):
        y = norm(x)
    for first in range(0, 12, 3):
        rows = x[first : first + 3]
        mean = rows.mean(dim=(0, 2, 3), keepdim=True)
        variance = rows.var(dim=(0, 2, 3), keepdim=True, unbiased=False)
        torch.testing.assert_close(y[first : first + 3], (rows - mean) / (variance + 1e-5).sqrt())


def test_running_statistics_move_once_towards_the_mean_of_all_groups() -> None:
    norm = GhostBatchNorm2d(2, 3, momentum=0.25).double()
    before = norm.running_mean.clone()  # type: ignore[union-attr]
    passes = [torch.randn(6, 2, 4, 4, generator=torch.Generator().manual_seed(n), dtype=torch.float64) for n in (1, 2)]
    for copy, x in enumerate(passes):
        with noise_context(Noise(0, 0, 0, (copy,))):
            norm(x)
    assert torch.equal(norm.running_mean, before)  # type: ignore[arg-type]
    finish_update(norm)
    groups = torch.cat(passes).unflatten(0, (4, 3))
    mean, variance = groups.mean(dim=(1, 3, 4)).mean(0), groups.var(dim=(1, 3, 4)).mean(0)
    torch.testing.assert_close(norm.running_mean, 0.25 * mean)
    torch.testing.assert_close(norm.running_var, 0.75 + 0.25 * variance)
    assert norm.num_batches_tracked == 1
    finish_update(norm)  # nothing was gathered since
    torch.testing.assert_close(norm.running_mean, 0.25 * mean)


def test_an_update_that_is_thrown_away_leaves_the_running_statistics() -> None:
    model = network(3)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    grid_gradient(model, [batch(6)], loss_fn, copies=2, weight=12, end_update=False)
    finish_update(model, keep=False)
    finish_update(model)
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, before[name]), name


def test_a_loss_that_is_not_finite_leaves_the_running_statistics() -> None:
    model = network(3)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    images, labels = batch(6)
    images[0, 0, 0, 0] = torch.nan
    merged_gradient(model, (images, labels), loss_fn, copies=2)
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, before[name]), name


def test_outside_an_update_they_move_at_once_and_evaluation_is_torchs_own() -> None:
    norm, plain = GhostBatchNorm2d(2).double(), nn.BatchNorm2d(2).double()
    x = torch.randn(6, 2, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(norm(x), plain(x))
    torch.testing.assert_close(norm.running_mean, plain.running_mean, rtol=1e-15, atol=1e-16)
    torch.testing.assert_close(norm.running_var, plain.running_var, rtol=1e-15, atol=1e-16)
    plain.load_state_dict(norm.state_dict())
    assert torch.equal(norm.eval()(x), plain.eval()(x))


def test_groups_that_do_not_divide_a_copy_are_refused() -> None:
    with (
        noise_context(Noise(0, 0, 0, (0, 1))),
        pytest.raises(ValueError, match=r"4 images don't divide 12 rows of 2 copies.*divides the 6 images"),
    ):
        GhostBatchNorm2d(2, 4)(torch.zeros(12, 2, 4, 4))
    with pytest.raises(ValueError, match="ghost_batch is 0"):
        GhostBatchNorm2d(2, 0)


class Counted(TorchDispatchMode):
    """Counts operations by their names."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, _types: Any, given: Any = (), named: Any = None) -> Any:
        self.names[str(function)] += 1
        return function(*given, **(named or {}))


def test_the_running_statistics_of_all_modules_move_together() -> None:
    """On a GPU the books of a network's batch norms cost as much time as the network."""
    model = nn.Sequential(*(GhostBatchNorm2d(2, momentum=rate) for rate in (0.1, 0.1, 0.1, 0.5)))
    with noise_context(Noise(0, 0, 0, (0,))):
        model(torch.randn(6, 2, 4, 4))
    with Counted() as counted:
        finish_update(model)
    computing = {name: count for name, count in counted.names.items() if "select" not in name and "unbind" not in name}
    assert computing == {
        "aten._foreach_mul_.Scalar": 2,  # a rate each
        "aten._foreach_add_.List": 2,
        "aten._foreach_add_.Scalar": 1,
    }
    assert [int(norm.num_batches_tracked) for norm in model] == [1] * 4


def test_groups_on_a_gpu_have_their_scale_and_shift_from_one_tensor() -> None:
    norm = GhostBatchNorm2d(3).to("meta")
    with noise_context(Noise(0, 0, 0, (0, 1))), Counted() as counted:
        y = norm(torch.empty(8, 3, 4, 4, device="meta"))
        y.backward(torch.empty_like(y))
    assert counted.names["aten.native_batch_norm_backward.default"] == 2
    assert counted.names["aten.stack.default"] == 2  # gradients of both groups, by the scale and by the shift
    assert norm.weight.grad is not None
    assert norm.weight.grad.shape == (3,)
