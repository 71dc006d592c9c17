"""report.html: one file that opens anywhere, offline. Figures with intervals, good and bad clips with pictures, every row, the protocol."""

from __future__ import annotations

import base64
import html
import io
import json
import math
import shlex
from collections import Counter
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from alpamayo_r1.core.files import write_text
from alpamayo_r1.data.source import Source, open_source
from alpamayo_r1.evaluate.protocol import Item
from alpamayo_r1.evaluate.score import HORIZONS, SHORT, UNITS, as_plan
from alpamayo_r1.evaluate.summary import FIGURES, column, number, planned_rows, read, scored_rows, span
from alpamayo_r1.evaluate.worker import describe, read_item
from alpamayo_r1.metrics.intervals import FEWEST

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WHOLE = f"_{HORIZONS[-1]:g}s"
"""Ends the names of figures over the whole path, which are shown without a horizon."""

EACH = 3
"""Pages for each of best, worst and most inconsistent."""

NAMES = {
    "min_ade": "minADE, all 6.4 s",
    "ade": "ADE, mean of the samples",
    "min_fde": "minFDE",
    "fde": "FDE, mean of the samples",
    "miss": "miss rate at 2 m",
    "corner_distance": "corner distance",
    "heading_error": "heading error of the best sample",
    "longitudinal": "peak longitudinal acceleration",
    "lateral": "peak lateral acceleration",
    "jerk": "peak jerk",
    "violations": "steps beyond the kinematic bounds",
    "spread": "spread of the samples",
    "words": "length of the reasoning",
    "malformed": "malformed reasoning",
    "consistent": "consistent: does what it says",
    "inconsistent": "inconsistent: does something else",
    "unclear": "unclear",
}
"""Figure -> what a reader calls it; figures by horizon follow from their names."""

BUCKETS = ("min_ade", "cv_min_ade", "ctra_min_ade", "miss", "consistent", "inconsistent")
HISTOGRAMS = ("min_ade", "min_fde", "heading_error", "spread")


def write_report(out: Path, summary: dict[str, Any]) -> Path:
    """Writes out/report.html from results.parquet, the summary of `summarise` and, for the pictures, the data set. Returns its path."""
    out = Path(out)
    table = read(out)
    shown = choose(planned_rows(table))
    parts = [
        _head(summary, table),
        _figures(summary["figures"]),
        _distributions(scored_rows(table), summary["min_ade_by_k"]),
        _buckets(summary["buckets"]),
        _pages(summary, planned_rows(table), shown),
        _errors(summary),
        _notes(summary),
        _rows(table, summary),
        _protocol(summary),
    ]
    page = (resources.files("alpamayo_r1") / "assets" / "report.html").read_text(encoding="utf-8")
    content = page.replace("{{title}}", "Alpamayo-R1 evaluation").replace("{{body}}", "\n".join(parts))
    return write_text(out / "report.html", content)


def _head(summary: dict[str, Any], table: pa.Table) -> str:
    found = summary["figures"]["min_ade"]
    config, asked = summary["config"], summary["config"]["plan"]
    bases = [
        (label, summary["figures"][f"{short}_min_ade"])
        for short, label in (("cv", "constant velocity"), ("ctra", "constant turn rate and acceleration"))
    ]
    rivals = "".join(f"<div><b>{number(base['mean'])} m</b><small>{span(base)}</small><span>{label}</span></div>" for label, base in bases)
    rows = f" ({found['count']} rows)" if found["count"] != found["clips"] else ""
    counted = (
        ("" if span(found) else "no ")
        + f"95 % interval over {found['clips']} clip{'s' * (found['clips'] != 1)}{rows}"
        + (f", {found['masked']} masked" if found["masked"] else "")
    )
    failed = f", <b class=bad>{summary['failed']} failed</b>" if summary["failed"] else ""
    where = f"{_e(config['checkpoint'])} on {_e(config['data'])}, t0 {_e(config['t0'])} s, {asked['samples']} samples, seed {asked['seed']}"
    return f"""<header><h1>Alpamayo-R1 evaluation</h1><p>{summary["rows"]} rows{failed} · {where}</p></header>
<p class="{"notice" if summary["source"] == "physical-ai-av" else "note"}">{_e(summary["notice"])}</p>
<section class="big"><div class="main"><b>{number(found["mean"])} m</b><small>{span(found)}</small><span>mean minADE of {asked["samples"]},
{counted}</span></div>{rivals}</section>"""


