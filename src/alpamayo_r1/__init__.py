"""Alpamayo-R1 inference: four cameras and 1.6 s of the car's own past in, reasoning and 64 waypoints out.

import alpamayo_r1

planner = alpamayo_r1.load("small")
sample = alpamayo_r1.open_source("sample").clip(CLIP_ID).sample()
plan = planner.plan(sample.observation, samples=6, seed=42)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alpamayo_r1.data.source import open_source
    from alpamayo_r1.planner import load

__version__ = "0.1.0"
__all__ = ["load", "open_source"]


def __getattr__(name: str) -> Any:
    """Imports torch and the rest on first use, so that `import alpamayo_r1` and `alpamayo-r1 --help` answer at once."""
    if name == "load":
        from alpamayo_r1.planner import load

        return load
    if name == "open_source":
        from alpamayo_r1.data.source import open_source

        return open_source
    raise AttributeError(f"module 'alpamayo_r1' has no attribute {name!r}")
