"""WebSockets: plans along a drive, and a scene of the world in closed loop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from alpamayo_r1.core.options import PlanOptions
from alpamayo_r1.serve.bodies import explained, only, parsed, reply_as_json
from alpamayo_r1.serve.drives import Drive
from alpamayo_r1.serve.queue import Busy
from alpamayo_r1.serve.schema import DriveBody, DriveStep, PlanBody, StreamBody
from alpamayo_r1.serve.service import Service, with_noise
from alpamayo_r1.world.families import FAMILIES

if TYPE_CHECKING:
    from alpamayo_r1.stream import Stream

Message = str | bytes
Answer = Callable[[Message], Awaitable[list[Message]]]
"""What a message is answered with. Raises as the planner does, and Busy."""


def add_stream(app: FastAPI, service: Service) -> None:
    """Plans along a drive."""

    @app.websocket("/api/stream")
    async def stream(socket: WebSocket) -> None:
        """First `StreamBody` as text; then per step {"clip_id", "t0_us", "draw"} as text, or an observation as binary."""
        await talk(socket, service, Following(service).answer)


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
        await talk(socket, service, Driving(service).answer)


async def talk(socket: WebSocket, service: Service, answer: Answer) -> None:
    """Answers one message after the other, errors too, until the client leaves or says nothing for long; refuses where enough are open."""
    await socket.accept()
    if service.streams >= service.limits.streams:
        await socket.send_json({"error": {"type": "Busy", "text": f"{service.streams} streams are open, the most at once"}})
        await socket.close(1013)
        return
    service.streams += 1
    try:
        while True:
            message = await asyncio.wait_for(socket.receive(), service.limits.idle_s)
            if message["type"] == "websocket.disconnect":
                return
            try:
                text, content = message.get("text"), message.get("bytes")
                replies = await answer(text if text is not None else content or b"")
            except Exception as error:
                replies = [error_as_json(error)]
            for reply in replies:
                await (socket.send_text(reply) if isinstance(reply, str) else socket.send_bytes(reply))
    except TimeoutError:
        await socket.close(1001, f"nothing was said for {service.limits.idle_s:.0f} s")
    except WebSocketDisconnect:
        return
    finally:
        service.streams -= 1


def error_as_json(error: Exception) -> str:
    """An error as a message."""
    _, kind, text = explained(error)
    again = {"retry_after": error.retry_after} if isinstance(error, Busy) else {}
    return json.dumps({"error": {"type": kind, "text": text, **again}})


class Following:
    """A stream: its first message begins it, each other one is a step; what does not fit is answered with an error, and it goes on."""

    def __init__(self, service: Service):
        self.service = service
        self.stream: Stream | None = None

    async def answer(self, message: Message) -> list[Message]:
        """See `Answer`."""
        if self.stream is None:
            self.stream = await self._begun(message)
            return [json.dumps({"seed": self.stream.seed})]
        return [await self._step(self.stream, message)]

    async def _begun(self, message: Message) -> Stream:
        if isinstance(message, bytes):
            raise ValueError('a stream begins with a JSON object as text: {"options": {"samples": 1, "seed": 42}, "draws": "kept"}')
        asked = parsed(StreamBody, message)
        options, planner = self.service.bounded(PlanOptions.of(None, with_noise(asked.options))), self.service.planner(asked.engine)
        return await asyncio.wrap_future(self.service.queue.call(lambda: planner().stream(options, draws=asked.draws)))

    async def _step(self, stream: Stream, message: Message) -> str:
        service, sample, noise, draw = self.service, None, None, False
        if isinstance(message, bytes):
            seen, asked, noise = await service.unpacked(message)
            changes = only(asked, "options").get("options") or {}
        else:
            step = parsed(PlanBody, message)
            sample = await service.read(service.scenes.sample, step.clip_id, step.t0_us, step.cameras)
            seen, changes, draw = sample.observation, step.options, step.draw
        changes = with_noise(changes, noise)
        service.bounded(stream.options.updated(changes))
        plan = await asyncio.wrap_future(service.queue.call(lambda: stream.step(seen, **changes)))
        reused = {"pictures": stream.reused.pictures, "tokens": stream.reused.tokens}
        return json.dumps(reply_as_json([plan], stream.seed, seen.t0_us, sample, draw) | {"reused": reused})


class Driving:
    """A drive: its first message begins it, each other one is a step; what does not fit is answered with an error, and it stands still."""

    def __init__(self, service: Service):
        self.service = service
        self.drive: Drive | None = None

    async def answer(self, message: Message) -> list[Message]:
        """See `Answer`."""
        queue = self.service.queue
        if self.drive is None:
            asked = parsed(DriveBody, message)
            options, model = self.service.bounded(PlanOptions.of(None, with_noise(asked.options))), self.service.model
            begin = queue.call(lambda: Drive(model.quick(), options, asked.seed, asked.family, asked.seconds))
            self.drive = drive = await asyncio.wrap_future(begin)
            return [json.dumps({"clip_id": drive.name, "left": drive.left})]
        drive, words = self.drive, parsed(DriveStep, message).reasoning
        shown, pictures = await asyncio.wrap_future(queue.call(lambda: drive.step(words)))
        answer: list[Any] = [json.dumps(shown), *pictures.values()]
        return answer
