"""Writes a checkpoint's weights in few bits: compressed-tensors' layout under the release's names, shard by shard, so in little memory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

from alpamayo_r1.core.checkpoint import (
    CHUNK,
    CPU,
    DTYPES,
    INDEX,
    CheckpointError,
    Home,
    TensorInfo,
    apart,
    build_meta,
    check,
    inspect,
    read_quantised,
    read_stored,
    write_index,
)
from alpamayo_r1.core.config import read_config
from alpamayo_r1.core.files import write_text
from alpamayo_r1.core.packed import packed, quantization_config
from alpamayo_r1.core.precision import Precision, scheme_bytes
from alpamayo_r1.core.quantised import Quantised, Scheme

SHARD_BYTES = 10**9
"""Bytes of a file, and so of memory: one tensor may be larger."""


def quantise_checkpoint(
    source: Path,
    target: Path,
    precision: Precision,
    *,
    device: torch.device = CPU,
    made: Mapping[str, Quantised] | None = None,
    advance: Callable = lambda: None,
) -> dict[str, Scheme]:
    """Writes a checkpoint with its weights in a precision, and returns what became of few bits.

    made: weights by name that are written as they are, see `calibrated`. advance: called after each tensor.

    Raises:
        CheckpointError: the source is damaged, or of few bits already; the target is the source, or holds files.
    """
    config = read_config(source)
    model = build_meta(config)
    stored, few = apart(inspect(source), model)
    check(model, stored)
    if few:
        raise CheckpointError(f"{source} is of few bits already: quantise the checkpoint that it was made from")
    if target.resolve() == source.resolve() or (target.is_dir() and any(target.iterdir())):
        raise CheckpointError(f"{target} is not empty: write into another folder")
    target.mkdir(parents=True, exist_ok=True)
    shapes = {name: info.shape for name, info in stored.items()}
    schemes = precision.schemes(shapes)
    home = Home(DTYPES[config.dtype], device)
    groups = list(grouped(stored, schemes))
    where: dict[str, str] = {}
    sizes: dict[str, torch.Tensor] = {}
    for i, names in enumerate(groups, 1):
        file = f"model-{i:05d}-of-{len(groups):05d}.safetensors"
        tensors: dict[str, torch.Tensor] = {}
        for name in names:
            tensors |= of_one(name, stored[name], schemes.get(name), home, (made or {}).get(name))
            advance()
        save_file(tensors, target / file, metadata={"format": "pt"})
        where |= dict.fromkeys(tensors, file)
        sizes |= {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}
    write_index(target, sizes, where, set())
    described = json.loads((source / "config.json").read_text(encoding="utf-8"))
    others = [name for name, shape in shapes.items() if len(shape) == 2 and name.endswith(".weight") and name not in schemes]
    described["quantization_config"] = quantization_config(schemes, others)
    copy_others(source, target)
    write_text(target / "config.json", json.dumps(described, indent=2) + "\n")
    return schemes


def grouped(stored: Mapping[str, TensorInfo], schemes: Mapping[str, Scheme]) -> Iterator[list[str]]:
    """Names in the order of their bytes in the files, in groups of at most SHARD_BYTES."""
    group: list[str] = []
    used = 0
    for name, info in sorted(stored.items(), key=lambda one: (one[1].file, one[1].start)):
        size = scheme_bytes(schemes.get(name), info.shape, info.dtype)
        if group and used + size > SHARD_BYTES:
            yield group
            group, used = [], 0
        group.append(name)
        used += size
    yield group


def of_one(name: str, info: TensorInfo, scheme: Scheme | None, home: Home, made: Quantised | None) -> dict[str, torch.Tensor]:
    """What is stored of one tensor, by name; made: it in few bits, where it is already."""
    if scheme is None:
        return {name: read_stored(info)}
    if made is None:
        with info.file.open("rb", buffering=0) as stream:
            buffer = None if home.device.type == "cpu" else torch.empty(CHUNK, dtype=torch.uint8, pin_memory=True)
            made = read_quantised(stream, info, scheme, home, buffer)
    module = name.removesuffix(".weight")
    return {f"{module}.{part}": tensor.cpu().contiguous() for part, tensor in packed(made).items()}


def copy_others(source: Path, target: Path) -> None:
    """Copies what lies beside the weights: tokenizer and Qwen3-VL's files, licences."""
    for path in source.iterdir():
        if path.is_dir():
            shutil.copytree(path, target / path.name, dirs_exist_ok=True)
        elif path.suffix != ".safetensors" and path.name not in (INDEX, "config.json"):
            shutil.copyfile(path, target / path.name)
