"""Reads and writes checkpoints in the released layout: config.json, sharded safetensors with an index, Qwen3-VL's files beside it.

Loading is streamed: the model is built without memory, then each shard is read by a thread of its own, every tensor straight into its
place (on a GPU through a pinned buffer of CHUNK bytes). No copy of the model is ever on the CPU, and no file is mapped into memory. Weights
of few bits are made so on the way, some rows at a time: neither host nor card ever holds one of them as the checkpoint has it.
"""

from __future__ import annotations

import json
import shutil
import struct
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from io import FileIO
from pathlib import Path
from threading import Lock
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from alpamayo_r1.core.config import DTYPES as DTYPE_NAMES
from alpamayo_r1.core.config import ModelConfig, local_vlm, own_json, read_config
from alpamayo_r1.core.files import write_text
from alpamayo_r1.core.gate.files import inside
from alpamayo_r1.core.packed import UNUSED, Layout, layouts, unpacked
from alpamayo_r1.core.precision import Precision, scheme_bytes, stored_precision
from alpamayo_r1.core.quantised import Quantised, QuantisedLinear, Scheme, quantise, stacked
from alpamayo_r1.core.vla import VLA, ActionSpace, Fourier
from alpamayo_r1.core.vocab import QwenVocabulary, load_vocabulary

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in DTYPE_NAMES}
SAFETENSORS_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F8_E4M3": torch.float8_e4m3fn,
    "I32": torch.int32,
    "I64": torch.int64,
}
"""The dtypes that tensors may be stored in; the last three by weights of few bits alone."""


CHUNK = 64 * 2**20
PIECE, READERS = 64 * 2**20, 16
"""Bytes of a large tensor that a thread reads, and threads, where a checkpoint is of few bits."""

CPU = torch.device("cpu")
HEADER = 64 * 2**20
"""Bytes of a safetensors header at most: the 10B's have 30 KB."""


class CheckpointError(ValueError):
    """A checkpoint that does not fit its config, with every offending tensor named."""


@dataclass(frozen=True)
class TensorInfo:
    """Where a stored tensor is (its first byte in the file) and what it looks like."""

    file: Path
    start: int
    shape: tuple[int, ...]
    dtype: torch.dtype


def weights_dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    """A dtype or its name, None for the config's. Raises ValueError for one that weights cannot be computed in."""
    name = str(dtype).removeprefix("torch.")
    if dtype is not None and name not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}, expected one of {', '.join(DTYPES)}, or auto")
    return DTYPES.get(name)


def build_meta(config: ModelConfig) -> VLA:
    """The model without memory: shapes and names only."""
    with torch.device("meta"):
        return VLA(config)


@dataclass(frozen=True)
class Home:
    """Where and as what weights are to be: words_on_host: the word table in pinned host memory; precision None: as they are stored."""

    dtype: torch.dtype
    device: torch.device
    precision: Precision | None = None
    words_on_host: bool = False

    def of(self, name: str) -> torch.device:
        """The device of a tensor."""
        return torch.device("cpu") if self.words_on_host and name == WORD_TABLE else self.device


_placing = Lock()

READS = ("vlm.model.",)
"""Beginnings of the names of weights that see and read: vision and language without its head."""

SPEAKS = ("vlm.model.language_model.", "vlm.lm_head.", "expert.", "action_")
"""The same of weights that speak and plan."""

WORD_TABLE = "vlm.model.language_model.embed_tokens.weight"


@lru_cache(maxsize=8)
def weight_shapes(config: ModelConfig) -> Mapping[str, tuple[int, ...]]:
    """Name -> shape of every weight. Remembered: what fits a card asks for each precision, and a model's names take a tenth of a second."""
    return MappingProxyType({name: tuple(parameter.shape) for name, parameter in build_meta(config).named_parameters()})


def weight_bytes(config: ModelConfig, precision: Precision, dtype: torch.dtype, words_on_host: bool = False) -> int:
    """Bytes of the weights on the card. words_on_host: the word table is not."""
    shapes = {name: shape for name, shape in weight_shapes(config).items() if not (words_on_host and name == WORD_TABLE)}
    schemes = precision.schemes(shapes)
    return sum(scheme_bytes(schemes.get(name), shape, dtype) for name, shape in shapes.items())


