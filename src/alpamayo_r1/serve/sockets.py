"""WebSockets: plans along a drive, and a scene of the world in closed loop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from alpamayo_r1.core.options import PlanOptions
from alpamayo_r1.core.types import Observation, Plan, Sample
from alpamayo_r1.serve.bodies import explained, only, parsed, reply_as_json
from alpamayo_r1.serve.queue import Busy
from alpamayo_r1.serve.schema import DriveBody, DriveStep, PlanBody, StreamBody
from alpamayo_r1.serve.service import Service, with_noise
from alpamayo_r1.stream import Reused, Stream
from alpamayo_r1.stream.flight import AT_ONCE
from alpamayo_r1.world.families import FAMILIES

if TYPE_CHECKING:
    from alpamayo_r1.serve.drives import Drive

Message = str | bytes
Answer = Callable[[Message], Awaitable[list[Message]]]
"""What a message is answered with. Raises as the planner does, and Busy."""


def add_stream(app: FastAPI, service: Service) -> None:
    """Plans along a drive."""

    @app.websocket("/api/stream")
    async def stream(socket: WebSocket) -> None:
        """First `StreamBody` as text; then per step {"clip_id", "t0_us", "draw"} as text, or an observation as binary.

        Answers come in order. Who sends the next step before the last is answered gets more of them per second.
        """
        await talk(socket, service, Following(service).answer, AT_ONCE)


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


async def talk(socket: WebSocket, service: Service, answer: Answer, at_once: int = 1) -> None:
    """Answers messages in their order, errors too, until the client leaves or says nothing for long; refuses where enough are open.

    at_once: messages that are being answered at most; who sends more waits.
    """
    await socket.accept()
    if service.streams >= service.limits.streams:
        await socket.send_json({"error": {"type": "Busy", "text": f"{service.streams} streams are open, the most at once"}})
        await socket.close(1013)
        return
    service.streams += 1
    room = asyncio.Semaphore(at_once)
    answers: asyncio.Queue[asyncio.Task[list[Message]]] = asyncio.Queue()
    hearing, saying = asyncio.create_task(hear(socket, service, answer, room, answers)), asyncio.create_task(say(socket, room, answers))
    try:
        await asyncio.wait((hearing, saying), return_when=asyncio.FIRST_COMPLETED)
        for one in (hearing, saying):
            if one.done():
                one.result()
    except TimeoutError:
        await socket.close(1001, f"nothing was said for {service.limits.idle_s:.0f} s")
    except WebSocketDisconnect:
        return
    finally:
        service.streams -= 1
        for task in (hearing, saying, *(answers.get_nowait() for _ in range(answers.qsize()))):
            task.cancel()


async def hear(
    socket: WebSocket, service: Service, answer: Answer, room: asyncio.Semaphore, answers: asyncio.Queue[asyncio.Task[list[Message]]]
) -> None:
    """Begins to answer what a client says, until it leaves. Raises TimeoutError after a long silence."""
    while True:
        await room.acquire()
        message = await asyncio.wait_for(socket.receive(), service.limits.idle_s)
        if message["type"] == "websocket.disconnect":
            return
        text, content = message.get("text"), message.get("bytes")
        answers.put_nowait(asyncio.create_task(answered(answer, text if text is not None else content or b"")))


async def say(socket: WebSocket, room: asyncio.Semaphore, answers: asyncio.Queue[asyncio.Task[list[Message]]]) -> None:
    """Sends answers in the order of what they answer. Raises WebSocketDisconnect."""
    while True:
        for reply in await (await answers.get()):
            await (socket.send_text(reply) if isinstance(reply, str) else socket.send_bytes(reply))
        room.release()


async def answered(answer: Answer, message: Message) -> list[Message]:
    """What a message is answered with, its error as a message too."""
    try:
        return await answer(message)
    except Exception as error:
        return [error_as_json(error)]


def error_as_json(error: Exception) -> str:
    """An error as a message."""
    _, kind, text = explained(error)
    again = {"retry_after": error.retry_after} if isinstance(error, Busy) else {}
    return json.dumps({"error": {"type": kind, "text": text, **again}})


class Following:
    """A stream: its first message begins it, each other one is a step; what does not fit is answered with an error, and it goes on.

    Steps are planned in the order of their messages; the next one's pictures are read meanwhile.
    """

    def __init__(self, service: Service):
        self.service = service
        self.stream: Stream | None = None
        self._turn = asyncio.Lock()

    async def answer(self, message: Message) -> list[Message]:
        """See `Answer`."""
        async with self._turn:
            if self.stream is None:
                self.stream = await self._begun(message)
                return [json.dumps({"seed": self.stream.seed})]
            step = await self._step(self.stream, message)
        plan, seed, reused = await asyncio.wrap_future(await asyncio.wrap_future(step.coming))
        reply = await asyncio.to_thread(reply_as_json, [plan], seed, step.t0_us, step.sample, step.draw)
        return [json.dumps(reply | {"reused": asdict(reused)})]

    async def _begun(self, message: Message) -> Stream:
        if isinstance(message, bytes):
            raise ValueError('a stream begins with a JSON object as text: {"options": {"samples": 1, "seed": 42}, "draws": "kept"}')
        asked = parsed(StreamBody, message)
        options, planner = self.service.bounded(PlanOptions.of(None, with_noise(asked.options))), self.service.planner(asked.engine)
        return await asyncio.wrap_future(self.service.queue.call(lambda: planner().stream(options, draws=asked.draws)))

    async def _step(self, stream: Stream, message: Message) -> Step:
        """The step that a message asks for, in the queue."""
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
        return Step(seen.t0_us, sample, draw, service.queue.call(lambda: taken(stream, seen, changes)))


@dataclass(frozen=True)
class Step:
    """A step that was asked for. sample: where it is a clip's; draw: whether it is to be drawn on its pictures."""

    t0_us: int
    sample: Sample | None
    draw: bool
    coming: Future[Future[tuple[Plan, int, Reused]]]


