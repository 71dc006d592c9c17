"""Pictures that were seen lately, recognised by their bytes wherever they stand, and what the model saw in each."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

LOOKS = 12
"""Rows and columns of pixels by which a picture is looked up. Then all its bytes are compared."""

READERS = min(8, os.cpu_count() or 1)
"""Threads that compare and copy pictures."""


Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass
class Picture:
    """One picture. pixels u8[3, h, w]: the caller's until `settle`, then a copy; features: None until it was encoded."""

    key: Hashable
    pixels: torch.Tensor
    kept: bool = False
    features: tuple[torch.Tensor, ...] | None = None


class Album:
    """Pictures by number, the ones found last at the end. Two pictures are the same if every byte of them is."""

    def __init__(self) -> None:
        self._pictures: OrderedDict[int, Picture] = OrderedDict()
        self._numbers = 0
        self._copying: list[Future[None]] = []
        self._pool = ThreadPoolExecutor(READERS, "album")

    def __len__(self) -> int:
        return len(self._pictures)

    def __contains__(self, number: int) -> bool:
        return number in self._pictures

    def __getitem__(self, number: int) -> Picture:
        return self._pictures[number]

    def find(self, frames: Sequence[torch.Tensor]) -> list[int]:
        """The number of each picture u8[3, h, w]: the one it had before, or a new one."""
        keys = keys_of(frames)
        known: dict[Hashable, list[int]] = {}
        for number, picture in self._pictures.items():
            known.setdefault(picture.key, []).append(number)
        tasks = [(frame, known.get(key, [])) for frame, key in zip(frames, keys, strict=True)]
        numbers: list[int] = []
        for frame, key, found in zip(frames, keys, self._each(self._find, tasks), strict=True):
            if found is None:  # perhaps the same as another new one
                found = self._find((frame, [n for n in numbers if self._pictures[n].key == key]))
            if found is None:
                found, self._numbers = self._numbers, self._numbers + 1
                self._pictures[found] = Picture(key, frame)
            numbers.append(found)
        return numbers

    def touch(self, numbers: Iterable[int]) -> None:
        """Makes pictures the ones found last."""
        for number in numbers:
            self._pictures.move_to_end(number)

    def _each(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> list[Result]:
        """What a function gives for each task: side by side on the host, one after the other on a GPU, whose stream is this thread's."""
        here = all(picture.pixels.device.type == "cpu" for picture in self._pictures.values())
        return list((self._pool.map if here else map)(function, tasks))

    def _find(self, task: tuple[torch.Tensor, Sequence[int]]) -> int | None:
        frame, numbers = task
        return next((number for number in numbers if same(frame, self._pictures[number].pixels)), None)

    def keep(self, room: int) -> None:
        """Forgets all but the `room` pictures found last, and begins to copy those that are new, in threads where the host has them."""
        free: list[torch.Tensor] = []
        while len(self._pictures) > room:
            _, picture = self._pictures.popitem(last=False)
            idle = picture.kept and picture.features is not None and picture.pixels.device.type == "cpu"  # else it may yet be read
            free += [picture.pixels] if idle else []
        for picture in self._pictures.values():
            if picture.kept:
                continue
            pixels, at = picture.pixels, next((i for i, one in enumerate(free) if fits(one, picture.pixels)), None)
            into = torch.empty(pixels.shape, dtype=pixels.dtype, device=pixels.device) if at is None else free.pop(at)
            if pixels.device.type == "cpu":
                self._copying.append(self._pool.submit(copy, picture, into))
            else:
                copy(picture, into)

    def settle(self) -> None:
        """Waits until all copies are made: the caller's tensors are not held after this."""
        copying, self._copying = self._copying, []
        for copied in copying:
            copied.result()

    def clear(self) -> None:
        """Forgets all pictures."""
        self.settle()
        self._pictures.clear()


def keys_of(frames: Sequence[torch.Tensor]) -> list[Hashable]:
    """What each picture is looked up by: its shape, where it is, and some of its pixels."""
    keys: list[Hashable] = []
    for frame in frames:
        rows, columns = (max(side // LOOKS, 1) for side in frame.shape[-2:])
        some = frame[:, rows // 2 :: rows, columns // 2 :: columns]
        keys.append((tuple(frame.shape), frame.device, some.cpu().numpy().tobytes()))
    return keys


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two pictures of one shape and device have the same bytes."""
    if one.device.type != "cpu":
        return torch.equal(one, other)
    a, b = (wide(picture) for picture in (one, other))
    return a.shape == b.shape and np.array_equal(a, b)


def wide(picture: torch.Tensor) -> np.ndarray:
    """A picture's bytes, eight at a time where they can be: compared in a third of a millisecond at 1080p, byte by byte in seven."""
    flat = picture.contiguous().view(-1).numpy()
    return flat.view(np.int64) if flat.size % 8 == 0 and flat.ctypes.data % 8 == 0 else flat


def fits(buffer: torch.Tensor, picture: torch.Tensor) -> bool:
    """Whether a picture can be copied into the memory of another one."""
    return buffer.shape == picture.shape and buffer.device == picture.device


def copy(picture: Picture, into: torch.Tensor) -> None:
    """Copies a picture's pixels, and takes the copy for them."""
    if into.device.type == "cpu":
        np.copyto(into.numpy(), picture.pixels.numpy())
    else:
        into.copy_(picture.pixels)
    picture.pixels, picture.kept = into, True