def load_model(
    folder: Path,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    precision: Precision | None = None,
    words_on_host: bool = False,
    parts: tuple[str, ...] = ("",),
) -> VLA:
    """The model of a checkpoint folder, in evaluation mode. dtype None: the config's. precision None: as stored. words_on_host: on a GPU.

    parts: beginnings of the names of weights that are wanted (READS, SPEAKS); the others stay without memory.

    Raises:
        ConfigError: a config this package cannot be. CheckpointError: missing, unexpected, misshapen or truncated tensors.
    """
    config = read_config(folder)
    model = build_meta(config)
    stored, few = apart(inspect(folder), model)
    check(model, stored)
    dtype = DTYPES[config.dtype] if dtype is None else dtype
    device = torch.device(device)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())  # of this thread: those that read have one of their own
    derived = derived_buffers(model)
    home = Home(dtype, device, precision, words_on_host)
    plain = {name: info for name, info in stored.items() if name not in few and name.startswith(parts)}
    if few:
        read_few_bits(model, plain, {name: one for name, one in few.items() if name.startswith(parts)}, home)
    else:
        read_tensors(model, plain, home)
    for name in derived - stored.keys():
        set_tensor(model, name, derived_value(config, name).to(device=device, dtype=dtype))
    if words_on_host:
        model.move_words_to_host()
    return model.eval().requires_grad_(False)


def load_checkpoint(
    folder: Path | str,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    vlm: Path | None = None,
    precision: Precision | None = None,
    words_on_host: bool = False,
    parts: tuple[str, ...] = ("",),
    **hub: Any,
) -> tuple[VLA, QwenVocabulary]:
    """Model and vocabulary of a checkpoint folder. precision, words_on_host, parts: as in `load_model`.

    vlm: where Qwen3-VL's tokenizer files are if they are not beside it; hub: how to fetch them (cache_dir, token, local_files_only).
    """
    folder = Path(folder)
    config = read_config(folder)
    vocabulary = load_vocabulary(vlm or tokenizer_folder(folder, config, **hub), config.tokens, config.family)
    return load_model(folder, dtype=dtype, device=device, precision=precision, words_on_host=words_on_host, parts=parts), vocabulary


def tokenizer_folder(folder: Path, config: ModelConfig, **hub: Any) -> Path:
    """Qwen3-VL's tokenizer files: beside the checkpoint, at a local path, or from the Hub (or its cache)."""
    found = local_vlm(config.vlm, folder)
    if found is not None:
        return found
    from alpamayo_r1.core.hub import fetch

    return fetch(config.vlm, patterns=("vocab.json", "merges.txt", "tokenizer_config.json", "tokenizer.json"), **hub)


def inspect(folder: Path) -> dict[str, TensorInfo]:
    """Every stored tensor by name, read from the shards' headers. Truncated or absent shards are an error here, before anything is used.

    The index is the truth: a tensor that two shards hold is read from the one that it names.

    Raises:
        CheckpointError: shards that are absent, damaged, or outside the folder.
    """
    where = weight_map(folder)
    if not where:
        return header_of(folder, SINGLE)
    headers = {name: header_of(folder, name) for name in sorted(set(where.values()))}
    return {tensor: info for file, header in headers.items() for tensor, info in header.items() if where.get(tensor, file) == file}