def taken(stream: Stream, seen: Observation, changes: dict[str, Any]) -> Future[tuple[Plan, int, Reused]]:
    """A step's plan, its seed and what it did not have to do again: to come where the stream reads one step while it speaks about another.

    Elsewhere it is there when this returns: the queue alone decides whose turn it is.
    """
    result: Future[tuple[Plan, int, Reused]] = Future()
    result.set_running_or_notify_cancel()  # who leaves does not stop it
    if not stream.overlaps:
        result.set_result((stream.step(seen, **changes), stream.seed, stream.reused))
        return result
    plan, seed = stream.submit(seen, **changes), stream.seed

    def settle(done: Future[Plan]) -> None:  # by the thread that speaks, before it begins anything else
        if error := done.exception():
            result.set_exception(error)
        else:
            result.set_result((done.result(), seed, stream.reused))

    plan.add_done_callback(settle)
    return result


class Driving:
    """A drive: its first message begins it, each other one is a step; what does not fit is answered with an error, and it stands still."""

    def __init__(self, service: Service):
        self.service = service
        self.drive: Drive | None = None

    async def answer(self, message: Message) -> list[Message]:
        """See `Answer`."""
        queue = self.service.queue
        if self.drive is None:
            from alpamayo_r1.serve.drives import Drive

            asked = parsed(DriveBody, message)
            options, model = self.service.bounded(PlanOptions.of(None, with_noise(asked.options))), self.service.model
            begin = queue.call(lambda: Drive(model.quick(), options, asked.seed, asked.family, asked.seconds))
            self.drive = drive = await asyncio.wrap_future(begin)
            return [json.dumps({"clip_id": drive.name, "left": drive.left})]
        drive, words = self.drive, parsed(DriveStep, message).reasoning
        shown, pictures = await asyncio.wrap_future(queue.call(lambda: drive.step(words)))
        answer: list[Any] = [json.dumps(shown), *pictures.values()]
        return answer
