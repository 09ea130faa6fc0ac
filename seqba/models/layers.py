"""The Transformer's encoder and decoder layers, on packed rows."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from seqba.models.attention import Attention
from seqba.models.packing import Packing
from seqba.nn import Dropout

Activation = Literal["relu", "gelu"]


class FeedForward(nn.Module):
    """max(0, x·W₁ + b₁)·W₂ + b₂, token by token. Source: Vaswani et al. 2017, section 3.3."""

    def __init__(self, embed_dim: int, ffn_dim: int, *, activation: Activation, dropout: float) -> None:
        super().__init__()
        self.expand = nn.Linear(embed_dim, ffn_dim)
        self.contract = nn.Linear(ffn_dim, embed_dim)
        self.activation = activation
        self.dropout = Dropout(dropout)
        for linear in (self.expand, self.contract):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, D) → (N, D)."""
        hidden: Tensor = self.expand(x)
        # In place: the product before a ReLU isn't needed again, and N × 4D is the largest tensor of a layer.
        hidden = nn.functional.relu(hidden, inplace=True) if self.activation == "relu" else nn.functional.gelu(hidden)
        contracted: Tensor = self.contract(self.dropout(hidden))
        return contracted


class Residual(nn.Module):
    """Where a sublayer joins the stream: post-norm LN(x + dropout(f(x))), or pre-norm x + dropout(f(LN(x))).

    Source: Vaswani et al. 2017, section 5.4 (post); Xiong et al. 2020 (pre).
    """

    def __init__(self, embed_dim: int, *, dropout: float, pre_norm: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(embed_dim)
        self.dropout = Dropout(dropout)
        self.pre_norm = pre_norm

    def enter(self, x: Tensor) -> Tensor:
        """What the sublayer reads."""
        entered: Tensor = self.norm(x) if self.pre_norm else x
        return entered

    def leave(self, x: Tensor, output: Tensor) -> Tensor:
        """The stream x with the sublayer's output added."""
        joined: Tensor = x + self.dropout(output)
        if not self.pre_norm:
            joined = self.norm(joined)
        return joined


class EncoderLayer(nn.Module):
    """Self-attention, then feed-forward."""

    def __init__(
        self,
        *,
        embed_dim: int,
        ffn_dim: int,
        heads: int,
        pre_norm: bool,
        activation: Activation,
        dropout: float,
        attention_dropout: float,
        activation_dropout: float,
    ) -> None:
        super().__init__()
        self.attention = Attention(embed_dim, heads, dropout=attention_dropout)
        self.attention_residual = Residual(embed_dim, dropout=dropout, pre_norm=pre_norm)
        self.feed_forward = FeedForward(embed_dim, ffn_dim, activation=activation, dropout=activation_dropout)
        self.feed_forward_residual = Residual(embed_dim, dropout=dropout, pre_norm=pre_norm)

    def forward(self, x: Tensor, packing: Packing) -> Tensor:
        """Packed source rows (N, D) → (N, D)."""
        attended = self.attention.attend_to_self(self.attention_residual.enter(x), packing, causal=False)
        x = self.attention_residual.leave(x, attended)
        return self.feed_forward_residual.leave(x, self.feed_forward(self.feed_forward_residual.enter(x)))


class DecoderLayer(nn.Module):
    """Causal self-attention, cross-attention to the encoder's output, then feed-forward."""

    def __init__(
        self,
        *,
        embed_dim: int,
        memory_dim: int,
        ffn_dim: int,
        heads: int,
        pre_norm: bool,
        activation: Activation,
        dropout: float,
        attention_dropout: float,
        activation_dropout: float,
    ) -> None:
        super().__init__()
        self.attention = Attention(embed_dim, heads, dropout=attention_dropout)
        self.attention_residual = Residual(embed_dim, dropout=dropout, pre_norm=pre_norm)
        self.cross_attention = Attention(embed_dim, heads, memory_dim=memory_dim, dropout=attention_dropout)
        self.cross_attention_residual = Residual(embed_dim, dropout=dropout, pre_norm=pre_norm)
        self.feed_forward = FeedForward(embed_dim, ffn_dim, activation=activation, dropout=activation_dropout)
        self.feed_forward_residual = Residual(embed_dim, dropout=dropout, pre_norm=pre_norm)

    def forward(self, x: Tensor, packing: Packing, memory: Tensor, memory_packing: Packing) -> Tensor:
        """Packed target rows x (N, D), packed encoder output memory (N', D') → (N, D)."""
        attended = self.attention.attend_to_self(self.attention_residual.enter(x), packing, causal=True)
        x = self.attention_residual.leave(x, attended)
        query = self.cross_attention_residual.enter(x)
        attended = self.cross_attention.attend_to_memory(query, packing, memory, memory_packing)
        x = self.cross_attention_residual.leave(x, attended)
        return self.feed_forward_residual.leave(x, self.feed_forward(self.feed_forward_residual.enter(x)))
