"""Reads and writes checkpoints in the released layout: config.json, sharded safetensors with an index, Qwen3-VL's files beside it.

Loading is streamed: the model is built without memory, then each tensor goes from its shard straight to its place on the device. Peak
memory is the model plus one tensor.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from alpamayo_r1.config import ModelConfig, local_vlm, read_config
from alpamayo_r1.vla import VLA, ActionSpace, Fourier
from alpamayo_r1.vocab import Vocabulary, load_vocabulary

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SAFETENSORS_DTYPES = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


class CheckpointError(ValueError):
    """A checkpoint that does not fit its config, with every offending tensor named."""


@dataclass(frozen=True)
class TensorInfo:
    """Where a stored tensor is and what it looks like."""

    file: Path
    shape: tuple[int, ...]
    dtype: torch.dtype


def build_meta(config: ModelConfig) -> VLA:
    """The model without memory: shapes and names only."""
    with torch.device("meta"):
        return VLA(config)


def load_model(folder: Path, *, dtype: torch.dtype | None = None, device: torch.device | str = "cpu") -> VLA:
    """The model of a checkpoint folder, in evaluation mode. dtype None: the config's.

    Raises:
        ConfigError: a config this package cannot be. CheckpointError: missing, unexpected, misshapen or truncated tensors.
    """
    config = read_config(folder)
    stored = inspect(folder)
    model = build_meta(config)
    check(model, stored)
    dtype = dtype or DTYPES[config.dtype]
    for name, tensor in read_tensors(stored):
        place(model, name, tensor.to(device=device, dtype=dtype, copy=True))
    for name in derived_buffers(model) - stored.keys():
        place(model, name, derived_value(config, name).to(device=device, dtype=dtype))
    return model.eval().requires_grad_(False)


def load_checkpoint(
    folder: Path | str, *, dtype: torch.dtype | None = None, device: torch.device | str = "cpu", vlm: Path | None = None
) -> tuple[VLA, Vocabulary]:
    """Model and vocabulary of a checkpoint folder; `vlm` says where Qwen3-VL's tokenizer files are if they are not beside it."""
    folder = Path(folder)
    config = read_config(folder)
    vocabulary = load_vocabulary(vlm or tokenizer_folder(folder, config), config.tokens)
    return load_model(folder, dtype=dtype, device=device), vocabulary


def tokenizer_folder(folder: Path, config: ModelConfig) -> Path:
    """Qwen3-VL's tokenizer files: beside the checkpoint, at a local path, or from the Hub (or its cache)."""
    found = local_vlm(config.vlm, folder)
    if found is not None:
        return found
    from alpamayo_r1.hub import fetch

    return fetch(config.vlm, patterns=("vocab.json", "merges.txt", "tokenizer_config.json", "tokenizer.json"))


def inspect(folder: Path) -> dict[str, TensorInfo]:
    """Every stored tensor by name, read from the shards' headers. Truncated or absent shards are an error here, before anything is used."""
    stored = {}
    for file in shards(folder):
        try:
            with safe_open(file, framework="pt") as shard:
                for name in shard.keys():  # noqa: SIM118 (not a dict)
                    view = shard.get_slice(name)
                    stored[name] = TensorInfo(file, tuple(view.get_shape()), SAFETENSORS_DTYPES[view.get_dtype()])
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{file} cannot be read ({error}): the file is truncated or damaged; fetch it again") from None
    return stored


