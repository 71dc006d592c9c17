"""Rotary positions: queries and keys normalised and rotated, keys and values put where they are kept."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from alpamayo_r1.core.transformer import KV
from alpamayo_r1.engine.ops.launch import kernels, launch, on_gpu, power
from alpamayo_r1.engine.ops.norms import rms_norm, summed


@dataclass(frozen=True)
class Heads:
    """The heads of one stack: queries, keys and values, width, and the norms' epsilon."""

    queries: int
    keys: int
    width: int
    eps: float

    @property
    def group(self) -> int:
        """Query heads that share one key head."""
        return self.queries // self.keys


def rope_write(
    qkv: torch.Tensor,
    norms: tuple[torch.Tensor, torch.Tensor],
    rope: tuple[torch.Tensor, torch.Tensor],
    at: torch.Tensor,
    cache: KV,
    slot: torch.Tensor,
    heads: Heads,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Normalises and rotates queries and keys, writes keys and values into a cache, returns the queries [M, Hq, d], in `out` if given.

    qkv [P, M, (Hq + 2 Hkv) d] in parts. norms: q and k weights [d]. rope: cos and sin [positions, d], row `at[m]` for token m.
    cache: two views [groups, Hkv, capacity, d]. slot i64[groups]: the j-th token of a group, in order, goes to slot + j.
    """
    m = qkv.shape[1]
    keys, values = cache
    groups = len(keys)
    if on_gpu(qkv):
        q = torch.empty(m, heads.queries, heads.width, device=qkv.device, dtype=keys.dtype) if out is None else out
        launch(
            kernels("rotation").rope_write_kernel,
            (m, heads.keys),
            *(qkv, *norms, *rope, at, q, keys, values, slot, slot.stride(0), m, m // groups, keys.stride(1), heads.eps),
            HQ=heads.queries,
            HKV=heads.keys,
            G=heads.group,
            GP=power(heads.group),
            HALF=heads.width // 2,
            PARTS=len(qkv),
            warps=1,
        )
        return q
    qkv = summed(qkv).to(keys.dtype).view(m, -1, heads.width)
    both, v = qkv.split([heads.queries + heads.keys, heads.keys], 1)
    weights = torch.cat([norm.expand(count, -1) for norm, count in zip(norms, (heads.queries, heads.keys), strict=True)])
    cos, sin = (table.index_select(0, at).float()[:, None] for table in rope)
    q, k = _rotate(rms_norm(both, weights, heads.eps).float(), cos, sin).to(keys.dtype).split([heads.queries, heads.keys], 1)
    for group, start in enumerate(slot.tolist()):
        own = slice(group * m // groups, (group + 1) * m // groups)
        for cached, new in zip(cache, (k[own], v[own]), strict=True):
            cached[group, :, start : start + len(new)] = new.transpose(0, 1)
    return q if out is None else out.copy_(q)


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    (a, b), half = x.chunk(2, -1), x.shape[-1] // 2
    out = x * cos
    out[..., :half].addcmul_(b, sin[..., :half], value=-1)
    out[..., half:].addcmul_(a, sin[..., half:])
    return out


def vision_rope(qkv: torch.Tensor, rope: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Rotates queries and keys of qkv [N, places, 3, heads, d] in place by fp32 tables [places, d]; returns qkv."""
    n, places, _, heads, d = qkv.shape
    if not on_gpu(qkv):
        turned = _rotate(qkv[:, :, :2].float(), *(table[:, None, None] for table in rope))
        qkv[:, :, :2] = turned.to(qkv.dtype)
        return qkv
    kernels("rotation").vision_rope_kernel[(n * places,)](
        qkv, *rope, places, HEADS=heads, ROWS=power(2 * heads), HALF=d // 2, WIDE=power(d // 2), num_warps=4
    )
    return qkv
