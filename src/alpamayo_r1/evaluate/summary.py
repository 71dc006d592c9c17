"""Rows -> figures that can be published: means with 95 % intervals, overall and by bucket, baselines beside them; and A against B."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alpamayo_r1.core.files import write_text
from alpamayo_r1.core.gate.files import read_object
from alpamayo_r1.core.gate.values import path_of
from alpamayo_r1.core.notes import Note, tell
from alpamayo_r1.core.types import DT, F
from alpamayo_r1.data.notices import notice
from alpamayo_r1.evaluate.protocol import read_settings
from alpamayo_r1.evaluate.score import HORIZONS, PATH_SCORES, SHORT, TIMINGS, UNITS, WORD_SCORES
from alpamayo_r1.evaluate.store import DIGESTS, SCHEMA, SEALS
from alpamayo_r1.metrics.intervals import Interval, intervals

if TYPE_CHECKING:
    from rich.table import Table

FIGURES = (*PATH_SCORES, "spread", *WORD_SCORES)
BASELINES = tuple(f"{short}_{name}" for short in SHORT.values() for name in PATH_SCORES)

STEPS = {
    **{name: (F,) for name in ("min_ade", "ade", "corner_distance", "heading_error")},
    **{f"ade_{h:g}s": (round(h / DT),) for h in HORIZONS},
    **{f"min_ade_{h:g}s": (F, round(h / DT)) for h in HORIZONS},
}
"""Figure along the truth -> numbers of first steps, of each of which half must be known."""

SPEEDS = ((-0.5, "reversing"), (0.5, "standing"), (5.0, "below 5 m/s"), (10.0, "5 to 10 m/s"), (math.inf, "over 10 m/s"))
BENDS = ((0.002, "straight"), (0.01, "bend"), (math.inf, "tight bend"))
"""Upper ends and names of the buckets: speed at t0 in m/s, mean curvature driven in 1/m (radius 500 m, 100 m)."""


def summarise(out: Path) -> dict[str, Any]:
    """Reads results.parquet of a finished evaluation, and writes and returns summary.json.

    {"rows", "failed", "clips", "notes": {code: rows}, "partial": rows that lack some steps of the future, "mostly_unknown": rows of these
    that know less than half, and enter no figure over the whole horizon,
    "figures": {name: Interval as dict}, "min_ade_by_k": [...], "buckets": {kind: {name: {"figures": ...}}}, ...}.
    """
    out = path_of("out", out)
    table = read(out)
    settings = read_settings(out)
    good, scored = planned_rows(table), scored_rows(table)
    partial = [steps for steps in good["known_steps"].to_pylist() if steps is not None and 0 < steps < F]
    timing = _table(Path(out) / "timing.parquet", ["index", "clip_id", "t0_us", *TIMINGS])
    summary = {
        "rows": len(table),
        "failed": len(table) - len(good),
        "errors": errors(table),
        "clips": len(set(good["clip_id"].to_pylist())),
        "notes": notes(good),
        "partial": len(partial),
        "mostly_unknown": sum(2 * steps < F for steps in partial),
        "figures": figures(scored),
        "min_ade_by_k": min_ade_by_k(scored),
        "buckets": {kind: {name: figures(part) for name, part in parts(scored, of).items()} for kind, of in KINDS.items()},
        "throughput": throughput(timing),
        "source": settings["source"],
        "notice": notice(settings["source"]),
        "config": settings["config"],
        "identity": settings["identity"],
        "versions": settings["versions"],
        "command": settings["command"],
    }
    write_text(Path(out) / "summary.json", json.dumps(_plain(summary), indent=2, allow_nan=False) + "\n")
    return summary


def read(out: Path) -> pa.Table:
    """The rows of a finished evaluation.

    Raises:
        ValueError: there are none, or the file is not what an evaluation wrote.
    """
    return _table(Path(out) / "results.parquet", [name for name in SCHEMA.names if name not in (*TIMINGS, *SEALS)])


def _table(path: Path, names: Sequence[str]) -> pa.Table:
    if not path.is_file():
        out = path.parent
        raise ValueError(f"{out} holds no finished evaluation (no {path.name}): run `alpamayo-r1 eval --out {out}` to its end")
    schema = pa.schema([SCHEMA.field(name) for name in names])
    try:
        content = path.read_bytes()
        tell(changed(path, content), stacklevel=4)
        table = pq.read_table(pa.BufferReader(content))
        for name in names:
            if name not in table.column_names:
                table = table.append_column(SCHEMA.field(name), pa.nulls(len(table), SCHEMA.field(name).type))
        return table.select(names).cast(schema)
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        raise ValueError(
            f"{path} is not what an evaluation wrote ({type(error).__name__}: {str(error)[:200]}): give the evaluation's "
            "command again, which writes it anew from its rows"
        ) from None


def changed(path: Path, content: bytes) -> list[Note]:
    """A note where a file's content is not what digests.json says; none where the folder has no digests.

    Raises:
        ValueError: digests.json is no JSON object.
    """
    digests = path.parent / DIGESTS
    if not digests.is_file() or read_object(digests).get(path.name) == hashlib.sha256(content).hexdigest():
        return []
    text = f"{path} is not as it was written (its SHA-256 is another one than in {DIGESTS}): the evaluation's command writes it anew"
    return [Note("results-changed", text)]


def planned_rows(table: pa.Table) -> pa.Table:
    """The rows that hold a plan."""
    return table.filter(table["error"].is_null())


def scored_rows(table: pa.Table) -> pa.Table:
    """The rows that hold a plan, for means: figures along the truth are null where less than half of the steps they are over is known.

    The error of a path grows with time, so that the first steps alone would make a mean better than it is. The same holds for the best
    sample, which is chosen over all steps: figures of it need half of all steps, those up to h seconds half of these too. Figures at the
    last step are known or not. What the row itself holds is not changed.
    """
    table = planned_rows(table)
    paths = [path or [math.nan] * 3 * F for path in table["gt_xyz"].to_pylist()]
    known = np.isfinite(np.array(paths, np.float64).reshape(len(table), F, 3)[..., :2].sum(-1))
    for name, steps in STEPS.items():
        enough = np.stack([2 * known[:, :n].sum(1) >= n for n in steps]).min(0)
        for whose in ("", *(f"{short}_" for short in SHORT.values())):
            table = _where(table, enough, whose + name)
    return _where(table, 2 * known.sum(1) >= F, "sample_ade")


def _where(table: pa.Table, kept: np.ndarray, name: str) -> pa.Table:
    """The table with null in a column where not kept."""
    place = table.schema.get_field_index(name)
    field, values = table.schema.field(name), table[name].to_pylist()
    return table.set_column(place, field, pa.array([v if keep else None for v, keep in zip(values, kept, strict=True)], field.type))


def column(table: pa.Table, name: str) -> np.ndarray:
    """A column as f64[n], null as NaN."""
    return table[name].to_numpy(zero_copy_only=False).astype(np.float64)


def figures(table: pa.Table) -> dict[str, dict[str, float]]:
    """Every figure's mean, interval, count and number of masked rows; baselines under cv_ and ctra_."""
    names = (*FIGURES, *BASELINES)
    values = np.stack([column(table, name) for name in names], 1) if len(table) else np.empty((0, len(names)))
    shares = [UNITS[name.removeprefix("cv_").removeprefix("ctra_")] == "share" for name in names]
    found = zip(names, intervals(values, clips=table["clip_id"].to_pylist(), shares=shares))
    return {name: asdict(replace(one, low=max(one.low, 0.0))) for name, one in found}


