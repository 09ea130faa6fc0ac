"""Every operator of torch that draws is keyed, or seen by `seqba.check`: by the tag that torch gives them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from foreign_models import Around, gradient, make_rows, square_loss
from small_network import relative_error
from torch import Tensor, nn

import seqba
from seqba.core import Noise, noise_context
from seqba.keying.keyed import _replacements

F = nn.functional
SIZE = (5, 8)
"""Of a row of `make_rows`."""


def shares(x: Tensor) -> Tensor:
    """(R, T, D), positive, of sum 1 over D."""
    return x.softmax(-1)


def to_int(x: Tensor) -> Tensor:
    return torch.full_like(x.detach(), 4)


KEYED: dict[str, Callable[[Tensor], Tensor]] = {
    "_sample_dirichlet": lambda x: x * torch._sample_dirichlet(x.detach().exp()),
    "_standard_gamma": lambda x: torch.distributions.Gamma(x.exp(), 1.0).rsample(),
    "alpha_dropout": lambda x: torch.alpha_dropout(x, 0.3, True),
    "alpha_dropout_": lambda x: torch.alpha_dropout_(x * 1, 0.3, True),
    "bernoulli": lambda x: x * torch.bernoulli(shares(x)),
    "bernoulli_": lambda x: x * torch.empty_like(x).bernoulli_(0.5),
    "binomial": lambda x: x * torch.binomial(to_int(x), shares(x.detach())),
    "cauchy_": lambda x: x * torch.empty_like(x).cauchy_().clamp(-9, 9),
    "dropout": lambda x: torch.dropout(x, 0.3, True),
    "dropout_": lambda x: torch.dropout_(x * 1, 0.3, True),
    "exponential_": lambda x: x * torch.empty_like(x).exponential_(),
    "feature_alpha_dropout": lambda x: torch.feature_alpha_dropout(x, 0.3, True),
    "feature_alpha_dropout_": lambda x: torch.feature_alpha_dropout_(x * 1, 0.3, True),
    "feature_dropout": lambda x: torch.feature_dropout(x, 0.3, True),
    "feature_dropout_": lambda x: torch.feature_dropout_(x * 1, 0.3, True),
    "geometric_": lambda x: x * torch.empty_like(x).geometric_(0.5),
    "log_normal_": lambda x: x * torch.empty_like(x).log_normal_(),
    "multinomial": lambda x: x.gather(-1, torch.multinomial(shares(x).flatten(0, 1), 3).view(len(x), 5, 3)),
    "native_dropout": lambda x: torch.native_dropout(x, 0.3, True)[0],
    "normal": lambda x: torch.normal(x.detach(), 1.0) * x,
    "normal_": lambda x: x * torch.empty_like(x).normal_(),
    "poisson": lambda x: x * torch.poisson(x.detach().exp()),
    "rand": lambda x: x * torch.rand(len(x), *SIZE),
    "rand_like": lambda x: x * torch.rand_like(x),
    "randint": lambda x: x * torch.randint(3, (len(x), *SIZE)),
    "randint_like": lambda x: x * torch.randint_like(x, 2, high=7),
    "randn": lambda x: x * torch.randn(len(x), *SIZE),
    "randn_like": lambda x: x * torch.randn_like(x),
    "random_": lambda x: x * torch.empty_like(x).random_(9),
    "randperm": lambda x: x * 0.7 + x[torch.randperm(len(x))] * 0.3,
    "rrelu": lambda x: torch.rrelu(x, training=True),
    "rrelu_": lambda x: F.rrelu_(x * 1, training=True),
    "scaled_dot_product_attention": lambda x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.3),
    "uniform_": lambda x: x * torch.empty_like(x).uniform_(),
}
"""Name of an operator → its use by a model."""

MORE = {
    "binomial of one probability": lambda x: x * torch.binomial(to_int(x), torch.full((), 0.5, dtype=x.dtype)),
    "binomial of a probability a row": lambda x: x * torch.binomial(to_int(x), shares(x.detach())[..., :1]),
    "Tensor.multinomial": lambda x: x.gather(1, shares(x[..., 0]).multinomial(2)[..., None]),
    "multinomial for all rows": lambda x: x[:, torch.multinomial(torch.ones(5), 2)],
    "randint_like to a number": lambda x: x * torch.randint_like(x, 7),
    "F.rrelu": lambda x: F.rrelu(x, training=True),
    "F.rrelu in place": lambda x: F.rrelu(x * 1, training=True, inplace=True),
    "fractional pooling": lambda x: F.fractional_max_pool2d(x[:, None], 2, output_ratio=(0.6, 0.6)),
    "a Dirichlet": lambda x: torch.distributions.Dirichlet(x.exp()).rsample(),
    "categories": lambda x: x * torch.distributions.Categorical(shares(x)).sample()[..., None],
    "randperm for all rows": lambda x: x[:, torch.randperm(5)],
}
"""Other ways to them."""

SEEN: dict[str, Callable[[nn.Module, Tensor], Tensor] | str] = {
    "gru": lambda module, x: module.gru(x)[0],
    "lstm": lambda module, x: module.lstm(x)[0],
    "rnn_relu": lambda module, x: module.rnn_relu(x)[0],
    "rnn_tanh": lambda module, x: module.rnn_tanh(x)[0],
    "rrelu_with_noise": lambda module, x: torch._C._nn.rrelu_with_noise(x, torch.empty_like(x), 0.1, 0.3, True),
    "rrelu_with_noise_": lambda module, x: torch._C._nn.rrelu_with_noise_(x * 1, torch.empty_like(x), 0.1, 0.3, True),
    "rrelu_with_noise_functional": lambda module, x: torch.ops.aten.rrelu_with_noise_functional(
        x, torch.ones_like(x), 0.1, 0.3, True
    )[0],
    "_scaled_dot_product_attention_math": lambda module, x: torch._scaled_dot_product_attention_math(
        *[x[:, None]] * 3, dropout_p=0.3
    )[0],
    # Of torch's compiler alone: no function of torch's is theirs.
    "cauchy": lambda module, x: x * torch.ops.aten.cauchy(x.detach()),
    "exponential": lambda module, x: x * torch.ops.aten.exponential(x.detach()),
    "geometric": lambda module, x: x * torch.ops.aten.geometric(x.detach(), 0.5),
    "log_normal": lambda module, x: x * torch.ops.aten.log_normal(x.detach()),
    "normal_functional": lambda module, x: x * torch.ops.aten.normal_functional(torch.zeros_like(x)),
    "random": lambda module, x: x * torch.ops.aten.random(x.detach()),
    "uniform": lambda module, x: x * torch.ops.aten.uniform(x.detach()),
    **dict.fromkeys(
        (
            "_cudnn_attention_backward",
            "_cudnn_attention_forward",
            "_cudnn_attention_forward_no_dropout_inplace",
            "_cudnn_init_dropout_state",
            "_cudnn_rnn",
            "_efficient_attention_forward",
            "_fill_mem_eff_dropout_mask_",
            "_flash_attention_forward",
            "_flash_attention_forward_no_dropout_inplace",
            "_fused_dropout",
            "_lstm_mps",
            "_scaled_dot_product_attention_math_for_mps",
            "_scaled_dot_product_cudnn_attention",
            "_scaled_dot_product_cudnn_attention_backward",
            "_scaled_dot_product_efficient_attention",
            "_scaled_dot_product_efficient_attention_backward",
            "_scaled_dot_product_flash_attention",
            "_scaled_dot_product_fused_attention_overrideable",
            "_triton_scaled_dot_attention",
            "miopen_rnn",
        ),
        "a GPU's",
    ),
    "_scaled_dot_product_flash_attention_for_cpu": "refuses dropout",
    "_fused_sdp_choice": "chooses a kernel",
    "_nested_tensor_softmax_with_shape": "draws nothing",
}
"""Name of an operator that no key reaches → a use of it, or why it has none here."""


def tagged() -> set[str]:
    """Names of torch's operators that draw."""
    names = set()
    for schema in torch._C._jit_get_all_schemas():
        if schema.name.startswith("aten::"):
            overload = torch._C._get_operation_overload(schema.name, schema.overload_name)
            if overload is not None and torch.Tag.nondeterministic_seeded in overload[2]:
                names.add(schema.name.removeprefix("aten::"))
    return names


