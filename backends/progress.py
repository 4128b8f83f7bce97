"""How a call says, from its thread, that something moves.

Whoever waits for a call has been promised an error when the store has been *silent* for so long, and bytes that flow, however slowly,
are no silence. So a backend calls `moved()` in the thread of a call whenever a piece of a body has gone or come, or a page of a listing.
One that never does so has to answer each call within the deadline as a whole.
"""
from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

GAP_MAX_S = 60.0                   # of one piece: a process that was stopped meanwhile has not waited for it all that time
_thread = threading.local()        # `moved`, `lost`: whom to tell in this thread


def moved() -> None:
    """Something of the call that this thread makes has arrived, here or there. Costs nothing where nobody asks."""
    tell: Callable[[], None] | None = getattr(_thread, "moved", None)
    if tell is not None:
        tell()


@contextlib.contextmanager
def told_to(tell: Callable[[], None]) -> Iterator[None]:
    _thread.moved = tell
    try:
        yield
    finally:
        del _thread.moved


def lost() -> None:
    """A connection broke under the call that this thread makes, and what was asked is asked once more on another one. Costs nothing where
    nobody counts."""
    tell: Callable[[], None] | None = getattr(_thread, "lost", None)
    if tell is not None:
        tell()


@contextlib.contextmanager
def losses_told_to(tell: Callable[[], None]) -> Iterator[None]:
    _thread.lost = tell
    try:
        yield
    finally:
        del _thread.lost


def relay() -> Callable[[], contextlib.AbstractContextManager[None]]:
    """For threads that do a part of the call that this thread makes: inside of what this gives, `moved` and `lost` tell of this call."""
    tells = {name: getattr(_thread, name, None) for name in ("moved", "lost")}

    @contextlib.contextmanager
    def inside() -> Iterator[None]:
        _thread.__dict__.update(tells)
        try:
            yield
        finally:
            _thread.__dict__.clear()

    return inside


class Progress:
    """Of one call over all its attempts: `came_s` is how long it waited for what then came. Only the rest of its time was silence.

    A layer may make several calls of one at the same time: what comes for one of them comes for all.
    """

    def __init__(self, clock: Callable[[], float] = lambda: 0.0) -> None:
        self._clock = clock
        self._lock = threading.Lock()              # threads tell of what comes
        self._came_s, self._upto = 0.0, clock()    # up to when is counted
        self._queues: list[_Queue] = []
        self.rest: dict[str, Any] = {}             # what an attempt that broke off left to the next one (lines.py)

    def attempt(self) -> None:
        """One begins: what was slept before it was no waiting for something that came."""
        self._upto = self._clock()

    def moved(self) -> None:
        """Something came, of what has been waited for since something last did."""
        self.count(self._upto, self._clock())

    def count(self, since: float, until: float, most: float = GAP_MAX_S) -> None:
        """Something came at `until` that was waited for since then."""
        with self._lock:
            self._came_s += min(max(0.0, until - max(since, self._upto)), most)
            self._upto = max(self._upto, until)

    @contextlib.contextmanager
    def queued(self, last_answer: Callable[[], float]) -> Iterator[None]:
        """While it waits for its turn, answers to those before it are its progress: `last_answer` says when the last one came."""
        queue = _Queue(self._clock(), last_answer)
        self._queues.append(queue)
        try:
            yield
        finally:
            self._queues.remove(queue)
            self.count(queue.since, queue.last_answer(), math.inf)

    def held(self) -> contextlib.AbstractContextManager[None]:
        """While a layer holds the call back for a reason of its own: no silence of the store."""
        return self.queued(self._clock)

    @property
    def last(self) -> float:
        """When something of it last came, or an answer to those before it in its queue."""
        return max([self._upto, *(queue.last_answer() for queue in self._queues)])

    @property
    def came_s(self) -> float:
        return self._came_s + max(0.0, *(queue.last_answer() - max(queue.since, self._upto) for queue in self._queues), 0.0)


class _Queue(NamedTuple):
    since: float
    last_answer: Callable[[], float]
