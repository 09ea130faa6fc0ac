"""Torch's functions under `keyed`: put back, left alone where they should be, and of torch's distributions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from foreign_models import make_model
from keyed_gradients import F, keyed_gradient
from torch import Tensor, nn

import seqba
from seqba.core import Noise, noise_context
from seqba.keying.keyed import _replacements


def attributes() -> list[Any]:
    return [getattr(replacement._holder, replacement._name) for replacement in _replacements]


def test_torchs_functions_are_put_back_after_a_failure_as_well() -> None:
    before = attributes()
    model = make_model("nn.Dropout")

    def failing(model: nn.Module, rows: Tensor) -> Tensor:
        assert attributes() != before
        raise KeyError

    with pytest.raises(KeyError):
        keyed_gradient(model, failing)
    assert all(now is then for now, then in zip(attributes(), before, strict=True))
    assert "bernoulli_" not in vars(Tensor)


def _like_takes_generators() -> bool:
    """Whether this torch has `rand_like(..., generator=)`; that of 2.6 hasn't."""
    try:
        torch.rand_like(torch.ones(1), generator=None)
    except TypeError:
        return False
    return True


LIKE_TAKES_GENERATORS = _like_takes_generators()


def test_outside_a_pass_and_with_a_generator_given_functions_are_torchs() -> None:
    def numbers(generator: torch.Generator | None) -> list[Tensor]:
        torch.manual_seed(2)
        x = torch.ones(4, 4)
        drawn = [
            torch.rand(3, generator=generator),
            torch.randn(2, 3, generator=generator),
            torch.randint(9, (4,), generator=generator),
            torch.randint(2, 9, (4,), generator=generator),
            torch.normal(x, 2.0, generator=generator),
            torch.normal(0.0, 2.0, (3,), generator=generator),
            torch.bernoulli(x / 2, generator=generator),
            x.bernoulli(0.5, generator=generator),
            torch.empty(5).bernoulli_(0.5, generator=generator),
            torch.empty(5).normal_(generator=generator),
            torch.empty(5).exponential_(generator=generator),
        ]
        if LIKE_TAKES_GENERATORS:
            drawn.append(torch.rand_like(x, generator=generator))
        if generator is None:
            query = torch.ones(1, 2, 3, 4)
            drawn += [F.dropout(x), F.alpha_dropout(x, 0.5, True), torch.dropout(x, 0.5, True)]
            drawn += [F.scaled_dot_product_attention(query, query, query, dropout_p=0.5)]
        return drawn

    plain = numbers(None), numbers(torch.Generator().manual_seed(3))
    with seqba.keyed(nn.Linear(1, 1)):
        within = numbers(None)
        with noise_context(Noise(0, 0, 0, range(1))):
            generated = numbers(torch.Generator().manual_seed(3))
    assert all(torch.equal(one, other) for one, other in zip(within, plain[0], strict=True))
    assert all(torch.equal(one, other) for one, other in zip(generated, plain[1], strict=True))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"is_causal": True},
        {"scale": 0.3},
        {"attn_mask": "bool"},
        {"attn_mask": "float"},
        {"enable_gqa": True},
        {"enable_gqa": True, "attn_mask": "bool", "scale": 2.0},
    ],
    ids=str,
)
def test_attention_written_out_is_torchs(options: dict[str, Any]) -> None:
    """With a probability that keeps everything, against the same without dropout; a query that sees nothing too."""
    generator = torch.Generator().manual_seed(0)
    heads = 2 if options.get("enable_gqa") else 4
    shapes = ((3, 4, 5, 8), (3, heads, 6, 8), (3, heads, 6, 7))
    given = [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]
    options = dict(options)
    if options.get("attn_mask") == "bool":
        options["attn_mask"] = torch.rand(3, 1, 5, 6, generator=generator) > 0.4
        options["attn_mask"][0, :, 2] = False
    elif options.get("attn_mask") == "float":
        options["attn_mask"] = torch.randn(5, 6, generator=generator, dtype=torch.float64)
        options["attn_mask"][2] = -torch.inf
    expected = F.scaled_dot_product_attention(*given, **options)
    slopes = torch.autograd.grad(expected.square().sum(), given)
    with noise_context(Noise(0, 0, 0, range(1))), seqba.keyed(nn.Linear(1, 1)):
        written = F.scaled_dot_product_attention(*given, dropout_p=1e-9, **options)
        dropped = F.scaled_dot_product_attention(*given, dropout_p=0.5, **options)
        torch.testing.assert_close(written, expected)
        torch.testing.assert_close(torch.autograd.grad(written.square().sum(), given), slopes)
    assert not torch.allclose(dropped, expected)


@pytest.mark.parametrize(
    ("function", "mean", "deviation"),
    [
        (lambda x: F.dropout(x + 1, 0.25), 1, (0.25 / 0.75 + 1 / 0.75) ** 0.5),
        (lambda x: F.alpha_dropout(x, 0.25, True), 0, 1),
        (lambda x: F.feature_alpha_dropout(x.view(-1, 2, 1), 0.25, True), 0, 1),
        (torch.rand_like, 0.5, 12**-0.5),
        (torch.randn_like, 0, 1),
        (lambda x: torch.empty_like(x).exponential_(2.0), 0.5, 0.5),
        (lambda x: torch.normal(x * 0 + 3, 2.0), 3, 2),
        (lambda x: torch.normal(3.0, 2.0, x.shape), 3, 2),
        (lambda x: torch.randint(2, 5, x.shape).double(), 3, (2 / 3) ** 0.5),
        (lambda x: torch.randint(3, size=x.shape).double(), 1, (2 / 3) ** 0.5),
        (lambda x: torch.empty_like(x).bernoulli_(torch.full_like(x, 0.2)), 0.2, 0.4),
        (lambda x: x.bernoulli(0.2), 0.2, 0.4),
        (lambda x: torch.rand(x.shape, dtype=x.dtype), 0.5, 12**-0.5),
        (lambda x: torch.randn(*x.shape), 0, 1),
    ],
)
def test_what_is_drawn_has_the_distribution_of_torchs_function(
    function: Callable[[Tensor], Tensor], mean: float, deviation: float
) -> None:
    x = torch.randn(40_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with noise_context(Noise(0, 0, 0, range(2))), seqba.keyed(nn.Linear(1, 1)):
        drawn = function(x).double()
    assert drawn.mean().item() == pytest.approx(mean, abs=0.03)
    assert drawn.std().item() == pytest.approx(deviation, rel=0.03)
    assert not torch.equal(drawn.flatten()[:20_000], drawn.flatten()[20_000:])


def test_everything_is_dropped_at_probability_one() -> None:
    x = torch.ones(4, 4)
    with noise_context(Noise(0, 0, 0, range(1))), seqba.keyed(nn.Linear(1, 1)):
        assert not F.dropout(x, 1.0).any()
        assert not F.alpha_dropout(x, 1.0, True).any()
        with pytest.raises(ValueError, match=r"between 0 and 1, but got 1\.5"):
            F.dropout(x, 1.5)
