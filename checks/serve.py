"""The service under load, under kills and under nonsense; on a GPU how much of the engine's throughput it gives.

    python checks/serve.py [--clients 200] [--seconds 60] [--malformed 2000]         # the recorded tiny checkpoint on the CPU
    python checks/serve.py --throughput [--queue] [--size 10b] [--seconds 20]        # random weights, a GPU where there is one

Load: once every moment has been read, that many clients ask for plans of clips over loopback for that long; who is told 503 comes again
after Retry-After. No other error may come; p99 of the accepted requests is at most 5 times p50; memory in the second half grows by at most
5 %. Then the service is killed (SIGKILL) in the middle of requests and started again: the same request gives the same plan, to the bit.
Malformed requests: 4xx with a text each, none of 5xx.

Throughput: plans per second at S=1 and 16 forced tokens of the engine alone, four scenes at once, and of the service with 16 clients whose
requests are equal in their options; their ratio is to be 0.9 or more. --queue: through the service's queue alone.

The last line is JSON; exits with 1 where something fails.
"""

from __future__ import annotations

from _head import CUDA, DEVICE, ROOT

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from alpamayo_r1.data.source import open_source
from alpamayo_r1.planner import Planner
from alpamayo_r1.testing import StandIn, random_model, random_observation, size_config, words

TINY = ROOT / "tests/golden/checkpoint"
MOMENTS = (45, 50, 55)
"""Tenths of a second of clip time at which plans are asked for: the service keeps what it has read of all of them."""
OPTIONS = {"samples": 1, "seed": 42, "max_tokens": 4, "steps": 2}


@contextmanager
def service(port: int = 0) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A service of the tiny checkpoint in a process of its own, and its port."""
    command = [sys.executable, "-m", "alpamayo_r1", "serve", "--checkpoint", str(TINY), "--port", str(port), "--device", "cpu"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT / "src")})
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        yield process, int(line.split("//")[1].split("/")[0].split(":")[1])
    finally:
        process.kill()
        process.wait()


def resident(pid: int) -> int:
    """Bytes of memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, content: bytes) -> tuple[int, dict[str, str], bytes]:
    """Sends a request; status, headers and body of the answer."""
    writer.write(content)
    await writer.drain()
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    return int(head[0].split()[1]), headers, await reader.readexactly(int(headers.get("content-length", 0)))


def post(path: str, body: bytes, kind: str = "application/json") -> bytes:
    """A request as bytes."""
    return f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


async def one_client(port: int, number: int, clips: list[str], end: float, seen: list[tuple[int, float]]) -> None:
    """Asks for plans until the end; notes each status and how long it took."""
    chance = random.Random(number)
    reader, writer = await asyncio.open_connection("localhost", port)
    while time.monotonic() < end:
        t0_us = 100_000 * chance.choice(MOMENTS)
        options = OPTIONS | {"seed": chance.randrange(3)}
        body = json.dumps({"clip_id": chance.choice(clips), "t0_us": t0_us, "options": options}).encode()
        began = time.monotonic()
        status, headers, _ = await exchange(reader, writer, post("/api/plan", body))
        seen.append((status, time.monotonic() - began))
        if status == 503:
            await asyncio.sleep(float(headers["retry-after"]) * chance.uniform(0.5, 1.5))
    writer.close()


