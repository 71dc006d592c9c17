"""A planner that is elsewhere: `Client(url)` has `Planner`'s methods and gives the same plans, to the bit, from `alpamayo-r1 serve`."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import fields
from types import SimpleNamespace
from typing import Any, Literal, Self, Unpack, overload
from urllib.parse import quote, urlencode, urlsplit

import torch

from alpamayo_r1.core.family import FAMILIES
from alpamayo_r1.core.gate.observation import check_observation
from alpamayo_r1.core.notes import tell
from alpamayo_r1.core.options import AskKeywords, AskOptions, PlanKeywords, PlanOptions, Saying, ScenePlanKeywords, check_draws
from alpamayo_r1.core.request import seeded
from alpamayo_r1.core.types import Answers, Observation, Plan
from alpamayo_r1.core.wire import MEDIA_TYPE, answers_of_json, pack, plan_of_json, unpack

KINDS = {"ValueError": ValueError, "TypeError": TypeError, "LookupError": LookupError}
"""Errors of the service that are raised here as the same class."""


class ServiceError(Exception):
    """The service can't be reached, refuses us, or failed."""


class ServiceBusy(ServiceError):
    """The service had too much to do for as long as we waited."""


class Client:
    """The planner of a service at a URL, such as "http://127.0.0.1:8000".

    token: the one that the service was started with. timeout: seconds for one answer. patience: seconds for which a busy service is asked
    again. Not for concurrent use: it keeps one connection.

    Raises:
        ValueError: no http or https URL. ServiceError: nobody answers there, or refuses.
    """

    def __init__(self, url: str, *, token: str | None = None, timeout: float = 120.0, patience: float = 60.0):
        parts = urlsplit(url if isinstance(url, str) else "")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"url is {url!r}, expected the address of a service such as http://127.0.0.1:8000")
        self.url, self.token, self.timeout, self.patience = url.rstrip("/"), token, timeout, patience
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection, self._base = kind(parts.netloc, timeout=timeout), parts.path.rstrip("/")
        self.about: dict[str, Any] = self._get("/api/service")
        family = next((one for one in FAMILIES if one.name == self.about["family"]), FAMILIES[0])
        tokens = SimpleNamespace(history_tokens=3 * self.about["history_steps"])
        self._config: Any = SimpleNamespace(family=family, tokens=tokens)

    @overload
    def plan(self, observation: Observation, options: PlanOptions | None = None, /, **changes: Unpack[PlanKeywords]) -> Plan: ...

    @overload
    def plan(
        self,
        observation: Observation,
        options: PlanOptions | None = None,
        /,
        *,
        navigation: list[str | None],
        **changes: Unpack[ScenePlanKeywords],
    ) -> list[Plan]: ...

    def plan(self, observation: Observation, options: PlanOptions | None = None, /, **changes: Any) -> Plan | list[Plan]:
        """S futures for one observation, as `Planner.plan`.

        Raises:
            ValueError, TypeError: as `Planner.plan`. ServiceBusy, ServiceError: the service had no time, or failed.
        """
        texts = changes.get("navigation")
        several = isinstance(texts, list)
        weight = changes.get("guidance", PlanOptions.of(options, {}).guidance)
        if several:
            options = seeded(PlanOptions.of(options, {**changes, "navigation": None, "guidance": None}))
            for text in texts:
                options.updated({"navigation": text, "guidance": weight})
        else:
            options = seeded(PlanOptions.of(options, changes))
        check_observation(observation, self._config)
        asked = as_json(options) | ({"navigation": texts, "guidance": weight} if several else {})
        found = self._post("/api/plan/observation", pack(observation, {"options": asked}, noise_of(options)))
        plans = [plan_of_json(one) for one in found["plans"]]
        for one in plans:
            tell(one.notes, stacklevel=2)
        return plans if several else plans[0]

    def plans(
        self, observations: Sequence[Observation], options: PlanOptions | None = None, /, **changes: Unpack[PlanKeywords]
    ) -> list[Plan]:
        """A plan for each observation, as `Planner.plans`; each is a request of its own.

        Raises:
            ValueError, TypeError: as `plan`.
        """
        if not isinstance(observations, Sequence):
            raise TypeError(f"observations are of type {type(observations).__name__}, expected a list of them")
        options = seeded(PlanOptions.of(options, changes))
        for observation in observations:
            check_observation(observation, self._config)
        return [self.plan(observation, options) for observation in observations]

    @overload
    def ask(
        self, observation: Observation, question: str, options: AskOptions | None = None, /, **changes: Unpack[AskKeywords]
    ) -> Answers: ...

    @overload
    def ask(
        self, observation: Observation, question: list[str], options: AskOptions | None = None, /, **changes: Unpack[AskKeywords]
    ) -> list[Answers]: ...

    def ask(
        self, observation: Observation, question: str | list[str], options: AskOptions | None = None, /, **changes: Unpack[AskKeywords]
    ) -> Answers | list[Answers]:
        """Answers to a question, or to each of several, as `Planner.ask`.

        Raises:
            ValueError, TypeError: as `Planner.ask`. ServiceBusy, ServiceError: the service had no time, or failed.
        """
        options = seeded(AskOptions.of(options, changes))
        self._config.family.answering()
        check_observation(observation, self._config)
        asked = {"question": question, "options": as_json(options)}
        found = [answers_of_json(one) for one in self._post("/api/ask/observation", pack(observation, asked))["answers"]]
        for one in found:
            tell(one.notes, stacklevel=2)
        return found[0] if isinstance(question, str) else found

    def stream(
        self, options: PlanOptions | None = None, /, *, draws: Literal["kept", "fresh"] = "kept", **changes: Unpack[PlanKeywords]
    ) -> ClientStream:
        """Plans along a drive, as `Planner.stream`: the service keeps what it saw. Needs the extra `serve`. A context manager.

        Raises:
            ValueError, TypeError: as `Planner.stream`. ServiceError: the service can't be reached.
        """
        return ClientStream(self, seeded(PlanOptions.of(options, changes)), draws)

    def clips(self, match: str = "") -> list[dict[str, Any]]:
        """The service's clips whose id, family or words hold the text: "clip_id", "short", "family", "text"."""
        return self._get(f"/api/clips?{urlencode({'match': match, 'count': 1000})}")["clips"]

    def observation(self, clip_id: str, t0_us: int = 5_100_000) -> Observation:
        """A moment of a clip of the service, to the bit. Raises LookupError, ValueError."""
        query = urlencode({"t0_us": t0_us})
        return unpack(self._send("GET", f"/api/clips/{quote(clip_id, safe='')}/observation?{query}", None, {}))[0]

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _get(self, path: str) -> Any:
        return json.loads(self._send("GET", path, None, {}))

    def _post(self, path: str, content: bytes) -> Any:
        return json.loads(self._send("POST", path, content, {"content-type": MEDIA_TYPE}))

    def _send(self, method: str, path: str, content: bytes | None, headers: dict[str, str]) -> bytes:
        """The body of the answer; a busy service is asked again until our patience ends."""
        if self.token is not None:
            headers = headers | {"authorization": f"Bearer {self.token}"}
        end = time.monotonic() + self.patience
        while True:
            status, again, body = self._once(method, path, content, headers)
            if status == 200:
                return body
            if status != 503 or time.monotonic() + again > end:
                raise error_of(status, body, self.url)
            time.sleep(again)

    def _once(self, method: str, path: str, content: bytes | None, headers: dict[str, str]) -> tuple[int, float, bytes]:
        """Status, seconds to wait and body; a kept connection that the service has closed is opened anew, once."""
        for fresh in (self._connection.sock is None, True):
            try:
                self._connection.request(method, f"{self._base}{path}", content, headers)
                answer = self._connection.getresponse()
                return answer.status, float(answer.headers.get("retry-after") or 1), answer.read()
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                if fresh or isinstance(error, TimeoutError):
                    why = "gave no answer in time" if isinstance(error, TimeoutError) else f"can't be reached ({error})"
                    raise ServiceError(f"the service at {self.url} {why}: is `alpamayo-r1 serve` running there?") from error
        raise AssertionError("the second try is answered or raises")


