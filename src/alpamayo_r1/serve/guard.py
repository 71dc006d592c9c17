"""Who may ask, and how much may be sent: checked before a request reaches the service."""

from __future__ import annotations

import asyncio
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


PAUSE_S = 20.0
"""Seconds in which the next piece of a body must come."""

AT_ONCE = 4
"""How many of the largest bodies may be held at once."""


class Refused(Exception):
    """A body that is not taken. Its arguments: status, text, and perhaps the seconds after which to try again."""


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
    another origin is refused either way. body: bytes of a request at most; all that are being received hold AT_ONCE times that at most.
    """

    def __init__(self, app: App, token: str | None, body: int):
        self.app, self.token, self.body, self._held = app, token, body, 0

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
        taken, whole, began = 0, scope["type"] != "http", False

        async def bounded() -> Message:
            nonlocal taken, whole
            if whole:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), PAUSE_S)
            except TimeoutError:
                raise Refused(408, f"no more of the body came for {PAUSE_S:.0f} s: send it at once") from None
            size, whole = len(message.get("body", b"")), not message.get("more_body", False)
            taken, self._held = taken + size, self._held + size
            if taken > self.body:
                raise Refused(413, self.too_large)
            if self._held > AT_ONCE * self.body:
                raise Refused(503, "too many large bodies come at once: try again in 1 s", 1)
            return message

        async def with_headers(message: Message) -> None:
            nonlocal began
            if message["type"] == "http.response.start":
                began = True
                message["headers"] = [*message["headers"], *((name.encode(), value.encode()) for name, value in HEADERS.items())]
            await send(message)

        try:
            await self.app(scope, bounded, with_headers)
        except Refused as error:
            if not began:
                await drain(receive, DRAINED * self.body)
                await refuse(scope, send, *error.args)
        finally:
            self._held -= taken

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
            name, colon, port = (host, "", "") if host.endswith("]") or ":" not in host else host.rpartition(":")
            if not is_loopback(name) or (colon and not (port.isascii() and port.isdigit())):
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
    """Reads a body to its end, or so many bytes of it, or until no more comes, and keeps nothing."""
    more = True
    while more and most > 0:
        try:
            message = await asyncio.wait_for(receive(), PAUSE_S / 10)
        except TimeoutError:
            return
        most -= len(message.get("body", b""))
        more = message["type"] == "http.request" and message.get("more_body", False)


async def refuse(scope: Scope, send: Send, status: int, text: str, retry_after: int | None = None) -> None:
    """Answers with an error, a WebSocket before it opens too. retry_after: seconds."""
    kind = {401: "PermissionError", 403: "PermissionError", 503: "Busy"}.get(status, "ValueError")
    body = json.dumps({"error": {"type": kind, "text": text}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), (b"connection", b"close")]
    headers += [] if retry_after is None else [(b"retry-after", str(retry_after).encode())]
    kind_of_scope = "websocket.http" if scope["type"] == "websocket" else "http"
    await send({"type": f"{kind_of_scope}.response.start", "status": status, "headers": headers})
    await send({"type": f"{kind_of_scope}.response.body", "body": body})
