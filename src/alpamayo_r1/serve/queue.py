"""One queue per planner: requests wait in turn, those with equal options are planned at once, and what does not fit is refused at once.

A planner works for one caller at a time, so one thread of this queue calls it. Work that waits is bounded: where `limits.waiting` requests
wait, the next one gets `Busy` with the seconds after which to come again.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from alpamayo_r1.core.options import PlanOptions
from alpamayo_r1.core.types import Observation, Plan
from alpamayo_r1.planner import Planner
from alpamayo_r1.serve.guard import BODY


@dataclass(frozen=True)
class Limits:
    """What the service takes on.

    batch: plans made at once. waiting: requests that wait for the planner at most. wait_s: seconds that one waits at most. body: bytes of a
    request at most. samples, max_tokens, steps, seen (pictures that are sent with it): of one request at most. streams: open at once
    at most, each closed after idle_s seconds of silence. pictures: bytes of samples of clips that are kept.
    """

    batch: int = 4
    waiting: int = 16
    wait_s: float = 30.0
    body: int = BODY
    samples: int = 64
    max_tokens: int = 1024
    steps: int = 100
    seen: int = 64
    streams: int = 8
    idle_s: float = 600.0
    pictures: int = 256 * 2**20


class Busy(Exception):
    """The service has enough to do. retry_after: whole seconds after which to try again."""

    def __init__(self, why: str, retry_after: int):
        super().__init__(f"{why}: try again in {retry_after} s")
        self.retry_after = retry_after


@dataclass
class Job:
    """Work for the planner: a plan of an observation, which may be made together with others, or anything else."""

    begun: float
    result: Future[Any] = field(default_factory=Future)
    call: Callable[[], Any] | None = None
    observation: Observation | None = None
    options: PlanOptions | None = None
    planner: Callable[[], Planner] | None = None

    def goes_with(self, other: Job) -> bool:
        """Whether two plans may be made at once: by one planner, same options, and pictures of one shape."""
        if self.observation is None or other.observation is None:
            return False
        one, two = self.observation.frames, other.observation.frames
        return getattr(one, "shape", None) == getattr(two, "shape", None) and (self.options, self.planner) == (other.options, other.planner)


class Queue:
    """The requests to one model, in turn. Close it: its thread then ends.

    planner: what gives the planner, and waits where it is still loading.
    """

    def __init__(self, planner: Callable[[], Planner], limits: Limits):
        self.planner, self.limits = planner, limits
        self._jobs: deque[Job] = deque()
        self._there = threading.Condition()
        self._open, self._each = True, 1.0
        self.batches: dict[int, int] = {}
        self._thread = threading.Thread(target=self._work, name="planner", daemon=True)
        self._thread.start()

    def plan(self, observation: Observation, options: PlanOptions, planner: Callable[[], Planner] | None = None) -> Future[Plan]:
        """A plan to come, by the queue's planner or by another one that shares its model. Raises Busy."""
        which = planner or self.planner
        if options.noise is not None:
            return self._add(Job(time.monotonic(), call=lambda: which().plan(observation, options)))
        return self._add(Job(time.monotonic(), observation=observation, options=options, planner=which))

    def call(self, function: Callable[[], Any]) -> Future[Any]:
        """What a function gives, called in turn by the planner's thread. Raises Busy."""
        return self._add(Job(time.monotonic(), call=function))

    def close(self) -> None:
        """Ends the thread after what it does now; whoever waits gets Busy."""
        with self._there:
            self._open = False
            self._there.notify_all()
        self._thread.join()
        for job in self._jobs:
            if job.result.set_running_or_notify_cancel():
                job.result.set_exception(Busy("the service is stopping", 5))

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return len(self._jobs)

    def _add(self, job: Job) -> Future[Any]:
        with self._there:
            self._drop_cancelled()
            if not self._open or len(self._jobs) >= self.limits.waiting:
                raise Busy(f"{len(self._jobs)} requests wait for the planner", self._retry_after())
            self._jobs.append(job)
            self._there.notify()
        return job.result

    def _drop_cancelled(self) -> None:
        """Forgets jobs whose caller has gone."""
        if any(job.result.cancelled() for job in self._jobs):
            self._jobs = deque(job for job in self._jobs if not job.result.cancelled())

    def _retry_after(self) -> int:
        return min(60, max(1, math.ceil(self._each * len(self._jobs))))

    def _work(self) -> None:
        while True:
            with self._there:
                while self._open and not self._jobs:
                    self._there.wait()
                if not self._open:
                    return
                batch = self._next_batch()
            if batch:
                began = time.monotonic()
                self._do(batch)
                self.batches[len(batch)] = self.batches.get(len(batch), 0) + 1
                self._each = 0.8 * self._each + 0.2 * (time.monotonic() - began) / len(batch)

    def _next_batch(self) -> list[Job]:
        """The first job and those that go with it, in the order in which they came; overdue ones are told so."""
        batch: list[Job] = []
        rest: deque[Job] = deque()
        now = time.monotonic()
        for job in self._jobs:
            if len(batch) == self.limits.batch or (batch and not batch[0].goes_with(job)):
                rest.append(job)
            elif not job.result.set_running_or_notify_cancel():
                continue
            elif now - job.begun > self.limits.wait_s:
                job.result.set_exception(Busy(f"this request waited {now - job.begun:.0f} s for the planner", self._retry_after()))
            else:
                batch.append(job)
        self._jobs = rest
        return batch

    def _do(self, batch: list[Job]) -> None:
        """Sets the results of jobs that may be done at once; where that fails, each is done alone, so that one's mistake stays its own."""
        if len(batch) > 1:
            try:
                assert batch[0].planner is not None
                plans = batch[0].planner().plans([job.observation for job in batch if job.observation is not None], batch[0].options)
            except Exception:
                plans = []
            for job, plan in zip(batch, plans):
                job.result.set_result(plan)
            batch = [job for job in batch if not job.result.done()]
        for job in batch:
            try:
                if job.call is not None:
                    job.result.set_result(job.call())
                else:
                    assert job.observation is not None and job.planner is not None
                    job.result.set_result(job.planner().plan(job.observation, job.options))
            except BaseException as error:
                job.result.set_exception(error)
