"""Compiled layers: the masks of uncompiled ones, their gradients, and a graph for all batches, updates and copies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from model_cases import CASES, COPIES, PAD, make_tokens
from small_network import gradient_of, relative_error
from torch import Tensor, fx, nn

import seqba
from seqba.errors import UserError
from seqba.models import graphs
from seqba.models.graphs import check_compiled, compile_layers
from seqba.models.layers import SelfAttentionLayer, recompute_layers
from seqba.noise import noise
from seqba.noise.noise import Noise

pytestmark = pytest.mark.filterwarnings("ignore")  # torch.compile warns of its own tracing

MODELS = ["transformer", "pre-norm transformer", "transformer_lm"]
Graphs = list[fx.GraphModule]


@pytest.fixture(scope="module")
def backend() -> Iterator[Graphs]:
    """The graphs that are compiled in this file, by a backend that runs them as they are."""
    made: Graphs = []

    def keep(graph: fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        made.append(graph)
        return graph.forward

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graphs, "BACKEND", keep)
        forget()
        yield made
    forget()


@pytest.fixture
def compiled(backend: Graphs) -> Graphs:
    """The graphs that a test compiles."""
    forget()
    backend.clear()
    return backend


def forget() -> None:
    graphs._compiled.cache_clear()
    torch._dynamo.reset()


def gradient(name: str, *prepare: Callable[[nn.Module], None], place: str | None = None, **options: Any) -> Tensor:
    torch.manual_seed(1)
    case = CASES[name]
    model: Any = case.build(0.3).double()
    model.fork_at(place)
    for change in prepare:
        change(model)
    options = {"batch": case.batch, "update": 2, "copies": COPIES, **options}
    seqba.merged_gradient(model, loss_fn=case.loss, forked=place is not None, **options)
    return gradient_of(model)


@pytest.mark.parametrize("name", MODELS)
def test_the_gradient_is_that_of_uncompiled_layers_in_every_plan(name: str, compiled: Graphs) -> None:
    for plan in ("stacked", "looped", "auto"):
        assert relative_error(gradient(name, compile_layers, plan=plan), gradient(name, plan=plan)) < 1e-12
    assert len(compiled) == (1 if name == "transformer_lm" else 2)


@pytest.mark.parametrize(("name", "place"), [("transformer", "decoder-layer-2"), ("transformer_lm", "layer-2")])
def test_copies_may_begin_inside_and_layers_be_computed_again(name: str, place: str, compiled: Graphs) -> None:
    for plan in ("stacked", "looped"):
        expected = gradient(name, place=place, plan=plan)
        for prepare in ((compile_layers,), (compile_layers, recompute_layers)):
            assert relative_error(gradient(name, *prepare, place=place, plan=plan), expected) < 1e-12
    assert compiled


def masks_by_site(monkeypatch: pytest.MonkeyPatch, *prepare: Callable[[nn.Module], None]) -> dict[str, list[Tensor]]:
    """The numbers of the masks that an update of the Transformer draws, by the names of the modules that draw them."""
    drawn: dict[str, list[Tensor]] = {}
    plain = Noise._numbers

    def numbers(self: Noise, owner: object, *given: Any, **named: Any) -> Tensor:
        result = plain(self, owner, *given, **named)
        drawn.setdefault(self.names[id(owner)], []).append(result.clone())
        return result

    with monkeypatch.context() as patch:
        patch.setattr(Noise, "_numbers", numbers)
        gradient("transformer", *prepare, plan="looped")
    return drawn


@pytest.mark.usefixtures("compiled")
def test_masks_are_those_of_uncompiled_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    masks, expected = masks_by_site(monkeypatch, compile_layers), masks_by_site(monkeypatch)
    assert len(expected) == 2 + 2 * 4 + 2 * 6  # embeddings, and the dropouts of two encoder and two decoder layers
    assert masks.keys() == expected.keys()
    for site, own in masks.items():
        assert len(own) == COPIES
        assert all(map(torch.equal, own, expected[site]))


def test_a_graph_serves_all_batches_updates_and_copies(compiled: Graphs) -> None:
    """Rows, lengths and tokens differ, some of them equal to one another; a batch of one row has its own graphs."""
    shapes = [((4, 4, 3, 2), (5, 3, 4, 5)), ((6, 3), (2, 7)), ((3, 5, 7), (3, 3, 2)), ((2, 1, 2), (9, 8, 9))]
    torch.manual_seed(1)
    model = CASES["transformer"].build(0.3)
    compile_layers(model)
    for update, (source, target) in enumerate(shapes * 2):
        pairs = make_tokens(source, update), make_tokens(target, update)
        for copies in (1, 3):
            seqba.merged_gradient(model, pairs, CASES["transformer"].loss, copies=copies, plan="stacked", update=update)
    assert len(compiled) == 2
    seqba.merged_gradient(
        model, (make_tokens((5,), 1), make_tokens((4,), 1)), CASES["transformer"].loss, copies=1, update=9
    )
    assert len(compiled) == 4


def test_graphs_draw_nothing(compiled: Graphs) -> None:
    gradient("transformer", compile_layers)
    called = {str(node.target) for graph in compiled for node in graph.graph.nodes if node.op.startswith("call")}
    assert called
    assert not [name for name in called if "rand" in name or "dropout" in name or "seqba" in name]
    assert not [name for name in called if "autograd_function" in name]  # torch 2.11 loses gradients in some


def test_copies_with_tokens_of_their_own(compiled: Graphs) -> None:
    """Their numbers of tokens are known where masks are drawn, and are no part of a graph."""
    short, long = (make_tokens(lengths, 3) for lengths in ((6, 3, 5), (6, 6, 5)))
    rows = torch.cat([short, long])
    found = []
    for prepare in ((compile_layers,), ()):
        torch.manual_seed(1)
        model = CASES["transformer_lm"].build(0.3).double()
        for change in prepare:
            change(model)
        seqba.grid_gradient(
            model, [rows], CASES["transformer_lm"].loss, copies=2, weight=31, plan="stacked", update=1, replicated=True
        )
        found.append(gradient_of(model))
    assert compiled
    assert relative_error(*found) < 1e-12


def test_what_is_no_pass_of_an_update_runs_as_it_is(compiled: Graphs) -> None:
    torch.manual_seed(1)
    model: Any = CASES["transformer"].build(0.3)
    names = list(model.state_dict())
    compile_layers(model)
    assert list(model.state_dict()) == names
    model(*CASES["transformer"].batch).sum().backward()  # a plain loop, whose dropout is ordinary
    model.eval()
    with torch.no_grad(), seqba.core.noise_context(Noise(1, 1, 0, [0])):
        model(*CASES["transformer"].batch)
    assert not compiled


def test_bfloat16_within_its_rounding(compiled: Graphs) -> None:
    def loss(model: Any, batch: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            hidden = model.features(*batch)
        target = seqba.per_copy(batch[1])
        target = target[target != PAD]
        logits = nn.functional.linear(hidden.float(), model.output_weight)
        return nn.functional.cross_entropy(logits, target, reduction="sum"), len(target)

    found = []
    for prepare in ((compile_layers,), ()):
        torch.manual_seed(1)
        model = CASES["transformer"].build(0.3)
        for change in prepare:
            change(model)
        seqba.merged_gradient(model, CASES["transformer"].batch, loss, copies=COPIES, update=2, plan="stacked")
        found.append(gradient_of(model))
    assert relative_error(*found) < 0.02
    assert len(compiled) == 2


@pytest.mark.parametrize("by_counter", [False, True])  # as a CPU draws, and as a GPU
def test_forward_and_backward_are_compiled_beforehand(
    by_counter: bool, compiled: Graphs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for torch's own compiler, which takes a minute on a CPU: recipes/bench/layers.py runs it."""
    monkeypatch.setattr(graphs, "BACKEND", "aot_eager")
    monkeypatch.setattr(noise, "draws_by_counter", lambda _: by_counter)
    for plan in ("stacked", "looped"):
        expected = gradient("transformer_lm", plan=plan)
        assert relative_error(gradient("transformer_lm", compile_layers, plan=plan), expected) < 1e-12
    assert not compiled