async def load(process: subprocess.Popen[str], port: int, clients: int, seconds: float) -> dict[str, Any]:
    """What came of so many clients for so long."""
    with open_source("sample") as source:
        clips = list(source.clip_ids)
    for t0 in MOMENTS:
        for clip in clips:
            await ask(port, f"GET /api/clips/{clip}/scene?t0_us={100_000 * t0} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
    seen: list[tuple[int, float]] = []
    memory: list[int] = []
    end = time.monotonic() + seconds

    async def watch() -> None:
        while time.monotonic() < end:
            memory.append(resident(process.pid))
            await asyncio.sleep(0.5)

    await asyncio.gather(watch(), *(one_client(port, i, clips, end, seen) for i in range(clients)))
    good = sorted(took for status, took in seen if status == 200)
    half = memory[len(memory) // 2]
    return {
        "statuses": dict(Counter(status for status, _ in seen)),
        "plans_per_s": round(len(good) / seconds, 1),
        "p50_ms": round(1e3 * statistics.median(good)),
        "p99_ms": round(1e3 * good[int(0.99 * (len(good) - 1))]),
        "memory_MB": [round(one / 1e6) for one in (memory[0], half, memory[-1])],
        "passed": set(status for status, _ in seen) <= {200, 503}
        and good[int(0.99 * (len(good) - 1))] <= 5 * statistics.median(good)
        and memory[-1] <= 1.05 * half,
    }


async def ask(port: int, content: bytes) -> tuple[int, dict[str, str], bytes]:
    """One request on a connection of its own."""
    reader, writer = await asyncio.open_connection("localhost", port)
    try:
        return await asyncio.wait_for(exchange(reader, writer, content), 60)
    finally:
        writer.close()


def a_plan(port: int) -> Any:
    """A plan that is the same whenever it is asked for."""
    with open_source("sample") as source:
        body = json.dumps({"clip_id": source.clip_ids[3], "t0_us": 5_000_000, "options": OPTIONS | {"seed": 7, "samples": 2}}).encode()
    status, _, content = asyncio.run(ask(port, post("/api/plan", body)))
    assert status == 200, content
    plan = json.loads(content)["plans"][0]
    return {name: plan[name] for name in ("xyz", "rot", "actions", "tokens")}


def malformed(chance: random.Random) -> bytes:
    """Something that is no right request."""
    scalars = [None, True, -1, 0, 1.5, 1e308, 2**70, "", "x", "\ud800", "\x00", [], [[]], {}, {"a": 1}, "../../etc/passwd", "é" * 50]
    value = chance.choice(scalars)
    wrong: dict[str, Any] = {"samples": "two", "seed": 0.5, "temperature": -1, "top_p": 2, "top_k": 0, "max_tokens": 0, "drafts": 3}
    wrong |= {"noise": [[1]], "steps": 0, "flow_temperature": "hot", "guidance": 1}
    name, path = chance.choice(list(wrong)), chance.choice(["/api/plan", "/api/ask"])
    right: dict[str, Any] = {"clip_id": "026c"} | ({"question": "Why?"} if path == "/api/ask" else {})
    whole = json.dumps(right | {"options": {name: wrong[name]}}).encode()
    noise = bytes(chance.randrange(256) for _ in range(chance.randrange(1, 200)))
    kinds = ["text/plain", "", "application/xml", "x" * 300]
    bodies = [
        right | {"clip_id": value},
        right | {"t0_us": chance.choice([None, 1.5, "5", 1, -1, 2**60, [], {}])},
        right | {chance.choice(["option", "clip", "x"]): value},
        right | {"options": {"reasoning": chance.choice(["<|cot_end|>", "\ud800", [1], ["a", "b"], {}])}},
        right | {"cameras": chance.choice([[], ["x"], "x", [1], ["\ud800"], ["a"] * 500])},
        value,
    ]
    size = chance.randrange(2**62).to_bytes(8, "little")
    paths = [
        f"/api/clips/026c/scene?t0_us={chance.choice(['', 'x', '1e9', '9' * 40, '1.5', '-1'])}",
        f"/api/clips/{chance.choice(['%2e%2e', 'zz', '%00', '~' * 400])}",
        f"/api/clips/026c/frames/{chance.choice(['x', '%00', 'camera_front_wide_120fov?frame=99'])}",
        f"/api/evaluations/{chance.choice(['0', '-1', 'x', '9' * 30])}",
    ]
    found = [
        *(post(path, json.dumps(body).encode()) for body in bodies),
        *(f"GET {one} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode() for one in paths),
        post(path, whole),
        post(path, whole[: chance.randrange(1, len(whole) - 1)]),
        post(path, noise),
        post(path, b"[" * chance.randrange(1, 50_000)),
        post(path, whole, chance.choice(kinds)),
        post("/api/plan/observation", noise, "application/x-safetensors"),
        post("/api/ask/observation", size + noise, "application/x-safetensors"),
        post(f"/api/{chance.choice(['plans', 'clips', 'x' * 500, '..%2f..', '%00', '%ff'])}", whole),
        f"{chance.choice(['PUT', 'DELETE', 'PATCH'])} /api/plan HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n".encode(),
        b"GET /api/service HTTP/1.1\r\nhost: evil.example\r\n\r\n",
        *unforeseen(chance, path, whole),
        noise + b"\r\n\r\n",
    ]
    return chance.choice(found)


def unforeseen(chance: random.Random, path: str, whole: bytes) -> list[bytes]:
    """Hosts, origins, heads, uploads, numbers and WebSockets as no client of ours sends them."""
    host = chance.choice(["localhost.evil.com", "localhost@evil.com", "[::1", "localhost:80/../x", "127.1", "0.0.0.0", "", "\xff"])
    origin = chance.choice(["null", "http://evil.example", "http://localhost@evil", "file://", "http://[::1"])
    upload = chance.choice(["multipart/form-data; boundary=x", "application/x-www-form-urlencoded", "image/png", "application/zip"])
    number = chance.choice(["NaN", "Infinity", "-Infinity", "1e999", "9" * 5000])
    head = chance.choice(
        ["x: " + "a" * 100_000, "x y: 1", "x: a\x00b", "content-length: -5", "content-length: " + "9" * 30, "transfer-encoding: gzip"]
    )
    version, key = chance.choice([("99", "dGhlIHNhbXBsZSBub25jZQ=="), ("13", "short"), ("13", "")])
    upgrade = f"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: {version}\r\nsec-websocket-key: {key}\r\n"
    socket_path = chance.choice(["/api/stream", "/api/drive", "/api/nothing"])
    return [
        f"GET /api/service HTTP/1.1\r\nhost: {host}\r\n\r\n".encode("latin-1"),
        f"GET /api/service HTTP/1.1\r\nhost: localhost\r\norigin: {origin}\r\n\r\n".encode(),
        f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{head}\r\n\r\n".encode("latin-1"),
        f"GET {socket_path} HTTP/1.1\r\nhost: localhost\r\n{upgrade}\r\n".encode(),
        post(path, b"--x\r\n\r\nPK\x03\x04\r\n--x--\r\n", upload),
        post(path, f'{{"clip_id": "026c", "options": {{"temperature": {number}}}}}'.encode()),
        post(path, b'{"clip_id": "026c", "options": ' + b'{"a":' * 50_000),
        post("/api/plan/observation", b"\xff" * 7 + b"\x7f" + whole, "application/x-safetensors"),
        b"GET /page/"
        + chance.choice([b"..%2f..%2fplanner.py", b"%5c..%5c", b"%00", b"a/" * 3000, b"C:%5cx"])
        + b" HTTP/1.1\r\nhost: localhost\r\n\r\n",
    ]


async def nonsense(port: int, count: int) -> dict[str, Any]:
    """What malformed requests are answered with."""
    chance, found, without_text = random.Random(0), Counter[int](), []
    for _ in range(count):
        content = malformed(chance)
        try:
            status, _, body = await ask(port, content)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            without_text.append(f"{type(error).__name__}: {content[:120]!r}")
            continue
        found[status] += 1
        try:
            said = json.loads(body)["error"]["text"]
        except (ValueError, LookupError, TypeError):
            said = ""
        if not (400 <= status < 500 and said):
            without_text.append(f"{status}: {content[:200]!r}")
    return {"statuses": dict(sorted(found.items())), "wrong": without_text[:5], "passed": not without_text}


def under_load(clients: int, seconds: float, count: int) -> dict[str, Any]:
    """Load, kill, start again, nonsense."""
    with service() as (process, port):
        before = a_plan(port)
        loaded = asyncio.run(load(process, port, clients, seconds))
        print("load", loaded, flush=True)
        body = json.dumps({"clip_id": "026c", "options": OPTIONS | {"max_tokens": 200}}).encode()
        with socket.create_connection(("localhost", port)) as half_done:
            half_done.sendall(post("/api/plan", body))
            time.sleep(0.05)
            process.send_signal(signal.SIGKILL)
            process.wait()
    with service(port) as (_, port):
        again = a_plan(port) == before
        print("killed, started again, same plan:", again, flush=True)
        told = asyncio.run(nonsense(port, count))
        print("malformed", told, flush=True)
        alive = a_plan(port) == before
    passed = loaded["passed"] and again and told["passed"] and alive
    return {"load": loaded, "same_after_kill": again, "malformed": told, "same_after_nonsense": alive, "passed": passed}


def throughput(size: str, seconds: float) -> dict[str, Any]:
    """Plans per second of the engine alone and through the service."""
    from alpamayo_r1.serve.app import make_app
    from alpamayo_r1.serve.queue import Limits
    from alpamayo_r1.serve.run import listening, server

    config = size_config(size)
    planner = Planner.of(random_model(config, DEVICE, torch.bfloat16 if CUDA else torch.float32), StandIn(config), fast=True)
    said = words(16)
    with open_source("sample") as source:
        clips = list(source.clip_ids[:4])
        scenes = [source.clip(one).sample().observation for one in clips]
        for _ in range(3):
            planner.plans(scenes, samples=1, seed=42, reasoning=said)
        began, alone = time.monotonic(), 0
        while time.monotonic() - began < seconds:
            planner.plans(scenes, samples=1, seed=42, reasoning=said)
            alone += len(scenes)
        alone_rate = alone / (time.monotonic() - began)

        at, ready = listening("127.0.0.1", 0), threading.Event()
        app = make_app(planner, source, limits=Limits(waiting=64))
        running = server(app, ready.set)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [at]}, daemon=True)
        thread.start()
        ready.wait()
        client = subprocess.Popen(
            [sys.executable, __file__, "--ask", str(at.getsockname()[1]), "--seconds", str(seconds)], stdout=subprocess.PIPE, text=True
        )
        done = json.loads(client.communicate()[0].splitlines()[-1])
        running.should_exit = True
        thread.join()
    rate = done[0] / seconds
    batches = app.state.service.queue.batches
    return {
        "engine_plans_per_s": round(alone_rate, 2),
        "service_plans_per_s": round(rate, 2),
        "share": round(rate / alone_rate, 3),
        "batches": batches,
        "device": torch.cuda.get_device_name() if CUDA else "cpu",
        "passed": rate >= 0.9 * alone_rate,
    }


def throughput_of_the_queue(size: str, seconds: float, clients: int = 16) -> dict[str, Any]:
    """Plans per second of the engine alone and through the service's queue, without HTTP and clips, so without the extra `serve`."""
    from alpamayo_r1.core.options import PlanOptions
    from alpamayo_r1.serve.queue import Limits, Queue

    config = size_config(size)
    planner = Planner.of(random_model(config, DEVICE, torch.bfloat16 if CUDA else torch.float32), StandIn(config), fast=True)
    scenes = [random_observation(number, 320, 576) for number in range(4)]
    options = PlanOptions(samples=1, seed=42, reasoning=words(16))
    for count in (1, 2, 3, 4, 4):
        planner.plans(scenes[:count], options)
    began, alone = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        planner.plans(scenes, options)
        alone += len(scenes)
    alone_rate = alone / (time.monotonic() - began)
    queue, done = Queue(lambda: planner, Limits(waiting=64)), [0] * clients
    end = time.monotonic() + seconds

    def client(number: int) -> None:
        while time.monotonic() < end:
            queue.plan(scenes[number % 4], options).result()
            done[number] += 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rate = sum(done) / (time.monotonic() - began)
    queue.close()
    device = torch.cuda.get_device_name() if CUDA else "cpu"
    found = {"engine_plans_per_s": round(alone_rate, 2), "queue_plans_per_s": round(rate, 2), "share": round(rate / alone_rate, 3)}
    return found | {"batches": queue.batches, "device": device, "passed": rate >= 0.9 * alone_rate}


async def ask_for_plans(port: int, seconds: float, clients: int = 16) -> list[int]:
    """How many plans so many clients got, and how many were refused."""
    with open_source("sample") as source:
        clips = list(source.clip_ids[:4])
    counts, began = [0, 0], time.monotonic()
    warm = began + 3.0

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        options = {"samples": 1, "seed": 42, "reasoning": words(16)}
        while time.monotonic() < warm + seconds:
            body = json.dumps({"clip_id": clips[number % 4], "options": options}).encode()
            status, _, _ = await exchange(reader, writer, post("/api/plan", body))
            if warm <= time.monotonic() < warm + seconds:
                counts[status != 200] += 1

    await asyncio.gather(*map(client, range(clients)))
    return counts


def main() -> None:
    """Runs what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=None)
    parser.add_argument("--malformed", type=int, default=2000)
    parser.add_argument("--throughput", action="store_true")
    parser.add_argument("--queue", action="store_true", help="with --throughput: of the queue alone, which needs no extra")
    parser.add_argument("--size", default="10b" if CUDA else "small")
    parser.add_argument("--ask", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.ask is not None:
        print(json.dumps(asyncio.run(ask_for_plans(given.ask, given.seconds))))
        return
    if given.throughput and given.queue:
        found = throughput_of_the_queue(given.size, given.seconds or 20.0)
    elif given.throughput:
        found = throughput(given.size, given.seconds or 20.0)
    else:
        found = under_load(given.clients, given.seconds or 60.0, given.malformed)
    print(json.dumps(found))
    sys.exit(0 if found["passed"] else 1)


if __name__ == "__main__":
    main()
