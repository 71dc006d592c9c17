"""The service's addresses: what is asked at each, and what is answered."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
from fastapi import FastAPI, Query, Request, Response, WebSocket, WebSocketDisconnect
from fastapi.exceptions import RequestValidationError
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException

import alpamayo_r1
from alpamayo_r1.core.mistakes import is_for_people
from alpamayo_r1.core.options import AskOptions, PlanOptions, Saying
from alpamayo_r1.core.types import CAMERAS, Answers, Observation, Plan, Sample
from alpamayo_r1.core.wire import MEDIA_TYPE, answers_as_json, pack, plan_as_json, unpack
from alpamayo_r1.data.errors import DataError, UnknownClip
from alpamayo_r1.data.source import Source
from alpamayo_r1.planner import Planner
from alpamayo_r1.serve.drives import FAMILIES, Drive
from alpamayo_r1.serve.evaluations import Evaluations
from alpamayo_r1.serve.guard import Guard
from alpamayo_r1.serve.queue import Busy, Limits, Queue
from alpamayo_r1.serve.scenes import Scenes, corridors, picture, scene_as_json
from alpamayo_r1.serve.schema import AskBody, AskReply, DriveBody, DriveStep, ErrorReply, PlanBody, PlanReply

ERRORS: dict[int | str, dict[str, Any]] = {
    404: {"model": ErrorReply, "description": "There is no such clip, evaluation or address."},
    422: {"model": ErrorReply, "description": "What was given does not fit; the text says what would."},
    503: {"model": ErrorReply, "description": "Enough requests wait. Retry-After: seconds after which to try again."},
}
CAR_AND_PICTURES = {
    "requestBody": {
        "required": True,
        "content": {
            MEDIA_TYPE: {
                "schema": {
                    "type": "string",
                    "format": "binary",
                    "description": "A safetensors file. Tensors: frames u8[C, K, 3, h, w] (RGB, oldest to newest, 0.1 s apart), "
                    "history_xyz "
                    "[16, 3] (metres) and history_rot [16, 3, 3] at 10 per second, in the ego frame at t0; perhaps noise f32[S, 64, 2]. "
                    'Metadata: "observation", JSON of {"cameras": [names], "t0_us": microseconds, "dt": 0.1}, and "request", JSON as '
                    "for a clip, without clip_id, t0_us and cameras. Written by alpamayo_r1.core.wire.pack.",
                }
            }
        },
    }
}
READERS = 8
"""Requests that may wait for a clip to be read, beside the one that is read."""

Value = TypeVar("Value")
Model = TypeVar("Model", bound=BaseModel)
log = logging.getLogger("alpamayo_r1.serve")


class Service:
    """A planner, its clips and its evaluations, as the addresses use them."""

    def __init__(self, planner: Planner, source: Source, limits: Limits, name: str, evaluations: Sequence[Path]):
        self.planner, self.limits, self.name = planner, limits, name
        self.queue, self.scenes, self.evaluations = Queue(planner, limits), Scenes(source, limits.pictures), Evaluations(evaluations)
        self._reader = ThreadPoolExecutor(1, "reader")
        self._reading = 0
        self.streams = 0

    def close(self) -> None:
        """Ends its threads."""
        self.queue.close()
        self._reader.shutdown(cancel_futures=True)

    def about(self) -> dict[str, Any]:
        """What this service is."""
        family, config = self.planner.model.config.family, self.planner.model.config
        return {
            "version": alpamayo_r1.__version__,
            "checkpoint": self.name,
            "family": family.name,
            "cameras": family.cameras,
            "navigates": family.navigates,
            "answers_questions": family.question is not None,
            "history_steps": config.tokens.history_tokens // 3,
            "device": str(self.planner.model.device),
            "engine": self.planner.engine is not None,
            "data": self.scenes.source.kind,
            "clips": len(self.scenes.source.clip_ids),
            "evaluations": self.evaluations.names,
            "limits": {"samples": self.limits.samples, "max_tokens": self.limits.max_tokens, "steps": self.limits.steps},
            "waiting": self.queue.waiting,
        }

    async def read(self, function: Callable[..., Value], *given: Any) -> Value:
        """What a function reads, one at a time and not on the loop's thread. Raises Busy."""
        if self._reading > READERS * 4:
            raise Busy(f"{self._reading} requests wait for clips to be read", 1)
        self._reading += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._reader, function, *given)
        finally:
            self._reading -= 1

    async def planned(self, observation: Observation, given: dict[str, Any], noise: torch.Tensor | None = None) -> tuple[list[Plan], Any]:
        """The plans that options as JSON ask for, and their seed. Raises as `Planner.plan`, and Busy."""
        if noise is not None:
            given = given | {"noise": noise}
        elif given.get("noise") is not None:
            given = given | {"noise": tensor_of_noise(given["noise"])}
        texts = given.get("navigation")
        if isinstance(texts, list):
            options = self.bounded(PlanOptions.of(None, {k: v for k, v in given.items() if k not in ("navigation", "guidance")}))
            if not 1 <= len(texts) <= 8:
                raise ValueError(f"navigation has {len(texts)} texts, expected 1 to 8")
            changes = {"guidance": given["guidance"]} if given.get("guidance") is not None else {}
            found = self.queue.call(lambda: self.planner.plan(observation, options, navigation=texts, **changes))  # type: ignore[call-overload]
            return await asyncio.wrap_future(found), options.seed
        options = self.bounded(PlanOptions.of(None, given))
        return [await asyncio.wrap_future(self.queue.plan(observation, options))], options.seed

    async def answered(self, observation: Observation, question: str | list[str], given: dict[str, Any]) -> list[Answers]:
        """Answers. Raises as `Planner.ask`, and Busy."""
        options = self.bounded(AskOptions.of(None, given))
        questions = [question] if isinstance(question, str) else question
        if not 1 <= len(questions) <= 16:
            raise ValueError(f"{len(questions)} questions were asked, expected 1 to 16 at once")
        return await asyncio.wrap_future(self.queue.call(lambda: self.planner.ask(observation, questions, options)))

    def bounded(self, options: Any) -> Any:
        """Options, unless they ask for more than the service gives. Raises ValueError."""
        assert isinstance(options, Saying)
        for name in ("samples", "max_tokens", "steps"):
            value, most = getattr(options, name, None), getattr(self.limits, name)
            if value is not None and value > most:
                raise ValueError(f"{name} is {value}, expected at most {most} of this service: ask for less")
        return options