def _figures(figures: dict[str, Any]) -> str:
    rows = []
    for name in (name for name in FIGURES if not name.endswith(WHOLE)):
        mine, bases = figures[name], [figures.get(f"{short}_{name}") for short in SHORT.values()]
        cells = [_n(mine["mean"]), f"<td>{span(mine)}</td>", *(_n(base["mean"]) if base else "<td></td>" for base in bases)]
        rows.append(f"<tr><td class=l>{title(name)}</td>{''.join(cells)}<td>{mine['masked'] or ''}</td><td class=l>{UNITS[name]}</td></tr>")
    head = "<tr><th class=l>figure<th>mean<th>95 % interval<th>CV<th>CTRA<th>masked<th class=l>unit</tr>"
    note = "CV, CTRA: the baselines constant velocity, constant turn rate and acceleration. Masked: rows without that part of the future. "
    note += f"Intervals: bootstrap over clips; none below {FEWEST} clips."
    return f"<section><h2>Figures</h2><div class=wide><table>{head}{''.join(rows)}</table></div><p class=note>{note}</p></section>"


def title(name: str) -> str:
    """A figure as a reader calls it."""
    if name in NAMES:
        return NAMES[name]
    kind, _, horizon = name.rpartition("_")
    return f"{'minADE' if kind == 'min_ade' else 'ADE'} to {horizon[:-1]} s"


def _distributions(table: pa.Table, by_k: Sequence[float]) -> str:
    plots = [histogram(column(table, name), f"{title(name)}, {UNITS[name]}") for name in HISTOGRAMS]
    if len(by_k) > 1:
        plots.append(bars([str(k + 1) for k in range(len(by_k))], by_k, "minADE of the first k samples, m"))
    return f"<section><h2>Distributions</h2><div class=plots>{''.join(plots)}</div></section>"


def histogram(values: np.ndarray, label: str) -> str:
    """Inline SVG: how many rows have which value; the last bar holds the highest 2 %, the dashed line is the median."""
    values = values[np.isfinite(values)]
    if not len(values):
        return ""
    bins = max(6, min(24, round(2 * len(values) ** 0.5)))
    top = float(np.quantile(values, 0.98)) * 1.02 or 1.0
    counts, edges = np.histogram(np.minimum(values, top), bins, (0, top))
    width, height = 300, 110
    step, tall = width / bins, height * counts / counts.max()
    shapes = "".join(
        f'<rect x="{i * step:.1f}" y="{height - tall[i]:.1f}" width="{step - 1:.1f}" height="{tall[i]:.1f}">'
        f"<title>{edges[i]:.2g} to {edges[i + 1]:.2g}: {n}</title></rect>"
        for i, n in enumerate(counts)
    )
    middle = min(float(np.median(values)) / top, 1) * width
    ticks = "".join(
        f'<text x="{width * f:.0f}" y="{height + 14}" text-anchor="{a}">{top * f:.2g}</text>'
        for f, a in ((0, "start"), (0.5, "middle"), (1, "end"))
    )
    line = f'<line x1="{middle:.1f}" x2="{middle:.1f}" y1="0" y2="{height}"><title>median {np.median(values):.2g}</title></line>'
    return f'<figure><figcaption>{_e(label)}</figcaption><svg viewBox="0 -4 {width} {height + 22}">{shapes}{line}{ticks}</svg></figure>'


def bars(names: Sequence[str], values: Sequence[float], label: str) -> str:
    """Inline SVG: a bar with its value for each name."""
    width, height = 300, 110
    step, scale = width / len(values), 0.85 * height / (max(values) or 1.0)
    shapes = "".join(
        f'<rect x="{i * step + 2:.1f}" y="{height - scale * v:.1f}" width="{step - 4:.1f}" height="{scale * v:.1f}"/>'
        f'<text x="{(i + 0.5) * step:.1f}" y="{height - scale * v - 4:.1f}" text-anchor="middle">{v:.2f}</text>'
        f'<text x="{(i + 0.5) * step:.1f}" y="{height + 14}" text-anchor="middle">{_e(n)}</text>'
        for i, (n, v) in enumerate(zip(names, values))
    )
    return f'<figure><figcaption>{_e(label)}</figcaption><svg viewBox="0 -4 {width} {height + 22}">{shapes}</svg></figure>'


def _buckets(buckets: dict[str, Any]) -> str:
    head = "<tr><th class=l>{}<th>rows<th>minADE, m<th>95 % interval<th>CV<th>CTRA<th>miss<th>consistent<th>inconsistent</tr>"
    tables = []
    for kind, parts in buckets.items():
        rows = []
        for name, found in parts.items():
            mine = found["min_ade"]
            rest = "".join(_n(found[figure]["mean"]) for figure in BUCKETS[1:])
            shown = _e(name.replace("_", " ").replace("+", " + "))
            rows.append(
                f"<tr><td class=l>{shown}</td><td>{mine['count'] + mine['masked']}</td>{_n(mine['mean'])}<td>{span(mine)}</td>{rest}</tr>"
            )
        name = kind if kind != "decision" else "what it says it does"
        tables.append(f"<div class=wide><table>{head.format(name)}{''.join(rows)}</table></div>")
    return f"<section><h2>Where</h2>{''.join(tables)}</section>"


