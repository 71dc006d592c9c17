"""SwiGLU of rows whose gates and what they let through lie side by side."""

from __future__ import annotations

import torch
import torch.nn.functional as nnf

from alpamayo_r1.engine.ops.launch import ceil_div, kernels, launch, on_gpu, power


def swiglu(gate_up: torch.Tensor) -> torch.Tensor:
    """silu(gate) * up of rows [gate | up]: [M, 2 I] -> [M, I], on a GPU in place: the first half."""
    gate, up = gate_up.chunk(2, -1)
    if not on_gpu(gate_up):
        return nnf.silu(gate).mul_(up)
    m, width = gate.shape
    block = min(2048, power(width))
    launch(kernels("swiglu").swiglu_kernel, (m, ceil_div(width, block)), gate_up, width, BLOCK=block, warps=8)
    return gate
