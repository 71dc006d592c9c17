"""What `doctor` finds: one Finding per thing looked at. Nothing here asks the network unless told to."""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch

from alpamayo_r1 import __version__
from alpamayo_r1.bench import free_memory
from alpamayo_r1.core.card import CONTEXT_BYTES, card_bytes, free_bytes, limit
from alpamayo_r1.core.hub import SMALL, HubError, checkpoint_folder
from alpamayo_r1.core.options import PlanOptions
from alpamayo_r1.core.types import Plan, Sample
from alpamayo_r1.data.clips import T0_US
from alpamayo_r1.data.errors import DataError
from alpamayo_r1.data.origin import NVIDIA
from alpamayo_r1.data.source import Source, open_source
from alpamayo_r1.planner import load, pick_devices
from alpamayo_r1.testing import size_config

RELEASED = "nvidia/Alpamayo-R1-10B"
SMOKE_CLIP = "030c760c-ae38-49aa-9ad8-f5650a545d26"
SMOKE_WORDS = "Nudge to the left to increase clearance from the construction cones encroaching into the lane"
"""The sentence that NVIDIA published for the smoke clip at 5.1 s."""

CARDS_GIB = (8, 12, 16, 24, 32, 40, 48, 80, 141)
"""Memory of common cards."""

TOLERANCE_M = 1e-3
"""How far a waypoint of the recorded plan may be off."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: what, how it is, what was seen, and what to do about it (empty: nothing)."""

    what: str
    state: Literal["ok", "attention", "broken"]
    seen: str
    do: str = ""


@dataclass(frozen=True)
class Asked:
    """What the doctor was asked to look at; precision and memory as in `load`."""

    checkpoint: str = "small"
    data: str = "sample"
    device: str = "auto"
    online: bool = False
    precision: str | None = None
    memory: float | None = None


def all_findings(asked: Asked) -> Iterator[Finding]:
    """Every finding, the cheap ones first. A check that fails with an error is a finding too."""
    if asked.memory is not None:
        for device in pick_devices(asked.device):
            if device.type == "cuda":
                limit(device, asked.memory)
        yield Finding(f"a card of {asked.memory:g} GiB", "ok", room(asked.memory * 2**30 - CONTEXT_BYTES))
    yield from (python(), torch_build(), video())
    yield from gpus()
    yield from memory()
    yield from disk_and_cache()
    yield login()
    if asked.online:
        yield from licences()
    yield attempted("bundled plan", bundled_plan)
    default = (asked.checkpoint, asked.data, asked.precision) == ("small", "sample", None)
    if not default or pick_devices(asked.device)[0].type == "cuda":
        yield attempted("plan", lambda: asked_plan(asked))


def attempted(what: str, look: Callable[[], Finding]) -> Finding:
    """The finding, or the error that came instead of it."""
    try:
        return look()
    except (DataError, HubError) as error:
        return Finding(what, "broken", str(error))
    except Exception as error:  # whatever fails is what the doctor was called for
        return Finding(what, "broken", f"{type(error).__name__}: {error}", "report it with this output if the lines above are well")


def python() -> Finding:
    """The interpreter and this package."""
    seen = f"{platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} CPUs, alpamayo-r1 {__version__}"
    return Finding("Python", "ok", seen)


def torch_build() -> Finding:
    """torch: version, what it was built for, CPU threads."""
    built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU only"
    seen = f"{torch.__version__} ({built}), {torch.get_num_threads()} CPU threads"
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if version < (2, 11):
        return Finding("torch", "broken", seen, "pip install 'torch>=2.11'")
    if torch.version.cuda and not torch.cuda.is_available():
        return Finding("torch", "attention", f"{seen}; no CUDA device is reachable", "check `nvidia-smi`, or use --device cpu")
    return Finding("torch", "ok", seen)


def video() -> Finding:
    """Whether videos can be read and films written."""
    import av

    try:
        av.Codec("h264", "r")
    except ValueError:
        return Finding("video", "broken", f"av {av.__version__} can't decode H.264", "pip install --force-reinstall av")
    try:
        av.Codec("libx264", "w")
    except ValueError:
        return Finding("video", "attention", f"av {av.__version__} can't encode H.264", "film and world need it: pip install av from PyPI")
    return Finding("video", "ok", f"av {av.__version__} reads and writes H.264")


