"""A world for the consistency lock: a store that shows what was there before, and calls that take virtual time and go on when given up."""
from __future__ import annotations

import contextlib
import math
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import trio
import trio._core._run as trio_run
import trio.testing

from s3cfs.backends.base import Backend, Body, Capabilities, ObjectInfo
from s3cfs.backends.consistency.bounds import Bounds
from s3cfs.backends.consistency.conditions import Conditions, Evidence
from s3cfs.backends.consistency.guard import Guarded
from s3cfs.backends.consistency.lock import Lock
from s3cfs.doors import Doors, SystemDisk, Threads
from s3cfs.errors import Exists, NotFound, Temporary, Throttled
from s3cfs.limits import DEFAULTS
from s3cfs.remote import Remote
from tests.remote.kit import NoDisk, TrioClock, virtual_time

T = TypeVar("T")


@dataclass
class StaleBackend(Backend):
    """Everything that was ever done to it, with the moment. A read shows the world as it was up to `stale_s` ago, each at random."""

    rng: random.Random
    now: Callable[[], float] = lambda: 0.0
    stale_s: float = 0.0
    exact: bool = False                    # always as old as that
    blind: bool = False                    # so are the looks of create-only puts
    fails: float = 0.0                     # of calls: half before anything was done, half after it
    history: dict[str, list[tuple[float, bytes | None]]] = field(default_factory=dict)
    calls: list[tuple[str, str]] = field(default_factory=list)
    breaks: str = ""                       # each write fails: "before" it was carried out, or after it

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(create_only=True, linearizable=False, batch_delete=5)

    @property
    def location(self) -> str:
        return "stale://"

    def at(self, key: str, moment: float) -> bytes | None:
        return next((data for when, data in reversed(self.history.get(key, ())) if when <= moment), None)

    def _seen(self, key: str) -> bytes | None:
        return self.at(key, self.now() - (self.stale_s if self.exact else self.rng.uniform(0.0, self.stale_s)))

    def _may_fail(self, operation: str, key: str) -> None:
        if self.fails and self.rng.random() < self.fails / 2:
            if self.rng.random() < 0.3:
                raise Throttled(operation, key, "slow down", retry_after=self.rng.uniform(0.0, 2.0))
            raise Temporary(operation, key, "it breaks off")

    def call(self, operation: str, key: str) -> None:
        self.calls.append((operation, key))
        self._may_fail(operation, key)

    def get(self, key: str, offset: int = 0, size: int | None = None) -> bytes:
        if offset < 0 or (size is not None and size < 0):
            raise ValueError("negative offset or size")
        self.call("get", key)
        data = self._seen(key)
        if data is None:
            raise NotFound("get", key, "no such object")
        return data[offset:] if size is None else data[offset:offset + size]

    def stat(self, key: str) -> ObjectInfo:
        self.call("stat", key)
        data = self._seen(key)
        if data is None:
            raise NotFound("stat", key, "no such object")
        return ObjectInfo(key, len(data))

    def put(self, key: str, data: Body, only_if_absent: bool = False) -> None:
        self.call("put", key)
        if only_if_absent and (self._seen(key) if self.blind else self.at(key, math.inf)) is not None:
            raise Exists("put", key, "the key is taken")
        self._change("put", [key], bytes(data))

    def delete(self, key: str) -> None:
        self.delete_many([key])

    def delete_many(self, keys: Sequence[str]) -> None:
        self.call("delete", keys[0])
        self._change("delete", keys, None)

    def _change(self, operation: str, keys: Sequence[str], data: bytes | None) -> None:
        if self.breaks == "before":
            raise Temporary(operation, keys[0], "refused")
        for key in keys:
            self.history.setdefault(key, []).append((self.now(), data))
        if self.breaks:
            raise Temporary(operation, keys[0], "no answer")
        self._may_fail(operation, keys[0])

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        self.call("list", prefix)
        found = [(key, self._seen(key)) for key in self.history if key.startswith(prefix)]
        return iter([ObjectInfo(key, len(data)) for key, data in found if data is not None])

    def probe_create_only(self, rounds: int = 0) -> bool:
        return True


