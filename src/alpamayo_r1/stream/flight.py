"""Steps on their way: while one is spoken about the next is read, each by a thread of its own, in the order in which they came."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

AT_ONCE = 2
"""Steps that are on their way at most: one that is spoken about, and one that waits for it or is being read."""

Read = TypeVar("Read")
Result = TypeVar("Result")


def nothing() -> None:
    """What a thread does before its first work where there is nothing to do."""


class Flight:
    """Threads that read and speak. Submitted to by one thread.

    begin: what the reading and the speaking thread do before all else; one of them where the same thread does both.
    """

    def __init__(self, *begin: Callable[[], None]):
        pools = [ThreadPoolExecutor(1, "stream", initializer=first) for first in begin]
        self._reading, self._speaking = pools[0], pools[-1]
        self._flying: list[Future] = []

    def busy(self) -> bool:
        """Whether a step is on its way."""
        self._flying = [one for one in self._flying if not one.done()]
        return bool(self._flying)

    def wait_for_room(self) -> None:
        """Waits until fewer than AT_ONCE steps are on their way."""
        while self.busy() and len(self._flying) >= AT_ONCE:
            wait(self._flying, return_when=FIRST_COMPLETED)

    def launch(self, read: Callable[[], Read], speak: Callable[[Callable[[], Read]], Result]) -> Future[Result]:
        """Sends a step on its way: what `speak` returns or raises, given what `read` has read, or raises, when it is called."""
        reading = self._reading.submit(read)
        future = self._speaking.submit(lambda: speak(reading.result))
        self._flying.append(future)
        return future

    def in_turn(self, read: Callable[[], Result]) -> Result:
        """Reads now, or after what is on its way."""
        return self._reading.submit(read).result() if self.busy() else read()
