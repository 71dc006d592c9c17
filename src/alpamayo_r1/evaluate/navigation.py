"""Which clip was told where to go: navigation texts of an evaluation, from a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from alpamayo_r1.data.errors import DataError
from alpamayo_r1.data.ids import check_clip_id
from alpamayo_r1.evaluate.lists import check_file


def read_navigation(path: Path) -> dict[str, str]:
    """Clip id -> what the driver is told there.

    Text: on each line a clip id, a blank, comma or tab, and the rest of the line ("Turn left in 30m"); empty lines and `#` comments are
    passed over. .json: a list of objects with clip_id and nav_text, as the release's demo samples.

    Raises:
        ValueError: no such file, one of another form, an id that can't be one, a clip with two texts, or nothing in it.
    """
    check_file(path, "navigation texts", "a text with `clip_id text` on each line, or a .json of clip_id and nav_text")
    try:
        content = path.read_text(encoding="utf-8-sig")
        pairs = _from_json(json.loads(content)) if path.suffix == ".json" else _from_text(content)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} can't be read ({error}): save it as UTF-8, as lines `clip_id text` or a .json") from None
    texts: dict[str, str] = {}
    for where, clip_id, text in pairs:
        try:
            known = check_clip_id(clip_id)
        except DataError as error:
            raise ValueError(f"{where} of {path}: {error}") from None
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{where} of {path} says {text!r} for clip {known}, expected a text such as 'Turn left in 30m'")
        if texts.setdefault(known, text.strip()) != text.strip():
            raise ValueError(f"{where} of {path}: clip {known} has two texts, {texts[known]!r} and {text.strip()!r}; leave one of them")
    if not texts:
        raise ValueError(f"{path} holds no navigation text: write `clip_id text` on each line")
    return texts


def _from_text(content: str) -> list[tuple[str, Any, Any]]:
    rows: list[tuple[str, Any, Any]] = []
    for number, line in enumerate(content.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            clip_id, _, text = line.strip().replace("\t", " ", 1).replace(",", " ", 1).partition(" ")
            rows.append((f"line {number}", clip_id, text))
    return rows


def _from_json(rows: Any) -> list[tuple[str, Any, Any]]:
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        return [("the top", rows, None)]
    return [(f"entry {i}", row.get("clip_id"), row.get("nav_text")) for i, row in enumerate(rows)]
