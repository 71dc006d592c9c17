"""One optimiser step, shared by the processes of a run; on a GPU replayed as two graphs, so that the host has time for other things.

gradients of a batch -> their mean over the processes -> clipped at a norm of 1 -> AdamW
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.distributed as dist
from torch import nn


class Batch(Protocol):
    """Rows of tensors, such as `material.Rows`."""

    def map(self, f: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        """f on every tensor."""
        ...


@dataclass(frozen=True)
class Group:
    """The training processes of one run: they see other scenes and share gradients."""

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls, device: torch.device) -> Group:
        """The group that torchrun started, or this process alone."""
        if "RANK" not in os.environ:
            return cls()
        if device.type == "cuda":
            torch.cuda.set_device(device)
        if not dist.is_initialized():
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo", device_id=device if device.type == "cuda" else None)
        return cls(dist.get_rank(), dist.get_world_size())

    def share(self, gradients: torch.Tensor) -> None:
        """Replaces gradients by their sum over the group."""
        if self.size > 1:
            dist.all_reduce(gradients)

    def agree(self, value: float, device: torch.device) -> float:
        """The first process's value."""
        if self.size == 1:
            return value
        shared = torch.tensor([value], device=device, dtype=torch.float64)
        dist.broadcast(shared, 0)
        return shared.item()


class Step:
    """One optimiser step on rows after another; see the file.

    loss: rows and a generator -> what is minimised, and its parts f32[n]. decay: weight decay of matrices; vectors have none.
    graphs: replay on a GPU what was recorded at the third call; every call then brings rows of the same shapes.
    """

    def __init__(
        self,
        module: nn.Module,
        loss: Callable[..., tuple[torch.Tensor, torch.Tensor]],
        group: Group,
        generator: torch.Generator,
        decay: float,
        graphs: bool,
    ):
        self.loss, self.group, self.generator = loss, group, generator
        self.parameters = list(module.parameters())
        device = self.parameters[0].device
        self.graphs = graphs and device.type == "cuda"
        self.rate = torch.zeros((), device=device)
        self.flat = torch.zeros(sum(p.numel() for p in self.parameters), device=device)
        for p, part in zip(self.parameters, self.flat.split([p.numel() for p in self.parameters]), strict=True):
            p.grad = part.view_as(p)
        matrices, vectors = ([p for p in self.parameters if (p.ndim >= 2) == wide] for wide in (True, False))
        groups = [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=self.rate, betas=(0.9, 0.95), fused=True, capturable=self.graphs)
        self.calls, self.rows, self.recorded = 0, None, []

    def __call__(self, rows: Batch, rate: float) -> torch.Tensor:
        """Learns from rows; the loss's parts and the gradient's norm before clipping, f32[n + 1]."""
        self.rate.fill_(rate)
        self.calls += 1
        if self.graphs and self.rows is not None:
            for name, tensor in vars(self.rows).items():
                tensor.copy_(getattr(rows, name))
        else:
            self.rows = rows.map(torch.clone)
        if self.graphs and self.calls == 3:
            self.recorded = [self._record(self._gradients), self._record(self._learn)]
        gradients, learn = (graph.replay for graph in self.recorded) if self.recorded else (self._gradients, self._learn)
        gradients()
        self.group.share(self.flat)
        learn()
        return torch.cat([self.parts, self.norm[None]])

    def _record(self, work: Callable[[], None]) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self.generator)
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            work()
        return graph

    def _gradients(self) -> None:
        loss, self.parts = self.loss(self.rows, self.generator)
        found = torch.autograd.grad(loss, self.parameters, allow_unused=True, materialize_grads=True)
        torch.cat([gradient.flatten() for gradient in found], out=self.flat)

    def _learn(self) -> None:
        self.flat /= self.group.size
        self.norm = self.flat.norm()
        self.flat *= (1 / (self.norm + 1e-6)).clamp_max(1)
        self.optimiser.step()
