"""Bodies: requests as values, plans and errors as answers."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from fastapi import Request, Response
from pydantic import BaseModel, ValidationError

from alpamayo_r1.core.mistakes import is_for_people
from alpamayo_r1.core.types import Plan, Sample
from alpamayo_r1.core.wire import MEDIA_TYPE, plan_as_json
from alpamayo_r1.data.errors import DataError, UnknownClip
from alpamayo_r1.serve.queue import Busy
from alpamayo_r1.serve.scenes import corridors

Model = TypeVar("Model", bound=BaseModel)
log = logging.getLogger("alpamayo_r1.serve")


class TeachingResponse(Response):
    """JSON in ASCII, so that any text can be sent back."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The bytes of a value."""
        return json.dumps(content, allow_nan=False).encode()


def refusal(status: int, kind: str, text: str, headers: dict[str, str] | None = None) -> Response:
    """An error as JSON."""
    return TeachingResponse({"error": {"type": kind, "text": text}}, status, headers)


def explained(error: Exception) -> tuple[int, str, str]:
    """Status, the Python class to name, and the text of an error."""
    if isinstance(error, Busy):
        return 503, "Busy", str(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return 503, "Busy", "the service is out of memory: ask for fewer samples or smaller pictures, or try again"
    if isinstance(error, UnknownClip):
        return 404, "UnknownClip", str(error)
    if isinstance(error, LookupError) and not isinstance(error, KeyError):
        return 404, "LookupError", str(error)
    if isinstance(error, DataError) or is_for_people(error):
        kind = "TypeError" if isinstance(error, TypeError) else "ValueError"
        return 422, kind, str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    log.error("a request failed", exc_info=error)
    return 500, "RuntimeError", "the service failed in a way that nobody foresaw; its log says how. The next request is not harmed"


def answer_to(error: Exception) -> Response:
    """What a client is told of an error."""
    status, kind, text = explained(error)
    return refusal(status, kind, text, {"retry-after": str(error.retry_after)} if isinstance(error, Busy) else None)


def complaints(errors: Sequence[Any]) -> str:
    """What pydantic found, as sentences: the value, where it stood, and what was expected."""
    said = []
    for one in errors[:5]:
        place = ".".join(str(part) for part in one["loc"] if part not in ("body", "query", "path")) or "the body"
        given = "" if one["type"] in ("missing", "json_invalid") else f" ({repr(one.get('input'))[:80]} was given)"
        said.append(f"{place}: {one['msg'][:200].lower()}{given}")
    return f"{'; '.join(said)}. See /docs for what is expected"


def parsed(kind: type[Model], content: bytes | str) -> Model:
    """A JSON body as its model. Raises ValueError."""
    try:
        return kind.model_validate(json.loads(content, parse_constant=no_number))
    except ValidationError as error:
        raise ValueError(complaints(error.errors(include_url=False))) from None
    except RecursionError:
        raise ValueError("the body is nested too deeply: expected a JSON object, see /docs") from None
    except ValueError as error:
        raise ValueError(f"the body is no JSON ({error}): expected an object, see /docs") from None


def no_number(text: str) -> float:
    """What Python's JSON takes for a number, and JSON does not know. Raises ValueError."""
    raise ValueError(f"{text} is no JSON number")


async def json_body(request: Request, kind: type[Model]) -> Model:
    """The request's body. Raises ValueError; TypeError for another content type, which a page elsewhere could send unasked."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ValueError("the content type is not application/json: send JSON and say so")
    return parsed(kind, await request.body())


def only(asked: dict[str, Any], *names: str) -> dict[str, Any]:
    """A request that holds nothing but these names, its options an object. Raises ValueError."""
    if other := sorted(set(asked) - set(names)):
        raise ValueError(f"the request holds {', '.join(other)[:200]}, expected {' and '.join(names)} alone")
    if not isinstance(asked.get("options") or {}, dict):
        raise ValueError(f"options are {repr(asked['options'])[:80]}, expected an object such as {{'samples': 6, 'seed': 42}}")
    return asked


async def sent(request: Request) -> bytes:
    """The safetensors file that a request brings. Raises ValueError."""
    if request.headers.get("content-type", "").lower() != MEDIA_TYPE:
        raise ValueError(f"the content type is not {MEDIA_TYPE}: send a safetensors file and say so")
    return await request.body()


def reply_as_json(plans: list[Plan], seed: Any, t0_us: int, sample: Sample | None, draw: bool) -> dict[str, Any]:
    """What `PlanReply` says."""
    return {
        "plans": [plan_as_json(one) for one in plans],
        "seed": None if seed is None else int(seed),
        "clip_id": None if sample is None else sample.clip_id,
        "t0_us": t0_us,
        "corridors": None if sample is None or not draw else corridors(sample, torch.cat([one.xyz for one in plans])),
    }
