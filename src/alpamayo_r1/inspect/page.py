"""The page of a check: verdicts, each camera with the driven path and a grid painted on its road, the model's views, speed and turn."""

from __future__ import annotations

import base64
import html
import io
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from alpamayo_r1.core.geometry import Calibration
from alpamayo_r1.draw import style
from alpamayo_r1.draw.overlay import Ribbon, overlay
from alpamayo_r1.draw.style import png
from alpamayo_r1.inspect.check import Inspection
from alpamayo_r1.inspect.findings import ATTENTION, OK, UNKNOWN, WRONG

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {OK: "#2e7d32", ATTENTION: "#b26a00", WRONG: "#c62828", UNKNOWN: "#667"}
WIDE = 640
"""Columns of a picture on the page."""

HEAD = """<!doctype html><meta charset="utf-8"><title>inspect</title>
<style>body{font:15px/1.45 system-ui,sans-serif;margin:24px auto;max-width:1340px;padding:0 16px;color:#1c2733}
td{padding:3px 10px;vertical-align:top;border-top:1px solid #dde}
figure{display:inline-block;margin:6px}figcaption{font-size:13px;color:#456}
img{max-width:100%}b{white-space:nowrap}</style>
"""


def page(found: Inspection, name: str) -> str:
    """The page as HTML that needs no other file."""
    parts = [HEAD, f"<h1>{html.escape(name)}: {'to be mended' if found.wrong else 'nothing wrong was found'}</h1><table>"]
    for f in found.findings:
        do = f"<br><i>{html.escape(f.do)}</i>" if f.do else ""
        parts.append(f'<tr><td><b style="color:{COLOURS[f.verdict]}">{f.verdict}</b><td>{html.escape(f.item)}<td>{html.escape(f.seen)}{do}')
    parts.append("</table>")
    if found.looks and found.path is not None:
        parts.append("<h2>What the cameras saw, with the driven path (blue) and a grid of 5 m on the road (orange)</h2>")
        parts += [figure(painted(found, camera), camera) for camera in found.looks]
        parts += ["<h2>What the model is shown</h2>", *views(found), "<h2>Speed and turn: poses (line), pictures (dots)</h2>"]
        parts.append(image(png(curves(found))))
    return "\n".join(parts)


def figure(picture: np.ndarray, caption: str) -> str:
    """A picture u8[h, w, 3] with a line under it."""
    from PIL import Image

    file = io.BytesIO()
    small = Image.fromarray(picture)
    small.thumbnail((WIDE, WIDE))
    small.save(file, format="JPEG", quality=88)
    return f"<figure>{image(file.getvalue(), 'jpeg')}<figcaption>{html.escape(caption)}</figcaption></figure>"


def image(content: bytes, kind: str = "png") -> str:
    """An image within the page."""
    return f'<img src="data:image/{kind};base64,{base64.b64encode(content).decode()}">'


def painted(found: Inspection, camera: str) -> np.ndarray:
    """A camera's picture u8[h, w, 3] in the middle of what was looked at, with the path that was driven next and the grid."""
    recording, look = found.recording, found.looks[camera]
    assert recording is not None and found.path is not None
    stream = recording.streams[camera]
    time = float(look.times[len(look.times) // 2, 0]) if len(look.times) else stream.timestamps[0] / 1e6
    number = max(int(np.searchsorted(stream.timestamps, round(time * 1e6), side="right")) - 1, 0)
    frame = torch.from_numpy(stream.pictures([number])[0]).permute(2, 0, 1)
    return overlay(frame, drawable(look.calibration), [*grid(), *driven(found, time)])


def drawable(calibration: Calibration) -> Calibration:
    """The calibration; of one that looks from below the road, a hand's breadth above it, so that something can be drawn."""
    x, y, z = calibration.position
    return Calibration(calibration.lens, (x, y, max(z, 0.1)), calibration.rot)


def grid() -> list[Ribbon]:
    """Lines on the road every 5 m, to 30 m ahead and behind and 10 m aside."""
    across = [torch.tensor([[float(x), -10.0, 0.0], [float(x), 10.0, 0.0]]) for x in range(-30, 31, 5) if x]
    along = [torch.tensor([[-30.0, float(y), 0.0], [30.0, float(y), 0.0]]) for y in range(-10, 11, 5)]
    return [Ribbon(line, "#ff9500", line=1.2, opacity=0.55, begins_at_car=False) for line in (*across, *along)]


def driven(found: Inspection, time: float) -> list[Ribbon]:
    """The path of the next 4 s in the ego frame at that time."""
    path = found.path
    assert path is not None
    t = np.clip(time + 0.1 * np.arange(1, 41), path.t[0], path.t[-1])
    here = np.array([np.interp(time, path.t, path.xyz[:, i]) for i in range(3)])
    there = np.stack([np.interp(t, path.t, path.xyz[:, i]) for i in range(3)], -1)
    turn = path.turn[int(np.clip(np.searchsorted(path.t, time), 0, len(path.t) - 1))]
    local = torch.from_numpy(turn.inv().apply(there - here)).float()
    local[:, 2] = 0
    return [Ribbon(local, width=1.9, opacity=0.4)] if float(local[-1].norm()) > 1 else []


def views(found: Inspection) -> list[str]:
    """The model's views at the middle of the recording, with how much of each a camera sees."""
    recording = found.recording
    assert recording is not None
    if recording.setup.views.mode == "raw" or any(f.item == "views: coverage" and f.verdict == WRONG for f in found.findings):
        return ["<p>no views: see the verdicts</p>"]
    figures = []
    for name in recording.coverage:
        view, pictures = recording.view(name), {}
        for camera in view.cameras:
            stream = recording.streams[camera]
            pictures[camera] = torch.from_numpy(stream.pictures([len(stream.timestamps) // 2])).permute(0, 3, 1, 2)
        shown = view.render(pictures)[0].permute(1, 2, 0).cpu().numpy()
        figures.append(figure(shown, f"{name}: {100 * view.coverage:.0f} % seen, by {', '.join(view.cameras)}"))
    return figures


def curves(found: Inspection) -> Figure:
    """Speed and turn rate over time, by poses and by the pictures of each camera."""
    sheet = style.sheet(14, 5)
    upper, lower = sheet.subplots(2, 1, sharex=True)
    path = found.path
    assert path is not None
    t = path.t
    upper.plot(t[1:], path.distance(t) / np.diff(t), color=style.ROAD, label="poses")
    lower.plot(t[1:], path.turned(t) / np.diff(t), color=style.ROAD, label="poses")
    for name, look in found.looks.items():
        motion = found.motions[name]
        if not len(look.times):
            continue
        middle, length = look.times.mean(1), np.diff(look.times, axis=1)[:, 0]
        sure, far = motion.sure, motion.match_far > 0.55
        dots: dict[str, Any] = {"s": 9, "alpha": 0.8}
        upper.scatter(middle[sure], motion.step[sure, 0] / length[sure], label=name, **dots)
        if abs(look.azimuth) < 0.6:
            lower.scatter(middle[far], motion.turn[far] / length[far], label=name, **dots)
    upper.set_ylabel("speed, m/s")
    lower.set_ylabel("turn, rad/s")
    lower.set_xlabel("time of the poses' clock, s")
    upper.legend(loc="upper right", fontsize=8)
    return sheet
