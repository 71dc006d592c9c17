"""The result of many drives: a summary with intervals, and a page that shows failures first."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alpamayo_r1.core.files import write_text
from alpamayo_r1.metrics.intervals import Interval, interval

SHARES = ("collision_at_fault", "collision_any", "off_road", "red_light_run", "stop_sign_run", "comfortable", "words_consistent")
"""Figures that are shares of scenes, or of words."""

FIGURES = ("score", *SHARES, "progress", "wrong_side_s", "from_expert_m", "plan_deviation_m")

NAMES = {
    "score": "score",
    "collision_at_fault": "collision, at fault",
    "collision_any": "collision, any",
    "off_road": "off the road",
    "red_light_run": "red light run",
    "stop_sign_run": "stop sign run",
    "comfortable": "comfortable (nuPlan's bounds)",
    "words_consistent": "words done",
    "progress": "progress (expert's way = 1)",
    "wrong_side_s": "on the wrong side, s",
    "from_expert_m": "farthest from the expert, m",
    "plan_deviation_m": "plan against the one before, m",
}


def values(rows: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    """One figure of every row; NaN where it has none."""
    if name == "collision_any":
        return np.array([row["collision"] is not None for row in rows], float)
    if name == "words_consistent":
        return np.array([row[name] / row["words_judged"] if row["words_judged"] else math.nan for row in rows])
    return np.array([math.nan if row[name] is None else float(row[name]) for row in rows])


def summarise(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means with 95 % intervals over scenes, the score by family, and kilometres between incidents (None where there was none)."""
    incidents = sum(row["collision"] is not None or row["off_road"] for row in rows)
    faults = sum(row["collision_at_fault"] or row["off_road"] for row in rows)
    metres = sum(row["metres"] for row in rows)
    families = sorted({row["family"] for row in rows})
    return {
        "scenes": len(rows),
        "figures": {name: _plain(interval(values(rows, name), share=name in SHARES)) for name in FIGURES},
        "score_by_family": {f: _plain(interval(values([r for r in rows if r["family"] == f], "score"))) for f in families},
        "km_driven": round(metres / 1000, 3),
        "km_between_incidents": round(metres / 1000 / incidents, 3) if incidents else None,
        "km_between_faults": round(metres / 1000 / faults, 3) if faults else None,
        "free_progress": sum(row["expert_metres"] < 5.0 for row in rows),
    }


def _plain(found: Interval) -> dict[str, Any]:
    low, high = (None if math.isnan(value) else round(value, 4) for value in (found.low, found.high))
    return {"mean": None if math.isnan(found.mean) else round(found.mean, 4), "low": low, "high": high, "scenes": found.clips}


def table(summary: Mapping[str, Any]) -> str:
    """The main figures as text."""
    lines = [f"{summary['scenes']} scenes, {summary['km_driven']:g} km"]
    lines += [f"  {NAMES[name]:32s} {shown(found)}" for name, found in summary["figures"].items() if found["mean"] is not None]
    between = summary["km_between_incidents"]
    lines.append(f"  {'km between incidents':32s} {'no incident' if between is None else f'{between:g}'}")
    lines += ["score by family"] + [f"  {name:32s} {shown(found)}" for name, found in summary["score_by_family"].items()]
    return "\n".join(lines)


def shown(found: Mapping[str, Any]) -> str:
    """ "0.914 (0.88 to 0.94)"."""
    if found["mean"] is None:
        return "-"
    span = "" if found["low"] is None else f" ({found['low']:.3g} to {found['high']:.3g})"
    return f"{found['mean']:.4g}{span}"


def write_report(out: Path, rows: Sequence[Mapping[str, Any]], identity: Mapping[str, Any]) -> dict[str, Any]:
    """Writes summary.json and report.html; returns the summary."""
    summary = summarise(rows)
    write_text(out / "summary.json", json.dumps(summary, indent=1) + "\n")
    write_text(out / "report.html", page(out, rows, summary, identity))
    return summary


STYLE = """
:root {
  color-scheme: light dark;
  --ink: #1b1f24; --paper: #fff; --soft: #5b636d; --rule: #e3e6ea; --plan: #1668dc; --truth: #d8232a;
}
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8ebef; --paper: #14171b; --soft: #a3acb6; --rule: #2c3238; --plan: #6aa8ff; --truth: #ff7a70; }
}
body { max-width: 1100px; margin: 0 auto; padding: 24px; font: 14px/1.5 system-ui, sans-serif; }
body { color: var(--ink); background: var(--paper); overflow-wrap: anywhere; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
td { padding: 3px 14px 3px 0; border-bottom: 1px solid var(--rule); }
.wide { overflow-x: auto; }
.soft { color: var(--soft); }
.bad { color: var(--truth); }
a { color: var(--plan); }
article { display: flex; flex-wrap: wrap; gap: 16px; padding: 14px 0; border-bottom: 1px solid var(--rule); }
article > div { flex: 1 1 320px; }
svg { width: 300px; height: 220px; }
polyline { fill: none; stroke-width: 2; vector-effect: non-scaling-stroke; }
.driven { stroke: var(--plan); }
.expert { stroke: var(--truth); stroke-dasharray: 5 3; }
"""


