"""One optimiser step: what it does to the weights, alone and shared by two processes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import start_processes

from alpamayo_r1.train.step import Group, Step


@dataclass(frozen=True)
class Pairs:
    """Inputs and what they shall give."""

    x: torch.Tensor
    y: torch.Tensor

    def map(self, f):
        return Pairs(f(self.x), f(self.y))


def pairs() -> Pairs:
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(1))
    return Pairs(x, x @ torch.tensor([[1.0], [-2.0], [0.5]]))


def stepper(group: Group, decay: float = 0.0) -> tuple[torch.nn.Linear, Step]:
    torch.manual_seed(0)
    module = torch.nn.Linear(3, 1)

    def loss(rows, generator):
        error = (module(rows.x) - rows.y).square().mean()
        return error, error.detach()[None]

    return module, Step(module, loss, group, torch.Generator(), decay, graphs=True)


def test_it_is_adamw_on_gradients_clipped_at_one():
    module, step = stepper(Group(), decay=0.1)
    torch.manual_seed(0)
    other = torch.nn.Linear(3, 1)
    groups = [{"params": [other.weight], "weight_decay": 0.1}, {"params": [other.bias], "weight_decay": 0.0}]
    adam = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.95))
    for rate in (0.01, 0.02, 0.005):
        error, norm = step(pairs(), rate)
        adam.zero_grad()
        wanted = (other(pairs().x) - pairs().y).square().mean()
        wanted.backward()
        assert norm == pytest.approx(float(torch.nn.utils.clip_grad_norm_(other.parameters(), 1.0)), rel=1e-5) and norm > 1
        for one in adam.param_groups:
            one["lr"] = rate
        adam.step()
        assert error == pytest.approx(wanted.item(), rel=1e-5)
    torch.testing.assert_close(module.weight, other.weight)
    torch.testing.assert_close(module.bias, other.bias)


def half(rank: int, folder: str) -> None:
    """A process of two that learns from its half of the pairs."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    module, step = stepper(Group(rank, 2))
    for _ in range(3):
        step(pairs().map(lambda x: x[rank::2]), 0.05)
    torch.save(module.weight.detach(), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_learn_what_one_would_from_all_rows(tmp_path):
    start_processes(half, (str(tmp_path),), nprocs=2, start_method="fork")
    module, step = stepper(Group())
    for _ in range(3):
        step(pairs(), 0.05)
    for rank in range(2):
        torch.testing.assert_close(torch.load(tmp_path / f"{rank}.pt"), module.weight.detach())