# ------------------------------------------------------------------------------------------------------------------------------ pictures


def choose(table: pa.Table) -> dict[str, list[int]]:
    """Heading -> places in the table of the clips to show: best and worst by minADE, most inconsistent by share, each at most once."""
    error, doubt = column(table, "min_ade"), column(table, "inconsistent")
    known = [int(i) for i in np.argsort(error, kind="stable") if math.isfinite(error[i])]
    contrary = [int(i) for i in np.lexsort((-error, -doubt)) if doubt[i] > 0][:EACH]
    worst = [i for i in reversed(known) if i not in contrary][:EACH]
    best = [i for i in known if i not in contrary and i not in worst][:EACH]
    return {"Most inconsistent": contrary, "Worst": worst, "Best": best}


def _pages(summary: dict[str, Any], table: pa.Table, chosen: dict[str, list[int]]) -> str:
    try:
        source = open_source(summary["config"]["data"])
    except Exception as problem:
        why = _e(describe(problem).splitlines()[0])
        return f"<section><h2>Pictures</h2><p class=note>None: the data set can't be opened here ({why}).</p></section>"
    with source:
        parts = [
            f"<h2>{heading}</h2>{''.join(_page(source, table, i, summary) for i in places)}" for heading, places in chosen.items() if places
        ]
    hint = "<p class=note>Blue: the sample nearest to what was driven, and its own words. A click or Enter enlarges a picture.</p>"
    return f"<section class=pages>{hint}{''.join(parts)}</section>"


def _page(source: Source, table: pa.Table, place: int, summary: dict[str, Any]) -> str:
    """One clip's page as an embedded picture with its caption; a sentence where the clip can't be read any more."""
    from alpamayo_r1.draw import page
    from alpamayo_r1.predict.record import result

    (row,) = table.slice(place, 1).to_pylist()
    read_again = read_item(source, Item(row["index"], row["clip_id"], row["t0_us"]))
    caption = f"{_e(row['clip_id'])}, t0 {row['t0_us'] / 1e6:g} s · minADE {number(row['min_ade'])} m · {_verdicts(row)}"
    if read_again.sample is None:
        return f"<figure><figcaption>{caption}</figcaption><p class=note>{_e(read_again.error or '')}</p></figure>"
    plan = as_plan(row, {})
    asked = {"navigation": row["navigation"]} if row["navigation"] else None
    picture = jpeg(page(read_again.sample, plan, result(read_again.sample, plan, summary["config"]["plan"]["seed"], asked)))
    encoded = base64.b64encode(picture).decode()
    image = f'<img alt="{caption}" src="data:image/jpeg;base64,{encoded}">'
    return (
        f'<figure id="page-{row["index"]}"><figcaption>{caption}</figcaption><a class=zoom href="#row-{row["index"]}">{image}</a></figure>'
    )


def _verdicts(row: dict[str, Any]) -> str:
    return ", ".join(f"{row['verdict'].count(kind)} {kind}" for kind in ("consistent", "inconsistent", "unclear") if kind in row["verdict"])


def jpeg(figure: Figure, quality: int = 82) -> bytes:
    """A figure as a JPEG."""
    file = io.BytesIO()
    figure.savefig(file, format="jpeg", dpi=figure.dpi, pil_kwargs={"quality": quality, "optimize": True})
    return file.getvalue()


# ------------------------------------------------------------------------------------------------------------------------------- all rows

COLUMNS = (
    ("minADE", "min_ade"),
    ("minFDE", "min_fde"),
    ("CV", "cv_min_ade"),
    ("CTRA", "ctra_min_ade"),
    ("inconsistent", "inconsistent"),
    ("m/s", "speed"),
)


STEPS = (*range(4, 64, 5), 63)
"""Steps of a path that the view of a row draws: every half second, and the last."""


