"""How the engine's kernels are launched: where they run, with which dependence on their predecessor, in how many stages."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from threading import RLock
from types import ModuleType

import torch

PDL = True
"""Launch kernels with programmatic dependence on their predecessor, where the GPU knows it."""

THIN = 64
"""Up to this many rows a product is bound by reading its weights, and our kernels beat the vendor's library."""

WORDS = 128
"""Words are read up to so many at a time, each with the bits that it has alone."""

PROGRAMS = 264
"""Programs that fill the card twice over: 132 multiprocessors on an H100."""


@cache
def kernels(module: str) -> ModuleType:
    """One file of the engine's Triton kernels, imported when it is first launched from: without a GPU there is no Triton."""
    return import_module(f"alpamayo_r1.engine.kernels.{module}")


def sent(x: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor on its way from the host to a device. Nobody waits, as a plain copy does until all earlier work of the device is done."""
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" and x.device.type == "cpu" else x.to(device)


INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether Triton's interpreter runs kernels, where there is no GPU; Triton asks once too, when a kernel is made."""

_twins = False


def on_gpu(x: torch.Tensor) -> bool:
    """Whether kernels run on x: a GPU, or Triton's interpreter; never inside `twins()`."""
    return not _twins and (x.is_cuda or INTERPRETED)


@contextmanager
def twins() -> Iterator[None]:
    """Inside, operations compute by their torch functions on every device: the oracle of the kernels' checks."""
    global _twins
    before, _twins = _twins, True
    try:
        yield
    finally:
        _twins = before


def power(n: int, least: int = 1) -> int:
    """The next power of two, at least `least`."""
    return max(least, 1 << (n - 1).bit_length())


def ceil_div(a: int, b: int) -> int:
    """a / b rounded up."""
    return -(-a // b)


@cache
def programmatic(device: torch.device) -> bool:
    """Whether a device knows programmatic launches: Hopper and later."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 9


_stages: dict[tuple, int] = {}
"""Pipeline stages of kernels that found too little shared memory with more: GPUs other than an H100 may have half of its."""

_launching = RLock()
"""Kernels are compiled when they are first launched, by one thread at a time."""


def launch(kernel, grid: tuple[int, ...], x: torch.Tensor, *args, warps: int = 4, stages: int = 3, **constants) -> None:
    """Launches a kernel on x's device, with fewer pipeline stages where its shared memory is too small for so many."""
    pdl = PDL and programmatic(x.device)
    options = {"launch_pdl": True} if pdl else {}
    key = (kernel, x.device, x.dtype, warps, stages, *constants.items())
    fewer = _stages.get(key, stages)
    while True:
        try:
            with _launching:
                kernel[grid](x, *args, **constants, PDL=pdl, num_warps=warps, num_stages=fewer, **options)
            return
        except Exception as problem:
            if type(problem).__name__ != "OutOfResources" or fewer == 1:
                raise
            fewer = _stages[key] = fewer - 1
