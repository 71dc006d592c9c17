"""What a clip needs to know of the data set that it lies in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from physical_ai_av import PhysicalAIAVDatasetInterface

NVIDIA = "nvidia/PhysicalAI-Autonomous-Vehicles"
"""The data set's repository on the Hub."""


@dataclass(eq=False)
class Origin:
    """A data set: the devkit's interface to it, its name for people, its kind ("world", "physical-ai-av", "own"), its folder if it has one.

    maybe_stream: chunks that are not on this machine are read over the network instead of refused.
    """

    interface: PhysicalAIAVDatasetInterface
    name: str
    kind: str
    root: Path | None = None
    maybe_stream: bool = False

    @property
    def clip_ids(self) -> Iterable[object]:
        """The ids of its index, as they stand there."""
        return self.interface.clip_index.index

    def close(self) -> None:
        """Frees what its clips share: nothing here."""

    def download_command(self, files: list[str]) -> str:
        """How these files of the data set come to where this source looks: a shell command, or for our own clips a sentence."""
        what = " ".join(files)
        if self.root is not None and self.kind != "physical-ai-av":
            return f"write these clips again (of our world: `alpamayo-r1 world --out DIR`), or copy {what} into {self.root}"
        if self.root is not None:
            return f"hf download {NVIDIA} {what} --repo-type dataset --local-dir {self.root}"
        cache = f" --cache-dir {self.interface.cache_dir}" if self.interface.cache_dir else ""
        return f"hf download {self.interface.repo_id} {what} --repo-type dataset --revision {self.interface.revision}{cache}"
