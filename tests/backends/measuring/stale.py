"""A store whose answers are old by a known distribution, in virtual time; and runs of the measurement on it."""
from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

import trio
import trio.testing

from s3cfs.backends.base import Backend, Body, Capabilities, ObjectInfo
from s3cfs.backends.measuring import Measurement, Plan, Tally
from s3cfs.doors import Doors, SystemRandomness, TrioThreads
from s3cfs.errors import NotFound
from tests.remote.kit import NoDisk, TrioClock, one_order, virtual_time

T = TypeVar("T")
MIDNIGHT_NS = 1_767_225_600_000_000_000          # 2026-01-01 00:00 UTC


class Clock(TrioClock):
    """Wall clock included."""

    def __init__(self, mock: trio.testing.MockClock, began_s: float = 0.0) -> None:
        """`began_s` after midnight."""
        super().__init__(mock)
        self._began_ns = MIDNIGHT_NS + int(began_s * 1e9)

    def time_ns(self) -> int:
        return self._began_ns + int(self.monotonic() * 1e9)

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)


class Seeded(SystemRandomness):
    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def bytes(self, count: int) -> bytes:
        return self._random.randbytes(count)

    def uniform(self, low: float, high: float) -> float:
        return self._random.uniform(low, high)


class Slow:
    """Store threads: each call takes some time; what it does happens in the middle of it."""

    def __init__(self, took_s: Callable[[], float]) -> None:
        self._took_s = took_s

    async def run(self, function: Callable[..., T], *args: Any, ended: Callable[[], None]) -> T:
        took_s = self._took_s()
        try:
            await trio.sleep(took_s / 2)
            try:
                return function(*args)
            finally:
                await trio.sleep(took_s / 2)
        finally:
            ended()


class GoesOn:
    """Store threads as they are: a call that nobody waits for any more goes on, and takes effect."""

    def __init__(self, nursery: trio.Nursery, took_s: Callable[[], float]) -> None:
        self._nursery, self._took_s = nursery, took_s

    async def run(self, function: Callable[..., T], *args: Any, ended: Callable[[], None]) -> T:
        done, found, failed = trio.Event(), list[T](), list[Exception]()

        async def work() -> None:
            await trio.sleep(self._took_s())
            try:
                found.append(function(*args))
            except Exception as error:
                failed.append(error)
            ended()
            done.set()
        self._nursery.start_soon(work)
        await done.wait()
        if failed:
            raise failed[0]
        return found[0]


Delay = Callable[[str, str], float]              # (change, view) -> seconds until it is shown there


class StaleStore(Backend):
    """`delay` draws how long a change is not shown to a view; `back` draws after how long, and for how long, an old state is shown
    again, any number of times; `takes` whether a delete has an effect; `trouble` may raise before anything happens."""

    def __init__(self, now: Callable[[], float], delay: Delay = lambda change, view: 0.0, *,
                 back: Callable[[str, str], list[tuple[float, float]]] = lambda change, view: [],
                 takes: Callable[[], bool] = lambda: True,
                 trouble: Callable[[str], None] = lambda operation: None) -> None:
        self._now, self._delay, self._back, self._takes, self._trouble = now, delay, back, takes, trouble
        self._views: dict[tuple[str, str], list[tuple[float, bytes | None]]] = {}      # (view, key) -> what is shown from when on
        self._places: dict[str, dict[str, None]] = {}
        self.keys: dict[str, bytes] = {}
        self.drawn: dict[tuple[str, str], list[float]] = {}
        self.asked: list[tuple[float, str]] = []

    def _change(self, key: str, data: bytes | None) -> None:
        before = self.keys.get(key)
        change = "delete" if data is None else "put" if before is None else "overwrite"
        self.keys.pop(key, None)
        self._places.setdefault("/".join(key.split("/")[:2]) + "/", {})[key] = None
        if data is not None:
            self.keys[key] = data
        for view in ("get", "stat", "list", "folders"):
            from_s = self._now() + self._delay(change, view)
            self.drawn.setdefault((change, view), []).append(from_s - self._now())
            shown = [(at, what) for at, what in self._views.get((view, key), []) if at <= from_s]
            shown.append((from_s, data))
            for after_s, for_s in self._back(change, view):
                shown += [(from_s + after_s, before), (from_s + after_s + for_s, data)]
            self._views[view, key] = shown

    def _shown(self, view: str, key: str) -> bytes | None:
        return next((what for at, what in reversed(self._views.get((view, key), [])) if at <= self._now()), None)

    def _below(self, prefix: str) -> list[str]:
        """Keys that there are or were; all of a run's folder are in one place, since a run of hours makes thousands."""
        places = [prefix] if prefix in self._places else self._places
        return [key for place in places for key in self._places[place] if key.startswith(prefix)]

    def _asked(self, operation: str) -> None:
        self.asked.append((self._now(), operation))
        self._trouble(operation)

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(batch_delete=1000)

    @property
    def location(self) -> str:
        return "stale://"

    def get(self, key: str, offset: int = 0, size: int | None = None) -> bytes:
        self._asked("get")
        if (found := self._shown("get", key)) is None:
            raise NotFound("get", key)
        return found

    def put(self, key: str, data: Body, only_if_absent: bool = False) -> None:
        self._asked("put")
        self._change(key, bytes(data))

    def stat(self, key: str) -> ObjectInfo:
        self._asked("stat")
        if (found := self._shown("stat", key)) is None:
            raise NotFound("stat", key)
        return ObjectInfo(key, len(found))

    def delete(self, key: str) -> None:
        self._asked("delete")
        if key in self.keys and self._takes():
            self._change(key, None)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        self._asked("list")
        found = [(key, self._shown("list", key)) for key in self._below(prefix)]
        return iter([ObjectInfo(key, len(data)) for key, data in found if data is not None])

    def folders(self, prefix: str) -> Iterator[str]:
        self._asked("folders")
        shown = [key for key in self._below(prefix) if self._shown("folders", key) is not None]
        return iter({key[len(prefix):].partition("/")[0]: None for key in shown if "/" in key[len(prefix):]})

    def probe_create_only(self, rounds: int = 1) -> bool:
        raise NotImplementedError


def measure(make: Callable[[Callable[[], float]], StaleStore], *, hours: float, seed: int = 1, took_s: float | Callable[[], float] = 0.02,
            tally: Tally | None = None, after: Callable[[trio.Event], Any] | None = None, goes_on: bool = False,
            began_s: float = 0.0, **plan: Any) -> tuple[Tally, StaleStore, Plan]:
    """A run in virtual time. `after(stop)`: a task beside it."""
    mock = virtual_time()
    clock = Clock(mock, began_s)
    store = make(clock.monotonic)
    planned = replace(Plan(hours * 3600, traffic=0), **plan)
    counted = Tally() if tally is None else tally

    async def main() -> None:
        stop = trio.Event()
        async with trio.open_nursery() as nursery:
            took = took_s if callable(took_s) else lambda: took_s
            threads = GoesOn(nursery, took) if goes_on else Slow(took)
            doors = Doors(clock, Seeded(seed), TrioThreads(), NoDisk(), store_threads=threads)
            if after is not None:
                nursery.start_soon(after, stop)
            await Measurement(doors, store, [store, store], planned, counted).run(stop)
            if goes_on:
                await trio.sleep(60)
            nursery.cancel_scope.cancel()

    with one_order(seed):
        trio.run(main, clock=mock)
    return counted, store, planned