def shards(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint folder, from its index where there is one."""
    if (folder / INDEX).is_file():
        names = sorted(set(json.loads((folder / INDEX).read_text())["weight_map"].values()))
    else:
        names = [SINGLE]
    absent = [name for name in names if not (folder / name).is_file()]
    if absent:
        raise CheckpointError(f"{folder} lacks {', '.join(absent)}: expected the shards of {INDEX}, or {SINGLE}; fetch them again")
    return [folder / name for name in names]


def check(model: VLA, stored: Mapping[str, TensorInfo]) -> None:
    """Raises CheckpointError naming every missing, unexpected and misshapen tensor."""
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    problems = {
        "missing": sorted(wanted.keys() - stored.keys() - derived_buffers(model)),
        "unexpected": sorted(stored.keys() - wanted.keys()),
        "misshapen": [
            f"{name} (stored {stored[name].shape}, expected {wanted[name]})"
            for name in sorted(wanted.keys() & stored.keys())
            if stored[name].shape != wanted[name]
        ],
    }
    said = [f"{len(names)} {what}: {', '.join(names[:20])}{' ...' if len(names) > 20 else ''}" for what, names in problems.items() if names]
    if said:
        raise CheckpointError("the checkpoint does not fit its config. " + "; ".join(said))


def derived_buffers(model: VLA) -> set[str]:
    """Buffers that follow from the config: Alpamayo 1.5 does not store them."""
    return {name for name, _ in model.named_buffers()}


def derived_value(config: ModelConfig, name: str) -> torch.Tensor:
    """A buffer's value as the config gives it."""
    if name.startswith("action_space."):
        return ActionSpace(config.action).get_buffer(name.removeprefix("action_space."))
    return Fourier(config.projection.features, config.projection.max_frequency).freqs


def read_tensors(stored: Mapping[str, TensorInfo]) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and tensor, one at a time, shard by shard. They lie where the file put them: copy them, matrix products want aligned memory."""
    for file in sorted({info.file for info in stored.values()}):
        with safe_open(file, framework="pt") as shard:
            for name in shard.keys():  # noqa: SIM118 (not a dict)
                yield name, shard.get_tensor(name)


def place(model: nn.Module, name: str, tensor: torch.Tensor) -> None:
    """Puts a tensor where the model's parameter or buffer of that name is."""
    owner, _, leaf = name.rpartition(".")
    module = model.get_submodule(owner)
    if leaf in module._parameters:
        module._parameters[leaf] = nn.Parameter(tensor, requires_grad=False)
    else:
        module._buffers[leaf] = tensor


def save_checkpoint(
    folder: Path, model: VLA, released: Mapping[str, object] | str, *, shard_bytes: int = 5 * 10**9, vlm_files: Path | None = None
) -> None:
    """Writes a checkpoint in the released layout: config.json (verbatim where it is text), shards of at most `shard_bytes`, the index.

    vlm_files: a folder with Qwen3-VL's config and tokenizer files, copied to where the config's `vlm_name_or_path` points beside it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = released if isinstance(released, str) else json.dumps(released, indent=2) + "\n"
    (folder / "config.json").write_text(text)
    if vlm_files is not None:
        shutil.copytree(vlm_files, folder / json.loads(text)["vlm_name_or_path"], dirs_exist_ok=True)
    write_shards(folder, model.state_dict(), shard_bytes)


def write_shards(folder: Path, tensors: Mapping[str, torch.Tensor], shard_bytes: int) -> None:
    """Tensors -> model-0000k-of-0000n.safetensors and the index, in the order given, a tensor never split."""
    groups: list[list[str]] = [[]]
    used = 0
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        if groups[-1] and used + size > shard_bytes:
            groups.append([])
            used = 0
        groups[-1].append(name)
        used += size
    weight_map = {}
    for i, names in enumerate(groups, 1):
        file = f"model-{i:05d}-of-{len(groups):05d}.safetensors"
        save_file({name: tensors[name].detach().cpu().contiguous() for name in names}, folder / file, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(names, file))
    total = {
        "total_parameters": sum(t.numel() for t in tensors.values()),
        "total_size": sum(t.numel() * t.element_size() for t in tensors.values()),
    }
    (folder / INDEX).write_text(json.dumps({"metadata": total, "weight_map": dict(sorted(weight_map.items()))}, indent=2) + "\n")
