"""The service: what it answers, whom it refuses, and that it says no at once where it has enough to do."""

from __future__ import annotations

import json
import socket
import threading
import time
import urllib.error
import urllib.request
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from alpamayo_r1.client import Client, ServiceBusy, ServiceError
from alpamayo_r1.core.checkpoint import load_checkpoint
from alpamayo_r1.core.options import AskOptions, PlanOptions
from alpamayo_r1.core.wire import MEDIA_TYPE, pack
from alpamayo_r1.data.source import open_source
from alpamayo_r1.planner import Planner
from alpamayo_r1.testing import random_observation
from conftest import GOLDEN
from support.service import served

pytest.importorskip("fastapi", reason="needs the extra serve")
from alpamayo_r1.serve import guard
from alpamayo_r1.serve.guard import is_loopback
from alpamayo_r1.serve.queue import Busy, Limits, Queue
from alpamayo_r1.serve.schema import ASK_OPTIONS, PLAN_OPTIONS

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning")]

FEW = {"max_tokens": 4, "steps": 1, "seed": 1}


@pytest.fixture(scope="module")
def planner():
    return Planner.of(*load_checkpoint(GOLDEN / "checkpoint", dtype=torch.float32))


@pytest.fixture(scope="module")
def url(planner):
    with open_source("sample") as source, served(planner, source, limits=Limits(body=2**20)) as found:
        yield found


