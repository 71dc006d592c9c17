"""The values of a released config.json as attributes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from alpamayo_r1.core.config import read_json


class Alpamayo1_5Config(SimpleNamespace):
    """A config.json, its keys as attributes. `from_pretrained` reads a checkpoint folder's."""

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Alpamayo1_5Config:
        """The config of a checkpoint folder. Raises ConfigError where there is none, or it is no JSON object."""
        return cls(**read_json(Path(folder) / "config.json"))
