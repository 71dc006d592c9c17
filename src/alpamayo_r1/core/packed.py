"""Weights of few bits as files hold them: compressed-tensors' layout, which we read and write, and ModelOpt's FP8, which we read.

    pack-quantized    X.weight_packed i32 [N, K bits / 32], X.weight_scale [N, groups], X.weight_shape, X.weight_zero_point (packed by rows)
    float-quantized   X.weight e4m3 [N, K], X.weight_scale [N, 1] or one number

Packed integers are offset by half of their range, the first in the lowest bits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from alpamayo_r1.core.quantised import GROUPS, Quantised, Scheme, pack_halves, unpack_halves

PARTS = ("weight_packed", "weight_scale", "weight_shape", "weight_zero_point")
UNUSED = re.compile(r".*\.(input_scale|output_scale|k_scale|v_scale|weight_g_idx)")
"""Scales of activations and keys: ours are found for each row when it is there."""


@dataclass(frozen=True)
class Layout:
    """A stored weight of few bits: its module, what it is, and whether its integers are packed."""

    module: str
    shape: tuple[int, int]
    scheme: Scheme
    packed: bool

    @property
    def codes(self) -> str:
        """The name of the tensor that holds its codes."""
        return f"{self.module}.{'weight_packed' if self.packed else 'weight'}"

    def names(self, stored: Iterable[str]) -> list[str]:
        """The tensors of this weight among those that are stored."""
        own = {f"{self.module}.{part}" for part in PARTS} | {self.codes}
        return [name for name in stored if name in own]


Shapes = Mapping[str, tuple[tuple[int, ...], torch.dtype]]
"""Shape and dtype of stored tensors by name."""


def layouts(stored: Shapes, wanted: Mapping[str, tuple[int, ...]]) -> dict[str, Layout]:
    """The weights of few bits among stored tensors, by the names that the weights have in the model. wanted: shapes of the model's tensors.

    Raises:
        ValueError: a layout that is none of those above.
    """
    found = {}
    for name, (shape, dtype) in stored.items():
        module, _, leaf = name.rpartition(".")
        weight = f"{module}.weight"
        if (leaf == "weight_packed" or dtype == torch.float8_e4m3fn) and len(wanted.get(weight, ())) != 2:
            raise ValueError(f"{name} is of few bits, but the model has no matrix {weight}")
        if leaf == "weight_packed":
            found[weight] = packed_layout(module, stored, (wanted[weight][0], wanted[weight][1]))
        elif dtype == torch.float8_e4m3fn:
            scale = stored.get(f"{module}.weight_scale")
            if leaf != "weight" or scale is None or torch.Size(scale[0]).numel() not in (1, shape[0]):
                raise ValueError(f"{name} is fp8, expected a weight with one scale, or one per row, in {module}.weight_scale")
            found[weight] = Layout(module, (shape[0], shape[1]), Scheme("e4m3"), packed=False)
    return found


def packed_layout(module: str, stored: Shapes, shape: tuple[int, int]) -> Layout:
    """The layout of packed integers of a weight [N, K], from the shapes of its tensors."""
    (rows, words), _ = stored[f"{module}.weight_packed"]
    scale = stored.get(f"{module}.weight_scale")
    if scale is None or rows != shape[0] or scale[0][0] != rows:
        raise ValueError(f"{module}.weight_packed has {rows} rows and needs as many scales, the model's weight has {shape[0]} rows")
    kind = {-(-shape[1] // 4): "int8", -(-shape[1] // 8): "int4"}.get(words)
    size = shape[1] // scale[0][1]
    group = next((g for g in GROUPS if size % g == 0), None)
    zeros = f"{module}.weight_zero_point" in stored
    if kind is None or group is None or size * scale[0][1] != shape[1] or (kind == "int8" and zeros) or (kind == "int4" and group < 32):
        raise ValueError(
            f"{module}.weight_packed has {words} words per row of {shape[1]} numbers and {scale[0][1]} scales"
            f"{' and zero points' * zeros}: expected int8 without zero points, or int4, in groups of a multiple of 16 (int4: 32)"
        )
    return Layout(module, shape, Scheme("int8" if kind == "int8" else "int4", group), packed=True)


def unpacked(layout: Layout, parts: Mapping[str, torch.Tensor]) -> Quantised:
    """A weight from its stored tensors, by the last part of their names."""
    (rows, columns), scheme = layout.shape, layout.scheme
    if scheme.kind == "e4m3":
        return Quantised(scheme, parts["weight"], parts["weight_scale"].float().reshape(1, -1).expand(1, rows).contiguous())
    assert scheme.group is not None
    repeat = columns // scheme.group // parts["weight_scale"].shape[1]
    scale = parts["weight_scale"].to(torch.bfloat16).T.repeat_interleave(repeat, 0).contiguous()
    as_bytes = parts["weight_packed"].contiguous().view(torch.uint8)
    if scheme.kind == "int8":
        return Quantised(scheme, (as_bytes[:, :columns] ^ 128).contiguous().view(torch.int8), scale)
    codes = pack_halves(nibbles(as_bytes)[:, :columns], scheme.block(columns))
    if "weight_zero_point" not in parts:
        return Quantised(scheme, codes, scale, torch.full_like(scale, 8, dtype=torch.uint8))
    zero = nibbles(parts["weight_zero_point"].T.contiguous().view(torch.uint8))[:, :rows]
    return Quantised(scheme, codes, scale, zero.repeat_interleave(repeat, 0).contiguous())


def packed(weight: Quantised) -> dict[str, torch.Tensor]:
    """The tensors that a weight is stored as, by the last part of their names: what `unpacked` reads."""
    rows, columns = weight.shape
    scale = weight.scale.T.to(torch.bfloat16).contiguous()
    if weight.scheme.kind == "e4m3":
        return {"weight": weight.codes, "weight_scale": scale}
    found = {"weight_scale": scale, "weight_shape": torch.tensor([rows, columns])}
    if weight.scheme.kind == "int8":
        return found | {"weight_packed": words(weight.codes.view(torch.uint8) ^ 128)}
    assert weight.zero is not None
    codes = unpack_halves(weight.codes, weight.scheme.block(columns))
    return found | {"weight_packed": words(bytes_of(codes)), "weight_zero_point": words(bytes_of(weight.zero)).T.contiguous()}


def nibbles(as_bytes: torch.Tensor) -> torch.Tensor:
    """Bytes [N, n] -> their two halves one after the other, the low one first: [N, 2 n]."""
    return torch.stack([as_bytes & 15, as_bytes >> 4], -1).flatten(1)


def bytes_of(halves: torch.Tensor) -> torch.Tensor:
    """What `nibbles` took apart; one more 8 (nothing, once its offset is taken away) where they are odd in number."""
    even = torch.nn.functional.pad(halves, (0, halves.shape[1] % 2), value=8)
    return even[:, ::2] | even[:, 1::2] << 4


def words(as_bytes: torch.Tensor) -> torch.Tensor:
    """Bytes u8 [N, n] as i32 words, zeros behind the last."""
    whole = torch.nn.functional.pad(as_bytes, (0, -as_bytes.shape[1] % 4))
    return whole.flatten().view(torch.int32).view(len(whole), -1)


# --------------------------------------------------------------------------------------------------------------------------- the config


def quantization_config(schemes: Mapping[str, Scheme], others: Iterable[str]) -> dict[str, Any]:
    """What config.json says of weights of few bits, by their names; others: names of matrices that are not."""
    groups: dict[Scheme, list[str]] = {}
    for name, scheme in schemes.items():
        groups.setdefault(scheme, []).append(name)
    kind = "float-quantized" if any(scheme.kind == "e4m3" for scheme in groups) else "pack-quantized"
    return {
        "quant_method": "compressed-tensors",
        "format": kind,
        "quantization_status": "compressed",
        "config_groups": {
            f"group_{i}": {"format": kind, "targets": patterns(names), **arguments(scheme)}
            for i, (scheme, names) in enumerate(groups.items())
        },
        "ignore": patterns(others),
    }


def arguments(scheme: Scheme) -> dict[str, Any]:
    """A scheme in compressed-tensors' words; activations as they are, of e4m3 in 8 bits with a scale per token."""
    if scheme.kind == "e4m3":
        eight = {"num_bits": 8, "type": "float", "symmetric": True}
        return {"weights": eight | {"strategy": "channel"}, "input_activations": eight | {"strategy": "token", "dynamic": True}}
    bits = {"num_bits": 8 if scheme.kind == "int8" else 4, "type": "int", "symmetric": scheme.kind == "int8"}
    return {"weights": bits | {"strategy": "group", "group_size": scheme.group}, "input_activations": None}


def patterns(names: Iterable[str]) -> list[str]:
    """Names of weights as patterns of their modules, one for all layers."""
    return sorted({"re:^" + re.sub(r"\\\.\d+", r"\\.\\d+", re.escape(name.removesuffix(".weight"))) + "$" for name in names})
