"""Frames to patches on the GPU, to the byte what the CPU path gives.

The integer arithmetic of `images.resize` has one result whatever the order of its sums, so the largest deviation from the CPU path is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from math import prod

import numpy as np
import torch

from alpamayo_r1.core.config import VisionConfig
from alpamayo_r1.core.images import check_frames, normalise, patchify, resize, taps, target_size, to_patches
from alpamayo_r1.engine.ops.launch import ceil_div, kernels, on_gpu


def resize_to_patches(frames: torch.Tensor, vision: VisionConfig, height: int, width: int, dtype: torch.dtype) -> torch.Tensor:
    """u8[N, 3, h, w] -> normalised patches [N * places, patch_dim] of the pictures resized to height x width."""
    if not on_gpu(frames) or frames.shape[-2] == height:
        return patchify(normalise(resize(frames, height, width)), vision).to(dtype)
    n, channels, h, w = frames.shape
    if w != width:
        cut, narrow = taps(w, width, frames.device), torch.empty(n, channels, h, width, device=frames.device, dtype=torch.uint8)
        kernels("pixels").resize_columns_kernel[(n * channels * h, ceil_div(width, 256))](
            frames, cut.first, cut.weight, narrow, w, width, cut.precision, TAPS=cut.weight.shape[1], BX=256, num_warps=4
        )
        frames = narrow
    cut = taps(h, height, frames.device)
    places = (height // vision.patch) * (width // vision.patch)
    out = torch.empty(n * places, vision.patch_dim, device=frames.device, dtype=dtype)
    kernels("pixels").resize_rows_kernel[(n * channels, height, ceil_div(width, 256))](
        *(frames, cut.first, cut.weight, out, h, height, width, cut.precision, channels),
        **{"TAPS": cut.weight.shape[1], "PATCH": vision.patch, "MERGE": vision.merge, "TIME": vision.temporal_patch, "BX": 256},
        num_warps=4,
    )
    return out


COPIERS = 8
"""Threads that copy frames into pinned memory. torch's own copy takes every core, and waits for whichever of them is busy elsewhere."""


class Uploader:
    """Brings frames to the device through a pinned buffer, image by image, so that copying and sending overlap.

    They are sent on a stream of their own: while the device is at work on earlier ones, and whatever is queued on it.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self._pinned = torch.empty(0, dtype=torch.uint8)
        self._copiers = ThreadPoolExecutor(COPIERS, "upload")
        self._sender = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._sent: torch.cuda.Event | None = None

    def __call__(self, frames: torch.Tensor | Sequence[torch.Tensor]) -> torch.Tensor:
        """frames u8[N, 3, h, w] anywhere, or N pictures of one size -> on the device."""
        if self._sender is None or frames[0].device.type != "cpu":
            return together(frames).to(self.device).contiguous()
        if isinstance(frames, torch.Tensor) and frames.is_pinned():
            return frames.to(self.device, non_blocking=True).contiguous()
        shape = len(frames), *frames[0].shape
        size = prod(shape)
        if self._pinned.numel() < size:
            self._pinned = torch.empty(size, dtype=torch.uint8, pin_memory=True)
        if self._sent is not None:
            self._sent.synchronize()  # the buffer's last contents have left it
        staged, user = self._pinned[:size].view(shape), torch.cuda.current_stream(self.device)
        copies = [
            [self._copiers.submit(np.copyto, part.numpy(), source.numpy()) for part, source in zip(*pair, strict=True)]
            for pair in zip(staged, frames, strict=True)  # channel by channel, so that few pictures keep all threads busy
        ]
        try:
            with torch.cuda.stream(self._sender):
                out = torch.empty(shape, dtype=torch.uint8, device=self.device)
                for copied, into, frame in zip(copies, out, staged, strict=True):
                    for part in copied:
                        part.result()
                    into.copy_(frame, non_blocking=True)
        finally:
            wait([part for copied in copies for part in copied])  # nobody writes into the buffer any more
            self._sent = sent = torch.cuda.Event()
            sent.record(self._sender)
        out.record_stream(user)
        user.wait_event(sent)
        return out


def together(frames: torch.Tensor | Sequence[torch.Tensor]) -> torch.Tensor:
    """Pictures as one tensor u8[N, 3, h, w]."""
    return frames if isinstance(frames, torch.Tensor) else torch.stack(list(frames))


def patches(
    frames: torch.Tensor | Sequence[torch.Tensor],
    vision: VisionConfig,
    budget: tuple[int, int],
    upload: Uploader,
    dtype: torch.dtype,
    exact_cpu: bool = False,
) -> tuple[torch.Tensor, tuple[int, int]]:
    """Frames u8[N, 3, h, w] -> patches on the device and the grid of every image. exact_cpu: resized on the CPU, as the specification.

    frames: one tensor, or at least one picture u8[3, h, w] of one size.

    Raises:
        TypeError, ValueError: frames that are not uint8 RGB of shape [N, 3, h, w].
    """
    first = frames[:1] if isinstance(frames, torch.Tensor) else frames[0][None]
    check_frames(first)
    if exact_cpu or upload.device.type == "cpu":
        made, grid = to_patches(together(frames), vision, *budget)
        return made.to(upload.device), grid
    height, width = target_size(first.shape[-2], first.shape[-1], *budget, vision.patch * vision.merge)
    made = resize_to_patches(upload(frames), vision, height, width, dtype)
    return made, (height // vision.patch, width // vision.patch)
