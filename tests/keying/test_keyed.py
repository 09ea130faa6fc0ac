"""Keyed noise for models that hold nothing of seqba's: the promises of the core hold for them too."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from foreign_models import LENGTH, MODELS, Around, Checkpointed, LayerDrop, gradient, make_model, make_rows, square_loss
from keyed_gradients import COPIES, F, keyed_gradient
from small_network import relative_error
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.checkpoint import checkpoint

import seqba


@pytest.mark.parametrize("name", MODELS)
def test_the_gradient_of_any_model_does_not_depend_on_the_plan(name: str) -> None:
    model = make_model(name)
    stacked = keyed_gradient(model, plan="stacked")
    assert stacked.norm() > 0
    for plan in ("looped", 3):
        torch.manual_seed(5)  # whatever torch's own generators are at
        assert relative_error(keyed_gradient(model, plan=plan), stacked) < 1e-12
    other = gradient_at(model, update=4)
    assert relative_error(other, stacked) > 1e-3


@pytest.mark.parametrize("rows", [LENGTH, 1])
def test_a_copy_by_itself_draws_the_same_whichever_dimension_its_rows_may_lie_along(rows: int) -> None:
    model, batch = make_model("Transformer, time first"), make_rows(rows)  # a length that is a multiple of the rows
    stacked = keyed_gradient(model, batch=batch, plan="stacked")
    assert relative_error(keyed_gradient(model, batch=batch, plan="looped"), stacked) < 1e-12


def gradient_at(model: nn.Module, update: int) -> Tensor:
    model.zero_grad()
    seqba.merged_gradient(model, make_rows(), square_loss, copies=COPIES, update=update, keyed=True)
    return gradient(model)


@pytest.mark.parametrize("name", ["Transformer", "drop path"])
def test_a_grid_of_micro_batches_is_keyed_too(name: str) -> None:
    model = make_model(name)
    found = []
    for plan in ("stacked", "looped"):
        model.zero_grad()
        seqba.grid_gradient(
            model,
            [make_rows(2), make_rows(3, seed=1)],
            lambda model, rows: (model(rows).square().sum(), len(rows)),
            copies=2,
            weight=10,
            keyed=True,
            plan=plan,
        )
        found.append(gradient(model))
    assert relative_error(found[1], found[0]) < 1e-12


@pytest.mark.parametrize("plan", ["stacked", "looped"])
def test_masks_are_those_of_seqbas_modules_in_the_same_places(plan: str) -> None:
    def made(dropout: Callable[[float], nn.Module]) -> nn.Module:
        torch.manual_seed(1)
        layers = [nn.Linear(8, 8), dropout(0.3), nn.Linear(8, 8), nn.Sequential(dropout(0.5)), nn.Linear(8, 8)]
        return nn.Sequential(*layers).double()

    foreign, own = made(nn.Dropout), made(seqba.nn.Dropout)
    expected = keyed_gradient(own, plan=plan)
    assert torch.equal(keyed_gradient(foreign, plan=plan), expected)
    own.zero_grad()
    seqba.merged_gradient(own, make_rows(), square_loss, copies=COPIES, update=3, plan=plan)
    assert torch.equal(gradient(own), expected)


def test_it_may_be_entered_around_the_update_and_within_itself() -> None:
    model = make_model("nn.Dropout")
    expected = keyed_gradient(model, plan="stacked")
    model.zero_grad()
    with seqba.keyed(model), seqba.keyed(model):
        seqba.merged_gradient(model, make_rows(), square_loss, copies=COPIES, update=3, keyed=True, plan="stacked")
    assert torch.equal(gradient(model), expected)
    model.zero_grad()
    with seqba.keyed(model):
        seqba.merged_gradient(model, make_rows(), square_loss, copies=COPIES, update=3, plan="stacked")
    assert torch.equal(gradient(model), expected)


def test_a_layer_that_one_number_drops_is_dropped_for_all_copies() -> None:
    kept: list[tuple[int, ...]] = []

    class Watched(LayerDrop):
        def forward(self, x: Tensor) -> Tensor:
            ran: list[int] = []
            for number, layer in enumerate(self.layers):
                layer.register_forward_hook(lambda *_, number=number: ran.append(number))
            out = super().forward(x)
            kept.append(tuple(sorted(set(ran))))
            return out

    keyed_gradient(Watched().double(), plan="looped")
    assert len(kept) == COPIES
    assert len(set(kept)) == 1


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("plan", ["stacked", "looped"])
def test_layers_recomputed_inside_the_models_forward_draw_the_same(plan: str, use_reentrant: bool) -> None:
    def found(recompute: bool) -> Tensor:
        torch.manual_seed(1)
        return keyed_gradient(Checkpointed(recompute, use_reentrant=use_reentrant).double(), plan=plan)

    assert torch.equal(found(True), found(False))


def test_a_recomputed_function_whose_module_is_unknown_is_refused() -> None:
    """Its draws in the forward belong to the module that called checkpoint; in the backward nobody has."""

    def function(x: Tensor) -> Tensor:
        return F.dropout(x, 0.5)

    model = Around(lambda module, x: checkpoint(function, x, use_reentrant=False)).double()
    with pytest.raises(RuntimeError, match=r"draws noise during the backward.*takes that module as its first argument"):
        keyed_gradient(model)
    named = Around(lambda module, x: checkpoint(lambda module, x: function(x), module, x, use_reentrant=False)).double()
    assert relative_error(keyed_gradient(named, plan="looped"), keyed_gradient(named, plan="stacked")) < 1e-12


def test_noise_of_the_gradient_itself_is_refused_with_a_way_out() -> None:
    model = make_model("nn.Dropout")
    handle = model[0].weight.register_hook(lambda slope: slope + torch.randn_like(slope))
    with pytest.raises(RuntimeError, match=r"noise of the gradient itself .* draw it with generator="):
        keyed_gradient(model)
    handle.remove()
    generator = torch.Generator().manual_seed(0)
    model[0].weight.register_hook(lambda slope: slope + torch.empty_like(slope).normal_(generator=generator))
    keyed_gradient(model)


def test_a_recomputed_function_inside_a_method_is_known_by_its_self() -> None:
    class Closing(nn.Module):
        def __init__(self, recompute: bool) -> None:
            super().__init__()
            self.p = 0.3
            self.layer = nn.Linear(8, 8)
            self.recompute = recompute

        def forward(self, x: Tensor) -> Tensor:
            function = lambda y: F.dropout(torch.tanh(y), self.p, self.training)  # noqa: E731
            x = self.layer(x)
            return checkpoint(function, x, use_reentrant=False) if self.recompute else function(x)

    torch.manual_seed(1)
    model = Closing(recompute=False).double()
    expected = keyed_gradient(model, plan="looped")
    model.recompute = True
    assert torch.equal(keyed_gradient(model, plan="looped"), expected)


@pytest.mark.filterwarnings("ignore")  # torch.compile warns of its own tracing
@pytest.mark.slow
@pytest.mark.parametrize("name", ["nn.Dropout", "attention", "drop path", "diffusion"])
def test_compiled_models_draw_the_same(name: str) -> None:
    torch._dynamo.reset()
    model = make_model(name)
    expected = keyed_gradient(model, plan="stacked")
    compiled = torch.compile(model, backend="eager")
    compiled(make_rows())  # a graph from outside of passes
    for plan in ("stacked", "looped"):
        assert relative_error(keyed_gradient(compiled, plan=plan), expected) < 1e-12


@pytest.mark.parametrize("tracing_mode", ["real", "fake"])
def test_what_a_compiler_traces_for_itself_in_a_pass_is_not_keyed(tracing_mode: str) -> None:
    """As torch's Inductor does, which makes its patterns when it first compiles: in the first pass of a run."""

    def pattern(x: Tensor) -> Tensor:
        return F.dropout(x, 0.5)[torch.randperm(3)] + torch.rand(3)

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(self.layer(x), 0.3, self.training)

    class Traced(Plain):
        graph: Any = None

        def forward(self, x: Tensor) -> Tensor:
            if self.graph is None:
                self.graph = make_fx(pattern, tracing_mode=tracing_mode)(torch.ones(3)).graph
            return super().forward(x)

    torch.manual_seed(1)
    expected = keyed_gradient(Plain().double(), plan="looped")
    torch.manual_seed(1)
    traced = Traced().double()
    assert torch.equal(keyed_gradient(traced, plan="looped"), expected)
    called = [node.target for node in traced.graph.nodes if node.op == "call_function"]
    assert {torch.ops.aten.randperm.default, torch.ops.aten.rand.default} <= set(called)
    assert all(node.op != "get_attr" for node in traced.graph.nodes)  # no generator


