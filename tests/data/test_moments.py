"""Moments of one clip one after the other: pictures of the last one are not decoded again, and are the same."""

from __future__ import annotations

import pytest
import torch

from alpamayo_r1.data import camera
from alpamayo_r1.data.source import open_source

MOMENTS = (5_000_000, 5_100_000, 5_100_000, 5_050_000, 7_000_000)


@pytest.mark.parametrize("room, decoded", [(camera.KEPT_BYTES, [16, 4, 0, 16, 16]), (2 * 288 * 512 * 3, [16, 8, 8, 16, 16]), (0, [16] * 5)])
def test_pictures_of_the_last_moment_are_not_decoded_again(monkeypatch, room, decoded):
    made: list[int] = []
    upright = camera.upright
    monkeypatch.setattr(camera, "upright", lambda frame: (made.append(1), upright(frame))[1])
    monkeypatch.setattr(camera, "KEPT_BYTES", room)
    counts, seen = [], []
    with open_source("sample") as source:
        clip = source.clip(source.find("026c"))
        for t0_us in MOMENTS:
            made.clear()
            seen.append(clip.sample(t0_us).observation.frames)
            counts.append(len(made))
        clip.close()
        monkeypatch.setattr(camera, "KEPT_BYTES", 0)
        with source.clip(clip.clip_id) as fresh:
            for t0_us, frames in zip(MOMENTS, seen, strict=True):
                assert torch.equal(fresh.sample(t0_us).observation.frames, frames)
    assert counts == decoded
