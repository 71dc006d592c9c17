"""Answers from the moment that the service listens: the page's files at once, everything else as soon as the service is built."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from starlette.applications import Starlette

from alpamayo_r1.serve.guard import BODY, App, Guard, Receive, Scope, Send, refuse
from alpamayo_r1.serve.page import is_of_the_page, routes

HELD = 64
"""Requests that wait for the service to be built; the next ones are refused."""


class Door:
    """An application before it is there.

    build: called in a thread of its own by `begin`; calls `open`, and may go on after that. token: as of `Guard`.
    `error` is what build raised; `failed` is called then.
    """

    def __init__(self, build: Callable[[Door], None], token: str | None):
        self._build, self._inside, self._held = build, None, 0
        self._page = Guard(Starlette(routes=routes()), token, BODY)
        self._turned = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._close: Callable[[], None] = lambda: None
        self.failed: Callable[[], None] = lambda: None
        self.error: Exception | None = None

    def begin(self) -> None:
        """Builds, once the service listens: what is imported meanwhile keeps Python from answering for tenths of a second."""
        threading.Thread(target=self._work, name="building", daemon=True).start()

    def open(self, app: App, close: Callable[[], None]) -> None:
        """Everything is answered by this application from now on. close: called when serving ends."""
        self._inside, self._close = app, close
        self._turn()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif self._inside is None and scope["type"] == "http" and is_of_the_page(scope["path"]):
            await self._page(scope, receive, send)
        else:
            app = await self._opened()
            await (refuse(scope, send, 503, "the service is starting", 1) if app is None else app(scope, receive, send))

    async def _opened(self) -> App | None:
        """What is behind the door once it is open; None where too many wait, or it never opens."""
        if self._inside is None and self._held < HELD:
            self._held += 1
            try:
                await self._turned.wait()
            finally:
                self._held -= 1
        return self._inside

    async def _live(self, receive: Receive, send: Send) -> None:
        """Closes at the end what was built."""
        await receive()
        self._loop = asyncio.get_running_loop()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await asyncio.to_thread(self._close)
        await send({"type": "lifespan.shutdown.complete"})

    def _work(self) -> None:
        try:
            self._build(self)
        except Exception as error:
            self.error = error
            self.failed()
            self._turn()

    def _turn(self) -> None:
        """Wakes those who wait."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._turned.set)
