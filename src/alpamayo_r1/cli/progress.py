"""How far a verb is: a bar on a terminal, elsewhere a line now and then. Every verb that takes long uses it; it writes to stderr."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.progress import Progress

EVERY_S = 10.0
"""Seconds between two lines where the output is no terminal."""


class Meter:
    """Counts what is done and knows the rate and the time left. total None: unknown."""

    def __init__(self, what: str, total: float | None, unit: str, done: float = 0.0):
        self.what, self.total, self.unit, self.done = what, total, unit, done
        self.note, self.began, self.first = "", time.monotonic(), done

    def restart(self, done: float) -> None:
        """The clock starts now, with so much done before."""
        self.began, self.first, self.done = time.monotonic(), done, done

    def advance(self, amount: float = 1.0, note: str = "") -> None:
        """So much more is done; note: a few words on how it goes."""
        self.update(self.done + amount, self.total, note)

    def update(self, done: float, total: float | None = None, note: str = "") -> None:
        """So much is done of so much."""
        self.done, self.total, self.note = done, total if total is not None else self.total, note

    def line(self) -> str:
        """ "evaluating: 12 of 644 clips, 3.1 per second, 3 min left, minADE 0.512 m"."""
        elapsed = time.monotonic() - self.began
        if self.total is None:
            return f"{self.what}: {spoken(elapsed)}"
        parts = [f"{self.what}: {self.done:.4g} of {self.total:.4g} {self.unit}"]
        new = self.done - self.first
        if new > 0 and elapsed > 0 and self.done < self.total:
            rate = new / elapsed
            parts += [
                f"{rate:.1f} per second" if rate >= 1 else f"{1 / rate:.1f} s each",
                f"{spoken((self.total - self.done) / rate)} left",
            ]
        elif new <= 0:
            parts.append(f"{spoken(elapsed)} so far")
        return ", ".join(parts + ([self.note] if self.note else []))


class Clock(Meter):
    """A meter of a time budget: it advances by itself."""

    def line(self) -> str:
        """ "training: 2 min of 9 min"."""
        return f"{self.what}: {spoken(time.monotonic() - self.began)} of {spoken(self.total or 0)}"


def spoken(seconds: float) -> str:
    """ "8 s", "3 min", "2.5 h"."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@contextmanager
def metered(meter: Meter) -> Iterator[Meter]:
    """Shows a meter until the work is over."""
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_terminal:
        with _bar(console, meter):
            yield meter
        return
    over = threading.Event()
    speaker = threading.Thread(target=_speak, args=(meter, over), daemon=True)
    speaker.start()
    try:
        yield meter
    finally:
        over.set()
        speaker.join()


def _speak(meter: Meter, over: threading.Event) -> None:
    while not over.wait(EVERY_S):
        typer.echo(meter.line(), err=True)


@contextmanager
def _bar(console, meter: Meter) -> Iterator[None]:
    """A bar that follows the meter ten times per second."""
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

    columns = (SpinnerColumn(), BarColumn(bar_width=30), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=console, transient=True) as bar:
        task, over = bar.add_task(meter.line(), total=meter.total), threading.Event()
        follower = threading.Thread(target=_follow, args=(bar, task, meter, over), daemon=True)
        follower.start()
        try:
            yield
        finally:
            over.set()
            follower.join()


def _follow(bar: Progress, task, meter: Meter, over: threading.Event) -> None:
    while not over.wait(0.1):
        done = time.monotonic() - meter.began if isinstance(meter, Clock) else meter.done
        bar.update(task, completed=done, total=meter.total, description=meter.line())