@pytest.mark.parametrize(
    ("precision", "rounding", "error", "is_right"),
    [
        (torch.bfloat16, 0.02, 0.1, True),
        (torch.bfloat16, 0.12, 0.2, True),  # as six layers have it, and a compiler that rounds at other places
        (torch.bfloat16, 0.12, 0.5, False),
        (torch.float16, 0.0, 0.2, False),
        (None, 0.0, 1e-4, True),
        (None, 0.0, 1e-2, False),
    ],
)
def test_sixteen_bits_may_round_as_those_of_uncompiled_layers_do(
    precision: torch.dtype | None, rounding: float, error: float, is_right: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = CASES["transformer_lm"].build(0.3)
    compile_layers(model)
    (layer, *_) = (module for module in model.modules() if isinstance(module, SelfAttentionLayer))

    def gradient(_: nn.Module, dtype: torch.dtype | None) -> list[Tensor]:
        if layer.compiled is not None:
            return [torch.tensor([1.0]), torch.tensor([error])]
        return [torch.tensor([1.0]), torch.tensor([0.0 if dtype is None else -rounding])]

    monkeypatch.setattr(graphs, "_gradient", gradient)
    if is_right:
        check_compiled(model, precision)
    else:
        with pytest.raises(UserError, match="compiler gets gradients wrong"):
            check_compiled(model, precision)
    assert layer.compiled is not None


@pytest.mark.parametrize("name", ["transformer", "transformer_lm"])
def test_the_check_takes_a_model_of_few_positions(name: str) -> None:
    torch.manual_seed(1)
    model: Any = CASES[name].build(0.3)
    model.max_source_positions, model.max_target_positions = 3, 2
    check_compiled(model, None)  # of layers as they are, twice: what it asks of a model is seen as well
    # At base a float64 copy would be half a gigabyte.
    assert {gradient.dtype for gradient in graphs._gradient(model.float(), None)} == {torch.float32}


def test_weights_that_are_not_numbers_are_not_called_the_compilers_mistake() -> None:
    model: Any = CASES["transformer_lm"].build(0.3)
    with torch.no_grad():
        model.embedding.tokens.weight.fill_(torch.nan)
    check_compiled(model, None)
