"""How much of a card this process may take: what is free, and less where it was told to behave as on a smaller card."""

from __future__ import annotations

import torch

CONTEXT_BYTES = 0.8e9
"""What CUDA, its libraries and a small desktop take of a card beside what PyTorch allocates."""

LEAST_GIB = 1


def card_of(device: torch.device) -> int:
    """The number of a device's card: "cuda" alone is the current one, which PyTorch's questions about a share of memory don't take."""
    return torch.cuda.current_device() if device.index is None else device.index


def card_bytes(device: torch.device) -> float:
    """Bytes that PyTorch may hold of a card in all: the card's, or what `limit` left of them."""
    card = card_of(device)
    return torch.cuda.get_device_properties(card).total_memory * torch.cuda.get_per_process_memory_fraction(card)


def free_bytes(device: torch.device) -> float:
    """Bytes of a card that this process may still take."""
    return min(torch.cuda.mem_get_info(device)[0], card_bytes(device) - torch.cuda.memory_reserved(device))


def limit(device: torch.device, gib: float) -> None:
    """Makes a card behave as one of so many GiB: from now on PyTorch takes no more than such a card would have for it.

    Raises:
        ValueError: no CUDA device, or not between LEAST_GIB and what the card has.
    """
    if device.type != "cuda":
        raise ValueError(f"memory is {gib:g}, but the model is on the {device.type}: only a CUDA device's memory can be capped")
    total = torch.cuda.get_device_properties(device).total_memory
    if not LEAST_GIB <= gib <= total / 2**30 + 0.5:
        raise ValueError(f"memory is {gib:g} GiB, expected {LEAST_GIB} to the {total / 2**30:.1f} that this card has")
    torch.cuda.set_per_process_memory_fraction(min(1.0, (gib * 2**30 - CONTEXT_BYTES) / total), card_of(device))
