"""report.html: one file that opens anywhere, offline. Figures with intervals, good and bad clips with pictures, every row, the protocol."""

from __future__ import annotations

import base64
import html
import io
import json
import math
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from alpamayo_r1.core.files import write_text
from alpamayo_r1.data.source import Source, open_source
from alpamayo_r1.evaluate.protocol import Item
from alpamayo_r1.evaluate.score import HORIZONS, SHORT, UNITS, as_plan
from alpamayo_r1.evaluate.summary import FIGURES, column, number, ok, read, span
from alpamayo_r1.evaluate.worker import describe, read_item
from alpamayo_r1.metrics.intervals import FEWEST

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
    parts = [
        _head(summary),
        _figures(summary["figures"]),
        _distributions(ok(table), summary["min_ade_by_k"]),
        _buckets(summary["buckets"]),
        _pages(summary, ok(table)),
        _errors(summary),
        _rows(table),
        _protocol(summary),
    ]
    page = (resources.files("alpamayo_r1") / "assets" / "report.html").read_text(encoding="utf-8")
    content = page.replace("{{title}}", "Alpamayo-R1 evaluation").replace("{{body}}", "\n".join(parts))
    return write_text(out / "report.html", content)


def _head(summary: dict[str, Any]) -> str:
    found = summary["figures"]["min_ade"]
    config, asked = summary["config"], summary["config"]["plan"]
    bases = [
        (label, summary["figures"][f"{short}_min_ade"])
        for short, label in (("cv", "constant velocity"), ("ctra", "constant turn rate and acceleration"))
    ]
    rivals = "".join(f"<div><b>{number(base['mean'])} m</b><small>{span(base)}</small><span>{label}</span></div>" for label, base in bases)
    failed = f", <b class=bad>{summary['failed']} failed</b>" if summary["failed"] else ""
    where = f"{_e(config['checkpoint'])} on {_e(config['data'])}, t0 {_e(config['t0'])} s, {asked['samples']} samples, seed {asked['seed']}"
    return f"""<header><h1>Alpamayo-R1 evaluation</h1><p>{summary["rows"]} rows{failed} · {where}</p></header>
<p class="{"note" if summary["source"] == "world" else "notice"}">{_e(summary["notice"])}</p>
<section class="big"><div class="main"><b>{number(found["mean"])} m</b><small>{span(found)}</small><span>mean minADE of {asked["samples"]},
95 % interval over {found["count"]} clips{f", {found['masked']} masked" if found["masked"] else ""}</span></div>{rivals}</section>"""


def _figures(figures: dict[str, Any]) -> str:
    rows = []
    for name in (name for name in FIGURES if not name.endswith(WHOLE)):
        mine, bases = figures[name], [figures.get(f"{short}_{name}") for short in SHORT.values()]
        cells = [_n(mine["mean"]), f"<td>{span(mine)}</td>", *(_n(base["mean"]) if base else "<td></td>" for base in bases)]
        rows.append(f"<tr><td class=l>{title(name)}</td>{''.join(cells)}<td>{mine['masked'] or ''}</td><td class=l>{UNITS[name]}</td></tr>")
    head = "<tr><th class=l>figure<th>mean<th>95 % interval<th>CV<th>CTRA<th>masked<th class=l>unit</tr>"
    note = "CV, CTRA: the baselines constant velocity, constant turn rate and acceleration. Masked: rows without that part of the future. "
    note += f"Intervals: bootstrap over clips; none below {FEWEST} clips."
    return f"<section><h2>Figures</h2><table>{head}{''.join(rows)}</table><p class=note>{note}</p></section>"


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
    """Inline SVG: how many clips have which value; the last bar holds the highest 2 %, the dashed line is the median."""
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
    head = "<tr><th class=l>{}<th>clips<th>minADE, m<th>95 % interval<th>CV<th>CTRA<th>miss<th>consistent<th>inconsistent</tr>"
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
        tables.append(f"<table>{head.format(kind if kind != 'decision' else 'what it says it does')}{''.join(rows)}</table>")
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


def _pages(summary: dict[str, Any], table: pa.Table) -> str:
    try:
        source = open_source(summary["config"]["data"])
    except Exception as problem:
        why = _e(describe(problem).splitlines()[0])
        return f"<section><h2>Pictures</h2><p class=note>None: the data set can't be opened here ({why}).</p></section>"
    with source:
        parts = [
            f"<h2>{heading}</h2>{''.join(_page(source, table, i, summary) for i in places)}"
            for heading, places in choose(table).items()
            if places
        ]
    return f"<section class=pages>{''.join(parts)}</section>"


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
    picture = jpeg(page(read_again.sample, plan, result(read_again.sample, plan, summary["config"]["plan"]["seed"])))
    encoded = base64.b64encode(picture).decode()
    return f'<figure><figcaption>{caption}</figcaption><img alt="{caption}" src="data:image/jpeg;base64,{encoded}"></figure>'


def _verdicts(row: dict[str, Any]) -> str:
    return ", ".join(f"{row['verdict'].count(kind)} {kind}" for kind in ("consistent", "inconsistent", "unclear") if kind in row["verdict"])


def jpeg(figure, quality: int = 82) -> bytes:
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


def _rows(table: pa.Table) -> str:
    """Every row; a click on a heading sorts."""
    head = "".join(
        f"<th class={'l' if left else 'r'}>{name}"
        for name, left in [
            ("clip", True),
            ("t0", False),
            ("says", True),
            *((n, False) for n, _ in COLUMNS),
            ("reasoning of sample 1", True),
        ]
    )
    keep = table.select(["index", "clip_id", "t0_us", "decision", "error", "reasoning", *(name for _, name in COLUMNS)])
    body = []
    for row in keep.to_pylist():
        said = f"<span class=bad>{_e(row['error'].splitlines()[0])}</span>" if row["error"] else _e(row["reasoning"][0]) or "(none)"
        numbers = "".join(_n(row[name]) for _, name in COLUMNS)
        decision = _e((row["decision"] or "").replace("_", " "))
        clip_id, t0_us = _e(row["clip_id"]), row["t0_us"]
        clip = f'<td class="l id" title="{clip_id}">{clip_id[:8]}</td><td data-v={t0_us}>{t0_us / 1e6:g}</td>'
        body.append(f"<tr>{clip}<td class=l>{decision}</td>{numbers}<td class=l>{said}</td></tr>")
    return f"<section><h2>All rows</h2><table id=rows><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></section>"


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
    return f"<section><h2>Protocol</h2><p class=note>{pace}</p><pre>{_e(json.dumps(shown, indent=2))}</pre></section>"


def _n(value: float | None) -> str:
    exact = "" if value is None or not math.isfinite(value) else f" data-v={value!r}"
    return f"<td{exact}>{number(value)}</td>"


def _e(text: str) -> str:
    return html.escape(str(text))