def test_every_operator_that_draws_is_known() -> None:
    assert not set(KEYED) & set(SEEN)
    unknown = tagged() - set(KEYED) - set(SEEN)
    assert unknown == set(), "torch draws in new ways: key them, or show that seqba.check sees them"


def test_no_function_of_torchs_for_them_is_left_unkeyed() -> None:
    replaced = {(replacement._holder, replacement._name) for replacement in _replacements}
    holders = (torch, F, Tensor)
    left = {
        (holder.__name__, name)
        for holder in holders
        for name in tagged() - set(SEEN)
        if callable(getattr(holder, name, None)) and (holder, name) not in replaced
    }
    assert left == {(F.__name__, "rrelu")}  # which calls torch.rrelu, as `MORE` shows


def test_no_operator_takes_a_generator_without_the_tag() -> None:
    """`seqba.check` goes by the tag; those of TorchScript's initialisers and of generators themselves have none."""
    names = {
        schema.name.removeprefix("aten::")
        for schema in torch._C._jit_get_all_schemas()
        if schema.name.startswith("aten::") and any("Generator" in str(each.type) for each in schema.arguments)
    }
    initialising = {"_no_grad_normal_", "_no_grad_uniform_", "initial_seed", "manual_seed", "seed"}
    assert names - tagged() <= initialising


