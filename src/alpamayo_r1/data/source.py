"""Where clips come from: the bundled set, a plain folder, or the Hub and its local cache. All through the data set's devkit."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable
from functools import cached_property, partial
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from alpamayo_r1.core.gate.values import check_flag, check_type, path_of
from alpamayo_r1.core.hub import REPOSITORY
from alpamayo_r1.data.clips import Clip
from alpamayo_r1.data.errors import AccessDenied, DataError, SourceError, UnknownClip
from alpamayo_r1.data.ids import check_clip_id, check_clip_ids
from alpamayo_r1.data.index import check_index, check_sizes
from alpamayo_r1.data.origin import NVIDIA, Origin
from alpamayo_r1.data.recording import FILE
from alpamayo_r1.data.tables import reading

if TYPE_CHECKING:
    from physical_ai_av import PhysicalAIAVDatasetInterface

MARKER = "world/labels.parquet"
"""A data set that holds this file was written by our synthetic world."""

_LAYOUT = "features.csv, clip_index.parquet and metadata/ of the PhysicalAI-AV layout"
PRESENCE, LEGACY_PRESENCE = "metadata/feature_presence.parquet", "metadata/sensor_presence.parquet"
_INDEX = ("features.csv", "clip_index.parquet", PRESENCE, "metadata/data_collection.parquet")
_USED = ("clip_index", "features", "feature_presence", "data_collection", "get_clip_chunk", "is_file_cached", "open_file")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def open_source(
    spec: str | Path,
    *,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    maybe_stream: bool = False,
) -> Source:
    """Opens "sample" or "junctions" (bundled clips), a folder in the data set's layout or with a recording.yaml, or "REPO_ID[@REVISION]" on
    the Hub or in its cache.

    `maybe_stream` reads chunks that are not on this machine over the network instead of refusing. A 40-digit revision whose files are in
    the cache is opened without a single network call. Raises SourceError, AccessDenied.
    """
    check_flag("maybe_stream", maybe_stream)
    for name, given in (("revision", revision), ("token", None if isinstance(token, bool) else token)):
        check_type(name, given, (str, type(None)), "text, or None")
    text = str(path_of("the data set", spec))
    if text == "sample":
        return _open_folder(sample_folder(), "the bundled clips")
    if text == "junctions":
        return _open_folder(sample_folder().with_name(text), "the bundled clips of junctions")
    if (Path(text) / FILE).is_file():
        from alpamayo_r1.data.recording.drive import Recording

        recording = Recording(Path(text))
        return Source(recording, recording.open_clip)
    if Path(text).is_dir():
        return _open_folder(Path(text), f"the folder {text}")
    repo, _, pinned = text.partition("@")
    if not REPOSITORY.fullmatch(repo):
        raise SourceError(
            f'there is no folder "{text}", and it is no name of a data set on the Hub.',
            f'"sample", "junctions", a folder with a {FILE} or with {_LAYOUT}, or "{NVIDIA}@REVISION"',
            "check the path, or write the data set as OWNER/NAME or OWNER/NAME@REVISION.",
        )
    return _open_hub(repo, pinned or revision, cache_dir, token, maybe_stream)


def sample_folder() -> Path:
    """The folder of the bundled clips."""
    return Path(str(resources.files("alpamayo_r1") / "assets" / "clips"))


class Source:
    """A data set that is open: its clip ids, and `clip(clip_id)`. A context manager; closing it closes the clips it gave out."""

    def __init__(self, origin: Origin, open_clip: Callable[[str, Callable[[Clip], None]], Clip] | None = None):
        self.origin, self._open_clip = origin, open_clip or partial(Clip, origin)
        self._clips: dict[str, Clip] = {}

    @property
    def name(self) -> str:
        """What people call it."""
        return self.origin.name

    @property
    def kind(self) -> str:
        """ "world" for clips of our synthetic world, "physical-ai-av" for NVIDIA's, "own" for a data set of yours."""
        return self.origin.kind

    @cached_property
    def clip_ids(self) -> tuple[str, ...]:
        """All clip ids of the index, in its order."""
        return check_clip_ids(self.origin.clip_ids)

    def find(self, prefix: str) -> str:
        """The one clip id that begins so: `source.find("030c760c")`. A whole id is itself, whatever else begins with it.

        Raises:
            UnknownClip: no clip begins so, or several do; the message lists some.
        """
        if not isinstance(prefix, str):
            check_clip_id(prefix)
        if prefix in self._known:
            return prefix
        found = [clip_id for clip_id in self.clip_ids if prefix and clip_id.casefold().startswith(prefix.casefold())]
        if not found:
            raise self._unknown(prefix)
        if len(found) > 1:
            raise UnknownClip(
                f'"{prefix}" begins {len(found)} of the {len(self.clip_ids)} ids of {self.name}.',
                "a beginning that only one clip has",
                f"give more of it: {', '.join(found[:6])}{', ...' if len(found) > 6 else ''}.",
            )
        return found[0]

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.clip_ids)

    def clip(self, clip_id: str) -> Clip:
        """The clip of that id; the same open clip each time. Raises UnknownClip, BadClipId."""
        if check_clip_id(clip_id) not in self._clips:
            self._clips[clip_id] = self.fresh(clip_id)
        return self._clips[clip_id]

    def fresh(self, clip_id: str) -> Clip:
        """The clip of that id, opened for the caller alone, who closes it. Raises UnknownClip, BadClipId."""
        if check_clip_id(clip_id) not in self._known:
            raise self._unknown(clip_id)
        return self._open_clip(clip_id, self._forget)

    def _forget(self, clip: Clip) -> None:
        """Drops a clip that was closed, so that a run over many clips doesn't grow."""
        if self._clips.get(clip.clip_id) is clip:
            del self._clips[clip.clip_id]

    def close(self) -> None:
        """Closes every open clip."""
        for clip in list(self._clips.values()):
            clip.close()
        self.origin.close()

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Source({self.name!r}, {len(self.clip_ids)} clips, {self.kind})"

    def _unknown(self, clip_id: str) -> UnknownClip:
        ids = self.clip_ids
        near = difflib.get_close_matches(clip_id, ids[:20_000], n=3, cutoff=0.5) or [i for i in ids if i[:4] == clip_id[:4]][:3] or ids[:3]
        return UnknownClip(
            f'no clip "{clip_id}" among the {len(ids)} of {self.name}.',
            f"an id of its index, such as {', '.join(near)}",
            "copy an id from `source.clip_ids`, or open the data set and revision that holds this clip.",
        )


