"""The page's files, which need nothing of the service."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib import resources
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

FOLDER = Path(str(resources.files("alpamayo_r1") / "assets" / "page"))


def is_of_the_page(path: str) -> bool:
    """Whether a path is answered by the page's files."""
    return path in ("/", "/docs") or path.startswith("/page/")


def routes() -> list[BaseRoute]:
    """The page at /, the description of the addresses at /docs, their parts at /page/."""
    return [Route("/", html("index.html")), Route("/docs", html("docs.html")), Mount("/page", StaticFiles(directory=FOLDER))]


def html(name: str) -> Callable[[Request], Awaitable[Response]]:
    """What answers with a file, asked for anew at every visit."""

    async def answer(_: Request) -> Response:
        return Response((FOLDER / name).read_bytes(), media_type="text/html; charset=utf-8", headers={"cache-control": "no-cache"})

    return answer
