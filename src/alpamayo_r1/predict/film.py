"""A short film: t0 rolls through a clip, and with it the plan on the road, the words, the view from above, speed and curvature."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alpamayo_r1.core.files import written_whole
from alpamayo_r1.core.gate.values import check_real, check_type, path_of
from alpamayo_r1.core.options import PlanOptions
from alpamayo_r1.core.types import Plan, Sample
from alpamayo_r1.data.source import Source
from alpamayo_r1.draw import page
from alpamayo_r1.planner import Planner
from alpamayo_r1.predict.record import result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZE = (1440, 810)
"""Width and height of the film in pixels: the page of 16 x 9 inches at 90 dots."""


def film(
    source: Source,
    clip_id: str,
    planner: Planner,
    out: Path,
    options: PlanOptions,
    *,
    start: float | None = None,
    end: float | None = None,
    step: float = 0.1,
    also: Callable[[Sample, Plan], None] | None = None,
) -> Iterator[np.ndarray]:
    """Plans the clip every `step` seconds from start to end (None: as far as the clip goes) and writes an mp4 (H.264) at real speed.

    Yields each picture u8[h, w, 3] when it is in the film; the file is there, whole, once the iterator is at its end. The options, and
    with them the seed, are the same for every t0; the plans are those of a stream, which are those of `planner.plan`.

    also: called with every moment and its plan.

    Raises:
        ValueError: the clip does not reach, start comes after end, or out is no .mp4.
    """
    check_type("options", options, PlanOptions, "PlanOptions(samples=6, seed=42)")
    check_real("step", step, 0.001, 3600)
    for name, at in (("start", start), ("end", end)):
        if at is not None:
            check_real(name, at, -1e12, 1e12)
    out = path_of("out", out)
    if out.suffix != ".mp4":
        raise ValueError(f"out is {out}, expected a name that ends in .mp4")

    with source.clip(clip_id) as clip:
        low, high = clip.valid_t0(need_future=False)
        first = low if start is None else round(start * 1e6)
        last = high if end is None else round(end * 1e6)
        if not low <= first <= last <= high:
            raise ValueError(
                f"the film would start at {first / 1e6:g} s and end at {last / 1e6:g} s: clip {clip_id} allows {low / 1e6:g} s to "
                f"{high / 1e6:g} s, the start before the end"
            )
        with movie(out, step) as add:
            step_on = planner.stepper(options)
            for t0_us in range(first, last + 1, round(step * 1e6)):
                sample = clip.sample(t0_us, need_future=False)
                plan = step_on(sample.observation)
                if also is not None:
                    also(sample, plan)
                picture = pixels(page(sample, plan, result(sample, plan, options.seed)))
                add(picture)
                yield picture


@contextmanager
def movie(out: Path, step: float) -> Iterator[Callable[[np.ndarray], None]]:
    """A function that adds pictures u8[SIZE[1], SIZE[0], 3] to an mp4 (H.264), `step` seconds apart; the file is there whole at the end."""
    import av

    with written_whole(Path(out)) as beside, av.open(str(beside), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(1 / step).limit_denominator(1000))
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "20", "preset": "fast", "movflags": "+faststart"}
        yield lambda picture: container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def pixels(figure: Figure) -> np.ndarray:
    """A figure of 16 x 9 inches as u8[SIZE[1], SIZE[0], 3]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set_dpi(SIZE[0] / 16)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
