"""The Qwen3 decoder stack: RMSNorm, 3-axis rotary positions, grouped-query attention, SwiGLU. Language model and expert share it.

Spec section 3 and 5; parameter names are the release's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as nnf
from torch import nn

from alpamayo_r1.core.config import DecoderConfig

Rope = tuple[torch.Tensor, torch.Tensor]
"""cos and sin [B, T, head_dim]."""
KV = tuple[torch.Tensor, torch.Tensor]
"""Keys (rotated) and values of one layer, [B, kv_heads, T, head_dim] each."""


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight, squared in fp32: activations reach 26,000, whose squares overflow fp16."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)


def rope_table(positions: torch.Tensor, config: DecoderConfig, dtype: torch.dtype) -> Rope:
    """cos and sin of 3-axis positions [3, ..., T] -> [..., T, head_dim], axes interleaved: frequency i turns with axis i mod 3.

    Frequencies theta^(-2i/d); height and width own the first 3 * sections[1], 3 * sections[2] of their residue class, time the rest.
    """
    i = torch.arange(config.head_dim // 2, device=positions.device)
    axis = sum(n * ((i % 3 == n) & (i < 3 * config.rope_sections[n])).long() for n in (1, 2))
    inverse = 1.0 / config.rope_theta ** (2 * i.float() / config.head_dim)
    angle = positions.float()[axis].movedim(0, -1) * inverse
    angle = torch.cat([angle, angle], -1)
    return angle.cos().to(dtype), angle.sin().to(dtype)


def rotate(x: torch.Tensor, rope: Rope) -> torch.Tensor:
    """Rotary embedding of x [B, heads, T, d]."""
    cos, sin = (table.unsqueeze(1) for table in rope)
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin


class Attention(nn.Module):
    """Grouped-query attention with RMSNorm on queries and keys."""

    def __init__(self, config: DecoderConfig):
        super().__init__()
        c = self.config = config
        self.q_proj = nn.Linear(c.hidden, c.heads * c.head_dim, bias=False)
        self.k_proj = nn.Linear(c.hidden, c.kv_heads * c.head_dim, bias=False)
        self.v_proj = nn.Linear(c.hidden, c.kv_heads * c.head_dim, bias=False)
        self.o_proj = nn.Linear(c.heads * c.head_dim, c.hidden, bias=False)
        self.q_norm = RMSNorm(c.head_dim, c.eps)
        self.k_norm = RMSNorm(c.head_dim, c.eps)

    def forward(self, x: torch.Tensor, rope: Rope, past: KV | None, mask: torch.Tensor | None, causal: bool) -> tuple[torch.Tensor, KV]:
        """x [B, T, hidden] over past and own keys; returns the output and the own (new) keys and values."""
        q, k, v = (f(x).unflatten(-1, (-1, self.config.head_dim)) for f in (self.q_proj, self.k_proj, self.v_proj))  # (B, T, heads, d)
        q = rotate(self.q_norm(q).transpose(1, 2), rope)
        k = rotate(self.k_norm(k).transpose(1, 2), rope)
        v = v.transpose(1, 2)
        keys, values = (k, v) if past is None else (torch.cat([past[0], k], 2), torch.cat([past[1], v], 2))
        if mask is not None:  # fused kernels share keys between query heads only where there is no mask
            group = self.config.heads // self.config.kv_heads
            keys, values = keys.repeat_interleave(group, 1), values.repeat_interleave(group, 1)
        out = nnf.scaled_dot_product_attention(q, keys, values, attn_mask=mask, is_causal=causal, enable_gqa=mask is None)
        return self.o_proj(out.transpose(1, 2).flatten(2)), (k, v)


class MLP(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x))."""

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden, config.intermediate, bias=False)
        self.up_proj = nn.Linear(config.hidden, config.intermediate, bias=False)
        self.down_proj = nn.Linear(config.intermediate, config.hidden, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(nnf.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """Pre-norm attention and MLP, each with a residual."""

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = MLP(config)
        self.input_layernorm = RMSNorm(config.hidden, config.eps)
        self.post_attention_layernorm = RMSNorm(config.hidden, config.eps)

    def forward(self, x: torch.Tensor, rope: Rope, past: KV | None, mask: torch.Tensor | None, causal: bool) -> tuple[torch.Tensor, KV]:
        attended, kv = self.self_attn(self.input_layernorm(x), rope, past, mask, causal)
        x = x + attended
        return x + self.mlp(self.post_attention_layernorm(x)), kv


class Table(nn.Embedding):
    """Rows by number, without values until a checkpoint or training sets them: drawing some first would import TorchDynamo, 1.5 s."""

    def reset_parameters(self) -> None:
        """Leaves the memory as it is."""


class WordTable(Table):
    """Token embeddings. The table may stay in the host's memory while the model is on a GPU: see `VLA.move_words_to_host`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input.to(self.weight.device)).to(input.device)


class Decoder(nn.Module):
    """The stack. With a vocabulary it is the language model, without one the expert."""

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.config = config
        if config.vocab is not None:
            self.embed_tokens = WordTable(config.vocab, config.hidden)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.hidden, config.eps)

    def forward(
        self,
        x: torch.Tensor,
        positions: torch.Tensor,
        *,
        past: Sequence[KV] | None = None,
        mask: torch.Tensor | None = None,
        causal: bool = False,
        deepstack: Sequence[torch.Tensor] = (),
    ) -> tuple[torch.Tensor, list[KV]]:
        """Embeddings [B, T, hidden] at positions [3, B, T] -> final hidden states [B, T, hidden] and the new keys and values per layer.

        past: keys and values before these tokens. mask: bool [B, 1, T, past + T], True where attention is allowed. causal: T x T
        triangle, only without past. deepstack: [B, T, hidden] added after the first layers (zero where there is no image).
        """
        rope = rope_table(positions, self.config, x.dtype)
        new = []
        for i, layer in enumerate(self.layers):
            x, kv = layer(x, rope, past[i] if past is not None else None, mask, causal)
            if i < len(deepstack):
                x = x + deepstack[i]
            new.append(kv)
        return self.norm(x), new
