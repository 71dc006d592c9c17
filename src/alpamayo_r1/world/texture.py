"""What surfaces are painted with: mixed colours, edges and stripes filtered over a pixel's footprint, value noise, the word STOP."""

from __future__ import annotations

import torch

Colour = tuple
"""r, g, b as display values 0..1: floats or tensors."""


def dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def mix(a: Colour, b: Colour, w) -> Colour:
    """(1 - w) a + w b, channel by channel."""
    return tuple(x + (y - x) * w for x, y in zip(a, b))


def scale(a: Colour, k) -> Colour:
    return tuple(x * k for x in a)


def ramp(x, low: float, high: float):
    """Smooth step from 0 at `low` to 1 at `high`."""
    u = ((x - low) / (high - low)).clamp(0, 1)
    return u * u * (3 - 2 * u)


def band(x, low, high, width):
    """Share of the footprint [x - width/2, x + width/2] that lies in [low, high]."""
    return ((high - x) / width + 0.5).clamp(0, 1) - ((low - x) / width + 0.5).clamp(0, 1)


def wave(x, period: float, duty: float, width):
    """Share of the footprint covered by the stripes [n period, n period + duty]: the box-filtered square wave."""

    def covered(u):
        whole = torch.floor(u / period)
        return whole * duty + (u - whole * period).clamp_max(duty)

    width = width.clamp_min(1e-4)
    return ((covered(x + width / 2) - covered(x - width / 2)) / width).clamp(0, 1)


def _noise_table() -> torch.Tensor:
    """1024 x 1024 samples of periodic value noise with 128 cells a side, 8 samples a cell, values 0..1."""
    cells = torch.rand(128, 128, generator=torch.Generator().manual_seed(7))
    grid = torch.nn.functional.pad(cells[None, None], (0, 1, 0, 1), mode="circular")[0, 0]
    at = torch.arange(1024) / 8
    u, i = at - at.floor(), at.long()
    u = u * u * (3 - 2 * u)
    rows = grid[i] + (grid[i + 1] - grid[i]) * u[:, None]
    return (rows[:, i] + (rows[:, i + 1] - rows[:, i]) * u).flatten()


def _letters() -> torch.Tensor:
    """The word STOP as a 7 x 23 bitmap, row 0 on top."""
    rows = (
        "01110.11111.01110.11110",
        "10001.00100.10001.10001",
        "10000.00100.10001.10001",
        "01110.00100.10001.11110",
        "00001.00100.10001.10000",
        "10001.00100.10001.10000",
        "01110.00100.01110.10000",
    )
    return torch.tensor([[c == "1" for c in row] for row in rows])


def _numbers() -> torch.Tensor:
    """20 and 30 as 7 x 11 bitmaps, row 0 on top."""
    rows = ("01110.01110", "10001.10001", "00001.10001", "00110.10001", "01000.10001", "10000.10001", "11111.01110")
    others = ("01110.01110", "10001.10001", "00001.10001", "00110.10001", "00001.10001", "10001.10001", "01110.01110")
    return torch.tensor([[[c == "1" for c in row] for row in number] for number in (rows, others)])


_TABLES: dict[tuple[str, str], torch.Tensor] = {}
"""(name, device type) -> the look-up tables, filled by `ready` outside of what torch.compile traces."""


def ready(device: torch.device) -> None:
    """Fills the look-up tables of a device; to be called before anything is painted there."""
    if ("noise", device.type) not in _TABLES:
        _TABLES["noise", device.type], _TABLES["letters", device.type] = _noise_table().to(device), _letters().to(device)
        _TABLES["numbers", device.type] = _numbers().to(device)


def noise(x, y, cell: float) -> torch.Tensor:
    """Value noise 0..1 with features of `cell` (in the unit of x and y), repeating after 128 cells."""
    i = (x * (8 / cell)).floor().to(torch.int32) & 1023
    j = (y * (8 / cell)).floor().to(torch.int32) & 1023
    return _TABLES["noise", x.device.type][j * 1024 + i]


def soft_noise(x, y, cell: float) -> torch.Tensor:
    """The same noise, interpolated between samples, for features many pixels wide."""
    x, y = x * (8 / cell), y * (8 / cell)
    i, j = x.floor(), y.floor()
    u, v = x - i, y - j
    i, j = i.to(torch.int32), j.to(torch.int32)
    left, right, low, high = i & 1023, (i + 1) & 1023, (j & 1023) * 1024, ((j + 1) & 1023) * 1024
    table = _TABLES["noise", x.device.type]
    return torch.lerp(torch.lerp(table[low + left], table[low + right], u), torch.lerp(table[high + left], table[high + right], u), v)


def lettering(y, z) -> torch.Tensor:
    """Whether the point (y to the reader's right, z up, metres from the sign's centre) lies on a letter."""
    column, row = ((y + 0.30) / 0.60 * 23).floor().long(), ((0.13 - z) / 0.26 * 7).floor().long()
    inside = (column >= 0) & (column < 23) & (row >= 0) & (row < 7)
    return _TABLES["letters", y.device.type][row.clamp(0, 6), column.clamp(0, 22)] & inside


def number_on(y, z, number) -> torch.Tensor:
    """Whether the point (y to the reader's right, z up, metres from the sign's centre) lies on the number 20 (0) or 30 (1)."""
    column, row = ((y + 0.26) / 0.52 * 11).floor().long(), ((0.19 - z) / 0.38 * 7).floor().long()
    inside = (column >= 0) & (column < 11) & (row >= 0) & (row < 7)
    return _TABLES["numbers", y.device.type][number.long().clamp(0, 1), row.clamp(0, 6), column.clamp(0, 10)] & inside
