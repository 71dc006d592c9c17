"""How the engine sees: patches of pictures -> what the language model reads of them, some pictures at a time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import groupby
from typing import cast

import torch

from alpamayo_r1.core.vision import Grid, Merger, Vision, VisionBlock
from alpamayo_r1.engine.forward import Group, Model
from alpamayo_r1.engine.graphs import Graphs
from alpamayo_r1.engine.ops import (
    add_layer_norm,
    dense,
    linear_gelu,
    vision_rope,
)
from alpamayo_r1.engine.vendor import attention


def encode(model: Model, patches: torch.Tensor, grids: Sequence[Grid], graphs: Graphs) -> list[torch.Tensor]:
    """Patches of images -> [image tokens [n, hidden], then each DeepStack layer's features].

    Always `model.together` images of one grid at a time, empty ones behind the last: an image has the same features whatever it is seen
    with, which lets a stream keep them. So few images are over before their kernels are launched one by one: hence the graph.
    """
    c = model.vla.config.vision
    count = len(patches) // c.merge**2
    out = [torch.empty(count, c.out_hidden, device=model.vla.device, dtype=model.vla.dtype) for _ in range(1 + len(c.deepstack))]
    runs = [(grid, len(list(images))) for grid, images in groupby(grids)]
    done = 0
    for part, (grid, _) in zip(patches.split([h * w * n for (h, w), n in runs]), runs, strict=True):
        group = model.group(grid, graphs)
        for some in part.split(len(group.patches)):
            group.patches[: len(some)] = some
            group.patches[len(some) :] = 0
            graphs.run(("see", grid), partial(encode_group, model, group, grid))
            n = len(some) // c.merge**2
            for into, features in zip(out, group.features, strict=True):
                into[done : done + n] = features[:n]
            done += n
    return out


def encode_group(model: Model, group: Group, grid: Grid) -> None:
    """Reads a group's patches, writes its features."""
    found = encode_equal(model, model.vla.vision.patch_embed(group.patches), grid)
    for into, features in zip(group.features, found, strict=True):
        into.copy_(features)


def encode_equal(model: Model, x: torch.Tensor, grid: Grid) -> list[torch.Tensor]:
    """Images of one grid: embedded patches [N * places, hidden], changed in place -> [tokens [N * places / 4, out], DeepStack features]."""
    tower: Vision = model.vla.vision
    c, blocks = tower.config, cast(Sequence[VisionBlock], tower.blocks)
    positions, rope = model.grid_tables(grid)
    x = x.view(-1, *positions.shape)
    x += positions
    deep = []
    normed = blocks[0].norm1(x)
    for i, block in enumerate(blocks):
        qkv = dense(normed, block.attn.qkv).view(*x.shape[:2], 3, c.heads, -1)
        del normed
        q, k, v = vision_rope(qkv, rope).permute(2, 0, 3, 1, 4)
        attended = attention(q, k, v, causal=False).transpose(1, 2).flatten(2)
        normed = add_layer_norm(x, dense(attended, block.attn.proj), block.norm2)
        del qkv, q, k, v, attended
        delta = dense(linear_gelu(normed, block.mlp.linear_fc1), block.mlp.linear_fc2)
        if i + 1 < len(blocks):
            normed = add_layer_norm(x, delta, blocks[i + 1].norm1)
        else:
            x += delta
        if i in c.deepstack:
            deep.append(merged(cast(Merger, tower.deepstack_merger_list[c.deepstack.index(i)]), x))
    return [merged(tower.merger, x), *deep]


def merged(merger: Merger, x: torch.Tensor) -> torch.Tensor:
    """`Merger.forward` by the engine's products: [N, places, hidden] -> [N * places / 4, out]."""
    x = merger.norm(x.reshape(-1, merger.width)) if merger.norm_after else merger.norm(x).reshape(-1, merger.width)
    return dense(dense(x, merger.linear_fc1, gelu="none"), merger.linear_fc2)
