"""Every Triton kernel of the engine against its torch twin on fresh random inputs. `check()` returns rows for a table.

    python checks/kernels.py

On a machine without a GPU, TRITON_INTERPRET=1 runs the kernels in Triton's interpreter (fp32, small shapes).
"""

from __future__ import annotations

from _head import CUDA

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace

import torch
import torch.nn.functional as nnf

from alpamayo_r1.core.config import ProjectionConfig, VisionConfig
from alpamayo_r1.core.options import PlanOptions, Sampling
from alpamayo_r1.core.quantised import Kind, Scheme, quantise
from alpamayo_r1.core.vla import ActionIn
from alpamayo_r1.engine import ops, pixels
from alpamayo_r1.engine.ops import Context, Heads, attention, drawing, eight, quantised
from alpamayo_r1.engine.ops.launch import twins
from alpamayo_r1.engine.reading import attend_words, ends_of
from alpamayo_r1.engine.words import Rules, accept

VISION = VisionConfig(depth=1, hidden=32, heads=2, intermediate=64, out_hidden=64, positions=2304, deepstack=())


def error(got: torch.Tensor, want: torch.Tensor) -> float:
    """|got - want| / |want|; NaN and unwritten elements never pass."""
    return ((got.double() - want.double()).norm() / want.double().norm().clamp_min(1e-30)).item()


class Case:
    """Random tensors of one device, dtype and seed."""

    def __init__(self, device: str, dtype: torch.dtype, seed: int):
        self.device, self.dtype = device, dtype
        self.generator = torch.Generator(device).manual_seed(seed)

    def __call__(self, *shape: int, scale: float = 1.0, dtype: torch.dtype | None = None) -> torch.Tensor:
        return (torch.randn(*shape, device=self.device, generator=self.generator) * scale).to(dtype or self.dtype)


def norms(case: Case, m: int, width: int, parts: int) -> list[float]:
    """rms_norm and add_rms_norm."""
    x, weight, delta = case(m, width, scale=3), case(width), case(parts, m, width, dtype=torch.float32)
    x1, x2 = x.clone(), x.clone()
    got = ops.rms_norm(x, weight, 1e-6), ops.add_rms_norm(x1, delta, weight, 1e-6), x1
    with twins():
        want = ops.rms_norm(x, weight, 1e-6), ops.add_rms_norm(x2, delta, weight, 1e-6), x2
    return [error(a, b) for a, b in zip(got, want, strict=True)]


def layer_norms(case: Case, m: int, width: int) -> list[float]:
    """add_layer_norm."""
    norm = torch.nn.LayerNorm(width, eps=1e-6, device=case.device, dtype=case.dtype).requires_grad_(False)
    norm.weight.copy_(case(width)), norm.bias.copy_(case(width))
    x, delta = case(m, width, scale=3) + 5, case(m, width)
    x1, x2 = x.clone(), x.clone()
    got = ops.add_layer_norm(x1, delta, norm), x1
    with twins():
        want = ops.add_layer_norm(x2, delta, norm), x2
    return [error(a, b) for a, b in zip(got, want, strict=True)]


def gelus(case: Case, m: int, n: int, k: int) -> list[float]:
    """linear_gelu."""
    layer = torch.nn.Linear(k, n, device=case.device, dtype=case.dtype).requires_grad_(False)
    x = case(1, m, k)
    return [error(ops.linear_gelu(x, layer), torch.nn.functional.gelu(layer.float()(x.float()), approximate="tanh"))]


def actions(case: Case, rows: int, waypoints: int, features: int, width: int) -> list[float]:
    """action_features and row_dots."""
    projection = ActionIn(ProjectionConfig(hidden=32, layers=1, features=features), 32).to(case.device, case.dtype)
    layer = torch.nn.Linear(width, 2, device=case.device, dtype=case.dtype).requires_grad_(False)
    x, hidden = case(rows, waypoints, 2, dtype=torch.float32), case(rows * waypoints, width)
    got = ops.action_features(x, 0.3, projection, case.dtype), ops.row_dots(hidden, layer)
    with twins():
        want = ops.action_features(x, 0.3, projection, case.dtype), ops.row_dots(hidden, layer)
    return [error(a, b) for a, b in zip(got, want, strict=True)]


