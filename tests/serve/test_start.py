"""How the service starts: the page is there before the clips, the pictures before the model, and a start that fails says why."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request

import pytest
import torch

from alpamayo_r1.core.checkpoint import load_checkpoint
from alpamayo_r1.core.config import read_config
from alpamayo_r1.data.source import open_source
from alpamayo_r1.planner import Planner
from conftest import GOLDEN

pytest.importorskip("fastapi", reason="needs the extra serve")
from alpamayo_r1.serve import door as doors
from alpamayo_r1.serve.app import make_app
from alpamayo_r1.serve.door import Door
from alpamayo_r1.serve.model import Model
from alpamayo_r1.serve.queue import Busy
from alpamayo_r1.serve.run import listening, run, server

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning")]


@pytest.fixture
def begun():
    """Starts a service whose parts come when they are let go: its URL, and what lets the clips and then the model come."""
    ending = []

    def start(build) -> str:
        at, ready = listening("127.0.0.1", 0), threading.Event()
        door = Door(build, None)

        def listens():
            door.begin()
            ready.set()

        running = server(door, listens)
        door.failed = lambda: setattr(running, "should_exit", True)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [at]}, daemon=True)
        thread.start()
        assert ready.wait(30)
        ending.append((running, thread))
        return f"http://127.0.0.1:{at.getsockname()[1]}"

    yield start
    for running, thread in ending:
        running.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


def get(url: str, body: object = None) -> tuple[int, dict[str, str], bytes]:
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, content, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read()


def test_the_page_comes_before_the_clips_and_pictures_before_the_model(begun):
    clips, weights, planner = threading.Event(), threading.Event(), Planner.of(*load_checkpoint(GOLDEN / "checkpoint", dtype=torch.float32))

    def build(door: Door) -> None:
        assert clips.wait(60)
        source, model = open_source("sample"), Model(planner.model.config, planner.model.device)
        app = make_app(model, source)
        door.open(app, app.state.service.close)
        assert weights.wait(60)
        model.put(planner)

    url, found = begun(build), {}
    status, headers, page = get(url)
    assert status == 200 and b"Alpamayo-R1" in page and "default-src 'self'" in headers["content-security-policy"]
    asking = threading.Thread(target=lambda: found.update(about=get(f"{url}/api/service")))
    asking.start()
    asking.join(0.2)
    assert not found, "it answered before there was anything to say"
    clips.set()
    asking.join(60)
    about = json.loads(found["about"][2])
    assert about["clips"] == 10 and about["family"] == "Alpamayo-R1" and not about["ready"]
    assert get(f"{url}/api/clips/026c/frames/camera_front_wide_120fov")[0] == 200
    options = {"max_tokens": 4, "steps": 1, "seed": 1}
    planning = threading.Thread(target=lambda: found.update(plan=get(f"{url}/api/plan", {"clip_id": "026c", "options": options})))
    planning.start()
    planning.join(0.2)
    assert "plan" not in found, "it planned without a model"
    weights.set()
    planning.join(60)
    assert found["plan"][0] == 200 and json.loads(get(f"{url}/api/service")[2])["ready"]


def test_too_many_who_wait_for_the_start_are_told_to_come_again(begun, monkeypatch):
    monkeypatch.setattr(doors, "HELD", 0)
    over = threading.Event()
    status, headers, body = get(f"{begun(lambda door: over.wait(60))}/api/service")
    over.set()
    assert status == 503 and headers["retry-after"] == "1" and "starting" in json.loads(body)["error"]["text"]


def test_a_start_that_fails_ends_the_service_and_says_why():
    def build(door: Door) -> None:
        raise ValueError("no such clips")

    with listening("127.0.0.1", 0) as at, pytest.raises(ValueError, match="no such clips"):
        run(build, None, at, lambda: None)


def test_who_asks_while_the_model_is_loaded_for_long_is_told_to_come_again(monkeypatch):
    monkeypatch.setattr("alpamayo_r1.serve.model.PATIENCE_S", 0.01)
    with pytest.raises(Busy, match="still being loaded: try again in 5 s"):
        Model(read_config(GOLDEN / "checkpoint"), torch.device("cpu")).quick()
