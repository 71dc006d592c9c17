"""The pictures that a plan at t0 sees, where a loop brings only the newest ones: by camera and time, out of what came before."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from alpamayo_r1.core.notes import Note
from alpamayo_r1.core.types import DT, FRAMES

STEP_US = round(DT * 1e6)
"""Microseconds between two pictures of a camera in a prompt."""

NEAR_US = STEP_US // 2
"""A picture this near to a moment is of that moment."""


@dataclass(frozen=True)
class Chosen:
    """What a plan at t0 sees: per camera FRAMES picture numbers, oldest to newest, and notes on what is missing among them."""

    cameras: tuple[str, ...]
    numbers: tuple[int, ...]
    notes: tuple[Note, ...]


class Window:
    """Numbers of pictures by camera and time: of each camera the ones that came last."""

    KEPT = 2 * FRAMES
    """Pictures per camera that are remembered, so that late steps find theirs."""

    def __init__(self) -> None:
        self._times: dict[str, dict[int, int]] = {}

    def put(self, t_us: int, numbers: Mapping[str, int]) -> None:
        """Notes which picture each camera took at t_us; a later word on the same moment replaces the earlier."""
        for camera, number in numbers.items():
            times = self._times.setdefault(camera, {})
            times.pop(t_us, None)
            times[t_us] = number
            while len(times) > self.KEPT:
                del times[next(iter(times))]

    def choose(self, t0_us: int, order: Sequence[str], usable: Callable[[int], bool]) -> Chosen:
        """The pictures for t0 - 0.3 s to t0 of every camera that has any there, in a family's order: each the nearest in time.

        usable: whether a picture may be taken. Pictures before t0 - 0.35 s or after t0 + 0.05 s are of no use.
        """
        cameras, numbers, off = [], [], []
        for camera in sorted(self._times, key=lambda name: order.index(name) if name in order else len(order)):
            near = {
                t: number
                for t, number in self._times[camera].items()
                if t0_us - (FRAMES - 1) * STEP_US - NEAR_US <= t <= t0_us + NEAR_US and usable(number)
            }
            if not near:
                continue
            cameras.append(camera)
            for wanted in range(t0_us - (FRAMES - 1) * STEP_US, t0_us + 1, STEP_US):
                best = min(near, key=lambda t: (abs(t - wanted), t))
                numbers.append(near[best])
                off += [camera] if abs(best - wanted) > NEAR_US else []
        return Chosen(tuple(cameras), tuple(numbers), note_missing(off))

    def clear(self) -> None:
        """Forgets all."""
        self._times.clear()


def note_missing(cameras: Sequence[str]) -> tuple[Note, ...]:
    """A note where moments have no picture of their own; cameras: one for each such moment."""
    if not cameras:
        return ()
    places = ", ".join(f"{camera} ({cameras.count(camera)} of {FRAMES})" for camera in dict.fromkeys(cameras))
    text = (
        f"no picture within {NEAR_US / 1e6:g} s of some of the moments t0 - {(FRAMES - 1) * DT:g} s to t0, so that the nearest stands "
        f"there too: {places}"
    )
    return (Note("stream-gap", text),)
