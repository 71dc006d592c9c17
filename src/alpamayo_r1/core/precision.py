"""Precisions: which of the model's weights are stored in how many bits. docs/precision.md says what each costs.

    bf16   all weights as the checkpoint has them
    fp8    language model, head and expert e4m3
    w8     language model, head and expert int8
    w4     language model int4, head and expert int8
    tight  language model and expert int4, head and vision int8

Norms, biases, the word table and the action projections keep the model's dtype.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from alpamayo_r1.core.quantised import Kind, Scheme

PARTS: dict[str, re.Pattern[str]] = {
    "language": re.compile(r"vlm\.model\.language_model\.layers\.\d+\.(self_attn|mlp)\.\w+_proj\.weight"),
    "head": re.compile(r"vlm\.lm_head\.weight"),
    "expert": re.compile(r"expert\.layers\.\d+\.(self_attn|mlp)\.\w+_proj\.weight"),
    "vision": re.compile(
        r"vlm\.model\.visual\.(blocks\.\d+\.(attn\.(qkv|proj)|mlp\.linear_fc[12])|(merger|deepstack_merger_list\.\d+)\.linear_fc[12])\.weight"
    ),
}
"""The parts of the model whose products may be quantised, by the names of their weights."""


@dataclass(frozen=True)
class Precision:
    """What each part of the model is stored in; a part that is not named keeps the model's dtype. group: columns per scale at most.

    stored: instead, the scheme of every weight of few bits by its name, as a checkpoint has them.
    """

    name: str
    kinds: Mapping[str, Kind]
    group: Mapping[Kind, int]
    stored: Mapping[str, Scheme] | None = None

    def scheme(self, name: str, shape: tuple[int, ...]) -> Scheme | None:
        """The scheme of the weight of this name, None where it keeps the model's dtype."""
        if self.stored is not None:
            return self.stored.get(name)
        part = next((part for part in self.kinds if PARTS[part].fullmatch(name)), None)
        return None if part is None else Scheme.fitting(self.kinds[part], shape[1], self.group.get(self.kinds[part], 128))

    def schemes(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Scheme]:
        """The schemes of all quantised weights among these."""
        found = {name: self.scheme(name, shape) for name, shape in shapes.items()}
        return {name: scheme for name, scheme in found.items() if scheme is not None}


GROUP: dict[Kind, int] = {"int8": 128, "int4": 64}
PRECISIONS: dict[str, Precision] = {
    name: Precision(name, kinds, GROUP)
    for name, kinds in {
        "bf16": {},
        "fp8": {"language": "e4m3", "head": "e4m3", "expert": "e4m3"},
        "w8": {"language": "int8", "head": "int8", "expert": "int8"},
        "w4": {"language": "int4", "head": "int8", "expert": "int8"},
        "tight": {"language": "int4", "head": "int8", "expert": "int4", "vision": "int8"},
    }.items()
}
"""By name, from most bytes to least."""


NAMES = (*PRECISIONS, "auto")
"""What may be asked for."""


def precision_named(name: str) -> Precision:
    """The precision of a name. Raises ValueError for one that there is not."""
    if name not in PRECISIONS:
        raise ValueError(f"precision is {name!r}, expected one of {', '.join(PRECISIONS)}, or auto")
    return PRECISIONS[name]


def stored_precision(schemes: Mapping[str, Scheme], shapes: Mapping[str, tuple[int, ...]]) -> Precision:
    """What a checkpoint's weights are in: a precision of ours by its name, where it is one, else "as stored"."""
    name = next((name for name, one in PRECISIONS.items() if one.schemes(shapes) == dict(schemes)), "as stored")
    return Precision(name, PRECISIONS[name].kinds if name in PRECISIONS else {"stored": "int8"}, GROUP, schemes)


def scheme_bytes(scheme: Scheme | None, shape: tuple[int, ...], dtype: torch.dtype) -> int:
    """Bytes of a weight of this shape; scheme None: in a dtype."""
    numbers = torch.Size(shape).numel()
    if scheme is None:
        return numbers * dtype.itemsize
    if scheme.kind == "e4m3":
        return numbers + 4 * shape[0]
    groups = numbers // (scheme.group or shape[1])
    return numbers + 2 * groups if scheme.kind == "int8" else numbers // 2 + 3 * groups
