"""Every verb on local things: with sockets refused, and in a copy of the package without engine/, stream/ and optional packages."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import alpamayo_r1
from alpamayo_r1 import bench
from alpamayo_r1.cli.__main__ import VERBS, app
from alpamayo_r1.core.config import read_config
from alpamayo_r1.testing import random_observation
from alpamayo_r1.train import loop, material, validate
from support.golden15 import GOLDEN15

FEW = ["--samples", "1", "--max-tokens", "8", "--steps", "1", "--device", "cpu"]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a tiny checkpoint, two small clips and a recording of one camera."""
    from alpamayo_r1.data.importers import import_recording
    from alpamayo_r1.testing import tiny_checkpoint
    from alpamayo_r1.world.clips import write_clips

    folder = tmp_path_factory.mktemp("local")
    tiny_checkpoint(folder / "tiny")
    write_clips([1, 2], folder / "clips", width=64, height=36, seconds=0.6, t_start=4.6, supersample=1)
    said = import_recording("example", None, folder / "car") / "recording.yaml"
    settings = yaml.safe_load(said.read_text(encoding="utf-8"))
    settings["cameras"] = {"front": settings["cameras"]["front"]}
    said.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return folder


def lines(place: Path, out: Path) -> dict[str, list[str]]:
    """A command line for every verb, in an order that works."""
    clip = json.loads(CliRunner().invoke(app, ["clips", "--data", str(place / "clips"), "--json"]).stdout)[0]["short"]
    here = ["--checkpoint", str(place / "tiny"), "--data", str(place / "clips")]
    return {
        "doctor": ["doctor"],
        "clips": ["clips", "--data", str(place / "clips")],
        "run": ["run", "--out", str(out / "run"), *here, "--clip", clip, *FEW],
        "film": ["film", clip, "--out", str(out / "a.mp4"), *here, *FEW, "--start", "5", "--end", "5.1"],
        "eval": ["eval", "--out", str(out / "eval"), *here, "--clips", "1", *FEW],
        "compare": ["compare", str(out / "eval"), str(out / "eval")],
        "world": ["world", "--out", str(out / "world"), "--clips", "1", "--width", "32", "--height", "18", "--seconds", "0.4"],
        "train": [
            "train",
            "--out",
            str(out / "train"),
            "--preset",
            "tiny",
            "--minutes",
            "0.01",
            "--batch",
            "8",
            "--reuse",
            "1",
            "--workers",
            "1",
            "--device",
            "cpu",
        ],
        "quantize": ["quantize", str(place / "tiny"), "--out", str(out / "w8"), "--device", "cpu"],
        "precision": [
            *(
                "precision",
                str(place / "tiny"),
                "--out",
                str(out / "prices"),
                "--data",
                str(place / "clips"),
                "--clips",
                "1",
                "--samples",
                "1",
                "--max-tokens",
                "3",
            ),
            *("--precisions", "bf16,w8", "--device", "cpu"),
        ],
        "import": ["import", "example", "--out", str(out / "car")],
        "inspect": ["inspect", str(place / "car")],
        "drive": ["drive", "--driver", "lane", "--seconds", "1", "--out", str(out / "drive"), "--device", "cpu"],
        "bench": ["bench", "--size", "small", "--samples", "1", "--tokens", "3", "--repeats", "1", "--device", "cpu"],
    }


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_verb_asks_the_network_for_local_things(place, tmp_path, monkeypatch):
    asked = []

    def refuse(*where, **how):
        asked.append(where)
        raise OSError(f"the network was asked for {where}")

    genuine = socket.socket.connect
    monkeypatch.setattr(socket.socket, "connect", lambda self, to: genuine(self, to) if self.family == socket.AF_UNIX else refuse(to))
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    with pytest.raises(OSError, match="the network was asked"):
        socket.create_connection(("127.0.0.1", 9))
    asked.clear()
    monkeypatch.setattr(bench, "random_observation", lambda seed: random_observation(seed, 72, 128))
    monkeypatch.setattr(bench, "size_config", lambda size: read_config(place / "tiny"))
    monkeypatch.setattr(material, "RENDER_SIZE", (96, 54))
    monkeypatch.setattr(validate, "PICTURE_SIZE", (96, 54))
    monkeypatch.setattr(loop, "TrainConfig", partial(loop.TrainConfig, fresh=8))
    every = lines(place, tmp_path) | {
        "validate": ["validate", "--checkpoint", str(place / "tiny"), "--scenes", "2", "--samples", "1", "--device", "cpu"],
        "ask": ["ask", "de5c9638", "Why?", "--checkpoint", str(GOLDEN15 / "checkpoint"), "--max-tokens", "3", "--device", "cpu"],
    }
    assert {*every, "view", "serve"} == set(VERBS)  # those two stay up: tests/serve/
    for verb, words in every.items():
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, (verb, done.output, done.exception)
    assert asked == []


def in_a_copy(folder: Path, *lines: list[str], without: tuple[str, ...] = ()) -> list[tuple[int, str]]:
    """Command lines of the package in a folder, in one process where some modules can't be imported: exit codes, what went to stderr."""
    code = (
        "import json, sys\n"
        f"for name in {without!r}:\n    sys.modules[name] = None\n"
        "from typer.testing import CliRunner\n"
        "from alpamayo_r1.cli.__main__ import app\nimport alpamayo_r1\n"
        f"assert alpamayo_r1.__file__.startswith({str(folder)!r}), alpamayo_r1.__file__\n"
        f"done = [CliRunner().invoke(app, words) for words in {lines!r}]\n"
        "print(json.dumps([[one.exit_code, one.stderr] for one in done]))\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(folder)}, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return [tuple(one) for one in json.loads(ended.stdout.splitlines()[-1])]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_without_the_engine_and_optional_packages_all_but_bench_works(place, tmp_path):
    source = Path(alpamayo_r1.__file__).parent
    shutil.copytree(source, tmp_path / "src" / "alpamayo_r1", ignore=shutil.ignore_patterns("engine", "stream", "__pycache__"))
    every = lines(place, tmp_path)
    ray = [*every["eval"][:2], str(tmp_path / "ray"), *every["eval"][3:], "--ray", "local"]
    *works, no_bench, no_ray = in_a_copy(
        tmp_path / "src",
        *(every[verb] for verb in ("run", "eval", "doctor", "bench")),
        ray,
        without=("ray", "mediapy", "IPython", "transformers"),
    )
    assert [code for code, _ in works] == [0, 0, 0], works
    assert no_bench[0] == 2 and no_bench[1].startswith("error: bench needs the room engine/"), no_bench
    assert no_ray[0] == 2 and "pip install 'alpamayo-r1[ray]'" in no_ray[1], no_ray
