"""Runs the service until it is interrupted; says where it is once it answers."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
from collections.abc import Callable
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from alpamayo_r1.serve.door import Door
from alpamayo_r1.serve.guard import BODY, App

CLOSING = 5
"""Seconds that requests have to end in when the service stops."""

HEAD_S = 30
"""Seconds in which the head of a connection's first request must come."""

WEBSOCKET_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")

KEPT_OPEN = 75
"""Seconds that an idle connection stays open: longer than any Retry-After."""


class Protocol(H11Protocol):
    """HTTP/1.1 whose answer to what is no HTTP is an error as everywhere, and which waits for a request's head no longer than HEAD_S."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begins to wait."""
        super().connection_made(transport)
        self._late = self.loop.call_later(HEAD_S, self._close_unless_asked)

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Hands over a connection that asks for a WebSocket rightly."""
        self._late.cancel()
        headers = dict(self.headers)
        key = headers.get(b"sec-websocket-key", b"")
        if event.method == b"GET" and headers.get(b"sec-websocket-version") == b"13" and WEBSOCKET_KEY.fullmatch(key):
            super().handle_websocket_upgrade(event)
        else:
            self.send_400_response("a WebSocket is opened by GET, with version 13 and a key of 16 bytes in base64")

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the wait."""
        self._late.cancel()
        super().connection_lost(exc)

    def _close_unless_asked(self) -> None:
        if self.cycle is None:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Answers bytes that are no request."""
        text = f"these bytes are no HTTP/1.1 request ({msg}): see /docs for what can be asked"
        body = json.dumps({"error": {"type": "ValueError", "text": text}}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), (b"connection", b"close")]
        for event in (h11.Response(status_code=400, headers=headers, reason=STATUS_PHRASES[400]), h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


class Server(uvicorn.Server):
    """Calls a function once it answers."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]):
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts, then tells."""
        await super().startup(sockets)
        if self.started:
            self._ready()


def listening(host: str, port: int) -> socket.socket:
    """A socket on that address, port 0 for a free one. Raises OSError naming it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
    except OSError as error:
        found.close()
        raise OSError(error.errno, f"{error.strerror}: choose another --port, or stop what listens there", f"{host}:{port}") from None
    return found


def is_news(record: logging.LogRecord) -> bool:
    """Whether a line of uvicorn's log says something: it calls a WebSocket that was refused with a text an application's mistake."""
    return record.msg != "ASGI callable returned without completing handshake."


def server(app: App, ready: Callable[[], None], body: int = BODY) -> Server:
    """The server of an application; `run(sockets=[...])` serves until `should_exit` is set. body: bytes of a message at most."""
    settings: dict[str, Any] = {"log_level": "warning", "access_log": False, "lifespan": "on", "ws": "websockets-sansio"}
    settings |= {"timeout_graceful_shutdown": CLOSING, "timeout_keep_alive": KEPT_OPEN, "backlog": 512}
    config = uvicorn.Config(app, http=Protocol, ws_max_size=body, **settings)
    logging.getLogger("uvicorn.error").addFilter(is_news)
    return Server(config, ready)  # type: ignore[arg-type]


def run(build: Callable[[Door], None], token: str | None, at: socket.socket, ready: Callable[[], None]) -> None:
    """Serves on a bound socket until it is interrupted: the page's files at once, everything else once a thread has built it.

    build, token: as of `Door`. Raises what build raises.
    """
    door = Door(build, token)

    def listens() -> None:
        ready()
        door.begin()

    serving = server(door, listens)
    door.failed = lambda: setattr(serving, "should_exit", True)
    serving.run(sockets=[at])
    if door.error is not None:
        raise door.error