def _rows(table: pa.Table, summary: dict[str, Any]) -> str:
    """Every row; a click on a heading sorts, a click on a row opens it: paths from above, words and error of each sample, its page."""
    names = [("clip", True), ("t0", False), ("says", True), *((n, False) for n, _ in COLUMNS), ("reasoning of the best sample", True)]
    head = "".join(f"<th class={'l' if left else 'r'} tabindex=0 role=button>{name}" for name, left in names)
    keep = table.select(
        ["index", "clip_id", "t0_us", "navigation", "decision", "error", "reasoning", "sample_ade", *(name for _, name in COLUMNS)]
    )
    body = []
    for row in keep.to_pylist():
        said = f"<span class=bad>{_e(row['error'].splitlines()[0])}</span>" if row["error"] else _e(row["reasoning"][best(row)]) or "(none)"
        numbers = "".join(_n(row[name]) for _, name in COLUMNS)
        decision = _e((row["decision"] or "").replace("_", " "))
        clip_id, t0_us, index = _e(row["clip_id"]), row["t0_us"], row["index"]
        link = f'<a class=open href="#row-{index}">{_e(row["clip_id"][:8])}</a>'
        clip = f'<td class="l id" title="{clip_id}">{link}</td><td data-v={t0_us}>{t0_us / 1e6:.10g}</td>'
        said = f"<i>told: {_e(row['navigation'])}</i> · {said}" if row["navigation"] else said
        body.append(f"<tr id=row-{index}>{clip}<td class=l>{decision}</td>{numbers}<td class=l>{said}</td></tr>")
    rows = f"<table id=rows><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
    note = "<p class=note>Click a heading to sort. Click a row, or its clip's name, to see its paths and every sample's words.</p>"
    return f"<section><h2>All rows</h2>{note}<div class=wide>{rows}</div>{_details(table, summary['config'])}</section>"


def best(row: dict[str, Any]) -> int:
    """The number of the sample with the smallest error; the first where no error is known."""
    known = [(error, i) for i, error in enumerate(row["sample_ade"] or []) if error is not None and math.isfinite(error)]
    return min(known, default=(0.0, 0))[1]


def _details(table: pa.Table, config: dict[str, Any]) -> str:
    """What a row opens to, as JSON by index: paths in metres [[ahead, left], ...], words, errors, verdicts, and how to draw its page."""
    found = {}
    kept = ["index", "clip_id", "t0_us", "reasoning", "verdict", "sample_ade", "pred_xyz", "gt_xyz"]
    for row in planned_rows(table).select(kept).to_pylist():
        plans = np.asarray(row["pred_xyz"], dtype=np.float64).reshape(len(row["reasoning"]), -1, 3)
        truth = None if row["gt_xyz"] is None else np.asarray(row["gt_xyz"], dtype=np.float64).reshape(1, -1, 3)
        where = ["--checkpoint", str(config["checkpoint"]), "--data", str(config["data"]), "--clip", row["clip_id"]]
        rest = ["--t0", f"{row['t0_us'] / 1e6:.10g}", "--samples", str(config["plan"]["samples"]), "--seed", str(config["plan"]["seed"])]
        found[row["index"]] = {
            "title": f"{row['clip_id']}, t0 {row['t0_us'] / 1e6:.10g} s",
            "plans": [_path(path) for path in plans],
            "truth": None if truth is None else _path(truth[0]),
            "words": row["reasoning"],
            "verdicts": row["verdict"],
            "errors": [None if e is None or not math.isfinite(e) else round(e, 3) for e in row["sample_ade"] or []],
            "best": best(row),
            "command": shlex.join(["alpamayo-r1", "run", *where, *rest, "--out", "pages"]),
        }
    content = json.dumps(found, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" id=details>{content}</script>'


def _path(xyz: np.ndarray) -> list[list[float]]:
    """x, y at STEPS to the centimetre, without steps that are no numbers."""
    picked = xyz[[step for step in STEPS if step < len(xyz)], :2]
    return picked[np.isfinite(picked).all(1)].round(2).tolist()


def _notes(summary: dict[str, Any]) -> str:
    """How many rows have which note, the most frequent first."""
    counts = Counter(summary["notes"])
    if not counts:
        return ""
    listed = "".join(f"<li>{count} × <code>{_e(code)}</code></li>" for code, count in counts.most_common())
    return f"<section><h2>Notes</h2><p class=note>Rows whose input or plan has something to know.</p><ul>{listed}</ul></section>"


def _errors(summary: dict[str, Any]) -> str:
    if not summary["errors"]:
        return ""
    listed = "".join(f"<li>{count} × {_e(text)}</li>" for text, count in summary["errors"].items())
    return f"<section><h2>Failed</h2><ul class=bad>{listed}</ul></section>"


def _protocol(summary: dict[str, Any]) -> str:
    speed = summary["throughput"]
    pace = (
        f"{number(speed['clips_per_s'])} clips/s, {100 * speed['planning']:.0f} % of the time planning"
        if speed["planning"] == speed["planning"]
        else ""
    )
    shown = {key: summary[key] for key in ("command", "config", "identity", "versions")}
    return f"<section><h2>Protocol</h2><p class=note>{pace}</p><pre>{_e(json.dumps(shown, indent=2, ensure_ascii=False))}</pre></section>"


def _n(value: float | None) -> str:
    exact = "" if value is None or not math.isfinite(value) else f" data-v={value!r}"
    return f"<td{exact}>{number(value)}</td>"


def _e(text: str) -> str:
    return html.escape(str(text))
