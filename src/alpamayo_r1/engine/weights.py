"""Fused weights: products that read the same input become one. The module's parameters stay, as views of the fused tensors.

    qkv      <- q_proj, k_proj, v_proj        gate_up <- gate_proj, up_proj

The specification path keeps working on the views, and nothing is stored twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from alpamayo_r1.core.transformer import Decoder, Layer
from alpamayo_r1.engine.ops import Heads


@dataclass(frozen=True)
class LayerWeights:
    """One decoder layer as the engine multiplies it."""

    input_norm: torch.Tensor  # (hidden,)
    qkv: torch.Tensor  # ((Hq + 2 Hkv) d, hidden)
    head_norms: tuple[torch.Tensor, torch.Tensor]  # (d,) of queries and of keys
    out: torch.Tensor  # (hidden, Hq d)
    mlp_norm: torch.Tensor  # (hidden,)
    gate_up: torch.Tensor  # (2 intermediate, hidden)
    down: torch.Tensor  # (hidden, intermediate)


@dataclass(frozen=True)
class Stack:
    """A decoder stack as the engine multiplies it."""

    layers: tuple[LayerWeights, ...]
    norm: torch.Tensor
    heads: Heads
    eps: float

    def norm_after(self, layer: int) -> torch.Tensor:
        """The norm that follows layer `layer`: the next layer's, or the last."""
        return self.layers[layer + 1].input_norm if layer + 1 < len(self.layers) else self.norm


def fuse_stack(decoder: Decoder) -> Stack:
    """Fuses a decoder in place, layer by layer, so that at most one layer's weights exist twice at any time."""
    c = decoder.config
    layers = []
    for layer in cast(Sequence[Layer], decoder.layers):
        layers.append(fuse_layer(layer))
        if decoder.norm.weight.is_cuda:
            torch.cuda.empty_cache()
    return Stack(tuple(layers), decoder.norm.weight, Heads(c.heads, c.kv_heads, c.head_dim, c.eps), c.eps)


def fuse_layer(layer: Layer) -> LayerWeights:
    """One layer's weights, fused in place."""
    attn, mlp = layer.self_attn, layer.mlp
    return LayerWeights(
        input_norm=layer.input_layernorm.weight,
        qkv=fuse([attn.q_proj, attn.k_proj, attn.v_proj]),
        head_norms=(attn.q_norm.weight, attn.k_norm.weight),
        out=attn.o_proj.weight,
        mlp_norm=layer.post_attention_layernorm.weight,
        gate_up=fuse([mlp.gate_proj, mlp.up_proj]),
        down=mlp.down_proj.weight,
    )


def fuse(linears: Sequence[nn.Linear]) -> torch.Tensor:
    """The weights below one another as one tensor, of which the modules' weights become views. Fused already: that tensor."""
    weights = [linear.weight for linear in linears]
    rows = [len(weight) for weight in weights]
    if is_stacked(weights):
        return weights[0].detach().as_strided((sum(rows), weights[0].shape[1]), weights[0].stride(), weights[0].storage_offset())
    fused = torch.cat([weight.detach() for weight in weights])
    for linear, view in zip(linears, fused.split(rows), strict=True):
        linear.weight = nn.Parameter(view, requires_grad=False)
    return fused


def is_stacked(weights: Sequence[torch.Tensor]) -> bool:
    """Whether the weights lie one after the other in one storage."""
    ends = [weight.storage_offset() + weight.numel() for weight in weights]
    return all(
        a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr() and end == b.storage_offset()
        for a, b, end in zip(weights, weights[1:], ends, strict=False)
    )