def _open_folder(root: Path, name: str) -> Source:
    if not (root / "features.csv").is_file():
        raise SourceError(
            f"{name} ({root}) is no data set: it has neither features.csv nor {FILE}.",
            _LAYOUT,
            f"give the folder that holds features.csv: one written by `alpamayo-r1 world --out DIR`, or by "
            f"`hf download {NVIDIA} {' '.join(_INDEX)} --repo-type dataset --local-dir DIR`, with the chunks of your clips; "
            f"for a recording of your own, write a {FILE} (docs/own-data.md).",
        )
    from alpamayo_r1.data.plain import PlainFolder

    missing = [file for file in _INDEX if not (root / file).is_file()]
    if (root / LEGACY_PRESENCE).is_file() and PRESENCE in missing:
        missing.remove(PRESENCE)
    if missing:
        raise SourceError(
            f"{name} is incomplete: {', '.join(missing)} is missing in {root}.",
            _LAYOUT,
            f"write the clips again, or get it: hf download {NVIDIA} {' '.join(missing)} --repo-type dataset --local-dir {root}",
        )
    check_sizes(root, (*_INDEX, LEGACY_PRESENCE, "splits/default.parquet"))
    with reading(SourceError, f"the index of {name} ({root})", _LAYOUT, "write or download it again."):
        interface = PlainFolder(root)
    check_index(interface, name)
    return Source(Origin(interface, name, kind_of(interface, (root / MARKER).is_file()), root))


def kind_of(interface: PhysicalAIAVDatasetInterface, marked: bool) -> str:
    """ "world" where our world's marker is there, "own" where the cars are none of NVIDIA's, else "physical-ai-av".

    NVIDIA's clips name the platform hyperion_8 or hyperion_8.1; a data set that names no platforms counts as NVIDIA's: its licence is the
    strict one.
    """
    if marked:
        return "world"
    platforms = interface.data_collection.get("platform_class")
    if platforms is None or any(str(platform).startswith("hyperion") for platform in platforms.unique()):
        return "physical-ai-av"
    return "own"