def tensor_of_noise(nested: Any) -> torch.Tensor:
    """Noise as JSON -> f32. Raises ValueError."""
    try:
        return torch.tensor(nested, dtype=torch.float32)
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise ValueError(f"noise is no array of numbers [samples][64][2] ({error})") from None


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


def parsed(kind: type[Model], content: bytes) -> Model:
    """A JSON body as its model. Raises ValueError."""
    try:
        return kind.model_validate(json.loads(content))
    except ValidationError as error:
        raise ValueError(complaints(error.errors(include_url=False))) from None
    except RecursionError:
        raise ValueError("the body is nested too deeply: expected a JSON object, see /docs") from None
    except ValueError as error:
        raise ValueError(f"the body is no JSON ({error}): expected an object, see /docs") from None


def body_of(model: type[BaseModel]) -> dict[str, Any]:
    """What OpenAPI says of a JSON body."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": model.model_json_schema()}}}}


async def json_body(request: Request, kind: type[Model]) -> Model:
    """The request's body. Raises ValueError; TypeError for another content type, which a page elsewhere could send unasked."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ValueError("the content type is not application/json: send JSON and say so")
    return parsed(kind, await request.body())


def make_app(
    planner: Planner,
    source: Source,
    *,
    name: str = "a planner",
    token: str | None = None,
    limits: Limits | None = None,
    evaluations: Sequence[Path] = (),
) -> FastAPI:
    """The service of a planner and a source as an ASGI application.

    name: what the checkpoint is called. token: what requests must carry; None: they must come from this machine. evaluations: folders of
    `alpamayo-r1 eval` whose results may be seen.

    Raises:
        ValueError: a folder that holds no evaluation.
    """
    limits = limits or Limits()
    service = Service(planner, source, limits, name, evaluations)

    @asynccontextmanager
    async def alive(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(
        title="Alpamayo-R1",
        version=alpamayo_r1.__version__,
        summary="Clips, plans, questions, streams and evaluations.",
        description="Times: integer microseconds of clip time; lengths: metres; angles: radians; frame: ego at t0, x forward, y left.",
        lifespan=alive,
        docs_url=None,
        redoc_url=None,
        responses=ERRORS,
    )
    app.state.service = service
    app.add_middleware(Guard, token=token, body=limits.body)  # type: ignore[arg-type]
    add_errors(app)
    add_clips(app, service)
    add_plans(app, service)
    add_stream(app, service)
    add_drive(app, service)
    add_page(app)
    return app


def add_errors(app: FastAPI) -> None:
    """Every error is JSON with a text that teaches."""

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        return refusal(422, "ValueError", complaints(error.errors()))

    @app.exception_handler(HTTPException)
    async def no_such(request: Request, error: HTTPException) -> Response:
        text = f"{request.method} {request.url.path[:200]}: {str(error.detail).lower()}. /docs lists what there is"
        return refusal(error.status_code, "LookupError", text, dict(error.headers or {}))

    @app.middleware("http")
    async def teach(request: Request, go_on: Callable[..., Any]) -> Response:
        try:
            return await go_on(request)
        except Exception as error:
            if type(error).__name__ == "TooLarge":
                raise
            return answer_to(error)


T0 = Annotated[int, Query(description="Clip time in microseconds.", ge=-(2**53), le=2**53)]
Cameras = Annotated[list[str] | None, Query(description="Cameras; none: the four of the release.", max_length=16)]


def add_clips(app: FastAPI, service: Service) -> None:
    """What can be looked at."""

    @app.get("/api/service", tags=["service"])
    async def about() -> dict[str, Any]:
        """What is served: checkpoint, data, what the model can do, how much may be asked, how many requests wait."""
        return service.about()

    @app.get("/api/clips", tags=["clips"])
    async def clips(
        match: Annotated[str, Query(max_length=200, description="Only clips whose id, family or words hold this text.")] = "",
        first: Annotated[int, Query(ge=0, le=10**9, description="How many to leave out.")] = 0,
        count: Annotated[int, Query(ge=1, le=1000, description="How many at most.")] = 100,
    ) -> dict[str, Any]:
        """The clips of the data set: id, shortest beginning, for synthetic ones family and words."""
        rows, total = await service.read(service.scenes.rows, match, first, count)
        return {"total": total, "clips": [{k: v for k, v in row.plain().items() if k not in ("first", "last")} for row in rows]}

    @app.get("/api/clips/{clip_id}", tags=["clips"])
    async def clip(clip_id: str) -> dict[str, Any]:
        """A clip: first and last t0 in microseconds, calibration of its cameras (pixels, metres), its car's measures in metres."""
        return await service.read(service.scenes.clip, clip_id)

    @app.get("/api/clips/{clip_id}/scene", tags=["clips"])
    async def scene(clip_id: str, t0_us: T0 = 5_100_000, camera: Cameras = None) -> dict[str, Any]:
        """A moment without its pictures: history, future, what is around the car; metres and radians in the ego frame at t0."""
        return scene_as_json(await service.read(service.scenes.sample, clip_id, t0_us, camera))

    @app.get("/api/clips/{clip_id}/frames/{camera}", tags=["clips"], response_class=Response)
    async def frames(clip_id: str, camera: str, t0_us: T0 = 5_100_000, frame: int = -1, form: str = "jpeg") -> Response:
        """A camera's picture at t0 (frame -1) or before (0 oldest), as JPEG, or with form=png without loss."""
        if form not in ("jpeg", "png"):
            raise ValueError(f"form is {form[:40]!r}, expected jpeg or png")

        def read() -> bytes:
            sample = service.scenes.sample(clip_id, t0_us, None if camera in CAMERAS else [camera])
            return picture(sample.observation, camera, frame, form)

        return Response(await service.read(read), media_type=f"image/{form}", headers={"cache-control": "private, max-age=3600"})

    @app.get("/api/clips/{clip_id}/observation", tags=["clips"], response_class=Response)
    async def observation(clip_id: str, t0_us: T0 = 5_100_000, camera: Cameras = None) -> Response:
        """A moment as the model sees it, with its pictures, as safetensors: what /api/plan/observation takes."""

        def read() -> bytes:
            return pack(service.scenes.sample(clip_id, t0_us, camera).observation, {})

        return Response(await service.read(read), media_type=MEDIA_TYPE)

    @app.get("/api/evaluations", tags=["evaluations"])
    async def evaluations() -> list[str]:
        """Names of the evaluations that this service was given, in order."""
        return service.evaluations.names

    @app.get("/api/evaluations/{number}", tags=["evaluations"])
    async def evaluation(number: int) -> dict[str, Any]:
        """The rows of one evaluation, by its place in the list from 0: clip, t0 in microseconds, errors in metres, words."""
        return await service.read(service.evaluations.rows, number)


def add_plans(app: FastAPI, service: Service) -> None:
    """What can be asked of the planner."""

    @app.post("/api/plan", tags=["planner"], response_model=PlanReply, openapi_extra=body_of(PlanBody))
    async def plan(request: Request) -> Response:
        """Plans a clip at t0."""
        body = await json_body(request, PlanBody)
        sample = await service.read(service.scenes.sample, body.clip_id, body.t0_us, body.cameras)
        plans, seed = await service.planned(sample.observation, body.options)
        return reply(plans, seed, sample.observation.t0_us, sample, body.draw)

    @app.post("/api/plan/observation", tags=["planner"], response_model=PlanReply, openapi_extra=CAR_AND_PICTURES)
    async def plan_observation(request: Request) -> Response:
        """Plans pictures and a history that are sent with the request."""
        seen, asked, noise = await sent(request)
        plans, seed = await service.planned(seen, only(asked, "options").get("options") or {}, noise)
        return reply(plans, seed, seen.t0_us)

    @app.post("/api/ask", tags=["planner"], response_model=AskReply, openapi_extra=body_of(AskBody))
    async def ask(request: Request) -> Response:
        """Asks about a clip at t0 (Alpamayo 1.5)."""
        body = await json_body(request, AskBody)
        sample = await service.read(service.scenes.sample, body.clip_id, body.t0_us, body.cameras)
        found = await service.answered(sample.observation, body.question, body.options)
        return TeachingResponse({"answers": [answers_as_json(one) for one in found]})

    @app.post("/api/ask/observation", tags=["planner"], response_model=AskReply, openapi_extra=CAR_AND_PICTURES)
    async def ask_observation(request: Request) -> Response:
        """Asks about pictures that are sent with the request."""
        seen, asked, _ = await sent(request)
        question = only(asked, "question", "options").get("question")
        if not (isinstance(question, str) or (isinstance(question, list) and all(isinstance(one, str) for one in question))):
            raise ValueError(f"question is {repr(question)[:80]}, expected a text or a list of texts")
        found = await service.answered(seen, question, asked.get("options") or {})
        return TeachingResponse({"answers": [answers_as_json(one) for one in found]})


def only(asked: dict[str, Any], *names: str) -> dict[str, Any]:
    """A request that holds nothing but these names, its options an object. Raises ValueError."""
    if other := sorted(set(asked) - set(names)):
        raise ValueError(f"the request holds {', '.join(other)[:200]}, expected {' and '.join(names)} alone")
    if not isinstance(asked.get("options") or {}, dict):
        raise ValueError(f"options are {repr(asked['options'])[:80]}, expected an object such as {{'samples': 6, 'seed': 42}}")
    return asked


async def sent(request: Request) -> tuple[Observation, dict[str, Any], torch.Tensor | None]:
    """The observation that a request brings. Raises ValueError."""
    if request.headers.get("content-type", "").lower() != MEDIA_TYPE:
        raise ValueError(f"the content type is not {MEDIA_TYPE}: send a safetensors file and say so")
    return await asyncio.to_thread(unpack, await request.body())


def reply(plans: list[Plan], seed: Any, t0_us: int, sample: Sample | None = None, draw: bool = False) -> Response:
    """Plans as JSON."""
    return TeachingResponse(reply_as_json(plans, seed, t0_us, sample, draw))


def reply_as_json(plans: list[Plan], seed: Any, t0_us: int, sample: Sample | None, draw: bool) -> dict[str, Any]:
    """What `PlanReply` says."""
    return {
        "plans": [plan_as_json(one) for one in plans],
        "seed": None if seed is None else int(seed),
        "clip_id": None if sample is None else sample.clip_id,
        "t0_us": t0_us,
        "corridors": None if sample is None or not draw else corridors(sample, torch.cat([one.xyz for one in plans])),
    }


def add_stream(app: FastAPI, service: Service) -> None:
    """Plans along a drive."""

    @app.websocket("/api/stream")
    async def stream(socket: WebSocket) -> None:
        """First {"options": {...}, "draws": "kept"}; then per step {"clip_id", "t0_us", "draw"} as text, or an observation as binary."""
        await opened(socket, service, follow)


async def opened(socket: WebSocket, service: Service, go_on: Callable[[WebSocket, Service], Awaitable[None]]) -> None:
    """Follows a WebSocket to its end, unless enough are open."""
    await socket.accept()
    if service.streams >= service.limits.streams:
        await socket.send_json({"error": {"type": "Busy", "text": f"{service.streams} streams are open, the most at once"}})
        await socket.close(1013)
        return
    service.streams += 1
    try:
        await go_on(socket, service)
    except WebSocketDisconnect:
        pass
    finally:
        service.streams -= 1


async def told(socket: WebSocket, error: Exception) -> None:
    """Sends an error over a WebSocket."""
    _, kind, text = explained(error)
    again = {"retry_after": error.retry_after} if isinstance(error, Busy) else {}
    await socket.send_text(json.dumps({"error": {"type": kind, "text": text, **again}}))


async def follow(socket: WebSocket, service: Service) -> None:
    """Plans each step that a stream's client sends; what does not fit is answered with an error, and the stream goes on."""
    stream = None
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return
        try:
            text, content = message.get("text"), message.get("bytes")
            if stream is None:
                asked = only(_object(text), "options", "draws")
                options = service.bounded(PlanOptions.of(None, asked.get("options") or {}))
                stream = service.planner.stream(options, draws=asked.get("draws", "kept"))
                await socket.send_json({"seed": stream.seed})
                continue
            sample, changes, noise, draw = None, {}, None, False
            if content is not None:
                seen, asked, noise = await asyncio.to_thread(unpack, content)
                changes = only(asked, "options").get("options") or {}
            else:
                step = parsed(PlanBody, (text or "").encode("utf-8", "surrogatepass"))
                sample = await service.read(service.scenes.sample, step.clip_id, step.t0_us, step.cameras)
                seen, changes, draw = sample.observation, step.options, step.draw
            if noise is not None:
                changes = changes | {"noise": noise}
            service.bounded(stream.options.updated(changes))
            plan = await asyncio.wrap_future(service.queue.call(partial(stream.step, seen, **changes)))
            shown = reply_as_json([plan], stream.seed, seen.t0_us, sample, draw)
            await socket.send_text(json.dumps(shown | {"reused": {"pictures": stream.reused.pictures, "tokens": stream.reused.tokens}}))
        except WebSocketDisconnect:
            raise
        except Exception as error:
            await told(socket, error)


def _object(text: str | None) -> dict[str, Any]:
    try:
        value = json.loads(text or "")
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ValueError('a stream begins with a JSON object as text: {"options": {"samples": 1, "seed": 42}, "draws": "kept"}')
    return value


def add_drive(app: FastAPI, service: Service) -> None:
    """A scene of the world in closed loop."""

    @app.get("/api/families", tags=["drive"])
    async def families() -> tuple[str, ...]:
        """Families of scenes that can be driven."""
        return FAMILIES

    @app.websocket("/api/drive")
    async def drive(socket: WebSocket) -> None:
        """First {"seed": 7, "family": null, "seconds": 20, "options": {...}}; then per step {"reasoning": null or words to plan by}.

        Each step is answered with JSON and then, as binary, the JPEG of each camera of its scene in order.
        """
        await opened(socket, service, follow_drive)


async def follow_drive(socket: WebSocket, service: Service) -> None:
    """Drives step by step; what does not fit is answered with an error, and the drive stands still."""
    drive: Drive | None = None
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return
        try:
            text = (message.get("text") or "").encode("utf-8", "surrogatepass")
            if drive is None:
                begun = parsed(DriveBody, text)
                options = service.bounded(PlanOptions.of(None, begun.options))
                make = partial(Drive, service.planner, options, begun.seed, begun.family, begun.seconds)
                made: Drive = await asyncio.wrap_future(service.queue.call(make))
                drive = made
                await socket.send_json({"clip_id": made.name, "left": made.left})
                continue
            asked = parsed(DriveStep, text)
            shown, pictures = await asyncio.wrap_future(service.queue.call(partial(drive.step, asked.reasoning)))
            await socket.send_text(json.dumps(shown))
            for picture_of_camera in pictures.values():
                await socket.send_bytes(picture_of_camera)
        except WebSocketDisconnect:
            raise
        except Exception as error:
            await told(socket, error)


def add_page(app: FastAPI) -> None:
    """The page, its parts, and the description of the addresses."""
    folder = Path(str(resources.files("alpamayo_r1") / "assets" / "page"))

    def html(name: str) -> Response:
        return Response((folder / name).read_bytes(), media_type="text/html; charset=utf-8", headers={"cache-control": "no-cache"})

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return html("index.html")

    @app.get("/docs", include_in_schema=False)
    async def described() -> Response:
        return html("docs.html")

    app.mount("/page", StaticFiles(directory=folder), "page")