def gated(x: torch.Tensor, weight: ops.Weight, words: bool = False) -> torch.Tensor:
    """swiglu_linear, in the inputs' dtype."""
    made = ops.swiglu_linear(x, weight, words=words)
    assert isinstance(made, torch.Tensor)
    return made


def products(case: Case, m: int, n: int, k: int) -> list[float]:
    """linear, its final form, swiglu_linear, and swiglu in place."""
    x, weight, both = case(m, 2 * k)[:, :k], case(n, k, scale=k**-0.5), case(2 * n, k, scale=k**-0.5)
    gate_up = case(m, 2 * n)
    other = gate_up.clone()
    got = ops.linear(x, weight).sum(0), ops.linear(x, weight, final=True)[0], gated(x, both), ops.swiglu(gate_up)
    with twins():
        exact = nnf.linear(x.float(), weight.float())
        want = exact, exact, gated(x, both), ops.swiglu(other)
    return [error(a, b) for a, b in zip(got, want, strict=True)]


def few_bits(case: Case, m: int, n: int, k: int, kind: Kind, most: int = 128) -> list[float]:
    """Products with weights of few bits, and the weight made anew, of which no number may differ from the twin's."""
    scheme = Scheme.fitting(kind, k, most)
    assert scheme is not None
    x = case(m, 2 * k)[:, :k]
    weight, both = (quantise(case(rows, k, scale=k**-0.5), scheme) for rows in (n, 2 * n))
    got = ops.linear(x, weight).sum(0), ops.linear(x, weight, final=True)[0], gated(x, both)
    wide = x.float() @ weight.dequantised(torch.float32).T
    with twins():
        want = wide, wide, gated(x, both)
    made = quantised.dequantise(both.rows(n, 2 * n), case.dtype)
    return [*(error(a, b) for a, b in zip(got, want, strict=True)), differ(made, both.dequantised(case.dtype)[n:])]


@contextmanager
def turned(kind: Kind, n: int, k: int) -> Iterator[None]:
    """Inside, weights [n, k] and [2 n, k] are the matrix unit's first operand."""
    before = dict(quantised.CUTS)
    for swiglu, height in ((False, n), (False, 2 * n), (True, 2 * n)):
        quantised.CUTS[kind, swiglu, 8, height, k] = quantised.Cut(8, 32, 2, 1, 6, 4, swap=True)
        quantised.CUTS[kind, swiglu, 64, height, k] = quantised.Cut(64, 64, 2, 4, 3, 2, swap=True)
    try:
        yield
    finally:
        quantised.CUTS.clear()
        quantised.CUTS.update(before)


def few_bits_turned(case: Case, m: int, n: int, k: int, kind: Kind) -> list[float]:
    """`few_bits` and `few_bits_own` the other way round."""
    with turned(kind, n, k):
        return few_bits(case, m, n, k, kind) + (few_bits_own(case, m, n, k, kind) if m < 64 else [])


