"""Kernels of weights of few bits, compiled for GPUs that are not here: whether the compiler takes them, and the shared memory they want.

    python checks/compiled.py [--sm 89,90,120]

Needs Triton and no GPU. Every cut in use is compiled as it is launched: with fewer pipeline stages where the shared memory of a
multiprocessor is too small for as many. One line per GPU and kind; exits with 1 where something does not compile or fit.
"""

from __future__ import annotations

from _head import ROOT  # noqa: F401 - finds the package

import argparse
import sys

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from alpamayo_r1.engine.kernels import eight, quantised
from alpamayo_r1.engine.ops.quantised import CUTS, KINDS, Cut

SHARED = {89: 99, 90: 227, 120: 99}
"""KiB of shared memory that a program may have, by compute capability."""

STORED = {"e4m3": ("*u8", "*fp32", "*fp32"), "int8": ("*i8", "*bf16", "*bf16"), "int4": ("*u8", "*bf16", "*u8")}
"""Types of codes, scales and zero points."""

DEPTHS = {"e4m3": (128, 128), "int8": (128, 128), "int4": (128, 64)}
"""Columns per step and per scale."""


def shared_kib(kernel, types: dict[str, str], constants: dict[str, object], sm: int, warps: int, stages: int) -> float:
    """Shared memory of a compiled kernel in KiB. types: of its arguments; pointers and sizes are multiples of 16."""
    names = kernel.arg_names
    signature = {name: types.get(name, "constexpr") for name in names}
    even = {(names.index(name),): [["tt.divisibility", 16]] for name in types if name not in ("m", "eps")}
    source = ASTSource(kernel, signature, {(names.index(name),): value for name, value in constants.items()}, even)
    made = triton.compile(source, target=GPUTarget("cuda", sm, 32), options={"num_warps": warps, "num_stages": stages})
    return made.metadata.shared / 1024


def product_kib(kind: str, swiglu: bool, cut: Cut, sm: int) -> float:
    """The same of a product by a cut, with as many stages as fit."""
    codes, scale, zero = STORED[kind]
    depth, group = DEPTHS[kind]
    types = {"x": "*bf16", "codes": codes, "scale": scale, "zero": zero, "out": "*bf16" if swiglu else "*fp32"}
    types |= dict.fromkeys(("m", "n", "k", "x_stride", "scale_stride", *(() if swiglu else ("span",))), "i32")
    constants = {"BM": cut.rows, "BN": cut.columns, "DEPTH": depth, "GROUP": group, "KIND": KINDS[kind], "EVEN": True, "IEEE": False}
    constants |= {"PACK": 2 if cut.swap and cut.in_order else 4, "SWAP": cut.swap, "UNROLL": cut.unroll, "AHEAD": cut.ahead, "PDL": False}
    kernel = quantised.swiglu_linear_kernel if swiglu else quantised.linear_kernel
    sizes = (shared_kib(kernel, types, constants, sm, cut.warps, stages) for stages in range(cut.stages, 1, -1))
    return next((size for size in sizes if size <= SHARED[sm]), shared_kib(kernel, types, constants, sm, cut.warps, 1))


def rows_kib(sm: int) -> float:
    """The same of the kernel that makes rows of 8 bits of sums."""
    types = {"x": "*bf16", "delta": "*bf16", "weight": "*bf16", "codes": "*fp8e4nv", "scale": "*fp32"}
    types |= {"rows": "i32", "width": "i32", "eps": "fp32"}
    return shared_kib(eight.add_rms_norm_eight_kernel, types, {"PARTS": 1, "BLOCK": 4096, "PDL": False}, sm, 8, 3)


def main() -> int:
    """All GPUs; how many did not take something."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sm", default=",".join(map(str, SHARED)))
    wrong = 0
    for sm in map(int, parser.parse_args().sm.split(",")):
        for kind in KINDS:
            cuts = sorted({(swiglu, cut) for (one, swiglu, *_), cut in CUTS.items() if one == kind}, key=str)
            sizes = [product_kib(kind, swiglu, cut, sm) for swiglu, cut in cuts]
            wrong += max(sizes) > SHARED[sm]
            print(f"sm_{sm} {kind}: {len(sizes)} products, at most {max(sizes):.0f} KiB of {SHARED[sm]}", flush=True)
        print(f"sm_{sm} rows in 8 bits: {rows_kib(sm):.1f} KiB", flush=True)
    return wrong


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