def page(out: Path, rows: Sequence[Mapping[str, Any]], summary: Mapping[str, Any], identity: Mapping[str, Any]) -> str:
    """report.html: figures, families, then every drive, the worst first."""
    ordered = sorted(rows, key=lambda row: (row["score"], row["progress"], row["seed"]))
    figures = "".join(f"<tr><td>{NAMES[name]}<td>{shown(found)}" for name, found in summary["figures"].items())
    families = "".join(f"<tr><td>{html.escape(name)}<td>{shown(found)}" for name, found in summary["score_by_family"].items())
    asked = html.escape(", ".join(f"{name} {value}" for name, value in identity.items() if not isinstance(value, dict)))
    drives = "".join(one(out, row) for row in ordered)
    title = f"Closed loop: score {summary['figures']['score']['mean']:.3f}"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{title}</title><style>{STYLE}</style></head><body><h1>{title}</h1>'
        f'<p class="soft">{summary["scenes"]} scenes, {summary["km_driven"]:g} km; means with 95 % intervals over scenes. In '
        f"{summary['free_progress']} scenes the expert goes less than 5 m, and progress is free. {asked}</p>"
        f'<div class="wide"><table>{figures}</table></div><h2>Score by family</h2><div class="wide"><table>{families}</table></div>'
        f'<h2>Every drive, the worst first</h2><p class="soft">Blue: driven. Red, dashed: the expert of the same scene.</p>'
        f"{drives}</body></html>\n"
    )


def one(out: Path, row: Mapping[str, Any]) -> str:
    """One drive: what happened, the words, the way."""
    said = "".join(f"<li>{at:g} s: {html.escape(text)}" for at, text in row["words"])
    route = "".join(f"<li>{at:g} s: {html.escape(text)}" for at, text in row.get("told", ()))
    said += f"<li>what it was told:<ul>{route}</ul>" if route else ""
    happened = [row["collision"] and f"{row['collision']} ({'at fault' if row['collision_at_fault'] else 'not at fault'})"]
    happened += [row["off_road"] and "off the road", row["red_light_run"] and "ran a red light", row["stop_sign_run"] and "ran a stop sign"]
    told = "; ".join(text for text in happened if text) or "nothing happened"
    when = "" if row["incident_s"] is None else f" at {row['incident_s']:g} s"
    film = Path("films") / f"{row['seed']}.mp4"
    link = f' <a href="{film.as_posix()}">film</a>' if (out / film).is_file() else ""
    return (
        f"<article><div><h3>{html.escape(row['family'])}, seed {row['seed']}: {row['score']:.2f}{link}</h3>"
        f'<p class="{"bad" if row["score"] == 0 else "soft"}">{html.escape(told)}{when}. Progress {row["progress"]:.2f}, farthest from the '
        f"expert {row['from_expert_m']:.1f} m.</p><ul>{said}</ul></div>{drawn(row)}</article>"
    )


def drawn(row: Mapping[str, Any]) -> str:
    """The way from above as SVG, the direction of the start upwards."""
    x0, y0, yaw = row["path"][0]
    c, s = math.cos(yaw), math.sin(yaw)

    def local(points: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
        return [(s * (p[0] - x0) - c * (p[1] - y0), -(c * (p[0] - x0) + s * (p[1] - y0))) for p in points]

    ways = {"expert": local(row["expert_path"]), "driven": local(row["path"])}
    xs, ys = zip(*(point for way in ways.values() for point in way), strict=True)
    half = max(max(xs) - min(xs), (max(ys) - min(ys)) * 300 / 220, 12.0) * 0.55
    middle = (max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2
    view = f"{middle[0] - half:.1f} {middle[1] - half * 220 / 300:.1f} {2 * half:.1f} {2 * half * 220 / 300:.1f}"
    lines = "".join(f'<polyline class="{name}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in way)}"/>' for name, way in ways.items())
    return f'<svg viewBox="{view}" role="img" aria-label="the way from above">{lines}</svg>'
