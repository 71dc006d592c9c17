"""Files from the Hugging Face Hub or its local cache, with errors that say what to do."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SMALL = Path(__file__).parents[1] / "assets" / "small"
"""The bundled checkpoint."""

REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w.-]+", re.ASCII)
"""OWNER/NAME: nothing else is asked for over the network, so that a folder's name typed wrongly stays here."""

CHECKPOINT_FILES = ("*.json", "*.safetensors", "*.txt", "*.jinja")


class HubError(RuntimeError):
    """A checkpoint or tokenizer that could not be fetched."""


def checkpoint_folder(spec: str | Path, **hub: Any) -> Path:
    """ "small" (bundled), a folder, or a model repository on the Hub (hub: the arguments of `fetch`) -> the folder of a checkpoint."""
    if not isinstance(spec, str | Path):
        raise TypeError(f"the checkpoint is of type {type(spec).__name__}, expected 'small', a folder or a repository name as text")
    if spec == "small":
        return SMALL
    return Path(spec) if Path(spec).is_dir() else fetch(str(spec), patterns=CHECKPOINT_FILES, **hub)


def fetch(
    repo: str,
    *,
    patterns: Sequence[str] | None = None,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> Path:
    """A snapshot folder of a model repository. From the cache where it is complete, else from the network.

    Raises:
        HubError: no name of a repository, an unknown or gated one, no login, offline and not in the cache.
    """
    if not REPOSITORY.fullmatch(repo):
        raise HubError(f"{repo!r} is neither a folder here nor a repository name like 'nvidia/Alpamayo-R1-10B'")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HFValidationError, HTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    only = None if patterns is None else list(patterns)
    try:
        return Path(
            snapshot_download(
                repo, revision=revision, cache_dir=cache_dir, token=token, local_files_only=local_files_only, allow_patterns=only
            )
        )
    except GatedRepoError:
        reason = f"access to it is gated: ask for access at https://huggingface.co/{repo}, then log in with `hf auth login`"
    except RepositoryNotFoundError:
        reason = (
            "no such folder here, no such repository (or a private one and you are not logged in): check the name, then `hf auth login`"
        )
    except HFValidationError as error:
        reason = f"it is no repository name ({error})"
    except LocalEntryNotFoundError:
        reason = (
            f"no folder here, not in the local cache, and the network was not used or not reached: run `hf download {repo}` where it is"
        )
    except (HTTPError, OSError) as error:
        reason = f"the Hub could not be reached ({error}): check the network, or run `hf download {repo}` elsewhere and pass the folder"
    raise HubError(f"{repo!r} could not be fetched: {reason}")
