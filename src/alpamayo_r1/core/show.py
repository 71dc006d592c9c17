"""How a notebook shows a plan and a sample: words, and paths from above as one small drawing; pictures at t0. Plain HTML, no script."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence

import torch

PLANNED, DRIVEN, BEFORE = "#1668dc", "#d8232a", "#8a9099"
WIDE, HIGH = 260, 380
"""Size of the drawing in pixels."""
SHOWN = 16
"""Samples whose words are listed."""
THUMBNAIL = 320
"""Width of a picture in pixels at most."""


def plan_html(xyz: torch.Tensor, reasoning: Sequence[str], notes: Sequence[str]) -> str:
    """S plans xyz [S, F, 3] beside their words; the first one bold."""
    paths = [(path, PLANNED, 3.0 if i == 0 else 1.2) for i, path in enumerate(xyz)]
    said = "".join(f"<li>{html.escape(text.strip() or '(no words)')}</li>" for text in list(reasoning)[:SHOWN])
    more = f"<p>and {len(reasoning) - SHOWN} more</p>" if len(reasoning) > SHOWN else ""
    return beside(f"{len(xyz)} planned future{'s' * (len(xyz) != 1)}, 6.4 s", above(paths), f"<ol>{said}</ol>{more}{listed(notes)}")


def sample_html(
    title: str, cameras: Sequence[str], frames: torch.Tensor, history: torch.Tensor, future: torch.Tensor | None, notes: Sequence[str]
) -> str:
    """The pictures at t0 of frames u8[C, K, 3, h, w], history [H, 3] and future [F, 3] from above."""
    pictures = "".join(
        f"<figure style='margin:0 8px 8px 0;display:inline-block'><img alt='{html.escape(name)}' width={THUMBNAIL} src='{as_data(frame)}'>"
        f"<figcaption>{html.escape(name)}</figcaption></figure>"
        for name, frame in zip(cameras, frames[:, -1], strict=False)
    )
    paths = [(history, BEFORE, 2.0)] + ([] if future is None else [(future, DRIVEN, 2.0)])
    return beside(title, above(paths), f"<div>{pictures}</div>{listed(notes)}")


def beside(title: str, drawing: str, text: str) -> str:
    """A title over a drawing with text at its right."""
    return (
        f"<div><b>{html.escape(title)}</b><div style='display:flex;gap:16px;align-items:flex-start'>{drawing}<div>{text}</div></div></div>"
    )


def listed(notes: Sequence[str]) -> str:
    """Notes as a list, nothing where there are none."""
    return f"<ul>{''.join(f'<li>⚠ {html.escape(note)}</li>' for note in notes)}</ul>" if notes else ""


def above(paths: Sequence[tuple[torch.Tensor, str, float]]) -> str:
    """Paths [T, >= 2] in the ego frame from above, x up, at one scale; each with a colour and a width. The car stands at the triangle."""
    known = [(path[path.isfinite().all(-1)].detach().cpu().double(), colour, width) for path, colour, width in paths]
    points = torch.cat([torch.tensor([[-6.0, -8.0], [24.0, 8.0]], dtype=torch.float64), *(path[:, :2] for path, _, _ in known)])
    (low, right), (high, left) = (points.amin(0) - 2).tolist(), (points.amax(0) + 2).tolist()
    scale = min(HIGH / (high - low), WIDE / (2 * max(-right, left)))
    drawn = []
    for path, colour, width in known:
        line = " ".join(f"{WIDE / 2 - y * scale:.1f},{HIGH - (x - low) * scale:.1f}" for x, y in path[:, :2].tolist())
        drawn.append(f"<polyline points='{line}' fill='none' stroke='{colour}' stroke-width='{width}'/>")
    x, y = WIDE / 2, HIGH + low * scale
    car = f"<path d='M{x - 5:.1f} {y + 6:.1f}L{x:.1f} {y - 8:.1f}L{x + 5:.1f} {y + 6:.1f}Z' fill='#444'/>"
    size = f"width='{WIDE}' height='{HIGH}' style='flex:none'"
    label = f"<text x='4' y='14' font-size='11' fill='{BEFORE}'>{high - low:.0f} m from end to end</text>"
    return f"<svg {size} viewBox='0 0 {WIDE} {HIGH}' role='img' aria-label='from above'>{''.join(drawn)}{car}{label}</svg>"


def as_data(frame: torch.Tensor) -> str:
    """A picture u8[3, h, w] as a URL that holds it, made smaller where it is wide."""
    from PIL import Image

    picture = Image.fromarray(frame.permute(1, 2, 0).contiguous().cpu().numpy())
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    file = io.BytesIO()
    picture.save(file, format="jpeg", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
