"""Who may ask, and how much may be sent: checked before a request reaches the service."""

from __future__ import annotations

import ipaddress
import json
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

BODY = 160 * 2**20
"""Bytes of a request at most."""

HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
"""Sent with everything: the page asks nobody but this service."""


DRAINED = 4
"""How many times the most that is taken is read and thrown away, so that who sent too much reads why."""


class TooLarge(Exception):
    """A body of more bytes than the service takes."""


def is_loopback(host: str) -> bool:
    """Whether a name or address is this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Guard:
    """The gate before the service.

    token: what API requests must carry ("Authorization: Bearer TOKEN"; for a WebSocket the query "token"), None: nothing, and then the
    request must name this machine as its host, so that no web page elsewhere can reach the service under a name of its own. A page of
    another origin is refused either way. body: bytes of a request at most.
    """

    def __init__(self, app: App, token: str | None, body: int):
        self.app, self.token, self.body = app, token, body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if refused := self.refused(scope, headers):
            await refuse(scope, send, *refused)
            return
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > self.body:
            await drain(receive, DRAINED * self.body)
            await refuse(scope, send, 413, self.too_large)
            return
        taken, began = 0, False

        async def bounded() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self.body:
                raise TooLarge()
            return message

        async def with_headers(message: Message) -> None:
            nonlocal began
            if message["type"] == "http.response.start":
                began = True
                message["headers"] = [*message["headers"], *((name.encode(), value.encode()) for name, value in HEADERS.items())]
            await send(message)

        try:
            await self.app(scope, bounded if scope["type"] == "http" else receive, with_headers)
        except TooLarge:
            if not began:
                await drain(receive, DRAINED * self.body)
                await refuse(scope, send, 413, self.too_large)

    @property
    def too_large(self) -> str:
        """What is said of a body that is too large."""
        return f"the body is larger than {self.body:,} bytes, the most that this service takes: send fewer or smaller pictures"

    def refused(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        """Status and text for who may not ask; None for who may."""
        host = headers.get("host", "")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return 403, f"a page of {origin} asked, and this service answers its own page alone: open {host or 'it'} itself"
        if self.token is None:
            name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
            if not is_loopback(name):
                return (
                    403,
                    f'the request names the host "{name}", expected localhost or 127.0.0.1: this service was started without a token',
                )
            return None
        if not scope["path"].startswith("/api/"):
            return None
        given = headers.get("authorization", "").removeprefix("Bearer ")
        if scope["type"] == "websocket" and not given:
            given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if not secrets.compare_digest(given.encode(), self.token.encode()):
            return 401, 'this service needs a token: send the header "Authorization: Bearer TOKEN" with the one that it was started with'
        return None


async def drain(receive: Receive, most: int) -> None:
    """Reads a body to its end, or so many bytes of it, and keeps nothing."""
    more = True
    while more and most > 0:
        message = await receive()
        most -= len(message.get("body", b""))
        more = message["type"] == "http.request" and message.get("more_body", False)


async def refuse(scope: Scope, send: Send, status: int, text: str, retry_after: int | None = None) -> None:
    """Answers with an error; a WebSocket is closed before it opens. retry_after: seconds."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": text[:120]})
        return
    kind = {401: "PermissionError", 403: "PermissionError", 503: "Busy"}.get(status, "ValueError")
    body = json.dumps({"error": {"type": kind, "text": text}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), (b"connection", b"close")]
    headers += [] if retry_after is None else [(b"retry-after", str(retry_after).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
