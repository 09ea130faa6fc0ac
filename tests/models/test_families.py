"""Named architectures: published sizes, and options that override them field by field."""

from __future__ import annotations

import dataclasses

import pytest

from seqba.errors import UserError
from seqba.models.architectures import TRANSFORMER_LMS
from seqba.models.builders import build_transformer, build_transformer_lm
from seqba.models.families import ARCHITECTURES, FAMILIES, resolve_transformer, resolve_transformer_lm
from seqba.models.options import TransformerLMOptions, TransformerOptions


def parameters_of(arch: str, vocabulary: int, **options: object) -> int:
    resolved = resolve_transformer(arch, TransformerOptions(share_all_embeddings=True, **options))
    model = build_transformer(resolved, vocabulary, vocabulary)
    return sum(parameter.numel() for parameter in model.parameters())


def test_base_and_big_have_the_published_numbers_of_parameters() -> None:
    # By hand: per encoder layer 4D² + 2DF + 9D + F, per decoder layer 8D² + 2DF + 15D + F, and V·D once.
    def by_hand(layers: int, d: int, f: int, vocabulary: int) -> int:
        encoder = 4 * d * d + 2 * d * f + 9 * d + f
        decoder = 8 * d * d + 2 * d * f + 15 * d + f
        return layers * (encoder + decoder) + vocabulary * d

    assert parameters_of("transformer_wmt_en_de", 1000) == by_hand(6, 512, 2048, 1000) == 44_138_496 + 512_000
    assert parameters_of("transformer_wmt_en_de_big", 40) == by_hand(6, 1024, 4096, 40)
    assert parameters_of("transformer_tiny", 40) == by_hand(2, 64, 64, 40)


def test_architectures_of_fairseq_differ_as_they_do_there() -> None:
    def differences(arch: str, base: str) -> dict[str, object]:
        family = FAMILIES[ARCHITECTURES[arch]]
        one, other = (dataclasses.asdict(family.architectures[name]) for name in (arch, base))
        return {name: value for name, value in one.items() if value != other[name]}

    vaswani = "transformer_vaswani_wmt_en_de_big"
    pre_norm = {"encoder_normalize_before": True, "decoder_normalize_before": True}
    assert differences("transformer_wmt_en_de_big", vaswani) == {"attention_dropout": 0.1}
    assert differences("transformer_vaswani_wmt_en_fr_big", vaswani) == {"dropout": 0.1}
    assert differences("transformer_wmt_en_de_big_t2t", vaswani) == {
        **pre_norm,
        "attention_dropout": 0.1,
        "activation_dropout": 0.1,
    }
    assert all(config.decoder_normalize_before for config in TRANSFORMER_LMS.values())
    assert differences("transformer_lm_gpt", "transformer_lm") == {
        "decoder_layers": 12,
        "decoder_embed_dim": 768,
        "decoder_ffn_embed_dim": 3072,
        "decoder_attention_heads": 12,
        "attention_dropout": 0.1,
        "activation_fn": "gelu",
    }


def test_a_given_zero_counts_and_a_switch_that_is_off_leaves_it_to_the_architecture() -> None:
    options = TransformerOptions(dropout=0.0, attention_dropout=0, first_position=0)
    config = resolve_transformer("transformer_wmt_en_de_big_t2t", options)
    assert (config.dropout, config.attention_dropout, config.first_position) == (0.0, 0, 0)
    assert config.encoder_normalize_before
    assert config.decoder_normalize_before


def test_every_architecture_fills_every_field() -> None:
    for arch, name in ARCHITECTURES.items():
        family = FAMILIES[name]
        config = family.resolve(arch, family.options())
        assert config == family.architectures[arch]
        assert family.read(dataclasses.asdict(config)) == config


def test_options_and_configurations_of_a_family_have_the_same_names() -> None:
    for family in FAMILIES.values():
        names = [[field.name for field in dataclasses.fields(kind)] for kind in (family.options, family.config)]
        assert names[0] == names[1]