def ask(url: str, path: str, body: object = None, headers: dict[str, str] | None = None, method: str | None = None):
    """Status, headers and body of an answer; body: bytes as they are, else as JSON."""
    content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    given = {"content-type": "application/json"} if content is not None else {}
    request = urllib.request.Request(f"{url}{path}", content, given | (headers or {}), method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def told(answer) -> str:
    return json.loads(answer[2])["error"]["text"]


def test_a_clip_is_planned_as_in_python(url, planner):
    status, _, content = ask(url, "/api/plan", {"clip_id": "026c", "options": FEW | {"samples": 2}, "draw": True})
    found = json.loads(content)
    with open_source("sample") as source:
        sample = source.clip(source.find("026c")).sample()
    want = planner.plan(sample.observation, samples=2, **FEW)
    assert status == 200 and found["seed"] == 1 and found["t0_us"] == 5_100_000
    assert torch.equal(torch.tensor(found["plans"][0]["xyz"]), want.xyz)
    drawn = found["corridors"]["camera_front_wide_120fov"]
    assert len(drawn["samples"]) == 2 and any(drawn["truth"]["left"])


def test_what_can_be_looked_at(url):
    about = json.loads(ask(url, "/api/service")[2])
    assert (about["family"], about["clips"], about["navigates"]) == ("Alpamayo-R1", 10, False)
    clips = json.loads(ask(url, "/api/clips?match=cones&count=1")[2])
    clip_id = clips["clips"][0]["clip_id"]
    assert clips["total"] >= 1 and len(clips["clips"]) == 1
    clip = json.loads(ask(url, f"/api/clips/{clip_id}")[2])
    lens = clip["calibration"]["camera_front_wide_120fov"]["lens"]
    assert lens["kind"] == "f-theta" and len(lens["fw"]) > 2 and clip["t0_us"]["first"] < clip["t0_us"]["last"]
    scene = json.loads(ask(url, f"/api/clips/{clip_id}/scene?t0_us=5000000")[2])
    assert len(scene["history"]["xyz"]) == 16 and len(scene["future"]["xyz"]) == 64 and scene["markings"]
    status, headers, png = ask(url, f"/api/clips/{clip_id}/frames/camera_front_wide_120fov?form=png")
    assert status == 200 and headers["content-type"] == "image/png" and png[:4] == b"\x89PNG"


def test_the_description_names_every_option_with_its_default(url):
    described = json.loads(ask(url, "/openapi.json")[2])
    body = described["paths"]["/api/plan"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    shown = body["properties"]["options"]["properties"]
    assert shown["temperature"]["default"] == PlanOptions.temperature and "m/s^2" in json.dumps(described)
    assert set(PLAN_OPTIONS) == {field.name for field in fields(PlanOptions)}
    assert set(ASK_OPTIONS) == {field.name for field in fields(AskOptions)}


@pytest.mark.parametrize(
    "body, text",
    [
        ({"clip_id": "026c", "options": {"sample": 2}}, r"did you mean samples="),
        ({"clip_id": "026c", "options": {"samples": 65}}, "samples is 65, expected at most 64 of this service"),
        ({"clip_id": "026c", "options": {"steps": 101}}, "steps is 101, expected at most 100 of this service"),
        ({"clip_id": "026c", "options": {"samples": True}}, "samples is True, expected an integer"),
        ({"clip_id": "026c", "options": {"temperature": -1}}, "temperature is -1, expected 0"),
        ({"clip_id": "026c", "options": {"reasoning": "\ud800"}}, "no text that can be written as UTF-8"),
        ({"clip_id": "026c", "options": {"noise": [[1]]}}, "noise has shape"),
        ({"clip_id": "026c", "options": {"noise": "x"}}, "noise is no array of numbers"),
        ({"clip_id": "026c", "options": 5}, "options: input should be a valid dictionary"),
        ({"clip_id": "026c", "t0_us": 5.5}, "t0_us: input should be a valid integer"),
        ({"clip_id": "026c", "t0_us": 1}, "what to do"),
        ({"clip_id": "026c", "cameras": []}, "cameras are"),
        ({"clip_id": "026c", "cameras": ["camera_rear_left_70fov"]}, "has no camera"),
        ({"clip_id": "026c", "extra": 1}, "extra"),
        ({}, "clip_id: field required"),
        ([], "the body"),
        (b"{", "the body is no JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b"\xff\xfe", "the body is no JSON"),
    ],
)
def test_a_bad_plan_is_told_what_would_fit(url, body, text):
    answer = ask(url, "/api/plan", body)
    assert answer[0] == 422 and text in told(answer), answer


@pytest.mark.parametrize(
    "path", ["/api/clips/nothing", "/api/clips/..%2f..%2fetc%2fpasswd", "/api/evaluations/0", "/nothing", "/page/../app.py"]
)
def test_what_is_not_there_is_not_found(url, path):
    answer = ask(url, path)
    assert answer[0] == 404 and told(answer)


@pytest.mark.parametrize(
    "path", ["/page/../../planner.py", "/page/%2e%2e/%2e%2e/planner.py", "/page//etc/passwd", "/page/..%5c..%5cplanner.py"]
)
def test_no_path_of_the_server_can_be_read(url, path):
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nhost: {host}:{port}\r\nconnection: close\r\n\r\n".encode())
        said = b"".join(iter(lambda: connection.recv(65536), b""))
    assert said.split()[1] == b"404" and b"import" not in said


@pytest.mark.parametrize(
    "content, text",
    [
        (b"", "no safetensors file"),
        (b"\x08\x00\x00\x00\x00\x00\x00\x00{}      ", "is missing"),
        (b"\xff" * 64, "no safetensors file"),
    ],
)
def test_a_bad_observation_is_told_what_would_fit(url, content, text):
    answer = ask(url, "/api/plan/observation", content, {"content-type": MEDIA_TYPE})
    assert answer[0] == 422 and text in told(answer)


def test_a_request_beside_an_observation_is_checked(url):
    for request, text in (({"option": {}}, "the request holds option"), ({"options": [1]}, "expected an object")):
        content = pack(random_observation(0, 32, 32), request)
        answer = ask(url, "/api/plan/observation", content, {"content-type": MEDIA_TYPE})
        assert answer[0] == 422 and text in told(answer)


def test_a_body_that_is_too_large_is_refused(url):
    assert ask(url, "/api/plan", b" " * (2**20 + 1))[0] == 413
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        head = f"POST /api/plan HTTP/1.1\r\nhost: {host}:{port}\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
        connection.sendall(head.encode() + (b"80000\r\n" + b" " * 0x80000 + b"\r\n") * 3 + b"0\r\n\r\n")
        assert b" 413 " in connection.recv(65536)


def test_bytes_that_are_no_request_are_told_so(url):
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        said = b"".join(iter(lambda: connection.recv(65536), b""))
    assert b" 400 " in said and b"no HTTP/1.1 request" in said


def test_another_page_and_another_name_of_this_machine_are_refused(url):
    assert ask(url, "/api/service", headers={"origin": "http://evil.example"})[0] == 403
    assert ask(url, "/api/service", headers={"host": "evil.example"})[0] == 403
    assert ask(url, "/api/service", headers={"origin": url})[0] == 200
    assert ask(url, "/api/plan", {"clip_id": "026c"}, {"content-type": "text/plain"})[0] == 422


def test_a_token_opens_the_service(planner):
    with open_source("sample") as source, served(planner, source, token="secret") as url:
        for given in ({}, {"authorization": "Bearer wrong"}, {"authorization": "secret\xe9"}):
            answer = ask(url, "/api/service", headers=given)
            assert answer[0] == 401 and "needs a token" in told(answer)
        assert ask(url, "/")[0] == 200
        with pytest.raises(ServiceError, match="needs a token"):
            Client(url)
        with Client(url, token="secret") as client, client.stream(seed=1, max_tokens=4, steps=1) as stream:
            assert stream.step(random_observation(0, 64, 64)).xyz.shape == (1, 64, 3)


def test_who_is_this_machine():
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.9.9.9", "::1", "[::1]")))
    assert not any(map(is_loopback, ("0.0.0.0", "10.0.0.1", "example.com", "localhost.example.com", "")))


class Slow:
    """A planner that waits to be let go, and counts what it is asked at once."""

    def __init__(self):
        self.go, self.asked = threading.Event(), []

    def plans(self, observations, options):
        self.asked.append(len(observations))
        if any(one.t0_us == 13 for one in observations):
            raise ValueError("13 is no time")
        return [f"plan of {one.t0_us}" for one in observations]

    def plan(self, observation, options):
        self.go.wait(10)
        return self.plans([observation], options)[0]


def moment(t0_us: int):
    return replace(random_observation(0, 8, 8), t0_us=t0_us)


def test_equal_requests_are_planned_at_once_and_others_in_turn():
    slow = Slow()
    queue = Queue(lambda: slow, Limits(batch=3))
    jobs = [queue.plan(moment(0), PlanOptions(seed=9))]
    while queue.waiting:
        time.sleep(0.001)
    jobs += [queue.plan(moment(i), PlanOptions(seed=int(i == 3))) for i in range(1, 7)]
    slow.go.set()
    assert [job.result(10) for job in jobs] == [f"plan of {i}" for i in range(7)]
    assert slow.asked == [1, 3, 1, 2]
    queue.close()


def test_one_bad_request_of_several_fails_alone():
    slow = Slow()
    queue = Queue(lambda: slow, Limits())
    first = queue.plan(moment(0), PlanOptions(seed=9))
    while queue.waiting:
        time.sleep(0.001)
    jobs = [queue.plan(moment(t), PlanOptions(seed=1)) for t in (1, 13, 2)]
    slow.go.set()
    assert first.result(10) and [jobs[0].result(10), jobs[2].result(10)] == ["plan of 1", "plan of 2"]
    with pytest.raises(ValueError, match="13 is no time"):
        jobs[1].result(10)
    queue.close()


def test_a_full_queue_says_when_to_come_again_and_forgets_who_left():
    slow = Slow()
    queue = Queue(lambda: slow, Limits(waiting=2))
    queue.plan(moment(0), PlanOptions(seed=9))
    while queue.waiting:
        time.sleep(0.001)
    jobs = [queue.plan(moment(i), PlanOptions(seed=i)) for i in (1, 2)]
    with pytest.raises(Busy, match="2 requests wait for the planner: try again in") as refused:
        queue.plan(moment(3), PlanOptions(seed=3))
    assert refused.value.retry_after >= 1
    assert jobs[0].cancel() and queue.plan(moment(3), PlanOptions(seed=3))
    slow.go.set()
    assert jobs[1].result(10) == "plan of 2"
    queue.close()


def test_who_waited_too_long_is_told_so():
    slow = Slow()
    queue = Queue(lambda: slow, Limits(wait_s=0.05))
    queue.plan(moment(0), PlanOptions(seed=9))
    while queue.waiting:
        time.sleep(0.001)
    late = queue.plan(moment(1), PlanOptions(seed=1))
    time.sleep(0.1)
    slow.go.set()
    with pytest.raises(Busy, match="waited 0 s for the planner"):
        late.result(10)
    queue.close()


def test_the_page_asks_nobody_else():
    folder = Path(__file__).parents[2] / "src/alpamayo_r1/assets/page"
    for file in folder.iterdir():
        text = file.read_text()
        assert "//cdn" not in text and "https://" not in text and "http://" not in text, file.name


def test_an_evaluation_can_be_seen_and_nothing_beside_it(planner, tmp_path):
    from alpamayo_r1.evaluate import EvalConfig, evaluate
    from alpamayo_r1.evaluate.summary import summarise

    config = EvalConfig(str(GOLDEN / "checkpoint"), "sample", "2", "5.1", PlanOptions(samples=1, seed=42, max_tokens=4, steps=1))
    list(evaluate(config, tmp_path / "mine"))
    summarise(tmp_path / "mine")
    with open_source("sample") as source, served(planner, source, evaluations=[tmp_path / "mine"]) as url:
        assert json.loads(ask(url, "/api/evaluations")[2]) == ["mine"]
        rows = json.loads(ask(url, "/api/evaluations/0")[2])["rows"]
        assert len(rows) == 2 and rows[0]["min_ade"] > 0 and rows[0]["clip_id"]
        assert ask(url, "/api/evaluations/1")[0] == 404 and ask(url, "/api/evaluations/..")[0] in (404, 422)
        assert str(tmp_path) not in json.dumps(rows)
    with pytest.raises(ValueError, match="holds no finished evaluation"), served(planner, None, evaluations=[tmp_path]):
        pass


@pytest.mark.parametrize(
    "words, text",
    [
        (["--port", "taken"], "choose another --port, or stop what listens there"),
        (["--evaluation", "nowhere"], "nowhere holds no finished evaluation"),
        (["--data", "/nowhere"], "there is no folder"),
        (["--checkpoint", "/nowhere"], "/nowhere"),
        (["--port", "70000"], "expected a whole number from 0 to 65535"),
    ],
)
def test_a_service_that_cannot_start_says_why(words, text):
    from typer.testing import CliRunner

    from alpamayo_r1.cli.__main__ import app

    with socket.create_server(("127.0.0.1", 0)) as listener:
        given = [str(listener.getsockname()[1]) if word == "taken" else word for word in words]
        done = CliRunner().invoke(app, ["serve", *([] if "--port" in words else ["--port", "0"]), *given])
    assert done.exit_code == 2 and text in done.output.replace("\n", " "), done.output


def test_a_service_without_its_extra_says_what_to_install(monkeypatch):
    from typer.testing import CliRunner

    from alpamayo_r1.cli import serve
    from alpamayo_r1.cli.__main__ import app

    monkeypatch.setattr(serve, "find_spec", lambda name: None)
    done = CliRunner().invoke(app, ["view"])
    assert done.exit_code == 2 and "pip install 'alpamayo-r1[serve]'" in done.output


def raw(url: str, content: bytes) -> bytes:
    """What the service sends back to these bytes before it closes, or the end of an answer."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(content)
        said = b""
        while piece := connection.recv(65536):
            said += piece
            head, found, body = said.partition(b"\r\n\r\n")
            if found and len(body) >= int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0] or 0):
                break
        return said


UPGRADE = "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: {version}\r\n"


@pytest.mark.parametrize(
    "path, host, version, key, status, text",
    [
        ("/api/stream", "localhost", 99, "dGhlIHNhbXBsZSBub25jZQ==", 400, "a WebSocket is opened by GET, with version 13"),
        ("/api/stream", "localhost", 13, "short", 400, "a key of 16 bytes in base64"),
        ("/api/stream", "evil.example", 13, "dGhlIHNhbXBsZSBub25jZQ==", 403, "expected localhost or 127.0.0.1"),
        ("/api/nothing", "localhost", 13, "dGhlIHNhbXBsZSBub25jZQ==", 404, "there is no WebSocket /api/nothing"),
    ],
)
def test_a_websocket_that_cannot_be_opened_is_told_why(url, caplog, path, host, version, key, status, text):
    said = raw(url, f"{UPGRADE.format(path=path, host=host, version=version)}sec-websocket-key: {key}\r\n\r\n".encode())
    assert said.split()[1] == str(status).encode() and text in json.loads(said.partition(b"\r\n\r\n")[2])["error"]["text"]
    time.sleep(0.05)
    assert not [record.msg for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize("host", ["localhost.evil.com", "localhost@evil.com", "[::1", "localhost:80/../x", "127.1", "0.0.0.0", ""])
def test_a_host_that_is_not_this_machine_by_name_is_refused(url, host):
    said = raw(url, f"GET /api/service HTTP/1.1\r\nhost: {host}\r\n\r\n".encode())
    assert said.split()[1] == b"403" and b"expected localhost" in said


def test_a_range_of_the_pages_files_is_the_whole_of_them(url):
    assert ask(url, "/page/api.js", headers={"range": "bytes=99999999-"})[0] == 200


@pytest.mark.parametrize("kind", ["multipart/form-data; boundary=x", "application/x-www-form-urlencoded", "image/png", "application/zip"])
def test_an_upload_of_another_kind_is_told_what_to_send(url, kind):
    for path, wanted in (("/api/plan", "application/json"), ("/api/plan/observation", MEDIA_TYPE)):
        answer = ask(url, path, b"--x\r\n\r\nPK\x03\x04\r\n--x--\r\n", {"content-type": kind})
        assert answer[0] == 422 and f"the content type is not {wanted}" in told(answer)


def sent_with(**changed: torch.Tensor) -> bytes:
    seen = random_observation(0, 32, 32)
    frames = changed.pop("frames", seen.frames)
    return pack(replace(seen, frames=frames), {"options": FEW}, changed.get("noise"))


@pytest.mark.parametrize(
    "content, text",
    [
        (sent_with(frames=torch.zeros(4, 17, 3, 8, 8, dtype=torch.uint8)), "68 pictures were sent, expected at most 64"),
        (sent_with(frames=torch.zeros(4, 4, 3, 1, 4000, dtype=torch.uint8)), "4000"),
        (sent_with(noise=torch.zeros(1, 64, 2).to(torch.float8_e4m3fn)), "noise is torch.float8_e4m3fn, expected torch.float32"),
        (sent_with(noise=torch.zeros(1, 64, 2, dtype=torch.complex64)), "noise is torch.complex64, expected torch.float32"),
    ],
    ids=["too many pictures", "a strip", "noise of 8 bits", "complex noise"],
)
def test_pictures_and_noise_that_nobody_foresaw_are_told_what_would_fit(url, content, text):
    answer = ask(url, "/api/plan/observation", content, {"content-type": MEDIA_TYPE})
    assert answer[0] == 422 and text in told(answer)


def test_a_stream_takes_noise_as_json_and_says_what_it_does_not_take(url, planner):
    from websockets.sync.client import connect

    draws = torch.randn(1, 64, 2, generator=torch.Generator().manual_seed(5))
    step = {"clip_id": "026c", "t0_us": 5_000_000}
    with connect(f"ws{url[4:]}/api/stream", max_size=None) as stream:

        def say(message: object) -> dict:
            stream.send(message if isinstance(message, str | bytes) else json.dumps(message))
            return json.loads(stream.recv(30))

        for wrong, text in (("[" * 10_000, "nested too deeply"), (b"PK", "a stream begins with a JSON object"), ({"draws": 5}, "draws")):
            assert text in say(wrong)["error"]["text"]
        assert say({"options": FEW}) == {"seed": 1}
        for wrong, text in (("NaN", "no JSON number"), (b"PK", "no safetensors file"), (step | {"options": {"noise": [[1]]}}, "noise has")):
            assert text in say(wrong)["error"]["text"]
        got = say(step | {"options": {"noise": draws.tolist()}})["plans"][0]
    with open_source("sample") as source:
        seen = source.clip(source.find("026c")).sample(5_000_000).observation
    assert torch.equal(torch.tensor(got["xyz"]), planner.plan(seen, noise=draws, **FEW).xyz)


@pytest.mark.parametrize("engine", [True, False])
def test_steps_that_are_asked_for_before_the_last_is_there_are_answered_in_order(url, planner, engine):
    from websockets.sync.client import connect

    moments = [5_000_000, 5_100_000, 5_200_000, 5_200_000]
    asked = [{"clip_id": "026c", "t0_us": t0_us} for t0_us in moments]
    asked.insert(2, {"clip_id": "026c", "t0_us": 1})
    with connect(f"ws{url[4:]}/api/stream", max_size=None) as stream:
        for message in ({"options": FEW, "engine": engine}, *asked):
            stream.send(json.dumps(message))
        assert json.loads(stream.recv(30)) == {"seed": 1}
        found = [json.loads(stream.recv(30)) for _ in asked]
    assert "too early" in found.pop(2)["error"]["text"]
    assert [one["t0_us"] for one in found] == moments
    assert [one["reused"]["pictures"] for one in found] == [0, 12, 12, 16]
    with open_source("sample") as source:
        clip = source.clip(source.find("026c"))
        for one, t0_us in zip(found[:3], moments[:3], strict=True):
            want = planner.plan(clip.sample(t0_us).observation, **FEW)
            torch.testing.assert_close(torch.tensor(one["plans"][0]["xyz"]), want.xyz, atol=0 if engine else 1e-4, rtol=0)


def test_a_client_that_leaves_in_the_middle_of_a_plan_leaves_the_stream_to_others(planner):
    from websockets.sync.client import connect

    with open_source("sample") as source, served(planner, source, limits=Limits(streams=1)) as url:
        address = f"ws{url[4:]}/api/stream"
        with connect(address) as left:
            left.send(json.dumps({"options": FEW | {"max_tokens": 64}}))
            left.recv(30)
            left.send(json.dumps({"clip_id": "026c"}))
        with Client(url) as client:
            for _ in range(100):
                try:
                    with client.stream(**FEW) as stream:
                        assert stream.seed == 1
                        with pytest.raises(ServiceBusy, match="1 streams are open, the most at once"):
                            client.stream(**FEW)
                        return
                except ServiceBusy:
                    time.sleep(0.05)
        pytest.fail("the stream that was left stays taken")


def test_a_silent_stream_is_closed(planner):
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect

    with (
        open_source("sample") as source,
        served(planner, source, limits=Limits(idle_s=0.05)) as url,
        connect(f"ws{url[4:]}/api/stream") as stream,
        pytest.raises(ConnectionClosed, match="nothing was said"),
    ):
        stream.recv(30)


def test_a_body_that_does_not_come_and_bodies_that_are_too_much_at_once_are_refused(url, monkeypatch):
    monkeypatch.setattr(guard, "PAUSE_S", 0.2)
    head = b"POST /api/plan HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n"
    assert b" 408 " in raw(url, head + b"{")
    monkeypatch.setattr(guard, "AT_ONCE", 0)
    answer = ask(url, "/api/plan", {"clip_id": "026c"})
    assert answer[0] == 503 and answer[1]["retry-after"] == "1" and "too many large bodies" in told(answer)