def shards(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint folder. Raises CheckpointError."""
    return sorted({info.file for info in inspect(folder).values()})


def weight_map(folder: Path) -> dict[str, str]:
    """Tensor -> file name, as the index of a checkpoint folder says; {} where it has none. Raises CheckpointError."""
    if not (folder / INDEX).is_file():
        return {}
    where = own_json(folder, INDEX).get("weight_map")
    if not isinstance(where, dict) or not where or not all(isinstance(file, str) for file in where.values()):
        raise CheckpointError(f"{folder / INDEX} has no weight_map of tensor and file names: the file is damaged; fetch it again")
    return where


def header_of(folder: Path, name: str) -> dict[str, TensorInfo]:
    """The tensors of one safetensors file of a checkpoint folder. Raises CheckpointError."""
    try:
        file = inside(folder, name)
    except ValueError as error:
        raise CheckpointError(f"{INDEX}: {error}") from None
    if not file.is_file():
        raise CheckpointError(f"{folder} lacks {name}: expected the shards of {INDEX}, or {SINGLE}; fetch them again")
    try:
        with safe_open(file, framework="pt"):  # refuses headers that do not cover the file
            return read_header(file)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} cannot be read ({error}): the file is truncated or damaged; fetch it again") from None


def read_header(file: Path) -> dict[str, TensorInfo]:
    """The tensors of one safetensors file: 8 bytes of length, a JSON header, then the data."""
    with file.open("rb") as stream:
        (size,) = struct.unpack("<Q", stream.read(8))
        if size > HEADER:
            raise CheckpointError(f"{file} has a header of {size:,} bytes, expected at most {HEADER:,}")
        header = json.loads(stream.read(size))
    header.pop("__metadata__", None)
    foreign = [f"{name} ({entry['dtype']})" for name, entry in header.items() if entry["dtype"] not in SAFETENSORS_DTYPES]
    if foreign:
        raise CheckpointError(f"{file} holds {', '.join(foreign)}: expected one of {', '.join(SAFETENSORS_DTYPES)}")
    return {
        name: TensorInfo(file, 8 + size + entry["data_offsets"][0], tuple(entry["shape"]), SAFETENSORS_DTYPES[entry["dtype"]])
        for name, entry in header.items()
    }


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


@dataclass(frozen=True)
class Few:
    """A weight that is stored in few bits: its layout, and its tensors by the last part of their names."""

    layout: Layout
    parts: Mapping[str, TensorInfo]


def apart(stored: Mapping[str, TensorInfo], model: VLA) -> tuple[dict[str, TensorInfo], dict[str, Few]]:
    """The stored tensors by the model's names, and those of few bits among them (whose shapes stand in the first too).

    Raises:
        CheckpointError: weights of few bits in a layout that we do not read; numbers that are whole where none are expected.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    try:
        found = layouts({name: (info.shape, info.dtype) for name, info in stored.items()}, wanted)
    except ValueError as error:
        raise CheckpointError(f"the checkpoint has weights of few bits that can't be read: {error}") from None
    few, used = {}, set()
    for name, layout in found.items():
        own = layout.names(stored)
        few[name] = Few(layout, {part.rpartition(".")[2]: stored[part] for part in own})
        used.update(own)
    plain = {name: info for name, info in stored.items() if name not in used and not (found and UNUSED.fullmatch(name))}
    foreign = {torch.int32: "I32", torch.int64: "I64", torch.float8_e4m3fn: "F8_E4M3"}
    whole = [f"{name} ({foreign[info.dtype]})" for name, info in plain.items() if info.dtype in foreign]
    if whole:
        raise CheckpointError(f"the checkpoint holds {', '.join(whole[:5])}, which belong to no weight of few bits: fetch its files again")
    codes = {name: one.parts[one.layout.codes.rpartition(".")[2]] for name, one in few.items()}
    return plain | {name: replace(info, shape=few[name].layout.shape) for name, info in codes.items()}, few


def precision_of(folder: Path) -> Precision | None:
    """What a checkpoint's weights are stored in; None where none is of few bits. Raises CheckpointError, ConfigError."""
    model = build_meta(read_config(folder))
    few = apart(inspect(folder), model)[1]
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    return stored_precision({name: one.layout.scheme for name, one in few.items()}, shapes) if few else None


def read_few_bits(model: VLA, plain: Mapping[str, TensorInfo], few: Mapping[str, Few], home: Home) -> None:
    """Every tensor of a checkpoint of few bits to its place in the model, READERS threads at once, the largest first.

    plain: those that are not of few bits; those of more than PIECE bytes are read by several threads.
    """
    local = threading.local()

    def buffer(where: torch.device) -> torch.Tensor | None:
        if where.type != "cuda":
            return None
        if not hasattr(local, "buffer"):
            local.buffer = torch.empty(PIECE // 4, dtype=torch.uint8, pin_memory=True)
        return local.buffer

    def piece(info: TensorInfo, target: torch.Tensor, start: int) -> None:
        with info.file.open("rb", buffering=0) as stream:
            read_bytes(stream, info.start + start, target[start : start + PIECE], buffer(target.device))

    def packed_one(name: str) -> None:
        parts = {
            part: read_stored(info, home.device, buffer(home.device)) for part, info in few[name].parts.items() if part != "weight_shape"
        }
        set_quantised(model, name, unpacked(few[name].layout, parts), home.dtype)

    whole = {name: torch.empty(info.shape, dtype=info.dtype, device=home.of(name)) for name, info in plain.items()}
    jobs: list[tuple[int, Callable[[], None]]] = []
    for name, info in plain.items():
        flat = whole[name].view(-1).view(torch.uint8)
        jobs += [(min(PIECE, len(flat) - start), partial(piece, info, flat, start)) for start in range(0, len(flat), PIECE)]
    jobs += [(one.layout.shape[0] * one.layout.shape[1], partial(packed_one, name)) for name, one in few.items()]
    with ThreadPoolExecutor(READERS) as pool:
        list(pool.map(lambda job: job[1](), sorted(jobs, key=lambda job: -job[0])))
    for name, tensor in whole.items():
        set_tensor(model, name, tensor.to(home.dtype))


def read_tensors(model: VLA, stored: Mapping[str, TensorInfo], home: Home) -> None:
    """Every stored tensor to its place in the model, one thread a shard."""
    files = sorted({info.file for info in stored.values()})
    with ThreadPoolExecutor(min(len(files), 8)) as pool:
        list(pool.map(lambda file: read_shard(model, file, stored, home), files))


def read_shard(model: VLA, file: Path, stored: Mapping[str, TensorInfo], home: Home) -> None:
    """The tensors of one file in the order of their bytes."""
    own = sorted(((info.start, name) for name, info in stored.items() if info.file == file))
    buffer = torch.empty(CHUNK, dtype=torch.uint8, pin_memory=True) if home.device.type == "cuda" else None
    with file.open("rb", buffering=0) as stream:
        for _, name in own:
            info, where = stored[name], home.of(name)
            scheme = home.precision.scheme(name, info.shape) if home.precision is not None else None
            if scheme is None:
                set_tensor(model, name, read_tensor(stream, info, where, buffer if where.type == "cuda" else None).to(home.dtype))
            else:
                set_quantised(model, name, read_quantised(stream, info, scheme, home, buffer), home.dtype)


def read_quantised(
    stream: FileIO,
    info: TensorInfo,
    scheme: Scheme,
    home: Home,
    buffer: torch.Tensor | None,
) -> Quantised:
    """One stored weight as one of few bits, some rows at a time."""
    count, width = info.shape
    at_once = max(1, CHUNK // (16 * width))  # each thread needs some fp32 copies of them
    parts = []
    for row in range(0, count, at_once):
        start = info.start + row * width * info.dtype.itemsize
        some = replace(info, start=start, shape=(min(at_once, count - row), width))
        # of what is stored, whatever it is computed in
        parts.append(quantise(read_tensor(stream, some, home.device, buffer), scheme))
    return stacked(parts)


def set_quantised(model: nn.Module, name: str, weight: Quantised, dtype: torch.dtype) -> None:
    """Puts a weight of few bits where the model's linear layer of that weight is; a bias stays."""
    path = name.removesuffix(".weight")
    owner, _, leaf = path.rpartition(".")
    with _placing:  # another thread may bring the bias
        bias = model.get_submodule(path)._parameters.get("bias")
        setattr(model.get_submodule(owner), leaf, QuantisedLinear(weight, dtype, bias))


def read_tensor(stream: FileIO, info: TensorInfo, device: torch.device, buffer: torch.Tensor | None = None) -> torch.Tensor:
    """One tensor in its stored dtype, in memory of its own (a mapped file would stay open); through `buffer` where one is given."""
    tensor = torch.empty(info.shape, dtype=info.dtype, device="cpu" if buffer is None else device)
    read_bytes(stream, info.start, tensor.view(-1).view(torch.uint8), buffer)
    return tensor.to(device)


def read_bytes(stream: FileIO, start: int, target: torch.Tensor, buffer: torch.Tensor | None) -> None:
    """Bytes of a file from `start` on into a u8 tensor; through `buffer`, on the CPU, where one is given."""
    stream.seek(start)
    for part in target.split(CHUNK if buffer is None else len(buffer)):
        window = part if buffer is None else buffer[: len(part)]
        fill(stream, window)
        if buffer is not None:
            part.copy_(window)


def fill(stream: FileIO, window: torch.Tensor) -> None:
    """Reads len(window) bytes into a u8 tensor on the CPU."""
    view = window.numpy().data
    while view:
        count = stream.readinto(view)
        if not count:
            raise CheckpointError(f"{stream.name} ends too early: it was cut while it was read; fetch it again")
        view = view[count:]


def set_tensor(model: nn.Module, name: str, tensor: torch.Tensor) -> None:
    """Puts a tensor where the model's parameter or buffer of that name is."""
    owner, _, leaf = name.rpartition(".")
    with _placing:
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

    Raises:
        CheckpointError: a model of few bits.
    """
    refuse_few_bits(model)
    folder.mkdir(parents=True, exist_ok=True)
    text = released if isinstance(released, str) else json.dumps(released, indent=2) + "\n"
    write_text(folder / "config.json", text)
    if vlm_files is not None:
        shutil.copytree(vlm_files, folder / json.loads(text)["vlm_name_or_path"], dirs_exist_ok=True)
    tensors = model.state_dict()
    weight_map = split(tensors, shard_bytes)
    write_shards(folder, tensors, weight_map)
    write_index(folder, tensors, weight_map, derived_buffers(model))


def refuse_few_bits(model: VLA) -> None:
    """Raises CheckpointError for a model whose weights are of few bits."""
    if any(isinstance(module, QuantisedLinear) for module in model.modules()):
        raise CheckpointError(
            "this model's weights are of few bits: `alpamayo-r1 quantize` writes them from the checkpoint that it came from"
        )


def split(tensors: Mapping[str, torch.Tensor], shard_bytes: int) -> dict[str, str]:
    """Tensor name -> file name model-0000k-of-0000n.safetensors, filled in the order given, a tensor never split."""
    groups: list[list[str]] = [[]]
    used = 0
    for name, tensor in tensors.items():
        if groups[-1] and used + tensor.nbytes > shard_bytes:
            groups.append([])
            used = 0
        groups[-1].append(name)
        used += tensor.nbytes
    return {name: f"model-{i:05d}-of-{len(groups):05d}.safetensors" for i, names in enumerate(groups, 1) for name in names}


def write_shards(folder: Path, tensors: Mapping[str, torch.Tensor], weight_map: Mapping[str, str]) -> None:
    """Tensors -> safetensors files as the map says; one file's tensors are on the CPU at a time."""
    for file in sorted(set(weight_map.values())):
        own = {name: tensors[name].detach().cpu().contiguous() for name, where in weight_map.items() if where == file}
        save_file(own, folder / file, metadata={"format": "pt"})


def write_index(folder: Path, tensors: Mapping[str, torch.Tensor], weight_map: Mapping[str, str], buffers: set[str]) -> None:
    """model.safetensors.index.json as transformers writes it: the size counts every tensor, the parameters do not count buffers."""
    total = {
        "total_parameters": sum(tensors[name].numel() for name in weight_map.keys() - buffers),
        "total_size": sum(tensors[name].nbytes for name in weight_map),
    }
    index = {"metadata": total, "weight_map": dict(sorted(weight_map.items()))}
    write_text(folder / INDEX, json.dumps(index, indent=2) + "\n")


def resave(source: Path, target: Path, model: VLA) -> None:
    """Writes a model as its source is laid out: same files, same names, byte for byte the same where no weight and no dtype has changed.

    config.json is the source's text (its dtype replaced where the model's is another), tensors keep their shards, constants (the action
    space's scalars, the Fourier frequencies) keep their stored dtype, and the Qwen3-VL folder comes along where it lies beside the source.

    Raises:
        CheckpointError: target is the source; a model of few bits.
    """
    refuse_few_bits(model)
    if target.resolve() == source.resolve():
        raise CheckpointError(f"{target} is the folder this model was loaded from: save into another one")
    target.mkdir(parents=True, exist_ok=True)
    stored = inspect(source)
    constants = {name: read_stored(stored[name]) for name in derived_buffers(model) & stored.keys()}
    tensors = {name: tensor for name, tensor in model.state_dict().items() if name in stored} | constants
    weight_map = {name: info.file.name for name, info in stored.items()}
    write_shards(target, tensors, weight_map)
    if (source / INDEX).is_file():
        same = all(tensors[name].dtype == info.dtype for name, info in stored.items())
        shutil.copyfile(source / INDEX, target / INDEX) if same else write_index(target, tensors, weight_map, derived_buffers(model))
    else:
        (target / INDEX).unlink(missing_ok=True)  # of what was saved there before: it would be read instead
    write_text(target / "config.json", config_text(source, model))
    beside = source / model.config.vlm
    if beside.is_dir() and source.resolve() in beside.resolve().parents:
        shutil.copytree(beside, target / model.config.vlm, dirs_exist_ok=True)


def read_stored(info: TensorInfo, device: torch.device = CPU, buffer: torch.Tensor | None = None) -> torch.Tensor:
    """One tensor as it is in its file."""
    with info.file.open("rb", buffering=0) as stream:
        return read_tensor(stream, info, device, buffer)


def config_text(source: Path, model: VLA) -> str:
    """The source's config.json, its dtype replaced where the model's is another."""
    text = (source / "config.json").read_text(encoding="utf-8")
    if model.dtype == DTYPES[model.config.dtype]:
        return text
    name = str(model.dtype).removeprefix("torch.")
    return json.dumps(json.loads(text) | {"dtype": name, "model_dtype": name}, indent=2) + "\n"