def _open_hub(repo: str, revision: str | None, cache_dir, token, maybe_stream: bool) -> Source:
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HTTPError, OfflineModeIsEnabled
    from physical_ai_av import PhysicalAIAVDatasetInterface

    cache = None if cache_dir is None else str(cache_dir)
    try:
        interface = PhysicalAIAVDatasetInterface(
            _commit(repo, revision or "main", cache, token),
            repo_id=repo,
            token=token,
            cache_dir=cache,
            confirm_download_threshold_gb=float("inf"),
        )
    except DataError:
        raise
    except HfHubHTTPError as error:
        raise _refused(repo, revision, error) from error
    except (OfflineModeIsEnabled, EntryNotFoundError, ValueError, LookupError) as error:
        raise SourceError(
            f"{repo}@{revision or 'main'} can't be opened: {error}",
            f"{_LAYOUT} on the Hub, or in the cache {_cache_folder(cache)} when offline",
            f"while online: hf download {repo} {' '.join(_INDEX)} --repo-type dataset --revision {revision or 'main'}",
        ) from error
    except (HTTPError, OSError) as error:
        raise _unreachable(repo, revision, cache, error) from error
    return source_of(interface, maybe_stream=maybe_stream)


def source_of(interface: PhysicalAIAVDatasetInterface, *, maybe_stream: bool = False) -> Source:
    """The data set of a devkit's interface that is open already. Raises SourceError."""
    from alpamayo_r1.data.plain import PlainFolder

    missing = [name for name in _USED if not hasattr(interface, name)]
    if missing:
        raise SourceError(
            f"the interface, of type {type(interface).__name__}, has no {', '.join(missing)}.",
            "a physical_ai_av.PhysicalAIAVDatasetInterface, or what has the same attributes",
            'give one, a folder in the layout of the data set, or "sample" for the bundled clips.',
        )
    repo = str(getattr(interface, "repo_id", "the given interface"))
    root = interface.root if isinstance(interface, PlainFolder) else None
    name = f"{repo}@{getattr(interface, 'revision', 'unknown')}" if root is None else f"the folder {root}"
    check_index(interface, name)
    synthetic = interface.is_file_cached(MARKER) or (root is None and "synthetic" in repo)
    kind = "physical-ai-av" if repo == NVIDIA else kind_of(interface, synthetic)
    return Source(Origin(interface, name, kind, root, maybe_stream))


def _commit(repo: str, revision: str, cache: str | None, token) -> str:
    """A branch, tag or commit -> commit, asking the Hub where it can and the cache's refs where it can't."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    if _COMMIT.fullmatch(revision):
        return revision
    try:
        commit = huggingface_hub.HfApi(token=token).dataset_info(repo, revision=revision).sha
        if commit is None:
            raise SourceError(f"the Hub names no commit for {repo}@{revision}.", "a commit", f"give one: {repo}@COMMIT.")
        return commit
    except HfHubHTTPError:
        raise
    except (HTTPError, OSError) as error:
        ref = Path(_cache_folder(cache), f"datasets--{repo.replace('/', '--')}", "refs", revision)
        if ref.is_file():
            return ref.read_text(encoding="utf-8").strip()
        raise _unreachable(repo, revision, cache, error) from error


def _cache_folder(cache: str | None) -> str:
    from huggingface_hub import constants

    return cache or constants.HF_HUB_CACHE


def _unreachable(repo: str, revision: str | None, cache: str | None, error: Exception) -> SourceError:
    offline = "HF_HUB_OFFLINE is set" if os.environ.get("HF_HUB_OFFLINE") else f"the Hub can't be reached ({type(error).__name__})"
    return SourceError(
        f"{repo}@{revision or 'main'} can't be opened: {offline}, and the cache {_cache_folder(cache)} doesn't know that revision.",
        "a network, or a revision that is in the cache",
        "name a 40-digit commit of the cache's snapshots/ folder (REPO@COMMIT), give cache_dir, or go online.",
    )


def _refused(repo: str, revision: str | None, error) -> DataError:
    """An answer of the Hub that was no data: gated, unknown, or broken."""
    from huggingface_hub.errors import GatedRepoError, RevisionNotFoundError

    code = error.response.status_code if error.response is not None else None
    if isinstance(error, RevisionNotFoundError):
        return SourceError(
            f"{repo} has no revision {revision}.", "a branch, tag or commit of the data set", "leave @REVISION out to use main."
        )
    if isinstance(error, GatedRepoError) or code in (401, 403):
        return AccessDenied(
            f"the Hub refused {repo} (HTTP {code}): you are not logged in, or have not accepted the data set's licence.",
            "an account that accepted the licence, and its token on this machine",
            f"open https://huggingface.co/datasets/{repo}, accept the licence, then run `hf auth login` (or set HF_TOKEN).",
        )
    return SourceError(
        f"the Hub answered HTTP {code} for {repo}.", "a data set's name, OWNER/NAME", f"check the name; the usual one is {NVIDIA}."
    )
