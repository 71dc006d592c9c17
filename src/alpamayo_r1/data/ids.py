"""Clip ids as they come from outside: names of files to be, so that nothing in them may leave the folder they are written to."""

from __future__ import annotations

import re
from collections.abc import Iterable

from alpamayo_r1.data.errors import BadClipId

LONGEST = 128
"""Characters of the longest clip id; those of the data set have 36."""

_STRANGE = re.compile(r"[^\w. -]")
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}


def check_clip_id(clip_id: object) -> str:
    """The id, which is safe as the name of a file on every system: letters, digits and inner `-`, `_`, `.` or blanks.

    Raises:
        BadClipId: no text, empty or over 128 characters, a separator, `..`, a control character, or a name that a system keeps for itself.
    """
    flaw = _flaw(clip_id)
    if flaw:
        shown = ascii(clip_id)
        raise BadClipId(
            f"the clip id {shown if len(shown) < 80 else shown[:80] + '...'} {flaw}.",
            "letters, digits, '-', '_' and single dots, such as 030c760c-ae38-49aa-9ad8-f5650a545d26: files are named after it",
            "rename the clip in its index or list, or copy an id from `source.clip_ids`.",
        )
    return str(clip_id)


def check_clip_ids(clip_ids: Iterable[object]) -> tuple[str, ...]:
    """All ids of an index, checked. Raises BadClipId, also for an id that stands there twice (also where only upper case differs)."""
    ids = tuple(check_clip_id(clip_id) for clip_id in clip_ids)
    seen: dict[str, str] = {}
    for clip_id in ids:
        folded = clip_id.casefold()
        twin = seen.get(folded)
        if twin is not None:
            raise BadClipId(
                f"the index holds the clip {clip_id!r} twice" + ("" if twin == clip_id else f", once as {twin!r}") + ".",
                "every clip once: files are named after it",
                "drop one of the rows.",
            )
        seen[folded] = clip_id
    return ids


def _flaw(clip_id: object) -> str | None:
    if not isinstance(clip_id, str):
        return f"is of type {type(clip_id).__name__}, not text"
    if not clip_id.strip():
        return "is empty"
    if len(clip_id) > LONGEST:
        return f"has {len(clip_id)} characters, over {LONGEST}"
    strange = sorted(set(_STRANGE.findall(clip_id)))
    if strange:
        return f"holds {', '.join(map(repr, strange[:5]))}"
    if ".." in clip_id or clip_id[0] in ". -" or clip_id[-1] in ". ":
        return "begins or ends with a dot or blank, begins with '-', or holds '..'"
    if clip_id.split(".")[0].casefold() in _RESERVED:
        return "is a name that Windows keeps for devices"
    return None
