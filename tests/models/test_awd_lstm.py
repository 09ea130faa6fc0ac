"""The AWD-LSTM: its size, its reference in nn.LSTM, and what the plan may not change."""

from __future__ import annotations

import pytest
import torch
from initial_weights import assert_uniform
from torch import Tensor, nn

import seqba
from seqba.core import Noise, noise_context
from seqba.models.awd_lstm import AWDLSTM
from seqba.models.config import AWDLSTMConfig

QUIET = {"dropout": 0.0, "input_dropout": 0.0, "hidden_dropout": 0.0, "embedding_dropout": 0.0, "weight_dropout": 0.0}
NOISES = tuple(QUIET)


def make_model(dtype: torch.dtype = torch.float64, **changes: float) -> AWDLSTM:
    torch.manual_seed(2)
    sizes = {"decoder_layers": 3, "decoder_embed_dim": 8, "decoder_hidden_size": 12}
    return AWDLSTM(AWDLSTMConfig(**sizes, **changes), vocabulary=30).to(dtype)


def make_tokens(rows: int = 4, length: int = 6, seed: int = 0) -> Tensor:
    return torch.randint(0, 30, (rows, length), generator=torch.Generator().manual_seed(seed))


def test_the_paper_s_size() -> None:
    with torch.device("meta"):
        model = AWDLSTM(AWDLSTMConfig(), vocabulary=10_000)
    assert sum(parameter.numel() for parameter in model.parameters()) == 24_221_600


def test_initial_weights_are_the_released_code_s() -> None:
    torch.manual_seed(2)
    model = AWDLSTM(AWDLSTMConfig(decoder_embed_dim=24, decoder_hidden_size=40), vocabulary=500)
    assert_uniform(model.embedding.weight, 0.1)
    for layer in model.layers:  # torch's own for an LSTM, biases included
        assert len(list(layer.parameters())) == 4
        for parameter in layer.parameters():
            assert_uniform(parameter, layer.hidden_size**-0.5)
    assert not model.output_bias.any()
    assert model.output_weight is model.embedding.weight


def test_without_noise_it_is_embedding_nn_lstm_and_tied_projection() -> None:
    model, tokens = make_model(**QUIET), make_tokens()
    x = nn.functional.embedding(tokens, model.embedding.weight)
    for layer in model.layers:
        lstm = nn.LSTM(layer.input_size, layer.hidden_size, batch_first=True, dtype=torch.float64)
        lstm.load_state_dict(layer.state_dict())
        x, _ = lstm(x)
    logits, state = model(tokens)
    assert torch.allclose(logits, x @ model.embedding.weight.t() + model.output_bias, rtol=1e-10)
    assert [tuple(part.shape) for part in state] == [(4, 12), (4, 12), (4, 12), (4, 12), (4, 8), (4, 8)]


def test_windows_with_carried_state_are_one_long_window() -> None:
    model, tokens = make_model().eval(), make_tokens(length=9)
    whole, _ = model(tokens)
    first, state = model(tokens[:, :4])
    second, _ = model(tokens[:, 4:], state)
    assert torch.allclose(torch.cat([first, second], 1), whole, rtol=1e-10)


def train_gradient(plan: object, dtype: torch.dtype, *, copies: int = 3, **changes: float) -> Tensor:
    """The gradient of the last of three consecutive windows, all noises on, the state carried per copy."""
    model, carry = make_model(dtype, **changes), seqba.Carry()

    def loss(model: nn.Module, tokens: Tensor) -> tuple[Tensor, float]:
        window = model.window(tokens[:, :-1], carry.read())
        carry.write(window.state)
        logits = nn.functional.linear(window.hidden, model.output_weight, model.output_bias)
        entropy = nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum")
        return entropy + window.raw.diff(dim=1).square().sum(), float(tokens[:, 1:].numel())

    for update in range(3):
        model.zero_grad()
        seqba.merged_gradient(model, make_tokens(seed=update), loss, copies=copies, plan=plan, seed=1, update=update)
        carry.commit()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("weight_noise", ["per-copy", "shared"])
@pytest.mark.parametrize("plan", ["looped", 2, "auto"])
def test_the_gradient_does_not_depend_on_the_plan_over_consecutive_windows(
    plan: object, weight_noise: str, dtype: torch.dtype, bound: float
) -> None:
    expected = train_gradient("stacked", dtype, weight_noise=weight_noise)
    gradient = train_gradient(plan, dtype, weight_noise=weight_noise)
    assert (gradient - expected).norm() / expected.norm() < bound


def test_shared_weight_noise_is_another_gradient() -> None:
    own, shared = (
        train_gradient("stacked", torch.float64, weight_noise=weight_noise) for weight_noise in ("per-copy", "shared")
    )
    assert (own - shared).norm() / own.norm() > 1e-2


@pytest.mark.parametrize("noise", NOISES)
def test_every_noise_differs_between_copies(noise: str) -> None:
    model = make_model(**{**QUIET, noise: 0.5})
    tokens = make_tokens(rows=2).repeat(2, 1)
    with noise_context(Noise(0, 0, 0, (0, 1), {id(module): name for name, module in model.named_modules()})):
        first, second = model.window(tokens).hidden.chunk(2)
    assert not torch.allclose(first, second)


@pytest.mark.parametrize("noise", ["embedding_dropout", "weight_dropout"])
def test_shared_weight_noise_does_not_differ_between_copies(noise: str) -> None:
    model = make_model(**{**QUIET, noise: 0.5, "weight_noise": "shared"})
    tokens = make_tokens(rows=2).repeat(2, 1)
    with noise_context(Noise(0, 0, 0, (0, 1), {id(module): name for name, module in model.named_modules()})):
        first, second = model.window(tokens).hidden.chunk(2)
    assert torch.allclose(first, second, rtol=1e-12)


def test_a_state_of_other_rows_is_refused() -> None:
    model = make_model()
    _, state = model(make_tokens(rows=3))
    with pytest.raises(ValueError, match="4 rows through 3 layers"):
        model(make_tokens(rows=4), state)
    with pytest.raises(ValueError, match="at least one layer"):
        AWDLSTM(AWDLSTMConfig(decoder_layers=0), vocabulary=10)
