"""Fused weights: products that read the same input become one. The module's parameters stay, as views of the fused tensors.

    qkv      <- q_proj, k_proj, v_proj        gate_up <- gate_proj, up_proj

The specification path keeps working on the views, and nothing is stored twice. Weights of few bits are fused as they are stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from alpamayo_r1.core.quantised import Quantised, QuantisedLinear, stacked
from alpamayo_r1.core.transformer import Decoder, Layer
from alpamayo_r1.engine.ops import Heads, Weight


@dataclass(frozen=True)
class LayerWeights:
    """One decoder layer as the engine multiplies it."""

    input_norm: torch.Tensor  # (hidden,)
    qkv: Weight  # ((Hq + 2 Hkv) d, hidden)
    head_norms: tuple[torch.Tensor, torch.Tensor]  # (d,) of queries and of keys
    out: Weight  # (hidden, Hq d)
    mlp_norm: torch.Tensor  # (hidden,)
    gate_up: Weight  # (2 intermediate, hidden)
    down: Weight  # (hidden, intermediate)


@dataclass(frozen=True)
class Stack:
    """A decoder stack as the engine multiplies it."""

    layers: tuple[LayerWeights, ...]
    norm: torch.Tensor
    heads: Heads
    eps: float

    def after(self, layer: int) -> tuple[torch.Tensor, Weight | None]:
        """What follows layer `layer`: the next layer's norm and first product, or the last norm and no product of all rows."""
        if layer + 1 == len(self.layers):
            return self.norm, None
        return self.layers[layer + 1].input_norm, self.layers[layer + 1].qkv


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
        out=weight_of(attn.o_proj),
        mlp_norm=layer.post_attention_layernorm.weight,
        gate_up=fuse([mlp.gate_proj, mlp.up_proj]),
        down=weight_of(mlp.down_proj),
    )


def weight_of(linear: nn.Module) -> Weight:
    """A linear layer's weight as it is stored."""
    return linear.packed if isinstance(linear, QuantisedLinear) else linear.get_parameter("weight")


def fuse(linears: Sequence[nn.Linear]) -> Weight:
    """The weights below one another as one, of which the modules' weights become views. Fused already: that one.

    Where some are of few bits and others not, or of other ones, all become tensors of the model's dtype.
    """
    few = [linear.packed for linear in linears if isinstance(linear, QuantisedLinear)]
    if len(few) == len(linears) and len({part.scheme for part in few}) == 1:
        return fuse_quantised(cast(Sequence[QuantisedLinear], linears), few)
    if few:
        return torch.cat([linear.weight.detach() for linear in linears])
    weights = [linear.weight for linear in linears]
    rows = [len(weight) for weight in weights]
    if is_stacked(weights):
        return weights[0].detach().as_strided((sum(rows), weights[0].shape[1]), weights[0].stride(), weights[0].storage_offset())
    fused = torch.cat([weight.detach() for weight in weights])
    for linear, view in zip(linears, fused.split(rows), strict=True):
        linear.weight = nn.Parameter(view, requires_grad=False)
    return fused


def fuse_quantised(linears: Sequence[QuantisedLinear], parts: Sequence[Quantised]) -> Quantised:
    """The same for weights of few bits, all of one scheme."""
    total = sum(len(part) for part in parts)
    first = parts[0]
    if is_stacked([part.codes for part in parts]):
        codes = first.codes.as_strided((total, first.codes.shape[1]), first.codes.stride(), first.codes.storage_offset())
        return Quantised(first.scheme, codes, wide(first.scale, total), None if first.zero is None else wide(first.zero, total))
    fused = stacked(parts)
    start = 0
    for linear, part in zip(linears, parts, strict=True):
        linear.hold(fused.rows(start, start + len(part)))
        start += len(part)
    return fused


def wide(view: torch.Tensor, columns: int) -> torch.Tensor:
    """The scales [groups, columns] of which the first ones are a view."""
    return view.as_strided((len(view), columns), (columns, 1), view.storage_offset())


def is_stacked(weights: Sequence[torch.Tensor]) -> bool:
    """Whether the weights lie one after the other in one storage."""
    ends = [weight.storage_offset() + weight.numel() for weight in weights]
    return all(
        a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr() and end == b.storage_offset()
        for a, b, end in zip(weights, weights[1:], ends, strict=False)
    )