def gpus() -> Iterator[Finding]:
    """Each card, what of the 10B fits it, and the compiler of the engine's kernels."""
    for index in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(index)
        free, total = free_bytes(torch.device("cuda", index)), card_bytes(torch.device("cuda", index))
        seen = f"{card.name}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free"
        if card.major < 8:
            yield Finding(f"cuda:{index}", "attention", f"{seen}, no bf16 arithmetic", "load(dtype='float32') or a card of 2020 or later")
        else:
            yield Finding(f"cuda:{index}", "ok", f"{seen}; {room(free)}")
    if torch.cuda.device_count() and find_spec("triton") is None:
        yield Finding("triton", "attention", "missing: plans take several times longer", "pip install triton (Linux) or triton-windows")
    elif find_spec("triton") is not None:
        yield Finding("triton", "ok", "installed")
    if not torch.cuda.device_count():
        yield Finding("GPU", "ok", "none: the small model plans on the CPU in about a second, the 10B in minutes")
    if find_spec("alpamayo_r1.engine") is not None:
        yield Finding("10B on a card", "ok", which_cards())


def which_cards() -> str:
    """ "8 GiB tight with 1 sample, 12 GiB w4 with 4 samples, ...": the best precision on each common card."""
    from alpamayo_r1.engine.room import what_fits

    parts = []
    for size in CARDS_GIB:
        fitting = next(what_fits(size_config("10b"), torch.bfloat16, PlanOptions.max_tokens, 2**30 * size - CONTEXT_BYTES), None)
        parts.append(f"{size} GiB: {f'{fitting[0]} with {fitting[1]} sample' + 's' * (fitting[1] > 1) if fitting else 'nothing'}")
    return f"the best precision with {PlanOptions.max_tokens} tokens: {', '.join(parts)}"


def room(free: float) -> str:
    """What of the 10B fits into so much free memory: precisions, with the most samples of each."""
    if find_spec("alpamayo_r1.engine") is None:
        return "what fits is unknown without engine/"
    from alpamayo_r1.engine.room import said_to_fit

    said = said_to_fit(size_config("10b"), torch.bfloat16, PlanOptions.max_tokens, free)
    return "the 10B does not fit (the small model does)" if said == "nothing" else f"the 10B fits in {said}"


def memory() -> Iterator[Finding]:
    """Free main memory."""
    free = free_memory()
    if free == float("inf"):
        yield Finding("memory", "ok", "this system does not say how much is free")
    elif free < 2e9:
        yield Finding("memory", "attention", f"{free / 1e9:.1f} GB free", "the small model takes 1 GB, a page 0.3: close other programs")
    else:
        yield Finding("memory", "ok", f"{free / 1e9:.1f} GB free; on the CPU the small model takes 1 GB, the 10B 45 GB in float32")


