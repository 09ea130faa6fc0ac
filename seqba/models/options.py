"""Options of the models, by family; an option that isn't given is its architecture's."""

from __future__ import annotations

from seqba.options import option, options


@options
class DecoderOptions:
    """Sizes and dropouts that a Transformer has with and without an encoder; None (or False) leaves it to --arch."""

    decoder_layers: int | None = option(None, "decoder layers; default: as --arch", minimum=1, maximum=1 << 10)
    decoder_embed_dim: int | None = option(None, "decoder width; default: as --arch", minimum=1, maximum=1 << 16)
    decoder_ffn_embed_dim: int | None = option(
        None, "decoder feed-forward width; default: as --arch", minimum=1, maximum=1 << 16
    )
    decoder_attention_heads: int | None = option(None, "decoder attention heads; default: as --arch", minimum=1)
    decoder_normalize_before: bool = option(False, "pre-norm decoder layers; default: as --arch")
    activation_fn: str | None = option(
        None, "feed-forward activation; default: as --arch", choices=("relu", "gelu", "silu")
    )
    dropout: float | None = option(None, "residual and embedding dropout; default: as --arch", minimum=0, below=1)
    attention_dropout: float | None = option(None, "dropout on attention weights", minimum=0, below=1)
    activation_dropout: float | None = option(
        None, "dropout after the feed-forward activation", minimum=0, below=1, aliases=("relu-dropout",)
    )
    share_decoder_input_output_embed: bool = option(False, "share target and output embeddings")
    max_target_positions: int | None = option(
        None,
        "longest target in tokens; default 1024, and for a language model what --tokens-per-sample needs",
        minimum=1,
        maximum=1 << 20,
    )
    first_position: int | None = option(
        None,
        "the number of a row's first position: as --arch, which is 2, padding's id + 1, as in fairseq; the paper's "
        "own code and checkpoints of older versions begin at 0 (not in fairseq)",
        minimum=0,
        maximum=1 << 20,
    )
    sinusoids: str | None = option(
        None,
        "rates of the sinusoids: as --arch, which is tensor2tensor, as in fairseq; paper for 10000^(-2i/D), as in "
        "Marian (not in fairseq)",
        choices=("tensor2tensor", "paper"),
    )
    decoder_learned_pos: bool = option(False, "learn the decoder's positions; sinusoids otherwise")
    no_scale_embedding: bool = option(False, "don't multiply embeddings by the square root of their width")
    layernorm_embedding: bool = option(False, "normalise embeddings, before their dropout")


@options
class TransformerOptions(DecoderOptions):
    """An encoder-decoder Transformer under fairseq's names."""

    encoder_layers: int | None = option(None, "encoder layers; default: as --arch", minimum=1, maximum=1 << 10)
    encoder_embed_dim: int | None = option(None, "encoder width; default: as --arch", minimum=1, maximum=1 << 16)
    encoder_ffn_embed_dim: int | None = option(
        None, "encoder feed-forward width; default: as --arch", minimum=1, maximum=1 << 16
    )
    encoder_attention_heads: int | None = option(None, "encoder attention heads; default: as --arch", minimum=1)
    encoder_normalize_before: bool = option(False, "pre-norm encoder layers; default: as --arch")
    share_all_embeddings: bool = option(False, "share source, target and output embeddings (joined dictionary)")
    max_source_positions: int | None = option(
        None, "longest source in tokens; default 1024", minimum=1, maximum=1 << 20
    )
    encoder_learned_pos: bool = option(False, "learn the encoder's positions; sinusoids otherwise")
    start_symbol: str | None = option(
        None,
        "what the decoder reads first: as --arch, which is eos, as in fairseq; pad as in Marian (not in fairseq)",
        choices=("eos", "pad"),
    )
    output_bias: bool = option(False, "add a trained bias to the logits, as in Marian (not in fairseq)")


@options
class TransformerLMOptions(DecoderOptions):
    """A decoder-only Transformer under fairseq's names."""


@options
class AWDLSTMOptions:
    """An AWD-LSTM: sizes under the names of fairseq's LSTMs, noise under long names and the released short ones."""

    decoder_layers: int | None = option(None, "LSTM layers; default: as --arch", minimum=1, maximum=1 << 10)
    decoder_embed_dim: int | None = option(
        None, "width of the embedding and of the last layer", minimum=1, maximum=1 << 16
    )
    decoder_hidden_size: int | None = option(
        None, "width of the LSTM layers but the last; default: as --arch", minimum=1, maximum=1 << 16
    )
    dropout: float | None = option(None, "on the last layer's output; default: as --arch", minimum=0, below=1)
    input_dropout: float | None = option(
        None, "on the embedded words; default: as --arch", minimum=0, below=1, aliases=("dropouti",)
    )
    hidden_dropout: float | None = option(
        None, "between LSTM layers; default: as --arch", minimum=0, below=1, aliases=("dropouth",)
    )
    embedding_dropout: float | None = option(
        None, "of whole words of the vocabulary; default: as --arch", minimum=0, below=1, aliases=("dropoute",)
    )
    weight_dropout: float | None = option(
        None, "on the hidden-to-hidden weights; default: as --arch", minimum=0, below=1, aliases=("wdrop",)
    )
    weight_noise: str = option(
        "per-copy",
        "embedding_dropout and weight_dropout: per-copy draws them afresh for each copy, shared once for all copies of "
        "a micro-batch, as repeated rows would (not in fairseq)",
        choices=("per-copy", "shared"),
    )


@options
class ImageClassifierOptions:
    """A convolutional network: its noise and initial weights, and sizes where its architecture leaves a choice."""

    ghost_batch: int | None = option(
        None, "images of a group of batch normalisation; must divide --batch-size (default: all of it)", minimum=1
    )
    dropout: float | None = option(
        None, "where the architecture has dropout (timm's drop_rate); default: as --arch", minimum=0, below=1
    )
    conv_init: str | None = option(
        None,
        "DenseNet's initial weights: fan-out, variance 2 / (kernel area × output channels), as its own code (default); "
        "fan-in, × input channels, as the released code of Batch Augmentation",
        choices=("fan-out", "fan-in"),
    )
    init_channels: int | None = option(
        None, "DARTS, AmoebaNet, NASNet: channels of a cell before the first reduction; default: as --arch", minimum=1
    )
    layers: int | None = option(None, "the same: number of cells; default: as --arch", minimum=3)
    drop_path: float | None = option(
        None,
        "the same: probability of leaving an operation of a cell out for a picture, at the end of its rise "
        "(--drop-path-epochs); or timm's drop_path_rate, which doesn't rise; default: as --arch",
        minimum=0,
        below=1,
    )
    auxiliary_weight: float | None = option(
        None,
        "the same: what the loss of the auxiliary head is multiplied by in training; 0 = no such head; default: as "
        "--arch",
        minimum=0,
    )


def is_noise(name: str) -> bool:
    """Whether an option of a model says how noisy it is, rather than what its weights are."""
    return "dropout" in name or "noise" in name or name == "drop_path"
