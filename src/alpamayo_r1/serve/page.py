"""The page's files, which need nothing of the service."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib import resources
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

FOLDER = Path(str(resources.files("alpamayo_r1") / "assets" / "page"))


def is_of_the_page(path: str) -> bool:
    """Whether a path is answered by the page's files."""
    return path in ("/", "/docs") or path.startswith("/page/")


def routes() -> list[BaseRoute]:
    """The page at /, the description of the addresses at /docs, their parts at /page/."""
    return [Route("/", html("index.html")), Route("/docs", html("docs.html")), Mount("/page", Whole(directory=FOLDER))]


class Whole(StaticFiles):
    """Files that are sent as a whole: they are small, and a wrong range would be answered without a text."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers as if no range were asked for."""
        await super().__call__(
            {**scope, "headers": [one for one in scope["headers"] if one[0] not in (b"range", b"if-range")]}, receive, send
        )


def html(name: str) -> Callable[[Request], Awaitable[Response]]:
    """What answers with a file, asked for anew at every visit."""

    async def answer(_: Request) -> Response:
        return Response((FOLDER / name).read_bytes(), media_type="text/html; charset=utf-8", headers={"cache-control": "no-cache"})

    return answer
