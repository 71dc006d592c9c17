"""The data set's devkit over a plain folder: the layout of the repository, without the Hub or its cache."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

from physical_ai_av import PhysicalAIAVDatasetInterface

from alpamayo_r1.core.gate.files import inside
from alpamayo_r1.data.errors import SourceError


class PlainFolder(PhysicalAIAVDatasetInterface):
    """PhysicalAIAVDatasetInterface whose look-ups end in `root`. Never touches the network, never reads outside the folder.

    It overrides the private `_get_cached_path` of physical_ai_av 0.2.3, which is why that version is pinned.
    """

    def __init__(self, root: str | Path):
        self.root = Path(root)
        super().__init__(revision="local", repo_id=f"local/{self.root.name}", token=False)

    def _load_metadata(self) -> None:
        self.api = SimpleNamespace(file_exists=lambda filename, **_: self.is_file_cached(filename))
        super()._load_metadata()

    def _get_cached_path(self, filename: str) -> str | None:
        path = self.root / filename
        if not path.is_file():
            return None
        try:
            return str(inside(self.root, filename))
        except ValueError:
            raise SourceError(
                f"{filename} of the folder {self.root} lies outside it, at {path.resolve()}.",
                "files within the folder, and no links that lead out of it",
                "copy the file to its place; in features.csv, write paths without '..'.",
            ) from None

    def _has_file(self, filename: str) -> bool:
        return self.is_file_cached(filename)

    def download_file(self, filename: str, **kwargs: Mapping[str, object]) -> str:
        """The path of a file in the folder; FileNotFoundError if it is not there."""
        path = self._get_cached_path(filename)
        if path is None:
            raise FileNotFoundError(self.root / filename)
        return path
