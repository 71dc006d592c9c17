"""docs/own-data.md does what it says: its five commands, its recording.yaml, its Python, its simulator example."""

from __future__ import annotations

import math
import queue
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from alpamayo_r1.cli.__main__ import app
from alpamayo_r1.data.importers import KINDS, import_recording
from alpamayo_r1.data.recording.schema import read_setup
from alpamayo_r1.data.source import open_source
from alpamayo_r1.inspect.findings import WRONG
from support.recordings import truth

pytestmark = pytest.mark.slow

TEXT = (Path(__file__).parents[1] / "docs/own-data.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", TEXT, re.S)


def test_the_example_is_small_and_opens(tmp_path):
    folder = import_recording("example", None, tmp_path / "car")
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 3_000_000
    with open_source(folder) as source:
        sample = source.clip("another-car").sample(5_100_000)
    assert sample.meta["source"] == "world" and sample.observation.frames.shape == (4, 4, 3, 360, 640)
    assert min(sample.meta["coverage"].values()) > 0.97


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_five_commands_lead_to_a_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    commands = [shlex.split(line.split("#")[0]) for line in blocks("sh")[0].splitlines() if line.startswith("alpamayo-r1")]
    assert len(commands) == 5
    for words in commands:
        done = CliRunner().invoke(app, words[1:])
        assert done.exit_code == 0, (words, done.output, done.exception)
    assert (tmp_path / "my-car.html").read_text().count(f">{WRONG}<") == 0
    assert list((tmp_path / "out/my-car").glob("*.png")) and (tmp_path / "out/my-eval/report.html").is_file()
    names: dict = {}
    exec(compile(blocks("python")[0].replace("samples=3", "samples=1"), "own-data.md", "exec"), names)
    assert names["world"].position.shape == (1, 64, 3)


def test_the_small_recording_yaml_is_one(tmp_path):
    (tmp_path / "recording.yaml").write_text(blocks("yaml")[0])
    for name in ("poses.csv", "front.mp4", "front.csv"):
        (tmp_path / name).write_text("")
    assert read_setup(tmp_path).cameras["front"].calibration.lens.width == 1280


def test_every_kind_and_every_key_is_in_the_reference():
    for kind in KINDS:
        assert f"`{kind}`" in TEXT or kind == "example"
    schema = (Path(__file__).parents[1] / "src/alpamayo_r1/data/recording/schema.py").read_text()
    keys = set(re.findall(r'\.(?:text|texts|number|numbers|choice|section|get|has)\(\s*"(\w+)"', schema))
    assert len(keys) > 35
    for key in keys:
        assert re.search(rf"\b{key}\b", TEXT), key


def test_the_simulator_example_writes_a_recording(tmp_path):
    """With a stand-in for CARLA: a left-handed world, a camera that saves pictures."""
    names: dict = {}
    exec(compile(blocks("python")[1], "own-data.md", "exec"), names)
    clock = SimpleNamespace(tick=0)
    images: queue.Queue = queue.Queue()
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 80, 3), dtype=np.uint8))

    def step():
        images.put(SimpleNamespace(save_to_disk=lambda file: picture.save(file)))
        clock.tick += 1

    def transform():
        (xyz,), turn = truth(np.array([0.1 * clock.tick]))
        middle = xyz + turn.apply([1.4, 0, 0])[0]
        yaw = math.degrees(turn.as_euler("ZYX")[0, 0])
        return SimpleNamespace(location=SimpleNamespace(x=middle[0], y=-middle[1], z=middle[2]), rotation=SimpleNamespace(yaw=-yaw))

    world = SimpleNamespace(tick=step, get_snapshot=lambda: SimpleNamespace(timestamp=SimpleNamespace(elapsed_seconds=0.1 * clock.tick)))
    sensor = SimpleNamespace(attributes={"image_size_x": "80", "image_size_y": "48"})
    names["record"](world, SimpleNamespace(get_transform=transform), {"front": (sensor, images, 120, 0.3, 0, 1.4, 0)}, tmp_path, 130)
    with open_source(tmp_path) as source:
        sample = source.clip(source.clip_ids[0]).sample(5_100_000)
    assert abs(float(sample.observation.history.xyz[0].norm()) - 13.5) < 0.1
    assert float(sample.future.xyz[-1, 1]) > 10  # it turns left