class ClientStream:
    """A stream of plans that the service makes: `step` is `Stream.step` of an observation."""

    def __init__(self, client: Client, options: PlanOptions, draws: str):
        try:
            from websockets.sync.client import connect
        except ImportError:
            raise ImportError("streams of a service need websockets: pip install 'alpamayo-r1[serve]'") from None
        check_draws(draws)
        if options.noise is not None:
            raise ValueError("noise= of a whole stream is not sent: give it to step()")
        self.client, self.options, self._open = client, options, ExitStack()
        query = "" if client.token is None else f"?{urlencode({'token': client.token})}"
        try:
            address = f"ws{client.url.removeprefix('http')}/api/stream{query}"
            self._socket = self._open.enter_context(connect(address, max_size=None, open_timeout=client.timeout))
        except Exception as error:
            raise ServiceError(f"no stream from the service at {client.url}: {error}") from error
        self.seed = self._ask(json.dumps({"options": as_json(options), "draws": draws}))["seed"]

    def step(self, observation: Observation, /, **changes: Unpack[PlanKeywords]) -> Plan:
        """The plan of one step: to the bit `planner.plan(observation, ...)` with the stream's options.

        Raises:
            ValueError, TypeError: as `Planner.plan`. ServiceBusy, ServiceError: the service had no time, or failed.
        """
        options = self.options.updated(changes)
        check_observation(observation, self.client._config)
        asked = {name: value for name, value in as_json(options).items() if name in changes}
        found = self._ask(pack(observation, {"options": asked}, noise_of(options)))
        self.seed = found["seed"]
        plan = plan_of_json(found["plans"][0])
        tell(plan.notes)
        return plan

    def close(self) -> None:
        """Ends the stream."""
        self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _ask(self, message: str | bytes) -> Any:
        from websockets.exceptions import ConnectionClosed

        try:
            with suppress(ConnectionClosed):  # what the service said before it closed is there to be read
                self._socket.send(message)
            found = json.loads(self._socket.recv(self.client.timeout))
        except Exception as error:
            raise ServiceError(f"the stream from {self.client.url} ended: {error}") from error
        if "error" in found:
            raise error_of(503 if found["error"]["type"] == "Busy" else 422, json.dumps(found).encode(), self.client.url)
        return found


def error_of(status: int, body: bytes, url: str) -> Exception:
    """The error that the service's answer is raised as."""
    try:
        error = json.loads(body)["error"]
        kind, text = str(error["type"]), str(error["text"])
    except (ValueError, LookupError, TypeError):
        return ServiceError(f"{url} answered {status} and no text of ours: is it `alpamayo-r1 serve`?")
    if status == 503:
        return ServiceBusy(text)
    if status == 404:
        return LookupError(text)
    return KINDS.get(kind, ServiceError)(text)


def as_json(options: Saying) -> dict[str, Any]:
    """Options as plain values, but for the noise."""
    given = {field.name: getattr(options, field.name) for field in fields(options) if field.name != "noise"}
    texts = {name: list(value) for name, value in given.items() if isinstance(value, tuple)}
    return given | texts | {name: int(given[name]) for name in ("samples", "seed", "max_tokens")}


def noise_of(options: PlanOptions) -> torch.Tensor | None:
    """The noise, a tensor. Raises TypeError."""
    if options.noise is not None and not isinstance(options.noise, torch.Tensor):
        raise TypeError(f"noise is of type {type(options.noise).__name__}, expected a tensor of shape [samples, 64, 2]")
    return options.noise
