"""Weights and tables of the Transformer: shared ones, initial ones, positions."""

from __future__ import annotations

import math

import pytest
import torch
from initial_weights import check_transformer
from torch import Tensor, nn
from toy_transformer import LENGTHS, PAD, VOCABULARY, make_batch, make_model

from seqba.models.embedding import Embedding, sinusoids


def fairseq_positions(length: int, width: int, first: int = PAD + 1) -> Tensor:
    """An independent reading of fairseq's formula, number by number: (length, width) float64.

    `width // 2` sines at rates from 1 down to 1/10,000, their cosines, and a zero where the width is odd; the first
    word of a row stands at padding's id + 1.
    """
    half = width // 2
    rates = [10_000 ** -(rate / max(half - 1, 1)) for rate in range(half)]
    rows = []
    for position in range(first, first + length):
        waves = [math.sin(position * rate) for rate in rates] + [math.cos(position * rate) for rate in rates]
        rows.append(waves + [0.0] * (width % 2))
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("width", [16, 7, 1])
def test_the_table_of_positions_is_fairseqs(width: int) -> None:
    torch.testing.assert_close(sinusoids(90, width, 2).double(), fairseq_positions(90, width), atol=2e-5, rtol=0)


def test_the_first_word_of_every_row_stands_at_position_2_unless_told_otherwise() -> None:
    source, previous = make_batch(LENGTHS)
    for changes, first in (({}, 2), ({"first_position": 0}, 0), ({"first_position": 5}, 5)):
        model = make_model(**changes)
        for embedding in (model.source_embedding, model.target_embedding):
            assert isinstance(embedding, Embedding)
            embedded = embedding(torch.tensor([PAD]), torch.tensor([0]))  # padding's own embedding is zero
            torch.testing.assert_close(embedded[0], fairseq_positions(9, 16, first)[0], atol=1e-6, rtol=0)
    wide = nn.functional.pad(source, (0, 4), value=PAD)
    torch.testing.assert_close(make_model()(wide, previous), make_model()(source, previous))


def test_embeddings_are_shared_as_asked() -> None:
    separate = make_model()
    output_only = make_model(share_decoder_input_output_embed=True)
    everything = make_model(share_all_embeddings=True)
    sizes = [sum(parameter.numel() for parameter in m.parameters()) for m in (separate, output_only, everything)]
    assert sizes[0] - sizes[1] == sizes[1] - sizes[2] == VOCABULARY * 16
    assert everything.output_weight is everything.source_embedding.tokens.weight
    assert set(everything.state_dict()) < set(separate.state_dict())


def test_widths_of_encoder_and_decoder_may_differ() -> None:
    model = make_model(encoder_embed_dim=8, encoder_attention_heads=2)
    assert model(*make_batch(LENGTHS)).shape == (4, 6, VOCABULARY)
    with pytest.raises(ValueError, match="one vocabulary and one width"):
        make_model(encoder_embed_dim=8, share_all_embeddings=True)


def test_rows_beyond_the_positions_are_refused() -> None:
    model = make_model(max_source_positions=6, max_target_positions=3)
    source, previous = make_batch([(7, 3)])
    with pytest.raises(ValueError, match="a source row has 7 tokens; the model's positions end at 6"):
        model(source, previous)
    with pytest.raises(ValueError, match="a target row has 4 tokens; the model's positions end at 3"):
        model(*make_batch([(6, 4)]))
    state = model.begin(source[:, :6], 1)
    for _ in range(3):
        model.step(state, torch.tensor([[5]]))
    with pytest.raises(ValueError, match="longer than the model's 3 target positions"):
        model.step(state, torch.tensor([[5]]))


def test_as_many_positions_as_before_can_be_used_wherever_they_begin() -> None:
    source, previous = make_batch([(6, 3)])
    for first in (0, 2, 40):
        model = make_model(max_source_positions=6, max_target_positions=3, first_position=first)
        assert model(source, previous).shape == (1, 3, VOCABULARY)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="the width 16 isn't a multiple of the 3 attention heads"):
        make_model(encoder_attention_heads=3)


WIDE = {
    **dict.fromkeys(("encoder_embed_dim", "decoder_embed_dim"), 64),
    **dict.fromkeys(("encoder_ffn_embed_dim", "decoder_ffn_embed_dim"), 96),
    "vocabulary": 200,
}


@pytest.mark.parametrize("pre_norm", [False, True])
def test_initial_weights_are_fairseq_s(pre_norm: bool) -> None:
    model = make_model(**WIDE, encoder_normalize_before=pre_norm, decoder_normalize_before=pre_norm)
    attention = {"input_projection", "query_projection", "memory_projection", "output_projection"}
    kinds = check_transformer(model, pad=PAD)
    assert kinds == {"norm", "bias", "embedding", "output", "expand", "contract", *attention}


@pytest.mark.parametrize("sharing", ["share_all_embeddings", "share_decoder_input_output_embed"])
def test_tied_initial_weights_are_those_of_the_embedding(sharing: str) -> None:
    model = make_model(**WIDE, **{sharing: True})
    assert "output" not in check_transformer(model, pad=PAD)
    assert model.output_weight is model.target_embedding.tokens.weight
    is_joined = model.source_embedding.tokens.weight is model.target_embedding.tokens.weight
    assert is_joined == (sharing == "share_all_embeddings")


def test_no_two_initial_weights_are_the_same_draw() -> None:
    model = make_model(**WIDE)
    parts = [part for name, weight in model.named_parameters() if weight.dim() == 2 for part in weight.split(64)]
    firsts = torch.stack([part[2, :8] for part in parts])  # the row of padding isn't drawn
    assert len(firsts.unique(dim=0)) == len(parts)


@pytest.mark.parametrize("width", [8, 7])
def test_the_papers_sinusoids_have_the_papers_rates(width: int) -> None:
    table = sinusoids(300, width, 5, "paper")
    for place in (0, 1, 299):
        for number in range(width):
            i, wave = (number, math.sin) if number < (width + 1) // 2 else (number - (width + 1) // 2, math.cos)
            angle = (5 + place) / 10000 ** (2 * i / width)
            assert table[place, number].item() == pytest.approx(wave(angle), abs=1e-6)