class Line:
    """Store threads on virtual time: a call takes a while before it does something, and another one afterwards. Given up, it goes on."""

    def __init__(self, rng: random.Random, longest_s: float) -> None:
        self.rng, self.longest_s = rng, longest_s
        self.hang_s: Callable[[], float] = lambda: 0.0       # more, before
        self.linger_s: Callable[[], float] = lambda: 0.0     # more, afterwards
        self.running = 0
        self._ended = trio.Event()

    async def idle(self) -> None:
        """Until no call is under way."""
        while self.running:
            await self._ended.wait()

    async def run(self, function: Callable[..., T], *args: Any, ended: Callable[[], None]) -> T:
        await trio.lowlevel.checkpoint_if_cancelled()
        answers: list[T] = []
        errors: list[Exception] = []
        done = trio.Event()
        before, after = self.rng.uniform(0.0, self.longest_s) + self.hang_s(), self.rng.uniform(0.0, self.longest_s) + self.linger_s()

        async def work() -> None:
            self.running += 1
            try:
                await trio.sleep(before)
                try:
                    answers.append(function(*args))
                except Exception as error:
                    errors.append(error)
                await trio.sleep(after)
            finally:
                self.running -= 1
                self._ended.set()
                self._ended = trio.Event()
                ended()
                done.set()

        trio.lowlevel.spawn_system_task(work)
        await done.wait()
        if errors:
            raise errors[0]
        return answers[0]


class Inline:
    """`doors.threads` without any: real ones would take no virtual time."""

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        await trio.lowlevel.checkpoint()
        return function(*args)


class Seeded:
    """`doors.random`."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def bytes(self, count: int) -> bytes:
        return self._rng.randbytes(count)

    def uniform(self, low: float, high: float) -> float:
        return self._rng.uniform(low, high)


class Moves(TrioClock):
    """Its wall clock can be set, and its monotonic one can begin elsewhere."""

    wall_s = 1_700_000_000.0
    boot_s = 0.0

    def time_ns(self) -> int:
        return int((self.wall_s + self._mock.current_time()) * 1e9)

    def monotonic(self) -> float:
        return self.boot_s + self._mock.current_time()


@dataclass
class World:
    """One mount's way to a stale store, in virtual time: `remote`, the lock in it, and what was told."""

    store: StaleBackend
    line: Line
    clock: Moves
    remote: Remote
    lock: Lock
    conditions: Conditions
    evidence: list[Evidence]

    @property
    def now(self) -> float:
        return trio.current_time()


@contextlib.asynccontextmanager
async def mounted(store: StaleBackend, clock: Moves, seed: int = 0, folder: str | None = None, longest_s: float = 0.0,
                  threads: Threads | None = None, young: bool = False, **bounds: Any) -> AsyncIterator[World]:
    rng = random.Random(seed)
    line = Line(rng, longest_s)
    store.now = trio.current_time
    conditions = Conditions(Bounds(**{"lock_delay": 20.0, "lock_delay_most": 90.0, **bounds}), locks=True)
    evidence: list[Evidence] = []
    conditions.listen(evidence.append)
    doors = Doors(clock, Seeded(rng), threads or Inline(), SystemDisk(folder) if folder else NoDisk(), DEFAULTS, line)
    if folder is None:
        doors = replace(doors, disk=_Nowhere())
    remote = Remote(Guarded(store, conditions, lock=True, checker=False), doors)
    lock = next(layer for layer in remote.stack.layers if isinstance(layer, Lock))
    if not young:                                  # else much of what is read would not be asked of the store
        lock._young.keep = lambda key, data, until: None                           # type: ignore[method-assign]
    async with remote.running():
        yield World(store, line, clock, remote, lock, conditions, evidence)
        await line.idle()
        counts = lock.status()
        left = {name: counts[name] for name in ("reading", "writing", "given_up", "waiting") if counts[name]}
        assert not left, f"grants were left: {left}"


class _Nowhere(NoDisk):
    """A disk that keeps nothing."""

    def makedirs(self, path: str) -> None:
        pass

    def listdir(self, path: str) -> list[str]:
        return []

    def open(self, path: str, *, create: bool = False) -> Any:
        return self

    def pwrite(self, data: bytes, offset: int) -> None:
        pass

    def close(self) -> None:
        pass

    def unlink(self, path: str) -> None:
        pass


def play(test: Callable[[Moves], Awaitable[T]], seed: int = 0) -> T:
    """In virtual time, which is bounded; the order of tasks comes from the seed (see tests/sim/runtime.py)."""
    mock = virtual_time()

    async def bounded() -> T:
        with trio.fail_after(1e6):
            return await test(Moves(mock))

    private: Any = trio_run
    kept = private._ALLOW_DETERMINISTIC_SCHEDULING, private._r
    try:
        private._ALLOW_DETERMINISTIC_SCHEDULING, private._r = True, random.Random(seed)
        return trio.run(bounded, clock=mock)
    finally:
        private._ALLOW_DETERMINISTIC_SCHEDULING, private._r = kept
