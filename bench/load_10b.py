"""How long the 10B takes to load, and how much memory: random weights in the released layout, written once, loaded straight to the device.

    python bench/load_10b.py                                  10B on the GPU, needs 23 GB of disk
    python bench/load_10b.py --size tiny --device cpu         a dry run
    python bench/load_10b.py --precision w8                   then the same checkpoint, written in few bits by `quantise_checkpoint`
    python bench/load_10b.py --folder DIR --keep              leaves the checkpoint there; a second run loads it again

The load and one plan run in a process of their own, so that their peaks are theirs. Memory is in GB (1e9 bytes), beyond what the process
had before it loaded (Python, PyTorch, the CUDA context). The last line is JSON.
"""

from __future__ import annotations

from _head import DEVICE

import argparse
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch

from alpamayo_r1.core.checkpoint import CHUNK, build_meta, derived_buffers, derived_value, load_model, split, write_index
from alpamayo_r1.core.config import KNOWN_VLMS, ModelConfig, read_config
from alpamayo_r1.core.precision import PRECISIONS
from alpamayo_r1.core.quantise import quantise_checkpoint
from alpamayo_r1.core.vocab import Vocabulary
from alpamayo_r1.planner import Planner
from alpamayo_r1.testing import StandIn, random_observation

RELEASED = {
    "model_type": "alpamayo_r1",
    "dtype": "bfloat16",
    "vlm_name_or_path": "vlm",
    "vocab_size": 155697,
    "traj_token_start_idx": 151669,
    "traj_vocab_size": 4000,
    "action_in_proj_cfg": {"hidden_size": 512, "num_enc_layers": 2},
    "expert_cfg": {"hidden_size": 2048, "num_attention_heads": 16, "head_dim": 128, "intermediate_size": 8256},
}
TINY = {
    **RELEASED,
    "vocab_size": 5028,
    "traj_token_start_idx": 1000,
    "min_pixels": 4096,
    "max_pixels": 8192,
    "action_in_proj_cfg": {"hidden_size": 32, "num_enc_layers": 2},
    "expert_cfg": {"hidden_size": 64, "num_attention_heads": 2, "head_dim": 128, "intermediate_size": 96},
}
QWEN = KNOWN_VLMS["Qwen/Qwen3-VL-8B-Instruct"]
TINY_QWEN = {
    "text_config": QWEN["text_config"]
    | {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2},
    "vision_config": QWEN["vision_config"]
    | {"hidden_size": 64, "intermediate_size": 96, "depth": 4, "num_heads": 4, "out_hidden_size": 64, "deepstack_visual_indexes": [0, 2]},
}
SIZES = {"10b": (RELEASED, QWEN, 5 * 10**9), "tiny": (TINY, TINY_QWEN, 10**6)}
"""Size -> released config, Qwen3-VL config, bytes a shard."""


def write_checkpoint(folder: Path, size: str, device: str) -> None:
    """Random weights in the released layout, every shard streamed by its own thread."""
    released, vlm, shard_bytes = SIZES[size]
    (folder / "vlm").mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(released, indent=2))
    (folder / "vlm" / "config.json").write_text(json.dumps(vlm, indent=2))
    config = read_config(folder)
    model = build_meta(config).to(torch.bfloat16)
    model.action_space.to(torch.float32)
    tensors, buffers = model.state_dict(), derived_buffers(model)
    weight_map = split(tensors, shard_bytes)
    files = sorted(set(weight_map.values()))
    with ThreadPoolExecutor(len(files)) as pool:
        list(pool.map(lambda file: write_shard(folder / file, own(tensors, weight_map, file), config, buffers, device), files))
    write_index(folder, tensors, weight_map, buffers)


def own(tensors: Mapping[str, torch.Tensor], weight_map: Mapping[str, str], file: str) -> dict[str, torch.Tensor]:
    """The tensors of one file."""
    return {name: tensor for name, tensor in tensors.items() if weight_map[name] == file}


def write_shard(file: Path, tensors: Mapping[str, torch.Tensor], config: ModelConfig, buffers: set[str], device: str) -> None:
    """A safetensors file, tensor by tensor: header, then data; never more than one tensor in memory."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        kind = {torch.bfloat16: "BF16", torch.float32: "F32"}[tensor.dtype]
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [end, end + tensor.nbytes]}
        end += tensor.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb", buffering=0) as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for name, tensor in tensors.items():
            value = derived_value(config, name).to(tensor.dtype) if name in buffers else random_weight(name, tensor, device)
            for part in value.reshape(-1).view(torch.uint8).split(CHUNK):
                view = part.cpu().numpy().data
                while view:
                    view = view[out.write(view) :]


def random_weight(name: str, like: torch.Tensor, device: str) -> torch.Tensor:
    """Norms one, biases zero, the rest N(0, 0.02^2)."""
    value = torch.empty(like.shape, dtype=like.dtype, device=device)
    if name.endswith("bias"):
        return value.zero_()
    return value.fill_(1) if value.ndim == 1 else value.normal_(std=0.02)


def measure(folder: Path, device: str, plan_tokens: int) -> dict[str, float]:
    """Loads the checkpoint's weights and plans once, as the facade does; seconds and GB."""
    cuda = device.startswith("cuda")
    torch.zeros(1, device=device)
    with peak_memory() as memory:
        start = time.perf_counter()
        model = load_model(folder, dtype=torch.bfloat16, device=device)
        if cuda:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    weights = sum(tensor.nbytes for tensor in model.state_dict().values())
    result = {"load_s": seconds, "weights_gb": weights / 1e9, "load_gb_per_s": weights / 1e9 / seconds} | memory
    if cuda:
        result["load_gpu_gb"] = torch.cuda.max_memory_allocated() / 1e9
    with peak_memory() as memory, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        done = Planner.of(model, cast(Vocabulary, StandIn(model.config)), fast=cuda).plan(
            random_observation(0), seed=0, max_tokens=plan_tokens
        )
    assert done.xyz.isfinite().all()
    result |= {"plan_ms": sum(done.timing.values())} | {f"plan_{name}": value for name, value in memory.items()}
    if cuda:
        free, total = torch.cuda.mem_get_info()
        result |= {"plan_gpu_gb": torch.cuda.max_memory_allocated() / 1e9, "device_used_gb": (total - free) / 1e9}
    return result