def test_what_cannot_be_keyed_is_seeded_by_the_pass_and_told_of_when_stacked() -> None:
    model = nn.LSTM(8, 8, 2, dropout=0.4, batch_first=True).double()

    def loss_fn(model: nn.Module, rows: Tensor) -> Tensor:
        return model(rows)[0].square().mean()

    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        found.append(keyed_gradient(model, loss_fn, plan="looped"))
    assert torch.equal(*found)
    rows = make_rows()
    with pytest.warns(UserWarning, match=r"can't be keyed.*seqba\.check") as warned:
        seqba.merged_gradient(model, rows, loss_fn, copies=2, update=4, plan="stacked", keyed=True)
    assert [warning.filename for warning in warned] == [__file__]


def penalised(model: nn.Module, rows: Tensor) -> Tensor:
    """The loss, times a factor of its own gradient by `torch.func`."""

    def loss(parameters: Any) -> Tensor:
        return torch.func.functional_call(model, parameters, (rows,)).square().mean()

    parameters = dict(model.named_parameters())
    slopes = torch.func.grad(loss)({name: parameter.detach() for name, parameter in parameters.items()})
    return loss(parameters) * (1 + sum(slope.square().sum() for slope in slopes.values()))


@pytest.mark.parametrize("dropout", [nn.Dropout, seqba.nn.Dropout])
def test_gradients_by_torch_func_are_those_of_autograd(dropout: Any) -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), dropout(0.3), nn.Linear(8, 8)).double()

    def by_autograd(model: nn.Module, rows: Tensor) -> Tensor:
        own = model(rows).square().mean()  # its slopes are at another call of dropout, as in `penalised`
        slopes = torch.autograd.grad(own, list(model.parameters()))
        return model(rows).square().mean() * (1 + sum(slope.square().sum() for slope in slopes))

    expected = keyed_gradient(model, by_autograd, plan="looped")
    assert relative_error(keyed_gradient(model, penalised, plan="looped"), expected) < 1e-12