def min_ade_by_k(table: pa.Table) -> list[float]:
    """Mean minADE of the first k samples, k = 1 .. S."""
    known = [errors for errors in table["sample_ade"].to_pylist() if errors]
    if not known:
        return []
    return np.nanmean(np.fmin.accumulate(np.array(known), axis=1), axis=0).tolist()


def parts(table: pa.Table, of: Callable[[pa.Table], Sequence[str | None]]) -> dict[str, pa.Table]:
    """The rows by what `of` calls each (None: left out), the larger parts first."""
    names = np.array([name or "" for name in of(table)], dtype=object)
    found = {name: table.filter(pa.array(names == name)) for name in dict.fromkeys(names) if name}
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))


def _between(values: np.ndarray, ends: Sequence[tuple[float, str]]) -> list[str | None]:
    return [next((name for end, name in ends if value < end), None) if math.isfinite(value) else None for value in values]


KINDS: dict[str, Callable[[pa.Table], Sequence[str | None]]] = {
    "speed": lambda table: _between(column(table, "speed"), SPEEDS),
    "curvature": lambda table: _between(column(table, "curvature"), BENDS),
    "decision": lambda table: table["decision"].to_pylist(),
}
"""Kind of bucket -> name of each row's bucket."""


def errors(table: pa.Table) -> dict[str, int]:
    """First line of each error -> how many rows."""
    return dict(Counter((text.splitlines() or [""])[0] for text in table["error"].to_pylist() if text is not None))


