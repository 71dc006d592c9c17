"""Rows of the word table."""

from __future__ import annotations

import torch
import torch.nn.functional as nnf

from alpamayo_r1.engine.ops.launch import ceil_div, kernels, launch, on_gpu, power


def pick_rows(table: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Rows [N, width] of a table [rows, width] by ids i64[N]. The table may lie in pinned host memory: a GPU reads the rows in place."""
    if not on_gpu(ids):
        return nnf.embedding(ids, table)
    ids, width = ids.contiguous(), table.shape[1]
    out = torch.empty(len(ids), width, device=ids.device, dtype=table.dtype)
    block = power(min(width, 1024))
    launch(kernels("table").pick_rows_kernel, (len(ids), ceil_div(width, block)), ids, table, out, width, BLOCK=block)
    return out