@pytest.mark.parametrize("missing", ["decoder_layers", "decoder_attention_heads", "activation_fn", "dropout"])
def test_what_a_file_leaves_open_is_refused(missing: str) -> None:
    values = dataclasses.asdict(resolve_transformer("transformer_tiny", TransformerOptions()))
    del values[missing]
    with pytest.raises(TypeError, match=f"--{missing.replace('_', '-')} is None"):
        FAMILIES["transformer"].read(values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"decoder_layers": 1 << 30}, "--decoder-layers is 1073741824; it must be at most 1024"),
        ({"activation_fn": "tanh"}, "--activation-fn is 'tanh'; choose one of: relu, gelu"),
    ],
)
def test_what_a_file_says_is_within_its_ranges(values: dict[str, object], message: str) -> None:
    config = dataclasses.asdict(resolve_transformer("transformer_tiny", TransformerOptions()))
    with pytest.raises(UserError, match=message):
        FAMILIES["transformer"].read({**config, **values})


def test_an_architecture_of_another_family_is_refused() -> None:
    with pytest.raises(UserError, match="--arch is 'transformer_lm'; choose one of: transformer_wmt_en_de, "):
        resolve_transformer("transformer_lm", TransformerOptions())
    with pytest.raises(
        UserError, match=r"--arch is 'transformer_tiny'; choose one of: transformer_lm, transformer_lm_big, "
    ):
        resolve_transformer_lm("transformer_tiny", TransformerLMOptions())


def test_a_language_model_has_the_parameters_counted_by_hand() -> None:
    options = resolve_transformer_lm("transformer_lm", TransformerLMOptions(share_decoder_input_output_embed=True))
    model = build_transformer_lm(options, 40)
    d, f = 512, 2048
    assert (
        sum(each.numel() for each in model.parameters()) == 6 * (4 * d * d + 2 * d * f + 9 * d + f) + 42 * d
    )  # of which 2 D are the last norm's
    with pytest.raises(UserError, match="the width 512 isn't a multiple of the 7"):
        build_transformer_lm(dataclasses.replace(options, decoder_attention_heads=7), 40)


def test_an_option_overrides_its_field_and_the_decoder_follows_the_encoder() -> None:
    options = TransformerOptions(encoder_layers=3, encoder_embed_dim=256, encoder_ffn_embed_dim=1024, dropout=0.3)
    resolved = resolve_transformer("transformer_wmt_en_de", options)
    assert (resolved.encoder_layers, resolved.decoder_layers) == (3, 6)
    assert (resolved.decoder_embed_dim, resolved.decoder_ffn_embed_dim) == (256, 1024)
    assert resolved.dropout == 0.3
    split = resolve_transformer("transformer_wmt_en_de", dataclasses.replace(options, decoder_embed_dim=128))
    assert (split.encoder_embed_dim, split.decoder_embed_dim) == (256, 128)


@pytest.mark.parametrize(
    ("arch", "options", "sizes", "message"),
    [
        ("transformer_wmt", {}, (40, 40), "--arch is 'transformer_wmt'; choose one of: transformer_wmt_en_de"),
        ("transformer_tiny", {"share_all_embeddings": True}, (40, 48), "needs a joined dictionary"),
        ("transformer_tiny", {"encoder_attention_heads": 3}, (40, 40), "the width 64 isn't a multiple of the 3"),
        (
            "transformer_tiny",
            {"share_all_embeddings": True, "decoder_embed_dim": 32},
            (40, 40),
            "--encoder-embed-dim is 64 and --decoder-embed-dim 32",
        ),
    ],
)
def test_what_does_not_fit_is_told_in_a_line(
    arch: str, options: dict[str, object], sizes: tuple[int, int], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        build_transformer(resolve_transformer(arch, TransformerOptions(**options)), *sizes)
