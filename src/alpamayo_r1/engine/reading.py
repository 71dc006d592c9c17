"""How the engine reads a prompt: its keys and values, in two parts or behind what is known of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from alpamayo_r1.core.prompt import Prompt
from alpamayo_r1.core.transformer import KV, rope_table
from alpamayo_r1.engine.arena import Buffers
from alpamayo_r1.engine.forward import Model, first_logits, mlp
from alpamayo_r1.engine.graphs import Run, at_once
from alpamayo_r1.engine.memory import Known, early, scene_cache
from alpamayo_r1.engine.ops import Context, Rows, add_rms_norm_for, attend, linear, pick_rows, rms_norm_for, rope_write
from alpamayo_r1.engine.ops.launch import sent
from alpamayo_r1.engine.ops.rotation import Heads
from alpamayo_r1.engine.vendor import attention, attention_by_rows


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
    normed = rms_norm_for(stack.layers[0].qkv, part.x, stack.layers[0].input_norm, stack.eps)
    for i, layer in enumerate(stack.layers):
        q = rope_write(linear(normed, layer.qkv), layer.head_norms, part.rope, part.at, cache[i], part.slot, stack.heads)
        if i + 1 == len(stack.layers):
            return  # keys and values are all that is used of the last layer
        out = attention(q.transpose(0, 1)[None], *cache[i], causal=True).transpose(1, 2).flatten(2)[0]
        normed = add_rms_norm_for(layer.gate_up, part.x, linear(out, layer.out), layer.mlp_norm, stack.eps)
        del q, out
        normed = after_mlp(model, i, part, normed, images[i + 1] if i + 1 < len(images) else None)


def read_rest(
    model: Model, prompt: Prompt, images: Sequence[torch.Tensor], cache: Sequence[KV], start: int, done: Callable[[], None]
) -> torch.Tensor:
    """Reads a prompt behind its first `start` tokens, whose keys and values are in the cache; the final norm of its last token [1, hidden].

    The last layer's attention and MLP run for the last token only: of the others its keys and values are all that is used.
    """
    stack, part = model.text, Part.of(model, prompt, start, len(prompt), images[0])
    every = part.x.new_zeros(len(prompt), stack.heads.queries, stack.heads.width) if start and part.x.is_cuda else None
    own = None if every is None else every[start:]
    normed = rms_norm_for(stack.layers[0].qkv, part.x, stack.layers[0].input_norm, stack.eps)
    for i, layer in enumerate(stack.layers):
        q = rope_write(linear(normed, layer.qkv), layer.head_norms, part.rope, part.at, cache[i], part.slot, stack.heads, own)
        done()
        last = i + 1 == len(stack.layers) >= len(images)
        if last:
            q, part = q[-1:], replace(part, x=part.x[-1:])
        elif every is not None:  # as if all tokens asked: the vendor's causal attention wants as many queries as keys
            q = every
        out = attend_words(q, cache[i], ends_of(cache[i], 1), stack.heads) if last else attend_behind(q, cache[i])[-len(part.x) :]
        normed = add_rms_norm_for(layer.gate_up, part.x, linear(out, layer.out), layer.mlp_norm, stack.eps)
        del q, out  # memory that the MLP can use
        normed = after_mlp(model, i, part, normed, images[i + 1] if i + 1 < len(images) else None)
    assert isinstance(normed, torch.Tensor)
    return normed[-1:]


def attend_behind(q: torch.Tensor, cache: KV) -> torch.Tensor:
    """Attention of a cache's last tokens, queries [n, Hq, d], each over itself and those before -> [n, Hq d]; on a GPU of all tokens."""
    queries = q.transpose(0, 1)[None]
    out = attention(queries, *cache, causal=True) if q.is_cuda else attention_by_rows(queries, *cache)
    return out.transpose(1, 2).flatten(2)[0]


def ends_of(cache: KV, new: int) -> tuple[torch.Tensor, torch.Tensor]:
    """How many keys lie before a cache's last `new` ones, and how many of these the first of them sees: i64[1] each."""
    known, one = (torch.full((1,), count, device=cache[0].device) for count in (cache[0].shape[2] - new, 1))
    return known, one


def attend_words(q: torch.Tensor, cache: KV, ends: tuple[torch.Tensor, torch.Tensor], heads: Heads) -> torch.Tensor:
    """Attention of a cache's last tokens, queries [n, Hq, d], each over itself and those before -> [n, Hq d]: few tokens, as words.

    ends: `ends_of` the cache and these tokens.

    The vendor's attention of one query adds up in an order that differs from run to run: one plan in sixty had another word for it.
    """
    known, one = ends
    keys, values = (part[:, :, -len(q) :] for part in cache)
    return attend(q, Context(cache, known, (keys, values), one, causal=True), heads)


def after_mlp(model: Model, i: int, part: Part, normed: Rows, deep: torch.Tensor | None) -> Rows:
    """Layer i's MLP on a part of a prompt, then DeepStack features where there are some for it: what the next layer reads."""
    stack = model.text
    delta, (norm, then) = mlp(stack.layers[i], normed), stack.after(i)
    if deep is None:
        return add_rms_norm_for(then, part.x, delta, norm, stack.eps)
    part.x.add_(delta[0])
    part.deepen(deep)
    return rms_norm_for(then, part.x, norm, stack.eps)


def extend(model: Model, prompt: Prompt, known: Known, buffers: Buffers, scene: int) -> torch.Tensor:
    """Reads the rest of a prompt, text alone, behind what is known of it, into the scene's prefix; logits of the next token [1, vocab]."""
    stack, vla, n = model.text, model.vla, known.count
    rope = rope_table(prompt.positions[:, n:].to(vla.device), vla.config.text, vla.dtype)
    at = torch.arange(len(prompt) - n, device=vla.device)
    slot = torch.full((1,), n, device=vla.device)
    ends = ends_of(scene_cache(buffers.prefix[0], scene, len(prompt)), len(prompt) - n)
    x = pick_rows(model.embedding, prompt.ids[n:].to(vla.device))
    normed = rms_norm_for(stack.layers[0].qkv, x, stack.layers[0].input_norm, stack.eps, words=True)
    for i, layer in enumerate(stack.layers):
        cache = scene_cache(buffers.prefix[i], scene, len(prompt))
        for into, keys in zip(cache, known.kv[i], strict=True):
            into[:, :, :n].copy_(keys[:, :, :n])
        q = rope_write(linear(normed, layer.qkv, words=True), layer.head_norms, rope, at, cache, slot, stack.heads)
        out = attend_words(q, cache, ends, stack.heads)
        normed = add_rms_norm_for(layer.gate_up, x, linear(out, layer.out, words=True), layer.mlp_norm, stack.eps, words=True)
        norm, then = stack.after(i)
        normed = add_rms_norm_for(then, x, mlp(layer, normed, words=True), norm, stack.eps, words=True)
    assert isinstance(normed, torch.Tensor)
    return first_logits(model, normed[-1:])
