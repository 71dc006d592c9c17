"""The data set's devkit over a plain folder: the layout of the repository, without the Hub or its cache."""

from __future__ import annotations

from pathlib import Path

from physical_ai_av import PhysicalAIAVDatasetInterface


class PlainFolder(PhysicalAIAVDatasetInterface):
    """PhysicalAIAVDatasetInterface whose look-ups end in `root`. Never touches the network.

    It overrides the private `_get_cached_path` of physical_ai_av 0.2.3, which is why that version is pinned.
    """

    def __init__(self, root: str | Path):
        self.root = Path(root)
        super().__init__(revision="local", repo_id=f"local/{self.root.name}", token=False)

    def _get_cached_path(self, filename: str) -> str | None:
        path = self.root / filename
        return str(path) if path.is_file() else None

    def _has_file(self, filename: str) -> bool:
        return self.is_file_cached(filename)

    def download_file(self, filename: str, **kwargs) -> str:
        """The path of a file in the folder; FileNotFoundError if it is not there."""
        path = self._get_cached_path(filename)
        if path is None:
            raise FileNotFoundError(self.root / filename)
        return path