@contextmanager
def peak_memory(interval: float = 0.01):
    """Fills a dict with the peak of resident memory, and of its anonymous part, beyond the level at the start (GB)."""
    base, peak, stop = resident(), resident(), threading.Event()

    def watch() -> None:
        while not stop.wait(interval):
            for name, value in resident().items():
                peak[name] = max(peak[name], value)

    watcher = threading.Thread(target=watch)
    watcher.start()
    found: dict[str, float] = {}
    try:
        yield found
    finally:
        stop.set()
        watcher.join()
        found |= {f"cpu_{name}_gb": (peak[name] - base[name]) / 1e9 for name in base}


def resident() -> dict[str, int]:
    """Bytes of this process in memory: all of it (rss), and what is not backed by a file (anon)."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: 1024 * int(fields[field].split()[0]) for name, field in (("rss", "VmRSS"), ("anon", "RssAnon"))}


def evict(folder: Path) -> None:
    """Drops the shards from the page cache, so that the load reads the disk."""
    for file in folder.glob("*.safetensors"):
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="10b")
    parser.add_argument("--device", default=DEVICE)
    parser.add_argument("--folder", type=Path, help="where the checkpoint is written (default: a temporary folder)")
    parser.add_argument("--keep", action="store_true", help="leave the checkpoint in --folder")
    parser.add_argument("--cold", action="store_true", help="drop the files from the page cache before the load")
    parser.add_argument("--plan-tokens", type=int, default=256, help="most tokens of reasoning in the plan after the load")
    parser.add_argument("--precision", choices=[name for name in PRECISIONS if name != "bf16"], help="load it in few bits too")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.folder, arguments.device, arguments.plan_tokens)))
        return
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="alpamayo-load-"))
    try:
        result = bench(arguments, folder)
        if arguments.precision:
            result |= few_bits(arguments, folder, cast(float, result["load_s"]))
    finally:
        if not arguments.keep:
            shutil.rmtree(folder)
    for name, value in result.items():
        print(f"{name:>20}  {value}")
    print(json.dumps(result))


def few_bits(arguments: argparse.Namespace, source: Path, whole_s: float) -> dict[str, Any]:
    """Writes the checkpoint in few bits beside itself, and measures its loading: seconds, and their share of the whole one's."""
    with tempfile.TemporaryDirectory(prefix="alpamayo-few-", dir=source.parent) as folder:
        start = time.perf_counter()
        quantise_checkpoint(source, Path(folder), PRECISIONS[arguments.precision], device=torch.device(arguments.device))
        written = time.perf_counter() - start
        measured = loaded(arguments, Path(folder))
    name = arguments.precision
    kept = {f"{name}_{key}": value for key, value in measured.items()}
    return {f"{name}_quantise_s": round(written, 3)} | kept | {f"{name}_share": round(measured["load_s"] / whole_s, 3)}


def loaded(arguments: argparse.Namespace, folder: Path) -> dict[str, float]:
    """What `measure` finds in a process of its own."""
    if arguments.device.startswith("cuda"):
        torch.cuda.empty_cache()
    if arguments.cold:
        evict(folder)
    options = ["--folder", str(folder), "--device", arguments.device, "--plan-tokens", str(arguments.plan_tokens)]
    done = subprocess.run([sys.executable, __file__, "--measure", *options], check=True, stdout=subprocess.PIPE, text=True)
    return {name: round(value, 3) for name, value in json.loads(done.stdout.splitlines()[-1]).items()}


def bench(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Writes the checkpoint unless it is there, then measures in a process of its own."""
    start = time.perf_counter()
    if not (folder / "model.safetensors.index.json").is_file():
        write_checkpoint(folder, arguments.size, arguments.device)
    written = time.perf_counter() - start
    measured = loaded(arguments, folder)
    device = torch.cuda.get_device_name() if arguments.device.startswith("cuda") else "CPU"
    return {"bench": "load", "size": arguments.size, "device": device, "cold": arguments.cold, "write_s": round(written, 3)} | measured


if __name__ == "__main__":
    main()
