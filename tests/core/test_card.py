"""What a card has, asked of PyTorch as its CUDA build answers: some questions take no device without a number."""

from types import SimpleNamespace

import pytest
import torch
from torch.cuda._utils import _get_device_index

from alpamayo_r1.core.card import card_bytes, free_bytes, limit


@pytest.fixture
def card(monkeypatch):
    """A card of 80 GB, the current one being number 1."""
    shares = {1: 1.0}
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=80e9))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (70e9, 80e9))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 5e9)
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda device: shares[_get_device_index(device)])
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda share, device: shares.update({_get_device_index(device): share})
    )


@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_a_card_is_asked_by_number(card, name):
    device = torch.device(name)
    assert card_bytes(device) == 80e9 and free_bytes(device) == 70e9
    limit(device, 16)
    assert card_bytes(device) == pytest.approx(16 * 2**30 - 0.8e9) and free_bytes(device) == card_bytes(device) - 5e9