def noisy_model(noisy: Callable[[Tensor], Tensor]) -> nn.Module:
    torch.manual_seed(1)
    model = Around(lambda module, x: _wide(noisy(x)))
    return model.double().train()


def _wide(x: Tensor) -> Tensor:
    """(R, …) → (R, 8), whatever the noise has made of the rows."""
    return F.adaptive_avg_pool1d(x.to(torch.float64).flatten(1)[:, None], 8)[:, 0]


@pytest.mark.parametrize("name", [*KEYED, *MORE])
def test_a_keyed_operator_draws_the_same_in_every_plan(name: str) -> None:
    model = noisy_model({**KEYED, **MORE}[name])
    gradients = {}
    for plan in ("stacked", "looped", 3):
        torch.manual_seed(len(gradients))  # whatever torch's own generators are at
        model.zero_grad()
        seqba.merged_gradient(model, make_rows(), square_loss, copies=4, update=3, keyed=True, plan=plan)
        gradients[plan] = gradient(model)
    assert relative_error(gradients["looped"], gradients["stacked"]) < 1e-12
    assert relative_error(gradients[3], gradients["stacked"]) < 1e-12
    report = seqba.check(model, make_rows(), square_loss)
    assert report.unkeyed == ()
    assert report.copies_differ or "all rows" in name
    assert report.is_fine or "all rows" in name, str(report)


class Recurrent(Around):
    def __init__(self, noisy: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__(lambda module, x: _wide(noisy(module, x)))
        for kind, layer, options in (
            ("gru", nn.GRU, {}),
            ("lstm", nn.LSTM, {}),
            ("rnn_relu", nn.RNN, {"nonlinearity": "relu"}),
            ("rnn_tanh", nn.RNN, {}),
        ):
            setattr(self, kind, layer(8, 8, 2, dropout=0.5, batch_first=True, **options))


@pytest.mark.parametrize("name", [name for name, use in SEEN.items() if callable(use)])
def test_what_no_key_reaches_is_seen(name: str) -> None:
    use: Any = SEEN[name]
    torch.manual_seed(1)
    report = seqba.check(Recurrent(use).double(), make_rows(), square_loss)
    assert report.unkeyed != ()
    assert not report.is_fine


@pytest.mark.parametrize(
    ("function", "mean", "deviation"),
    [
        (lambda x: torch.poisson(torch.full_like(x, 4.0)), 4, 2),
        (lambda x: torch.binomial(torch.full_like(x, 10.0), torch.full_like(x, 0.2)), 2, 1.6**0.5),
        (lambda x: torch._standard_gamma(torch.full_like(x, 9.0)), 9, 3),
        (lambda x: torch._sample_dirichlet(torch.ones(len(x), 2, dtype=x.dtype))[:, 0], 0.5, 12**-0.5),
        (lambda x: torch.multinomial(torch.tensor([[0.25, 0.75]]).expand(len(x), 2), 1).flatten(), 0.75, 0.1875**0.5),
        (lambda x: torch.randint_like(x, 2, 5), 3, (2 / 3) ** 0.5),
        (lambda x: torch.randperm(len(x)).double() / len(x), 0.5, 12**-0.5),
        (lambda x: torch.rrelu(-torch.ones_like(x), 0.2, 0.6, training=True), -0.4, 0.4 * 12**-0.5),
        (lambda x: torch.native_dropout(torch.ones_like(x), 0.25, True)[0], 1, (1 / 0.75 - 1) ** 0.5),
    ],
)
def test_samples_have_the_distribution_of_torchs_function(
    function: Callable[[Tensor], Tensor], mean: float, deviation: float
) -> None:
    x = torch.zeros(40_000, dtype=torch.float64)
    with noise_context(Noise(0, 0, 0, range(2))), seqba.keyed(nn.Linear(1, 1)):
        drawn = function(x).double()
    assert drawn.mean().item() == pytest.approx(mean, abs=0.03)
    assert drawn.std().item() == pytest.approx(deviation, rel=0.03)
    assert not torch.equal(drawn[:20_000], drawn[20_000:])


def test_an_order_of_rows_leaves_copies_among_themselves() -> None:
    with noise_context(Noise(0, 0, 0, range(3), rows=12)), seqba.keyed(nn.Linear(1, 1)):
        order, out = torch.randperm(12), torch.empty(0, dtype=torch.int64)
        shared = torch.randperm(5)
        torch.randperm(24, out=out)
    assert [set(part.tolist()) for part in order.chunk(3)] == [set(range(4)), set(range(4, 8)), set(range(8, 12))]
    assert sorted(shared.tolist()) == list(range(5))
    assert out[:8].max() == 7
