"""The model's forward passes on the engine's buffers: vision, prefill, one decoded token, the flow's velocity."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import count, groupby
from typing import cast

import torch

from alpamayo_r1.core.flow import integrate
from alpamayo_r1.core.prompt import Prompt
from alpamayo_r1.core.transformer import KV, RMSNorm, rope_table
from alpamayo_r1.core.vision import Grid, Vision, VisionBlock, interpolate_positions
from alpamayo_r1.core.vision import vision_rope as vision_rope_tables
from alpamayo_r1.core.vla import VLA
from alpamayo_r1.engine.arena import MLP_ROWS, Buffers
from alpamayo_r1.engine.graphs import Graphs, Run, at_once
from alpamayo_r1.engine.memory import Known, early, scene_cache
from alpamayo_r1.engine.ops import (
    Context,
    Weight,
    action_features,
    add_layer_norm,
    add_rms_norm,
    attend,
    linear,
    linear_gelu,
    linear_into,
    pick_rows,
    rms_norm,
    rope_write,
    row_dots,
    swiglu_linear,
    vision_rope,
)
from alpamayo_r1.engine.ops.launch import sent
from alpamayo_r1.engine.vendor import attention, attention_by_rows, masked_attention
from alpamayo_r1.engine.weights import LayerWeights, Stack, fuse_stack, weight_of

LAYOUTS = 8
"""Layouts of prompts that are kept on the device."""

NUMBERS = count()


@dataclass(frozen=True)
class Layout:
    """Where a prompt's tokens stand: the same for all prompts of one text and pictures of one size. And room for one prompt's ids.

    number: no other layout of the process has it, so that graphs can be kept by it.
    """

    number: int
    ids: torch.Tensor  # (T,) i64: of the prompt that is being read
    positions: torch.Tensor  # (3, T) i64, on the host
    rope: tuple[torch.Tensor, torch.Tensor]  # cos and sin [T, d]
    at: torch.Tensor  # (T,) i64: 0, 1, 2, ...
    image: torch.Tensor  # i64: which tokens are images'

    @classmethod
    def of(cls, prompt: Prompt, vla: VLA) -> Layout:
        """The layout of a prompt."""
        rope = rope_table(prompt.positions.to(vla.device), vla.config.text, vla.dtype)
        image = (prompt.ids == prompt.image_id).nonzero()[:, 0].to(vla.device)
        at = torch.arange(len(prompt), device=vla.device)
        return cls(next(NUMBERS), torch.empty_like(at), prompt.positions, rope, at, image)


@dataclass
class Model:
    """The model with fused weights and cached tables.

    together: images that are encoded at a time. tile: tokens that the first part of a prompt is a multiple of, as the card's products.
    """

    vla: VLA

    def __post_init__(self):
        self.text: Stack = fuse_stack(self.vla.language)
        self.expert: Stack = fuse_stack(self.vla.expert)
        self.zero = torch.zeros(1, dtype=torch.long, device=self.vla.device)
        on_card = self.vla.device.type == "cuda"
        self.together, self.tile = (4, 128) if on_card else (1, 16)
        self._grids: dict[Grid, tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]] = {}
        self._ropes: tuple = ()
        self._layouts: OrderedDict[int, Layout] = OrderedDict()
        self._group: tuple[torch.Tensor, torch.Tensor] | None = None
        self._features: torch.Tensor | None = None
        self.last = torch.zeros(1, self.vla.config.text.hidden, device=self.vla.device, dtype=self.vla.dtype)

    @cached_property
    def embedding(self) -> torch.Tensor:
        """Token embeddings [vocab, hidden], here or in pinned host memory."""
        return self.vla.language.embed_tokens.weight

    @cached_property
    def head(self) -> Weight:
        """The language model's head [vocab, hidden]."""
        return weight_of(self.vla.vlm.lm_head)

    def grid_tables(self, grid: Grid) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        """Position embeddings [places, hidden] and rotary tables [places, d] of one grid, kept."""
        if grid not in self._grids:
            c, table = self.vla.config.vision, self.vla.vision.pos_embed.weight
            positions = interpolate_positions(table, grid, c.merge).to(table.dtype)
            self._grids[grid] = positions, vision_rope_tables(grid, c.hidden // c.heads, c.merge, table.device)
        return self._grids[grid]

    def group(self, grid: Grid, graphs: Graphs) -> Group:
        """Buffers of the images of a grid that are encoded at a time. Larger ones than there are replace them, and all graphs with them."""
        c = self.vla.config.vision
        places = self.together * grid[0] * grid[1]
        tokens, layers = places // c.merge**2, 1 + len(c.deepstack)
        if self._group is None or self._group[0].numel() < places * c.patch_dim:
            graphs.clear()
            sizes = places * c.patch_dim, layers * tokens * c.out_hidden
            self._group = tuple(torch.empty(size, device=self.vla.device, dtype=self.vla.dtype) for size in sizes)  # type: ignore[assignment]
        patches, features = cast(tuple[torch.Tensor, torch.Tensor], self._group)
        apart = features[: layers * tokens * c.out_hidden].view(layers, tokens, c.out_hidden)
        return Group(patches[: places * c.patch_dim].view(places, -1), list(apart))

    def features(self, count: int, graphs: Graphs) -> list[torch.Tensor]:
        """Buffers of a prompt's image tokens [count, hidden], then each DeepStack layer's. Larger ones replace them, and all graphs."""
        c = self.vla.config.vision
        if self._features is None or self._features.shape[1] < count:
            graphs.clear()
            shape = 1 + len(c.deepstack), count, c.out_hidden
            self._features = torch.empty(shape, device=self.vla.device, dtype=self.vla.dtype)
        return list(self._features[:, :count])

    def layout(self, prompt: Prompt) -> Layout:
        """Where a prompt's tokens stand, on the device; kept for the layouts met last."""
        key = id(prompt.positions)  # of a tensor that its layout keeps alive
        if key not in self._layouts:
            while len(self._layouts) >= LAYOUTS:
                self._layouts.popitem(last=False)
            self._layouts[key] = Layout.of(prompt, self.vla)
        self._layouts.move_to_end(key)
        return self._layouts[key]

    def line_ropes(self, positions: int) -> tuple:
        """Rotary tables of text and expert for positions 0..n on all three axes, kept: ((cos, sin), (cos, sin)), each [n, d]."""
        if not self._ropes or len(self._ropes[0][0]) < positions:
            line = torch.arange(positions, device=self.vla.device).expand(3, -1)
            self._ropes = tuple(rope_table(line, c, self.vla.dtype) for c in (self.vla.config.text, self.vla.config.expert))
        return self._ropes


@dataclass(frozen=True)
class Group:
    """Static buffers of the images of one grid that are encoded at a time."""

    patches: torch.Tensor  # (together * places, patch_dim)
    features: list[torch.Tensor]  # image tokens (together * places / 4, hidden), then each DeepStack layer's features


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
        qkv = block.attn.qkv(normed).view(*x.shape[:2], 3, c.heads, -1)
        del normed
        q, k, v = vision_rope(qkv, rope).permute(2, 0, 3, 1, 4)
        attended = attention(q, k, v, causal=False).transpose(1, 2).flatten(2)
        normed = add_layer_norm(x, block.attn.proj(attended), block.norm2)
        del qkv, q, k, v, attended
        delta = block.mlp.linear_fc2(linear_gelu(normed, block.mlp.linear_fc1))
        if i + 1 < len(blocks):
            normed = add_layer_norm(x, delta, blocks[i + 1].norm1)
        else:
            x += delta
        if i in c.deepstack:
            deep.append(tower.deepstack_merger_list[c.deepstack.index(i)](x))
    return [tower.merger(x), *deep]


def prefill(
    model: Model,
    prompt: Prompt,
    images: Sequence[torch.Tensor],
    cache: Sequence[KV],
    run: Run = at_once,
    known: Known | None = None,
    done: Callable[[], None] = lambda: None,
) -> torch.Tensor:
    """Reads one prompt with its encoded images into a cache, per layer [1, Hkv, T, d]; the final norm of its last token [1, hidden].

    Always in two parts, the tokens that are `early` and the others: a plan whose first part was read ahead has the bits of one that reads
    both now. images: in `Model.features`. run: runs both parts, from graphs of this cache where there are some. known: the first part's
    keys and values. done: called after each layer's keys and values are queued, where nothing comes from a graph.
    """
    cut, layout = early(prompt, model.tile), model.layout(prompt)
    if known is not None:
        copy_keys(known, cache, cut)
    elif cut:
        prefill_early(model, prompt, images, first_keys(cache, cut), run)
    layout.ids.copy_(sent(prompt.ids, model.vla.device))

    def rest() -> None:
        model.last.copy_(read_rest(model, prompt, images, cache, cut, done))

    run(("read", layout.number), rest)
    return model.last


def prefill_early(model: Model, prompt: Prompt, images: Sequence[torch.Tensor], cache: Sequence[KV], run: Run = at_once) -> None:
    """Reads a prompt's `early` tokens into a cache of as many. images: at least those that stand in them; run: as for `prefill`."""
    layout = model.layout(prompt)
    layout.ids.copy_(sent(prompt.ids, model.vla.device))
    run(("read early", layout.number), partial(read_early, model, prompt, images, cache))


def first_keys(cache: Sequence[KV], count: int) -> list[KV]:
    """The first `count` keys and values of a cache: views."""
    return [(keys[:, :, :count], values[:, :, :count]) for keys, values in cache]


def copy_keys(known: Known, cache: Sequence[KV], count: int) -> None:
    """Copies the first `count` keys and values into a cache."""
    for layer, of_layer in zip(first_keys(cache, count), first_keys(known.kv, count), strict=True):
        for into, keys in zip(layer, of_layer, strict=True):
            into.copy_(keys)


def first_logits(model: Model, last: torch.Tensor) -> torch.Tensor:
    """The final norm of a prompt's last token [1, hidden] -> logits of the next token [1, vocab]."""
    return linear(last, model.head, final=True)[0]


@dataclass(frozen=True)
class Part:
    """Some tokens of a prompt, made ready to be read behind the first `start` ones."""

    x: torch.Tensor  # (n, hidden): embeddings, images put in
    rope: tuple[torch.Tensor, torch.Tensor]
    at: torch.Tensor  # (n,) i64: rows of `rope`
    slot: torch.Tensor  # (1,) i64: where their keys go
    image: torch.Tensor  # i64: which of them are image tokens
    rows: slice  # of the features of all images

    @classmethod
    def of(cls, model: Model, prompt: Prompt, start: int, end: int, features: torch.Tensor) -> Part:
        """Tokens start to end of a prompt whose ids are in its layout; features: image tokens of all its pictures."""
        layout = model.layout(prompt)
        before, here = (int((some == prompt.image_id).sum()) for some in (prompt.ids[:start], prompt.ids[start:end]))
        rows = slice(before, before + here)
        image, slot = layout.image[rows] - start, torch.full((1,), start, device=model.vla.device)
        x = pick_rows(model.embedding, layout.ids[start:end])
        x.index_copy_(0, image, features[rows].to(x.dtype))
        return cls(x, layout.rope, layout.at[start:end], slot, image, rows)

    def deepen(self, features: torch.Tensor) -> None:
        """Adds a DeepStack layer's features of all images to those of this part."""
        self.x.index_copy_(0, self.image, self.x[self.image] + features[self.rows].to(self.x.dtype))


def read_early(model: Model, prompt: Prompt, images: Sequence[torch.Tensor], cache: Sequence[KV]) -> None:
    """Reads a prompt's first tokens into a cache of as many, per layer [1, Hkv, n, d]. images: at least those that stand in them."""
    stack, part = model.text, Part.of(model, prompt, 0, cache[0][0].shape[2], images[0])
    normed = rms_norm(part.x, stack.layers[0].input_norm, stack.eps)
    for i, layer in enumerate(stack.layers):
        q = rope_write(linear(normed, layer.qkv), layer.head_norms, part.rope, part.at, cache[i], part.slot, stack.heads)
        if i + 1 == len(stack.layers):
            return  # keys and values are all that is used of the last layer
        out = attention(q.transpose(0, 1)[None], *cache[i], causal=True).transpose(1, 2).flatten(2)[0]
        normed = add_rms_norm(part.x, linear(out, layer.out), layer.mlp_norm, stack.eps)
        normed = after_mlp(model, i, part, normed, images[i + 1] if i + 1 < len(images) else None)


def read_rest(
    model: Model, prompt: Prompt, images: Sequence[torch.Tensor], cache: Sequence[KV], start: int, done: Callable[[], None]
) -> torch.Tensor:
    """Reads a prompt behind its first `start` tokens, whose keys and values are in the cache; the final norm of its last token [1, hidden].

    The last layer's attention and MLP run for the last token only: of the others its keys and values are all that is used.
    """
    stack, part = model.text, Part.of(model, prompt, start, len(prompt), images[0])
    every = part.x.new_zeros(len(prompt) if start and part.x.is_cuda else 0, stack.heads.queries, stack.heads.width)
    normed = rms_norm(part.x, stack.layers[0].input_norm, stack.eps)
    for i, layer in enumerate(stack.layers):
        q = rope_write(linear(normed, layer.qkv), layer.head_norms, part.rope, part.at, cache[i], part.slot, stack.heads)
        done()
        last = i + 1 == len(stack.layers) >= len(images)
        if last:
            q, part = q[-1:], replace(part, x=part.x[-1:])
        elif len(every):  # as if all tokens asked: the vendor's causal attention wants as many queries as keys
            every[start:] = q
            q = every
        queries = q.transpose(0, 1)[None]
        by_rows = not (last or q.is_cuda)
        out = attention_by_rows(queries, *cache[i]) if by_rows else attention(queries, *cache[i], causal=not last)
        out = out.transpose(1, 2).flatten(2)[0]
        normed = add_rms_norm(part.x, linear(out[-len(part.x) :], layer.out), layer.mlp_norm, stack.eps)
        normed = after_mlp(model, i, part, normed, images[i + 1] if i + 1 < len(images) else None)
    return normed[-1:]


def after_mlp(model: Model, i: int, part: Part, normed: torch.Tensor, deep: torch.Tensor | None) -> torch.Tensor:
    """Layer i's MLP on a part of a prompt, then DeepStack features where there are some for it: what the next layer reads."""
    stack = model.text
    delta = mlp(stack.layers[i], normed)
    if deep is None:
        return add_rms_norm(part.x, delta, stack.norm_after(i), stack.eps)
    part.x.add_(delta[0])
    part.deepen(deep)
    return rms_norm(part.x, stack.norm_after(i), stack.eps)


def extend(model: Model, prompt: Prompt, known: Known, buffers: Buffers, scene: int) -> torch.Tensor:
    """Reads the rest of a prompt, text alone, behind what is known of it, into the scene's prefix; logits of the next token [1, vocab]."""
    stack, vla, n = model.text, model.vla, known.count
    rope = rope_table(prompt.positions[:, n:].to(vla.device), vla.config.text, vla.dtype)
    at = torch.arange(len(prompt) - n, device=vla.device)
    slot = torch.full((1,), n, device=vla.device)
    allowed = torch.ones(len(at), len(prompt), dtype=torch.bool, device=vla.device).tril(n).repeat(stack.heads.group, 1)
    x = pick_rows(model.embedding, prompt.ids[n:].to(vla.device))
    normed = rms_norm(x, stack.layers[0].input_norm, stack.eps)
    for i, layer in enumerate(stack.layers):
        cache = scene_cache(buffers.prefix[i], scene, len(prompt))
        for into, keys in zip(cache, known.kv[i], strict=True):
            into[:, :, :n].copy_(keys[:, :, :n])
        q = rope_write(linear(normed, layer.qkv, words=True), layer.head_norms, rope, at, cache, slot, stack.heads)
        groups = q.unflatten(1, (stack.heads.keys, -1)).permute(1, 2, 0, 3).flatten(1, 2)  # (Hkv, G n, d): a key head's queries together
        out = masked_attention(groups[None], *cache, allowed)[0]
        out = out.unflatten(1, (stack.heads.group, -1)).permute(2, 0, 1, 3).flatten(1)
        normed = add_rms_norm(x, linear(out, layer.out, words=True), layer.mlp_norm, stack.eps)
        normed = add_rms_norm(x, mlp(layer, normed, words=True), stack.norm_after(i), stack.eps)
    return first_logits(model, normed[-1:])


def mlp(layer: LayerWeights, normed: torch.Tensor, words: bool = False) -> torch.Tensor:
    """One layer's MLP -> parts [P, M, hidden]; of many rows some at a time, since what is between is six times as wide."""
    if len(normed) <= MLP_ROWS:
        return linear(swiglu_linear(normed, layer.gate_up, words=words), layer.down, words=words)
    out = torch.empty_like(normed)
    for some, into in zip(normed.split(MLP_ROWS), out.split(MLP_ROWS), strict=True):
        linear_into(swiglu_linear(some, layer.gate_up), layer.down, into)
    return out[None]


@dataclass(frozen=True)
class Own:
    """Where the new tokens of R rows, N in all, stand. Older than the pass's first rows: see rope_write_kernel."""

    at: torch.Tensor  # (N,) i64: positions
    start: torch.Tensor  # (R,) i64: where each row's new keys go in its suffix
    visible: torch.Tensor  # (R,) i64: suffix keys each row's first token then sees
    words: bool  # each token sees those before it, and has the bits that it has alone; else actions, which all see each other


def run_layers(stack: Stack, x: torch.Tensor, rope, own: Own, buffers: Buffers) -> torch.Tensor:
    """Tokens x [N, hidden] (changed in place) through all layers over prompt and suffix -> final norm [N, hidden]."""
    normed = rms_norm(x, stack.layers[0].input_norm, stack.eps)
    for i, layer in enumerate(stack.layers):
        qkv = linear(normed, layer.qkv, words=own.words)
        q = rope_write(qkv, layer.head_norms, rope, own.at, buffers.suffix[i], own.start, stack.heads)
        out = attend(q, Context(buffers.prefix[i], buffers.prompt, buffers.suffix[i], own.visible, causal=own.words), stack.heads)
        normed = add_rms_norm(x, linear(out, layer.out, words=own.words), layer.mlp_norm, stack.eps)
        normed = add_rms_norm(x, mlp(layer, normed, own.words), stack.norm_after(i), stack.eps)
    return normed


def read_words(model: Model, buffers: Buffers, count: int, positions: int) -> None:
    """Reads `count` tokens of every row: the one said last and its drafts. Reads `block` and the state, writes keys, values and `logits`.

    A token's bits are the same however many are read with it, so drafts change nothing but how often this is called.
    """
    rope, cached = model.line_ropes(positions)[0], buffers.said.cached
    at = (buffers.next + cached)[:, None] + torch.arange(count, device=cached.device)
    own = Own(at.flatten(), cached, cached + 1, words=True)
    tokens = pick_rows(model.embedding, buffers.block[:, :count].flatten())
    normed = run_layers(model.text, tokens, rope, own, buffers)
    buffers.logits[: at.numel()].copy_(linear(normed, model.head, final=True, words=True)[0])


def velocity(model: Model, x: torch.Tensor, t: float, own: Own, buffers: Buffers, rope) -> torch.Tensor:
    """The flow's velocity at x f32[R, F, 2] and time t, given prompts and what was said -> f32[R, F, 2]."""
    normed = run_layers(model.expert, embed_actions(model.vla, x, t), rope, own, buffers)
    return row_dots(normed, model.vla.action_out_proj).view(x.shape)


def embed_actions(vla: VLA, x: torch.Tensor, t: float) -> torch.Tensor:
    """Noisy actions x f32[R, F, 2] at time t -> the expert's tokens [R F, hidden]; see `vla.ActionIn`."""
    hidden = action_features(x, t, vla.action_in_proj, vla.dtype)
    for part in vla.action_in_proj.encoder.trunk:
        hidden = rms_norm(hidden, part.weight, part.eps) if isinstance(part, RMSNorm) else part(hidden)
    return vla.action_in_proj.norm(hidden)


def flow(model: Model, buffers: Buffers, steps: int, positions: int, guided: bool = False) -> None:
    """All Euler steps: reads `noise`, writes `actions`. The action tokens' keys are put behind those of what was said.

    guided: the second half of the rows are the first half's without navigation, v = (1 - w) v_unguided + w v_guided, and the actions are
    the first half's. Of rows that did not end the unguided ones see every word (spec15 section 4).
    """
    rope, waypoints = model.line_ropes(positions)[1], buffers.noise.shape[1]
    rows = len(buffers.noise) // (1 + guided)
    length, ended = buffers.said.length, buffers.said.ended
    at = (buffers.next + length)[:, None] + torch.arange(waypoints, device=buffers.noise.device)
    said = torch.cat([length[:rows] - 1 + ended[:rows], length[rows:]])
    own = Own(at.flatten(), said, said + waypoints, words=False)

    def field(x: torch.Tensor, t: float) -> torch.Tensor:
        if not guided:
            return velocity(model, x, t, own, buffers, rope)
        with_text, without = velocity(model, torch.cat([x, x]), t, own, buffers, rope).chunk(2)
        return (1 - buffers.guidance) * without + buffers.guidance * with_text

    buffers.actions[:rows].copy_(integrate(field, buffers.noise[:rows], steps))