def few_bits_own(case: Case, m: int, n: int, k: int, kind: Kind) -> list[float]:
    """How many numbers of rows read together differ in a bit from those of each row alone, with weights of few bits."""
    scheme = Scheme.fitting(kind, k)
    assert scheme is not None
    x, weight = case(m, k), quantise(case(2 * n, k, scale=k**-0.5), scheme)
    x[m // 2], x[m - 1] = torch.nan, 3e4

    def run(some: torch.Tensor) -> tuple[torch.Tensor, ...]:
        whole = ops.linear(some, weight, final=True, words=True)
        return ops.linear(some, weight, words=True), whole, gated(some, weight, True)[None]

    together, alone = run(x), [run(x[i : i + 1].contiguous()) for i in range(m)]
    return [differ(a, torch.cat(b, 1)) for a, b in zip(together, zip(*alone, strict=True), strict=True)]


def many_rows(case: Case, m: int, n: int, k: int, kind: Kind) -> list[float]:
    """Products of many rows with weights of few bits; of e4m3, where the card multiplies it, with inputs of 8 bits, as the twin's."""
    scheme = Scheme.fitting(kind, k)
    assert scheme is not None
    x, weight = case(m, k), quantise(case(n, k, scale=k**-0.5), scheme)
    want = x.float()
    if kind == "e4m3" and case.dtype == torch.bfloat16 and eight.has_fp8_products(x.device):
        with twins():
            want = eight.quantise_rows(x).numbers()
    into = torch.full((m, n), torch.nan, device=case.device, dtype=case.dtype)
    ops.linear_into(x, weight, into)
    return [error(got, want @ weight.dequantised(torch.float32).T) for got in (quantised.many(x, weight), into)]


def in_eight_bits(x: torch.Tensor, functions: list[tuple[Callable, Callable]]) -> list[float]:
    """Of functions of x that make rows in 8 bits: distance from the twins', and numbers that are not those of rows written first.

    functions: each beside the one that writes the rows. Codes are compared with the twins' on a GPU alone: Triton's interpreter loses the
    carry where a number is rounded up to a power of two.
    """
    far: list[float] = []
    for eighth, written in functions:
        got, first = eighth(x.clone()), eight.quantise_rows(written(x.clone()).contiguous())
        with twins():
            want = eighth(x.clone())
        far += [error(got.scale, want.scale), differ(got.codes, first.codes), differ(got.scale, first.scale)]
        far += [error(got.numbers(), want.numbers())] if x.is_cuda else []
    return far


def norms_in_eight_bits(case: Case, m: int, width: int, parts: int) -> list[float]:
    """Rows as they are, their norms, and those of sums, in 8 bits."""
    x, norm, delta = case(m, width, scale=3), case(width), case(parts, m, width, dtype=torch.float32)
    x[m // 2] = 0
    alone = lambda x: eight.rms_norm_eight(x, norm, 1e-6), lambda x: ops.rms_norm(x, norm, 1e-6)
    summed = lambda x: eight.add_rms_norm_eight(x, delta, norm, 1e-6), lambda x: ops.add_rms_norm(x, delta, norm, 1e-6)
    return in_eight_bits(x, [(eight.quantise_rows, lambda x: x), alone, summed])


def swiglu_in_eight_bits(case: Case, m: int, width: int) -> list[float]:
    """SwiGLU in 8 bits."""
    return in_eight_bits(case(m, 2 * width), [(eight.swiglu_eight, ops.swiglu)])


def ropes(case: Case, groups: int, per: int, heads: Heads, parts: int) -> list[float]:
    """rope_write: queries, behind others, keys, values, and nothing written elsewhere."""
    m, d, capacity = groups * per, heads.width, per + 9
    qkv = case(parts, m, (heads.queries + 2 * heads.keys) * d, dtype=torch.float32)
    norm, rope = (case(d), case(d)), (case(50, d), case(50, d))
    rope = tuple(torch.cat([t[:, : d // 2]] * 2, 1) for t in rope)
    at = torch.randint(0, 50, (m,), device=case.device, generator=case.generator)
    slot = torch.randint(0, 9, (groups,), device=case.device, generator=case.generator)
    store = case(2, groups, heads.keys, capacity, d)
    other = store.clone()
    room = case(m + 3, heads.queries, d)
    q = ops.rope_write(qkv, norm, rope, at, (store[0], store[1]), slot, heads, room[3:])
    assert q.data_ptr() == room[3:].data_ptr()
    with twins():
        q2 = ops.rope_write(qkv, norm, rope, at, (other[0], other[1]), slot, heads)
    return [error(q, q2), error(store, other)]


def tables(case: Case, m: int, rows: int, width: int) -> list[float]:
    """pick_rows from a table here and from one in pinned host memory, by ids apart: how many numbers are not the table's."""
    table, ids = case(rows, width), torch.randint(0, rows, (m, 3), device=case.device, generator=case.generator)[:, 1]
    ids[0], ids[-1] = 0, rows - 1
    elsewhere = table.cpu().pin_memory() if CUDA else table
    return [differ(ops.pick_rows(some, ids), table[ids]) for some in (table, elsewhere)]


def attends(case: Case, scenes: int, samples: int, per: int, heads: Heads, prompt: int, capacity: int) -> list[float]:
    """attend, in parts and whole, with ragged lengths and poison (NaN) beyond them; then how many numbers larger buffers change (none)."""
    rows, d = scenes * samples, heads.width
    q = case(rows * per, heads.queries, d)
    prefix, suffix = case(2, scenes, heads.keys, capacity, d), case(2, rows, heads.keys, 48 + per, d)
    lengths = torch.tensor([prompt - 7 * b for b in range(scenes)], device=case.device)
    seen = torch.randint(per, 48 + per, (rows,), device=case.device, generator=case.generator)
    for b, length in enumerate(lengths.tolist()):
        prefix[:, b, :, length:] = float("nan")
    for r, length in enumerate(seen.tolist()):
        suffix[:, r, :, length:] = float("nan")
    context = Context((prefix[0], prefix[1]), lengths, (suffix[0], suffix[1]), seen)
    larger = [nnf.pad(x, (0, 0, 0, 160), value=float("nan")) for x in (*prefix, *suffix)]
    roomy = Context((larger[0], larger[1]), lengths, (larger[2], larger[3]), seen)
    wide = Context((prefix[0].float(), prefix[1].float()), lengths, (suffix[0].float(), suffix[1].float()), seen)
    with twins():
        want = ops.attend(q.float(), wide, heads)
    ways = [ops.attend]
    if per * heads.group % 64 == 0:
        cuts = (attention.Cut(n, 64, n // 16, 3) for n in (64, 128) if per * heads.group % n == 0)
        ways += [attention._attend_parts, *(partial(attention._attend_whole, cut=cut) for cut in cuts)]
    errors = []
    for attend in ways:
        got = attend(q, context, heads)
        errors += [error(got, want), (got != attend(q, roomy, heads)).sum().item()]
    return errors


def attends_words(case: Case, heads: Heads, tokens: int, count: int, capacity: int) -> list[float]:
    """The attention of a prompt's last tokens, in a cache with room for more; then how many numbers differ in twenty runs (none)."""
    q, room = case(tokens, heads.queries, heads.width), case(2, 1, heads.keys, capacity, heads.width)
    room[:, :, :, count:] = float("nan")
    keys, values = room[:, :, :, :count].unbind()
    ends = ends_of((keys, values), tokens)
    got = attend_words(q, (keys, values), ends, heads)
    with twins():
        want = attend_words(q.float(), (keys.float(), values.float()), ends, heads)
    return [error(got, want), *(differ(got, attend_words(q, (keys, values), ends, heads)) for _ in range(20))]


def differ(got: torch.Tensor, want: torch.Tensor) -> int:
    """How many numbers are not the same bits, NaN equal to NaN."""
    return int(((got != want) & ~((got != got) & (want != want))).sum())


def own_bits(case: Case, m: int, n: int, k: int) -> list[float]:
    """How many numbers of rows read together differ in a bit from those of each row alone: products and norms, among wild neighbours."""
    x, weight, both = case(m, k), case(n, k, scale=k**-0.5), case(2 * n, k, scale=k**-0.5)
    x[m // 2], x[m - 1] = (torch.nan, 3e4) if m > 2 else (x[m // 2], x[m - 1])
    norm, delta = case(k), case(2, m, k, dtype=torch.float32)

    def row(i: slice) -> tuple[torch.Tensor, ...]:
        some = x[i].contiguous()
        return (
            ops.linear(some, weight, words=True),
            ops.linear(some, weight, final=True, words=True),
            gated(some, both, True)[None],
            ops.rms_norm(some, norm, 1e-6)[None],
            ops.add_rms_norm(some.clone(), delta[:, i].contiguous(), norm, 1e-6)[None],
        )

    together, alone = row(slice(m)), [row(slice(i, i + 1)) for i in range(m)]
    return [differ(a, torch.cat(b, 1)) for a, b in zip(together, zip(*alone, strict=True), strict=True)]


def words(case: Case, scenes: int, samples: int, per: int, heads: Heads, prompt: int) -> list[float]:
    """attend of `per` tokens per row, each seeing those before it: against the twin, and how many bits differ from one by one (none)."""
    rows, d, capacity = scenes * samples, heads.width, prompt + 2
    q = case(rows, per, heads.queries, d)
    prefix, suffix = case(2, scenes, heads.keys, capacity, d), case(2, rows, heads.keys, 90 + per, d)
    lengths = torch.tensor([prompt - 7 * b for b in range(scenes)], device=case.device)
    seen = torch.randint(1, 90, (rows,), device=case.device, generator=case.generator)
    seen[0] = 1
    for row, first in enumerate(seen.tolist()):
        suffix[:, row, :, first + per - 1 :] = float("nan")

    def attend(tokens: torch.Tensor, first: torch.Tensor, wide: bool = False) -> torch.Tensor:
        parts = (*prefix, *suffix)
        k, v, own_k, own_v = (x.float() for x in parts) if wide else parts
        flat = tokens.flatten(0, 1)
        return ops.attend(flat.float() if wide else flat, Context((k, v), lengths, (own_k, own_v), first, causal=True), heads)

    together = attend(q, seen)
    with twins():
        want = attend(q, seen, wide=True)
    alone = torch.stack([attend(q[:, t : t + 1].contiguous(), seen + t) for t in range(per)], 1).flatten(0, 1)
    return [error(together, want), differ(together, alone)]


def vision_ropes(case: Case, n: int, places: int, heads: int, d: int) -> list[float]:
    """vision_rope."""
    qkv, rope = case(n, places, 3, heads, d), (case(places, d, dtype=torch.float32), case(places, d, dtype=torch.float32))
    other = qkv.clone()
    got = ops.vision_rope(qkv, rope)
    with twins():
        want = ops.vision_rope(other, rope)
    return [error(got, want)]


def pictures(case: Case, n: int, h: int, w: int, height: int, width: int) -> list[float]:
    """Resize, normalise, patchify: the number of differing elements."""
    frames = torch.randint(0, 256, (n, 3, h, w), device=case.device, dtype=torch.uint8, generator=case.generator)
    got = pixels.resize_to_patches(frames, VISION, height, width, case.dtype)
    with twins():
        want = pixels.resize_to_patches(frames.cpu(), VISION, height, width, case.dtype)
    return [(got.cpu() != want).sum().item()]


def differing(logits: torch.Tensor, blocked: torch.Tensor, uniform: torch.Tensor, how: Sampling, on: torch.device | str) -> int:
    """How many rows draw another token than the twin does on a device."""
    got = ops.draw_tokens(logits, blocked, uniform, how, torch.zeros(len(logits), dtype=torch.uint8, device=logits.device))
    assert torch.equal(got, ops.draw_tokens(logits, blocked, uniform, how)), "from candidates and by ranges"
    with twins():
        return (got.to(on) != ops.draw_tokens(logits.to(on), blocked.to(on), uniform.to(on), how)).sum().item()


def draws(case: Case, rows: int, vocab: int, temperature: float, top_p: float, levels: int) -> list[float]:
    """draw_tokens: how many tokens differ. levels: steps of the logits; few of them, and many stand at the edge."""
    logits = (case(rows, vocab, dtype=torch.float32) * levels).round() / levels * 3
    blocked = case(vocab) > 2
    uniform = torch.rand(rows, device=case.device, generator=case.generator)
    logits[1::2] -= 20
    logits[0, : vocab // 2], uniform[0], uniform[-1] = -50.0, 0.0, 1 - 2**-24
    return [differing(logits.to(case.dtype), blocked, uniform, PlanOptions(temperature=temperature, top_p=top_p).sampling, case.device)]


def crowded(case: Case, cap: int, most: int) -> list[float]:
    """draw_tokens where candidates are more than there is room for: then rows are drawn by passes over the vocabulary."""
    kept = drawing.CAP, drawing.MOST
    drawing.CAP, drawing.MOST = cap, most
    try:
        return draws(case, 5, 4096, 0.6, 0.98, 1000) + draws(case, 5, 4096, 0.9, 0.7, 1)
    finally:
        drawing.CAP, drawing.MOST = kept


def accepts(case: Case, rows: int, count: int) -> list[float]:
    """words.accept: how many numbers of states and blocks differ, for rows in all states and drafts of which most are right."""

    def few(*shape: int) -> torch.Tensor:
        return torch.randint(0, 10, shape, device=case.device, generator=case.generator)

    drawn, forced, block = few(rows, count), few(rows, 12), few(rows, 16)
    forced[::2] = -1
    right = few(rows, count - 1) < 7
    block[:, 1:count] = torch.where(right, drawn[:, :-1], block[:, 1:count])
    length, over, ended = few(rows) // 2, few(rows) < 3, few(rows) < 5
    cached = length - (~(over & ended & (few(rows) < 5))).long()
    state = torch.cat([torch.stack([length, cached, over, over & ended], 1), few(rows, 12)], 1)
    rules = Rules(blocked=drawn, end=7, eos=8, pad=9)
    limit = torch.full_like(drawn[0, :1], 6)
    pair = [SimpleNamespace(state=s, block=b, forced=forced, limit=limit) for s, b in ((state, block), (state.clone(), block.clone()))]
    accept(drawn, pair[0], rules)
    with twins():
        accept(drawn, pair[1], rules)
    return [differ(pair[0].state, pair[1].state), differ(pair[0].block, pair[1].block)]


def draws_from_nothing(case: Case, temperature: float) -> list[float]:
    """draw_tokens of logits that are not finite, or equal, or far apart. A GPU's sort, and so the twin there, puts -NaN last."""
    inf, nan = torch.inf, torch.nan
    some = [[0, 20, 40, -inf], [0, 1, inf, -inf], [0, nan, 1, 2], [1, -nan, 2, 3], [-5, inf, nan, inf], [40, 40, 0, 40], [-0.0, 0, -0.0, 0]]
    logits = torch.tensor([*some, [-inf] * 4, [nan] * 4], device=case.device).to(case.dtype)
    uniform = torch.full((len(logits),), 0.4, device=case.device)
    blocked = torch.zeros(4, device=case.device, dtype=torch.bool)
    return [differing(logits, blocked, uniform, PlanOptions(temperature=temperature, top_p=top_p).sampling, "cpu") for top_p in (0.5, 0.98)]


def draws_far_below_zero(case: Case) -> list[float]:
    """draw_tokens where all weights but a few underflow, and the blocks are no power of two."""
    logits = torch.full((3, 5000), -90.0, device=case.device)
    logits[:, 100], logits[:, 4000] = -40.0, -40.0
    blocked, uniform = torch.arange(5000, device=case.device) == 0, torch.tensor([0.0, 0.3, 1 - 2**-24], device=case.device)
    return [differing(logits.to(case.dtype), blocked, uniform, PlanOptions(temperature=t).sampling, case.device) for t in (1e-38, 0.05)]


TEXT, EXPERT, TINY, SMALL = Heads(32, 8, 128, 1e-6), Heads(16, 8, 128, 1e-6), Heads(4, 2, 16, 1e-6), Heads(6, 3, 64, 1e-6)

KINDS: tuple[Kind, ...] = ("e4m3", "int8", "int4")

LITTLE: list[tuple[str, Callable, tuple]] = [
    ("norms tiny", norms, (5, 48, 3)),
    ("layer norms tiny", layer_norms, (5, 48)),
    ("gelus tiny", gelus, (5, 40, 48)),
    ("actions tiny", actions, (2, 5, 20, 48)),
    ("products tiny", products, (5, 40, 48)),
    ("products thin", products, (1, 130, 512)),
    ("products 37 rows", products, (37, 96, 1056)),
    *((f"{kind} tiny", few_bits, (5, 40, 64, kind)) for kind in KINDS),
    *((f"{kind} in parts", few_bits, (33, 130, 1024, kind)) for kind in KINDS),
    *((f"{kind} turned", few_bits_turned, (11, 40, 256, kind)) for kind in KINDS),
    ("e4m3 uneven", few_bits, (2, 40, 208, "e4m3")),
    ("int4 groups of 32", few_bits, (3, 40, 192, "int4", 32)),
    ("int4 groups of 64", few_bits, (3, 40, 256, "int4", 64)),
    *((f"{kind} own bits of two", few_bits_own, (2, 96, 1024, kind)) for kind in KINDS),
    *((f"{kind} many rows", many_rows, (300, 48, 64, kind)) for kind in KINDS),
    *((f"e4m3 norms {how[0]} x {how[1]}", norms_in_eight_bits, how) for how in ((5, 48, 1), (3, 1000, 3), (1, 4096, 2))),
    *((f"e4m3 swiglu {m} x {width}", swiglu_in_eight_bits, (m, width)) for m, width in ((5, 48), (3, 1000))),
    ("word table tiny", tables, (7, 40, 48)),
    ("rope_write prefill", ropes, (1, 11, TINY, 1)),
    ("rope_write decode", ropes, (3, 1, TINY, 3)),
    ("rope_write small", ropes, (2, 4, SMALL, 2)),
    ("attend decode", attends, (1, 3, 1, TINY, 70, 90)),
    ("attend decode 2 scenes", attends, (2, 2, 1, SMALL, 70, 96)),
    ("attend own", attends, (2, 2, 9, TINY, 130, 150)),
    ("attend own small", attends, (1, 3, 64, SMALL, 200, 256)),
    ("attend own 2 scenes", attends, (2, 2, 64, SMALL, 70, 96)),
    *((f"attend last {n}", attends_words, (TINY, n, 70, 90)) for n in (1, 9)),
    ("own bits", own_bits, (19, 40, 48)),
    ("own bits of two", own_bits, (2, 96, 512)),
    ("words", words, (1, 2, 5, TINY, 70)),
    ("words 2 scenes", words, (2, 2, 3, SMALL, 70)),
    ("vision_rope", vision_ropes, (2, 12, 2, 24)),
    ("pictures", pictures, (2, 100, 130, 32, 64)),
    ("pictures high", pictures, (1, 90, 64, 32, 64)),
    *((f"accepts {rows} x {count}", accepts, (rows, count)) for rows, count in ((1, 16), (5, 4), (40, 1))),
    ("draws few", draws, (12, 50, 1.0, 0.9, 2)),
    ("draws all", draws, (3, 5000, 0.6, 1.0, 1000)),
    ("draws ties", draws, (3, 9000, 1.5, 0.5, 1)),
    ("draws", draws, (3, 4096, 0.6, 0.98, 1000)),
    ("draws crowded blocks", crowded, (4, 2048)),
    ("draws crowded rows", crowded, (256, 8)),
    ("draws from nothing", draws_from_nothing, (0.6,)),
    ("draws cold", draws_from_nothing, (1e-38,)),
    ("draws far below zero", draws_far_below_zero, ()),
]
BIG: list[tuple[str, Callable, tuple]] = [
    ("norms 1 x 4096", norms, (1, 4096, 3)),
    ("norms 3006 x 4096", norms, (3006, 4096, 1)),
    ("norms 64 x 2048", norms, (64, 2048, 4)),
    ("actions 1024", actions, (16, 64, 20, 2048)),
    ("layer norms 11520 x 1152", layer_norms, (11520, 1152)),
    ("gelus 11520 x 4304 x 1152", gelus, (11520, 4304, 1152)),
    *((f"products {m} x {n} x {k}", products, (m, n, k)) for m in (1, 6, 16) for n, k in ((6144, 4096), (4096, 4096), (4096, 12288))),
    *((f"products 64 x {n} x {k}", products, (64, n, k)) for n, k in ((4096, 2048), (2048, 2048), (2048, 8256), (8256, 2048))),
    *((f"{c} {m} x {n} x {k}", few_bits, (m, n, k, c)) for c in KINDS for m in (1, 16, 64, 130) for n, k in ((6144, 4096), (2048, 8256))),
    *((f"{c} turned {m}", few_bits_turned, (m, 2048, k, c)) for c in KINDS for m, k in ((7, 4096), (48, 4096), (64, 8256), (130, 2048))),
    *((f"{c} own bits {m}", few_bits_own, (m, 2048, 4096, c)) for c in KINDS for m in (7, 17, 48, 128)),
    *((f"{c} many rows", many_rows, (2494, 4096, 12288, c)) for c in KINDS),
    *((f"e4m3 norms {how[0]} x {how[1]}", norms_in_eight_bits, how) for how in ((2494, 4096, 1), (384, 2048, 2), (1024, 2048, 1))),
    *((f"e4m3 swiglu {m} x {width}", swiglu_in_eight_bits, (m, width)) for m, width in ((1536, 12288), (1024, 8256))),
    ("word table", tables, (3006, 155_697, 4096)),
    ("rope_write 3006", ropes, (1, 3006, TEXT, 1)),
    ("rope_write decode 6", ropes, (6, 1, TEXT, 2)),
    ("rope_write flow 2 x 64", ropes, (2, 64, EXPERT, 2)),
    *((f"attend decode S={s}", attends, (1, s, 1, TEXT, 3006, 3008)) for s in (1, 6, 16)),
    *((f"attend last {n} of 3006", attends_words, (TEXT, n, 3006, 3072)) for n in (1, 40)),
    ("attend decode B=2 S=3", attends, (2, 3, 1, TEXT, 3006, 3008)),
    *((f"attend flow S={s}", attends, (1, s, 64, EXPERT, 3006, 3008)) for s in (1, 6, 16)),
    ("attend flow B=2 S=2", attends, (2, 2, 64, EXPERT, 3006, 3008)),
    *((f"own bits {m} x {n} x {k}", own_bits, (m, n, k)) for m in (7, 16, 17, 48, 128) for n, k in ((6144, 4096), (4096, 12288))),
    *((f"words S={s} x {per}", words, (1, s, per, TEXT, 3006)) for s, per in ((1, 16), (6, 10), (16, 4))),
    ("words B=2 S=3 x 5", words, (2, 3, 5, TEXT, 3006)),
    ("vision_rope 16 x 720", vision_ropes, (16, 720, 16, 72)),
    ("pictures 1080x1920", pictures, (2, 1080, 1920, 320, 576)),
    ("pictures 480x640", pictures, (2, 480, 640, 384, 512)),
    *((f"draws T={how[0]} p={how[1]}", draws, (64, 155_697, *how)) for how in ((0.6, 0.98, 1000), (1.5, 1.0, 3), (0.2, 0.5, 8))),
    ("draws crowded", crowded, (4, 2048)),
    ("draws from nothing", draws_from_nothing, (0.6,)),
    ("draws cold", draws_from_nothing, (1e-38,)),
]


def check(cases: list[tuple[str, Callable, tuple]], device: str, dtype: torch.dtype, seed: int = 0) -> list[tuple[str, float | str]]:
    """(name, largest error or the exception) of each case."""
    rows = []
    for i, (name, function, arguments) in enumerate(cases):
        try:
            errors = function(Case(device, dtype, seed + i), *arguments)
            worst = float("nan") if any(e != e for e in errors) else max(errors)
            rows.append((f"{name} {str(dtype)[6:]}", worst))
        except Exception as problem:
            rows.append((f"{name} {str(dtype)[6:]}", f"{type(problem).__name__}: {str(problem)[:160]}"))
    return rows


if __name__ == "__main__":
    where = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
    if where == "cuda" and not CUDA:
        sys.exit("error: kernels need a CUDA device, or TRITON_INTERPRET=1 and Triton")
    half = [case for case in LITTLE if case[0].startswith("draws")] if where == "cpu" else BIG
    for label, worst in check(LITTLE, where, torch.float32) + check(half, where, torch.bfloat16):
        print(f"{label:40s} {worst}")
