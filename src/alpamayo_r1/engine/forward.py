"""The model on the engine's buffers: its weights and tables, words, the flow's velocity. Pictures: seeing.py; prompts: reading.py."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import cast

import torch
from torch import nn

from alpamayo_r1.core.flow import integrate
from alpamayo_r1.core.prompt import Prompt
from alpamayo_r1.core.transformer import RMSNorm, rope_table
from alpamayo_r1.core.vision import Grid, interpolate_positions
from alpamayo_r1.core.vision import vision_rope as vision_rope_tables
from alpamayo_r1.core.vla import VLA
from alpamayo_r1.engine.arena import MLP_ROWS, Buffers
from alpamayo_r1.engine.graphs import Graphs
from alpamayo_r1.engine.ops import (
    Context,
    Rows,
    Weight,
    action_features,
    add_rms_norm_for,
    attend,
    keep_blocks,
    linear,
    linear_into,
    pick_rows,
    rms_norm,
    rms_norm_for,
    rope_write,
    row_dots,
    swiglu_linear,
)
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
        keep_blocks(self._products())
        on_card = self.vla.device.type == "cuda"
        self.together, self.tile = (4, 128) if on_card else (1, 16)
        self._grids: dict[Grid, tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]] = {}
        self._ropes: tuple = ()
        self._layouts: OrderedDict[int, Layout] = OrderedDict()
        self._group: tuple[torch.Tensor, torch.Tensor] | None = None
        self._features: torch.Tensor | None = None
        self.last = torch.zeros(1, self.vla.config.text.hidden, device=self.vla.device, dtype=self.vla.dtype)

    def _products(self) -> Iterator[torch.Tensor]:
        """The weights that the engine multiplies by, but those of few bits."""
        for layer in (*self.text.layers, *self.expert.layers):
            yield from (one for one in (layer.qkv, layer.out, layer.gate_up, layer.down) if isinstance(one, torch.Tensor))
        for part in (self.vla.vision, self.vla.vlm.lm_head):
            yield from (layer.weight for layer in part.modules() if isinstance(layer, nn.Linear))

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


def first_logits(model: Model, last: torch.Tensor) -> torch.Tensor:
    """The final norm of a prompt's last token [1, hidden] -> logits of the next token [1, vocab]."""
    return linear(last, model.head, final=True)[0]


def mlp(layer: LayerWeights, normed: Rows, words: bool = False) -> torch.Tensor:
    """One layer's MLP -> parts [P, M, hidden]; of many rows some at a time, since what is between is six times as wide."""
    if len(normed) <= MLP_ROWS:
        return linear(swiglu_linear(normed, layer.gate_up, then=layer.down, words=words), layer.down, words=words)
    out = torch.empty(len(normed), len(layer.down), device=layer.mlp_norm.device, dtype=normed.dtype)
    for some, into in zip(normed.split(MLP_ROWS), out.split(MLP_ROWS), strict=True):
        linear_into(swiglu_linear(some, layer.gate_up, then=layer.down), layer.down, into)
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
    words = own.words
    normed = rms_norm_for(stack.layers[0].qkv, x, stack.layers[0].input_norm, stack.eps, words=words)
    for i, layer in enumerate(stack.layers):
        qkv = linear(normed, layer.qkv, words=words)
        q = rope_write(qkv, layer.head_norms, rope, own.at, buffers.suffix[i], own.start, stack.heads)
        out = attend(q, Context(buffers.prefix[i], buffers.prompt, buffers.suffix[i], own.visible, causal=words), stack.heads)
        normed = add_rms_norm_for(layer.gate_up, x, linear(out, layer.out, words=words), layer.mlp_norm, stack.eps, words=words)
        norm, then = stack.after(i)
        normed = add_rms_norm_for(then, x, mlp(layer, normed, words), norm, stack.eps, words=words)
    assert isinstance(normed, torch.Tensor)
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