def notes(table: pa.Table) -> dict[str, int]:
    """Code of each note -> how many rows have it, in the order of the alphabet."""
    return dict(sorted(Counter(code for codes in table["notes"].to_pylist() for code in codes or ()).items()))


def throughput(timing: pa.Table) -> dict[str, float]:
    """Rows per second, and the shares of the time spent planning and waiting for clips."""
    sums = {name: float(np.nansum(column(timing, name))) for name in TIMINGS} if len(timing) else dict.fromkeys(TIMINGS, 0.0)
    total = sums["total_ms"] or math.nan
    return {"clips_per_s": 1e3 * len(timing) / total, "planning": sums["plan_ms"] / total, "waiting": sums["wait_ms"] / total}


# -------------------------------------------------------------------------------------------------------------------------- A against B

SAID = {"reasoning-unfinished", "answer-unfinished"}
"""Notes on what a model said; all others are on what it was given, which two evaluations must share."""


def compare(first: Path, second: Path) -> dict[str, Any]:
    """Paired differences second - first over the (clip, t0) that both have; intervals resample clips.

    {"pairs", "clips", "only_first", "only_second", "differs": {option: [first's, second's]}, "apart": [why the two can't be told apart by
    these figures], "figures": {name: ...}}. Each figure has both means over the pairs, the mean difference with its interval, and "clear"
    where that interval excludes 0 and nothing stands in "apart".

    Raises:
        ValueError: a folder without a finished evaluation, or no clip and t0 in common.
    """
    first, second = path_of("first", first), path_of("second", second)
    tables = [scored_rows(read(out)) for out in (first, second)]
    settings = [read_settings(out) for out in (first, second)]
    keys = [list(zip(t["clip_id"].to_pylist(), t["t0_us"].to_pylist())) for t in tables]
    places = [{key: i for i, key in enumerate(k)} for k in keys]
    both = [key for key in places[0] if key in places[1]]
    if not both:
        raise ValueError(f"{first} and {second} have no clip and t0 in common: nothing to compare")
    a, b = (np.stack([column(t, name) for name in FIGURES], 1)[[p[key] for key in both]] for t, p in zip(tables, places))
    codes = [[set(t["notes"][p[key]].as_py() or ()) - SAID for key in both] for t, p in zip(tables, places)]
    truths = [[t["gt_xyz"][p[key]].as_py() for key in both] for t, p in zip(tables, places)]
    apart = _apart(*settings, unlike=sum(x != y for x, y in zip(*codes)), other_truth=sum(not _same_path(x, y) for x, y in zip(*truths)))
    found = {}
    for name, left, right, difference in zip(FIGURES, a.T, b.T, intervals(b - a, clips=[clip_id for clip_id, _ in both])):
        known = np.isfinite(left) & np.isfinite(right)
        found[name] = {
            "first": float(left[known].mean()) if known.any() else math.nan,
            "second": float(right[known].mean()) if known.any() else math.nan,
            "difference": asdict(difference),
            "clear": not apart and (difference.low > 0 or difference.high < 0),
        }
    counts = {"pairs": len(both), "clips": len({clip_id for clip_id, _ in both})}
    left_out = {"only_first": len(keys[0]) - len(both), "only_second": len(keys[1]) - len(both)}
    return _plain({**counts, **left_out, "differs": _differs(*settings), "apart": apart, "figures": found})


def _same_path(first: list[float] | None, second: list[float] | None) -> bool:
    """Whether two stored truths are the same to a centimetre, NaN like NaN."""
    if first is None or second is None or len(first) != len(second):
        return first is second
    return bool(np.allclose(np.array(first), np.array(second), atol=0.01, rtol=0, equal_nan=True))


