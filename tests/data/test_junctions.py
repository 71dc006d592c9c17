"""The bundled clips of junctions: any moment may be planned, and the car drives the way that its navigator says."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from alpamayo_r1.core.geometry import yaw_of
from alpamayo_r1.data.source import open_source, sample_folder

LABELS = pd.read_parquet(sample_folder().with_name("junctions") / "world/labels.parquet")


@pytest.mark.parametrize("clip_id", LABELS.index)
def test_the_car_goes_where_its_navigator_says(clip_id):
    row = LABELS.loc[clip_id]
    with open_source("junctions") as source:
        clip = source.clip(clip_id)
        early, late = clip.sample(2_700_000), clip.sample(8_900_000)
    for sample in (early, late):
        assert sample.future is not None and sample.observation.frames.shape == (4, 4, 3, 180, 320)
    whole = torch.cat([yaw_of(early.future.rot), float(yaw_of(early.future.rot)[-1]) + yaw_of(late.future.rot)])
    assert row["navigation"].split(" in ")[0] in ("Turn left", "Turn right", "Continue straight")
    side = "left" if whole[-1] > 0.7 else "right" if whole[-1] < -0.7 else "straight"
    assert row["family"] == f"junction_{side}" and side in row["navigation"]
