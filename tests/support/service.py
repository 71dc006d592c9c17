"""A service on this machine, in a thread of the test's process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from alpamayo_r1.planner import Planner


@contextmanager
def served(planner: Planner, source: object, **how: object) -> Iterator[str]:
    """The URL of a service of a planner, until the end of the block."""
    pytest.importorskip("fastapi", reason="needs the extra serve")
    pytest.importorskip("uvicorn", reason="needs the extra serve")
    from alpamayo_r1.serve.app import make_app
    from alpamayo_r1.serve.run import listening, server

    at, ready = listening("127.0.0.1", 0), threading.Event()
    running = server(make_app(planner, source, **how), ready.set)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [at]}, daemon=True)
    thread.start()
    assert ready.wait(30)
    try:
        yield f"http://127.0.0.1:{at.getsockname()[1]}"
    finally:
        running.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