def by_rows(model: nn.Module, rows: Tensor) -> Tensor:
    return torch.vmap(lambda row: model(row[None]).square().mean(), randomness="different")(rows).mean()


def nested(model: nn.Module, rows: Tensor) -> Tensor:
    ragged = torch.nested.nested_tensor([row[: 2 + number % 3] for number, row in enumerate(rows)], layout=torch.jagged)
    return model(ragged).values().square().mean()


@pytest.mark.parametrize("loss_fn", [by_rows, nested])
def test_noise_of_vmap_and_of_nested_tensors_is_seeded_by_the_pass_and_told_of_when_stacked(loss_fn: Any) -> None:
    model = make_model("nn.Dropout")
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        found.append(keyed_gradient(model, loss_fn, plan="looped"))
    assert torch.equal(*found)
    with pytest.warns(UserWarning, match=r"can't be keyed.*seqba\.check"):
        keyed_gradient(model, loss_fn, plan="stacked")


def test_the_global_generator_is_left_alone() -> None:
    model = make_model("drop path")
    before = torch.get_rng_state()
    keyed_gradient(model)
    assert torch.equal(torch.get_rng_state(), before)


def in_a_thread(work: Callable[[], Any]) -> Any:
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(work())
        except RuntimeError as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return outcome[0]


def test_another_thread_draws_as_ever_or_is_refused() -> None:
    model, other = make_model("nn.Dropout"), make_model("nn.Dropout")
    outcomes: list[Any] = []

    def loss_fn(model: nn.Module, rows: Tensor) -> Tensor:
        generator = torch.get_rng_state()
        torch.manual_seed(4)
        outcomes.append(in_a_thread(lambda: F.dropout(torch.ones(6), 0.5)))
        torch.set_rng_state(generator)
        outcomes.append(in_a_thread(lambda: model(rows)))
        outcomes.append(in_a_thread(lambda: keyed_gradient(other)))
        return square_loss(model, rows)

    found = keyed_gradient(model, loss_fn, plan="looped")
    torch.manual_seed(4)
    assert torch.equal(outcomes[0], F.dropout(torch.ones(6), 0.5))
    assert "in a thread that doesn't compute the pass" in str(outcomes[1])
    assert "another thread of this process is computing an update" in str(outcomes[2])
    assert torch.equal(found, keyed_gradient(model, plan="looped"))
    assert torch.equal(in_a_thread(lambda: keyed_gradient(other, plan="looped")), found)


def test_the_loss_may_be_given_to_another_backward() -> None:
    model = make_model("nn.Dropout")
    expected = keyed_gradient(model, plan="looped")
    scaled = keyed_gradient(model, plan="looped", backward=lambda loss: (loss * 8).backward())
    assert relative_error(scaled, 8 * expected) < 1e-12
    with pytest.raises(TypeError, match="backward must be a function of a loss, not 3"):
        keyed_gradient(model, backward=3)
