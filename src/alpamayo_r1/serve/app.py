"""The service's addresses: what is asked at each, and what is answered."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response, WebSocket
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

import alpamayo_r1
from alpamayo_r1.core.types import CAMERAS
from alpamayo_r1.core.wire import MEDIA_TYPE, answers_as_json, pack
from alpamayo_r1.data.source import Source
from alpamayo_r1.planner import Planner
from alpamayo_r1.serve.bodies import TeachingResponse, answer_to, complaints, json_body, only, refusal, reply_as_json, sent
from alpamayo_r1.serve.guard import Guard, Refused
from alpamayo_r1.serve.model import Model
from alpamayo_r1.serve.page import routes
from alpamayo_r1.serve.queue import Limits
from alpamayo_r1.serve.scenes import picture, scene_as_json
from alpamayo_r1.serve.schema import AskBody, AskReply, ErrorReply, PlanBody, PlanReply
from alpamayo_r1.serve.service import Service
from alpamayo_r1.serve.sockets import add_drive, add_stream

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


def make_app(
    planner: Planner | Model,
    source: Source,
    *,
    name: str = "a planner",
    token: str | None = None,
    limits: Limits | None = None,
    evaluations: Sequence[Path] = (),
) -> FastAPI:
    """The service of a planner (or of a model that is still loading) and a source as an ASGI application.

    name: what the checkpoint is called. token: what requests must carry; None: they must come from this machine. evaluations: folders of
    `alpamayo-r1 eval` whose results may be seen.

    Raises:
        ValueError: a folder that holds no evaluation.
    """
    limits = limits or Limits()
    model = planner if isinstance(planner, Model) else Model.of(planner)
    service = Service(model, source, limits, name, evaluations)

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
    add_clips(app, service)
    add_plans(app, service)
    add_stream(app, service)
    add_drive(app, service)
    add_errors(app)
    app.router.routes.extend(routes())
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

    @app.websocket("/{path:path}")
    async def no_such_socket(socket: WebSocket, path: str) -> None:
        text = f"there is no WebSocket /{path[:200]}, expected /api/stream or /api/drive. /docs lists what there is"
        await socket.send_denial_response(refusal(404, "LookupError", text))

    @app.middleware("http")
    async def teach(request: Request, go_on: Callable[..., Any]) -> Response:
        try:
            return await go_on(request)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        except Refused:
            raise
        except Exception as error:
            return answer_to(error)


T0 = Annotated[int, Query(description="Clip time in microseconds.", ge=-(2**53), le=2**53)]
Width = Annotated[int | None, Query(description="Pixels across at most; none: as many as there are.", ge=1, le=8192)]
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
    async def frames(
        clip_id: str, camera: str, t0_us: T0 = 5_100_000, frame: int = -1, form: str = "jpeg", width: Width = None
    ) -> Response:
        """A camera's picture at t0 (frame -1) or before (0 oldest), as JPEG, or with form=png without loss."""
        if form not in ("jpeg", "png"):
            raise ValueError(f"form is {form[:40]!r}, expected jpeg or png")

        def read() -> bytes:
            sample = service.scenes.sample(clip_id, t0_us, None if camera in CAMERAS else [camera])
            return picture(sample.observation, camera, frame, form, width)

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
        plans, seed = await service.planned(sample.observation, body.options, engine=body.engine)
        return TeachingResponse(reply_as_json(plans, seed, sample.observation.t0_us, sample, body.draw))

    @app.post("/api/plan/observation", tags=["planner"], response_model=PlanReply, openapi_extra=CAR_AND_PICTURES)
    async def plan_observation(request: Request) -> Response:
        """Plans pictures and a history that are sent with the request."""
        seen, asked, noise = await service.unpacked(await sent(request))
        plans, seed = await service.planned(seen, only(asked, "options").get("options") or {}, noise)
        return TeachingResponse(reply_as_json(plans, seed, seen.t0_us, None, False))

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
        seen, asked, _ = await service.unpacked(await sent(request))
        question = only(asked, "question", "options").get("question")
        if not (isinstance(question, str) or (isinstance(question, list) and all(isinstance(one, str) for one in question))):
            raise ValueError(f"question is {repr(question)[:80]}, expected a text or a list of texts")
        found = await service.answered(seen, question, asked.get("options") or {})
        return TeachingResponse({"answers": [answers_as_json(one) for one in found]})


def body_of(model: type[BaseModel]) -> dict[str, Any]:
    """What OpenAPI says of a JSON body."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": model.model_json_schema()}}}}
