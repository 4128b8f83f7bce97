"""A store that misbehaves on demand, below the checker, in virtual time: nothing here takes real time, a day is a moment."""
from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import trio
import trio.testing

from s3cfs.backends.base import Body, Capabilities, ObjectInfo
from s3cfs.backends.consistency.bounds import Bounds
from s3cfs.backends.consistency.checker import Checker
from s3cfs.backends.consistency.conditions import Conditions, Evidence
from s3cfs.backends.consistency.guard import Guarded
from s3cfs.backends.memory import MemoryBackend
from s3cfs.backends.wrapper import Wrapper
from s3cfs.doors import SystemDisk
from s3cfs.errors import NotFound, Temporary
from s3cfs.remote import Remote
from tests.backends.face import some_doors
from tests.remote.kit import AtOnce, TrioClock, virtual_time

T = TypeVar("T")
BEGAN_NS = 1_800_000_000 * 10**9
DAY_S = 86_400.0


class OddStore(Wrapper):
    """`hide`, `hide_in_lists`, `haunt`: until when (virtual time) a key is not shown, not listed, or shown though deleted."""

    def __init__(self, clock: TrioClock, **nature: Any) -> None:
        super().__init__(MemoryBackend())
        self.clock, self.nature = clock, nature
        self.hide: dict[str, float] = {}
        self.hide_in_lists: dict[str, float] = {}
        self.deaf: set[str] = set()                # deletes of them do not take
        self.away: Exception | None = None
        self.calls: list[tuple[float, str, str]] = []

    @property
    def capabilities(self) -> Capabilities:
        return replace(self.inner.capabilities, **self.nature)

    @property
    def objects(self) -> dict[str, bytes]:
        return self.inner._objects  # type: ignore[attr-defined, no-any-return]

    def _called(self, operation: str, key: str) -> None:
        self.calls.append((self.clock.monotonic(), operation, key))
        if self.away is not None:
            raise self.away

    def _hidden(self, key: str) -> bool:
        return self.hide.get(key, 0.0) > self.clock.monotonic()

    def get(self, key: str, offset: int = 0, size: int | None = None) -> bytes:
        self._called("get", key)
        if self._hidden(key):
            raise NotFound("get", key)
        return self.inner.get(key, offset, size)

    def stat(self, key: str) -> ObjectInfo:
        self._called("stat", key)
        if self._hidden(key):
            raise NotFound("stat", key)
        return self.inner.stat(key)

    def put(self, key: str, data: Body, only_if_absent: bool = False) -> None:
        self._called("put", key)
        self.inner.put(key, data, only_if_absent)

    def delete(self, key: str) -> None:
        self.delete_many([key])

    def delete_many(self, keys: Sequence[str]) -> None:
        self._called("delete", keys[0])
        self.inner.delete_many([key for key in keys if key not in self.deaf])

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        self._called("list", prefix)
        now = self.clock.monotonic()
        return (info for info in self.inner.list(prefix) if not self._hidden(info.key) and self.hide_in_lists.get(info.key, 0.0) <= now)


class InLine:
    """Threads of a test on virtual time: a real one would let the time run."""

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        await trio.lowlevel.checkpoint()
        return function(*args)


class VirtualClock(TrioClock):
    wall_s = 0.0                                   # beside what passes

    def time_ns(self) -> int:
        return BEGAN_NS + round((self.monotonic() + self.wall_s) * 1e9)


class Half:
    """Chance that has no surprises: the middle, so 0.6 is a sample of all and 0.4 of none."""

    def bytes(self, count: int) -> bytes:
        return bytes(count)

    def uniform(self, low: float, high: float) -> float:
        return (low + high) / 2


class World:
    """A store and what stands above it, for one test; `mount` again and again. `told`: all evidence."""

    def __init__(self, tmp: Path, *, sample: float = 0.0, nature: Mapping[str, Any] | None = None, lock: bool = False,
                 **limits: Any) -> None:
        self.mock = virtual_time()
        self.clock = VirtualClock(self.mock)
        self.store = OddStore(self.clock, **(nature or {}))
        self.lock = lock
        self.bounds = Bounds(check_sample=sample, **limits)
        self.doors = replace(some_doors(), clock=self.clock, store_threads=AtOnce(), threads=InLine(), disk=SystemDisk(str(tmp / "local")),
                             random=Half())
        self.told: list[Evidence] = []

    def remote(self) -> Remote:
        self.conditions = Conditions(self.bounds, locks=self.lock)
        self.conditions.listen(self.told.append)
        made = Remote(Guarded(self.store, self.conditions, lock=self.lock, checker=True), self.doors)
        self.checker = next(layer for layer in made.stack.layers if isinstance(layer, Checker))
        return made

    def run(self, test: Callable[[Remote], Awaitable[T]]) -> T:
        async def main() -> T:
            async with self.remote().running() as remote:
                self.remote_now = remote
                return await test(remote)

        return trio.run(main, clock=self.mock)

    # ------------------------------------------------------------ what came of it

    def requests(self, since: float = 0.0) -> list[str]:
        return [f"{operation} {key}" for when, operation, key in self.store.calls if when >= since]

    @property
    def status(self) -> dict[str, Any]:
        return dict(self.checker.status())

    def seen(self) -> dict[str, int]:
        return {kind: count for kind, count in self.status["seen"].items() if count}

    def entries(self, what: str) -> list[dict[str, Any]]:
        return [dict(entry) for entry in self.checker.decisions() if entry["what"] == what]


AWAY = Temporary("get", "", "the store is away")
