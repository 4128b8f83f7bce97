"""What the scenarios share: a gateway, time that passes a hundred times as fast on both sides, the way to a store, a filesystem."""
from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import trio
import trio.testing

from s3cfs.app.node import Node, open_node
from s3cfs.backends.base import Backend
from s3cfs.backends.registry import open_backend
from s3cfs.doors import Doors, SystemClock, SystemDisk, SystemRandomness, TrioThreads
from s3cfs.remote import Remote
from tests.against import headless
from tests.gateway import Gateway
from tests.places import Place
from tests.servers import Server

T = TypeVar("T")
SPEED = 100.0
GUARDED = {"consistency-lock": "on", "checker": "on", "lock-delay": "25", "lock-jitter": "0.2", "check-delays": "1/40"}


class FastClock(SystemClock):
    """The doors' clock; `wall_s` is what somebody set the wall clock forward."""

    def __init__(self) -> None:
        self._began, self._began_ns, self.wall_s = time.monotonic(), time.time_ns(), 0.0

    def monotonic(self) -> float:
        return 1000.0 + (time.monotonic() - self._began) * SPEED

    def time_ns(self) -> int:
        return self._began_ns + round((self.monotonic() + self.wall_s) * 1e9)



class FastGatewayClock:
    """The gateway's."""

    def __init__(self, clock: FastClock) -> None:
        self._clock = clock

    def now(self) -> float:
        return self._clock.monotonic()

    def wait(self, seconds: float, ended: threading.Event) -> None:
        ended.wait(seconds / SPEED)


@dataclass
class World:
    """A gateway before `server`, and machines with a folder each below `base`. All seconds are fast ones."""

    server: Server
    gateway: Gateway
    clock: FastClock
    base: Path
    options: dict[str, str] = field(default_factory=dict)
    place: str = field(default_factory=lambda: f"w-{secrets.token_hex(4)}/")

    @property
    def all_options(self) -> dict[str, str]:
        return {**self.server.options, "tcp-timeout": "0.4", **GUARDED, **self.options}

    def doors(self, machine: str = "here") -> Doors:
        return Doors(self.clock, SystemRandomness(), TrioThreads(), SystemDisk(str(self.base / machine)))

    def open(self) -> Backend:
        """A place for objects, not a filesystem's."""
        backend = open_backend(self.gateway.url(self.place), self.all_options, login=self.server.login, password=self.server.password)
        backend.create()
        return backend

    @contextlib.asynccontextmanager
    async def remote(self, machine: str = "here") -> AsyncIterator[Remote]:
        """All that stands between s3cfs and the gateway."""
        async with Remote(self.open(), self.doors(machine)).running() as remote:
            yield remote

    def run(self, main: Callable[[], Awaitable[T]]) -> T:
        async def bounded() -> T:
            with trio.fail_after(60 * SPEED):
                return await main()
        try:
            return trio.run(bounded, clock=trio.testing.MockClock(rate=SPEED))       # trio's own time is fast, too
        except BaseExceptionGroup as group:
            raise first(group) from None

    async def pass_by(self, seconds: float) -> None:
        await self.clock.sleep(seconds)

    # ------------------------------------------------------------ a filesystem

    def make(self) -> headless.Filesystem:
        """On a gateway that behaves."""
        place = Place(self.gateway.url(), self.all_options, self.server.login, self.server.password, create_only=True)
        return headless.Filesystem.make(place, self.base / "mkfs")

    @contextlib.asynccontextmanager
    async def node(self, fs: headless.Filesystem, machine: str = "here", **changes: Any) -> AsyncIterator[Node]:
        options = headless.node_options(**changes)
        async with open_node(self.doors(machine), fs.open(), fs.keyring, fs.superblock, options) as node:
            yield node


def first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


@contextlib.contextmanager
def world_before(server: Server, base: Path, **how: Any) -> Iterator[World]:
    clock = FastClock()
    with Gateway(server, clock=FastGatewayClock(clock), **how) as gateway:
        yield World(server, gateway, clock, base)
        assert not gateway.errors_inside