def disk_and_cache() -> Iterator[Finding]:
    """Free disk, and the Hub's cache."""
    from huggingface_hub import constants, scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    cache = Path(constants.HF_HUB_CACHE)
    there = next(folder for folder in (cache, *cache.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    seen = f"{free / 1e9:.0f} GB free where the Hub's files go"
    if free < 25e9:
        yield Finding("disk", "attention", seen, "the 10B takes 22 GB: set HF_HOME to a larger disk before fetching it")
    else:
        yield Finding("disk", "ok", seen)
    try:
        kept = scan_cache_dir(cache)
    except (CacheNotFound, OSError):
        yield Finding("cache", "ok", f"nothing in {cache}")
        return
    names = {repo.repo_id for repo in kept.repos}
    known = ", ".join(name for name in (RELEASED, NVIDIA) if name in names) or "none of the released ones"
    yield Finding("cache", "ok", f"{kept.size_on_disk / 1e9:.1f} GB of {len(names)} repositories in {cache} ({known})")


def login() -> Finding:
    """Whether there is a token of the Hub; it is not shown."""
    from huggingface_hub import get_token

    if get_token() is None:
        return Finding("login", "attention", "no token of the Hub", "only the released checkpoint and data need one: `hf auth login`")
    return Finding("login", "ok", "there is a token of the Hub (whether it is valid: --online)")


def licences() -> Iterator[Finding]:
    """Whether the released checkpoint and data set may be fetched; asks the Hub."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HTTPError, RepositoryNotFoundError

    for repo, kind in ((RELEASED, "model"), (NVIDIA, "dataset")):
        where = f"https://huggingface.co/{'datasets/' if kind == 'dataset' else ''}{repo}"
        try:
            HfApi().auth_check(repo, repo_type=kind)
            yield Finding("licence", "ok", f"{repo} may be fetched")
        except (GatedRepoError, RepositoryNotFoundError):
            yield Finding("licence", "attention", f"{repo} may not be fetched", f"accept the licence at {where}, then `hf auth login`")
        except (HTTPError, OSError) as error:
            yield Finding(
                "licence", "attention", f"the Hub can't be reached ({type(error).__name__})", "check the network, or go --offline"
            )


def recorded() -> dict:
    """The bundled model's recorded answer: clip_id, t0_us, seed, reasoning, waypoints {index: [x, y, z]}."""
    return json.loads((resources.files("alpamayo_r1") / "assets" / "doctor.json").read_text(encoding="utf-8"))


def bundled_plan() -> Finding:
    """One plan of the bundled model on the CPU in float32, beside its recorded answer."""
    answer = recorded()
    with open_source("sample") as source:
        sample = source.clip(answer["clip_id"]).sample(answer["t0_us"])
    plan, seconds = timed_plan(Asked(device="cpu"), sample, answer["seed"])
    off = max((plan.xyz[0, int(i)] - torch.tensor(place)).norm().item() for i, place in answer["waypoints"].items())
    seen = f"'{plan.reasoning[0]}' in {seconds:.1f} s, waypoints within {off:.1e} m of the recorded ones"
    if plan.reasoning[0] != answer["reasoning"]:
        return Finding("bundled plan", "broken", seen, f"recorded were the words '{answer['reasoning']}': install torch again")
    if not off <= TOLERANCE_M:
        return Finding("bundled plan", "broken", seen, f"expected at most {TOLERANCE_M:g} m: install torch again")
    return Finding("bundled plan", "ok", seen)


def asked_plan(asked: Asked) -> Finding:
    """One plan of the named checkpoint: of the smoke clip, where the data set has it, beside the published sentence."""
    checkpoint, data, online = asked.checkpoint, asked.data, asked.online
    checkpoint_folder(checkpoint, local_files_only=not online)
    if data == "sample" and checkpoint == RELEASED:
        data = f"{NVIDIA}@main"
    if not (online or data == "sample" or Path(data).is_dir()):
        return Finding("plan", "attention", f"{data} is on the Hub, and this run is offline", "give --online, or a folder with --data")
    with open_source(data) as source:
        clip_id = smoke_or_first(source)
        with source.clip(clip_id) as clip:
            sample = clip.sample(T0_US, need_future=False)
    plan, seconds = timed_plan(Asked(checkpoint, data, asked.device, online, asked.precision), sample, 42)
    seen = f"{checkpoint} on {clip_id}: '{plan.reasoning[0]}' in {seconds:.1f} s"
    if not (torch.isfinite(plan.xyz).all() and all(plan.ended)):
        return Finding("plan", "broken", f"{seen}, but it did not end or is not finite", "check that the checkpoint's files are whole")
    if clip_id != SMOKE_CLIP or Path(checkpoint) == SMALL:
        return Finding("plan", "ok", seen)
    return Finding("plan", "ok", f"{seen}\n{'':<10}published: '{SMOKE_WORDS}'")


def smoke_or_first(source: Source) -> str:
    """The published smoke clip, or the first clip of a data set that lacks it."""
    return SMOKE_CLIP if SMOKE_CLIP in source.clip_ids else source.clip_ids[0]


def timed_plan(asked: Asked, sample: Sample, seed: int) -> tuple[Plan, float]:
    """A plan with one sample, and the seconds it took without loading."""
    planner = load(asked.checkpoint, device=asked.device, precision=asked.precision, local_files_only=not asked.online)
    began = time.perf_counter()
    plan = planner.plan(sample.observation, samples=1, seed=seed)
    return plan, time.perf_counter() - began
