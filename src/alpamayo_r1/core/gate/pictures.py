"""Pictures: what a model can see is checked, what it can hardly see is noted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from alpamayo_r1.core.family import Family
from alpamayo_r1.core.notes import Note

if TYPE_CHECKING:
    from PIL.Image import Image

SMALL = 64
"""Pixels a side below which a picture is noted: it would be blown up to the model's 160,000."""
FLAT = 6
"""Levels of 255 within which all of a flat picture's pixels lie."""
LOOKS = 12
"""Rows and columns of pixels that are looked at: of 16 pictures of 1080p, 0.25 ms."""


def check_pictures(frames: torch.Tensor, cameras: Sequence[str], family: Family) -> tuple[Note, ...]:
    """Notes on the pictures u8[C, K, 3, h, w] of C cameras, for a model of this family.

    Raises:
        TypeError: no tensor, or not uint8. ValueError: another shape, no pictures, or cameras that the family does not know so.
    """
    if not isinstance(frames, torch.Tensor):
        raise TypeError(f"frames are of type {type(frames).__name__}, expected a torch.Tensor (of an array: torch.from_numpy)")
    if frames.dtype != torch.uint8:
        raise TypeError(f"frames are {frames.dtype}, expected torch.uint8 in 0..255 (RGB)")
    if frames.ndim != 5 or frames.shape[2] != 3:
        raise ValueError(f"frames have shape {tuple(frames.shape)}, expected u8[cameras, frames, 3, height, width]")
    check_cameras(cameras, frames.shape[0], family)
    if frames.numel() == 0:
        raise ValueError(f"frames have shape {tuple(frames.shape)}, expected at least one picture of at least one pixel")
    count, each, _, height, width = frames.shape
    return (*note_layout(count, each, family), *note_small(height, width), *note_flat(frames, cameras))


def check_cameras(cameras: Sequence[str], count: int, family: Family) -> None:
    """Raises unless there is a name for each of the cameras: each once and in order or, where the prompt names them, a known one."""
    if isinstance(cameras, str) or not isinstance(cameras, Sequence) or not all(isinstance(name, str) for name in cameras):
        raise TypeError(f"cameras are {cameras!r}, expected a tuple of names")
    if count != len(cameras):
        raise ValueError(f"{count} cameras of frames, but {len(cameras)} names: {cameras}")
    known = [camera for camera in cameras if camera in family.cameras]
    order = ", ".join(family.cameras)
    if family.names is not None and (len(known) < len(cameras) or len(set(known)) < len(known)):
        raise ValueError(f"cameras are {', '.join(cameras)}, expected some of {order}, each once")
    if family.names is None and known != sorted(set(known), key=family.cameras.index):
        raise ValueError(f"cameras are {', '.join(known)}, expected each once and in the order {order}: it is all the model knows")


def note_layout(cameras: int, frames: int, family: Family) -> tuple[Note, ...]:
    """A note where the numbers of cameras and of frames are not those that the family knows."""
    if family.layout in (None, (cameras, frames)):
        return ()
    layout = "{} cameras with {} frames each".format(*family.layout)
    text = f"{cameras} cameras with {frames} frames each: the model was trained on {layout}; expect unreliable output"
    return (Note("pictures-layout", text),)


def note_small(height: int, width: int) -> tuple[Note, ...]:
    """A note where the pictures are too small to show a road."""
    if min(height, width) >= SMALL:
        return ()
    return (Note("pictures-small", f"the pictures are {height} x {width} pixels: expected at least {SMALL} a side; little can be seen"),)


def note_flat(frames: torch.Tensor, cameras: Sequence[str]) -> tuple[Note, ...]:
    """A note where pictures are of one colour, or nearly: black, or of a covered camera. Compares LOOKS x LOOKS pixels of each."""
    rows, columns = (max(side // LOOKS, 1) for side in frames.shape[-2:])
    seen = frames[..., rows // 2 :: rows, columns // 2 :: columns].flatten(3)
    flat = ((seen.amax(-1) - seen.amin(-1)).amax(-1) <= FLAT).tolist()  # (C, K): one wait for the device
    if not any(map(any, flat)):
        return ()
    places = ", ".join(f"{camera} ({sum(of)} of {len(of)})" for camera, of in zip(cameras, flat, strict=True) if any(of))
    return (Note("pictures-flat", f"pictures of one colour: {places}. Is the camera covered, off, or not decoded?"),)


def as_pixels(image: Any) -> torch.Tensor:
    """A picture as u8[3, h, w]: a tensor of that shape, an array u8[h, w, 3], or a PIL image.

    Raises:
        TypeError: anything else, such as a path, or floats. ValueError: a PIL image whose file cannot be decoded.
    """
    import numpy as np
    from PIL.Image import Image

    if isinstance(image, Image):
        image = decoded(image)
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[-1] == 3:
        return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
    if isinstance(image, torch.Tensor) and image.dtype == torch.uint8 and image.ndim == 3 and image.shape[0] == 3:
        return image
    said = f"{tuple(image.shape)} {image.dtype}" if isinstance(image, torch.Tensor | np.ndarray) else repr(image)[:200]
    raise TypeError(
        f"an image is {type(image).__name__} {said}: expected RGB as a uint8 tensor [3, h, w], a uint8 array [h, w, 3] or a PIL image"
    )


def decoded(image: Image) -> Any:
    """A PIL image as an array u8[h, w, 3]."""
    import numpy as np

    try:
        return np.array(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"an image of mode {image.mode} cannot be decoded ({error}): give a whole RGB picture") from None