def _apart(first: Mapping[str, Any], second: Mapping[str, Any], *, unlike: int, other_truth: int) -> list[str]:
    """Why two evaluations answer different questions, so that no difference of their figures speaks of the models."""
    found = []
    samples = [settings["config"]["plan"].get("samples") for settings in (first, second)]
    if samples[0] != samples[1]:
        found.append(f"samples {samples[0]} and {samples[1]}: the best of more samples is better by chance alone")
    moments = [settings["config"].get("t0") for settings in (first, second)]
    if moments[0] != moments[1]:
        found.append(f"t0 {moments[0]} and {moments[1]}")
    data = [settings["identity"].get("data") for settings in (first, second)]
    if data[0] != data[1]:
        found.append("the data sets differ (index or labels)")
    versions = [settings["identity"].get("row_version") for settings in (first, second)]
    if versions[0] != versions[1]:
        found.append(f"rows of version {versions[0]} and {versions[1]}, whose figures are counted differently")
    if other_truth:
        found.append(f"{other_truth} pairs have another future")
    if unlike:
        found.append(f"{unlike} pairs have other notes: their clips were read differently")
    return found


def _differs(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Options that the two evaluations don't share."""
    a, b = ({name: value for name, value in (s["config"] | s["config"]["plan"]).items() if name != "plan"} for s in (first, second))
    return {name: [a.get(name), b.get(name)] for name in dict.fromkeys([*a, *b]) if a.get(name) != b.get(name)}


# ------------------------------------------------------------------------------------------------------------------------------- tables


SHOWN = (
    "min_ade",
    "ade",
    "min_fde",
    "miss",
    "corner_distance",
    "heading_error",
    "lateral",
    "spread",
    "consistent",
    "inconsistent",
    "malformed",
)


def over(summary: Mapping[str, Any]) -> str:
    """What the figures are over, as a sentence: rows, clips, rows that failed, lack a part of the future, or have notes."""
    parts = [
        f"{summary['rows']} rows, {summary['failed']} failed; means and 95 % intervals over {clips_and_rows(summary['clips'], summary)}"
    ]
    if summary["partial"]:
        few = summary["mostly_unknown"]
        over_half = f", {few} of them over half of it: these are in no mean over the whole horizon" if few else ""
        parts.append(f"{summary['partial']} rows lack a part of the future{over_half}")
    if summary["notes"]:
        parts.append("notes: " + ", ".join(f"{code} {count}" for code, count in summary["notes"].items()))
    return "\n".join(parts)


def clips_and_rows(clips: int, summary: Mapping[str, Any]) -> str:
    """ "10 clips (50 rows)", or "10 clips" where each has one row."""
    rows = summary["rows"] - summary["failed"]
    return f"{clips} clips" + (f" ({rows} rows)" if rows != clips else "")


def table(summary: dict[str, Any]) -> Table:
    """The main figures for a terminal: a rich Table."""
    from rich.table import Table

    shown = Table(title=over(summary))
    for name in ("figure", "mean", "interval", "masked", "CV", "CTRA", "unit"):
        shown.add_column(name, justify="left" if name in ("figure", "unit") else "right")
    for name in SHOWN:
        mine = summary["figures"][name]
        bases = [summary["figures"].get(f"{short}_{name}") for short in SHORT.values()]
        row = [number(mine["mean"]), span(mine), str(mine["masked"]), *(number(base["mean"]) if base else "" for base in bases)]
        shown.add_row(name, *row, UNITS[name])
    return shown


def comparison_table(result: dict[str, Any]) -> Table:
    """A comparison for a terminal: a rich Table."""
    from rich.table import Table

    differs = "; ".join(f"{name}: {a} -> {b}" for name, (a, b) in result["differs"].items()) or "the same options"
    if result["apart"]:
        differs += "\nnot comparable, so no difference is called clear: " + "; ".join(result["apart"])
    only = f"{result['only_first']} rows only in the first, {result['only_second']} only in the second"
    counts = f"{result['pairs']} pairs of {result['clips']} clips ({only})"
    shown = Table(title=f"{counts}\n{differs}")
    for name in ("figure", "first", "second", "difference", "95 % interval", ""):
        shown.add_column(name, justify="left" if name in ("figure", "") else "right")
    for name, row in result["figures"].items():
        means = [number(row[key]) for key in ("first", "second")]
        difference = row["difference"]
        shown.add_row(name, *means, number(difference["mean"]), span(difference), "clear" if row["clear"] else "")
    return shown


def number(value: float | None) -> str:
    """A figure with three digits after the point, "-" where there is none."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.3f}"


def span(found: dict[str, Any]) -> str:
    """An interval as text, "" where there is none."""
    return "" if number(found["low"]) == "-" else f"{number(found['low'])} .. {number(found['high'])}"


def _plain(value: Any) -> Any:
    """For JSON: NaN becomes None."""
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


__all__ = ["Interval", "compare", "comparison_table", "summarise", "table"]
