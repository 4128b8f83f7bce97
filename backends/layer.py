"""Layers: what may stand between `Remote` and a backend, asynchronous and with a life of its own.

    Remote       retries, deadlines, counters: one call of it is one or more attempts, each of which passes through the layers
    Layer ...    a mapping of keys, a lock, a checker: whatever a store needs so that what stands above may believe in S1 - S4
    lines        slots and threads (remote/lines.py): here a call waits for its turn, and blocks nobody but its thread
    Backend      blocking

A layer sees every attempt, says when it may go on, and may make calls of its own; what it makes is counted by nobody. It must
not keep a thread or a slot while it waits: those are taken below it. A backend asks for layers by `Backend.layers`; nothing above
`Remote` knows which there are. All methods run on the event-loop thread.
"""
from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from s3cfs.backends.progress import Progress
from s3cfs.backends.types import Body, Capabilities, Degraded, ObjectInfo
from s3cfs.doors import Doors
from s3cfs.errors import ConfigError, S3cfsError


class Lane(enum.StrEnum):
    """Kinds of work that must not starve one another; each has its own slots."""

    READ = "read"                  # somebody waits for it
    BULK = "bulk"                  # packs, parts of checkpoints, deletions: they fill the link
    URGENT = "urgent"              # records, claims, superblocks: a commit exists only when its record does
    QUIET = "quiet"                # a layer's own: one at a time, when nothing else is waiting


class Running:
    """The blocking calls that were begun for one operation of a layer: an abandoned one goes on in its thread, and may still take effect.

    A layer that has to know when nothing of an operation is under way any more hands down `dataclasses.replace(call, running=Running())`.
    """

    def __init__(self) -> None:
        self.count = 0
        self._then: Callable[[], None] | None = None

    def began(self) -> None:
        self.count += 1

    def ended(self) -> None:
        self.count -= 1
        if not self.count and self._then is not None:
            then, self._then = self._then, None
            then()

    def when_none(self, then: Callable[[], None]) -> None:
        """Call it when none is left (at once, if so), on the event-loop thread; it must not raise. The operation begins no further one."""
        if self.count:
            self._then = then
        else:
            then()


@dataclass(frozen=True, slots=True)
class Call:
    """What goes down with an operation beside its arguments."""

    lane: Lane
    until: float                   # by `doors.clock.monotonic`: nobody waits for the answer after it, unless something moves until then
    progress: Progress = field(default_factory=Progress)     # of the whole call of `Remote`; its default is for calls nobody waits for
    kept: dict[str, Any] = field(default_factory=dict)       # what a layer keeps for the next attempt of the call, under a name of its own
    caller: str = ""               # which task asked, for messages
    running: Running | None = None     # of a layer that asks for it


class Store:
    """The asynchronous face of a backend. The contract of `Backend`, S1 - S4 and its errors hold here too."""

    @property
    def capabilities(self) -> Capabilities:
        raise NotImplementedError

    async def get(self, key: str, offset: int, size: int | None, call: Call) -> bytes:
        raise NotImplementedError

    async def put(self, key: str, data: Body, only_if_absent: bool, call: Call) -> Degraded | None:
        """`data` stays as it is until this returned, or until it was cancelled and the caller knows that it may still be sent."""
        raise NotImplementedError

    async def stat(self, key: str, call: Call) -> ObjectInfo:
        raise NotImplementedError

    async def examine(self, key: str, call: Call) -> str | None:
        raise NotImplementedError

    async def delete(self, keys: Sequence[str], call: Call) -> None:
        """At most `capabilities.batch_delete` of them."""
        raise NotImplementedError

    async def folders(self, prefix: str, call: Call) -> list[str]:
        raise NotImplementedError

    async def list(self, prefix: str, call: Call) -> list[ObjectInfo]:
        raise NotImplementedError


class Originals:
    """Where a layer gets the true bytes of an object that a store lost, while this machine still has them; by kind, the key's first part.

    The floors above `Remote` add their sources (`Remote.originals`); a layer knows none of them.
    """

    def __init__(self) -> None:
        self._sources: dict[str, Callable[[str], Awaitable[Body | None]]] = {}

    def add(self, kind: str, source: Callable[[str], Awaitable[Body | None]]) -> None:
        """`source(key)` gives the whole object as it was put, verified, or None; StoreError and OSError are as good as None."""
        self._sources[kind] = source

    def has(self, key: str) -> bool:
        """Whether there is a source for its kind."""
        return key.partition("/")[0] in self._sources

    async def of(self, key: str) -> Body | None:
        source = self._sources.get(key.partition("/")[0])
        if source is None:
            return None
        try:
            return await source(key)
        except (S3cfsError, OSError):
            return None


class Layer(Store):
    """Passes everything on. Derive from it and override what the layer is for."""

    name = ""                      # one word: `stat` and `ctl` know it by that

    below: Store
    doors: Doors
    folder: str                    # of the backend's own, when it keeps state; else ""
    originals: Originals
    keeps_state = False            # then `state` exists on `doors.disk` when `run` begins; what is there is a copy, never the only one

    def stand_on(self, below: Store, doors: Doors, folder: str) -> None:
        """Called once, before anything else."""
        self.below, self.doors, self.folder = below, doors, folder

    async def run(self) -> None:
        """Background work, until cancelled: when all above has ended. An error of it is logged and ends the work, not the mount."""

    def status(self) -> Mapping[str, Any]:
        """Plain data for `s3cfs stat --json`, under `store.layers.NAME`; may have "degraded": a line for people. Without --json it is
        shown as it is, or instead of all the rest a "summary", a short line, where there is one."""
        return {}

    def settings(self) -> Mapping[str, str]:
        """What `s3cfs ctl layer MOUNTPOINT` shows and may change, as text."""
        return {}

    @property
    def state(self) -> str:
        """A folder of this layer's own on `doors.disk`, where it `keeps_state`."""
        return f"layers/{self.name}"

    def decisions(self) -> Sequence[Mapping[str, Any]]:
        """What this layer has decided by itself and why, the oldest first: plain data for `s3cfs ctl`, each with "time" (Unix seconds)."""
        return ()

    def change(self, setting: str, value: str) -> None:
        """Take it over at once, and for this mount only. ConfigError when it cannot be."""
        raise ConfigError(f"layer {self.name} has no setting {setting!r}")

    @property
    def capabilities(self) -> Capabilities:
        return self.below.capabilities

    async def get(self, key: str, offset: int, size: int | None, call: Call) -> bytes:
        return await self.below.get(key, offset, size, call)

    async def put(self, key: str, data: Body, only_if_absent: bool, call: Call) -> Degraded | None:
        return await self.below.put(key, data, only_if_absent, call)

    async def stat(self, key: str, call: Call) -> ObjectInfo:
        return await self.below.stat(key, call)

    async def examine(self, key: str, call: Call) -> str | None:
        return await self.below.examine(key, call)

    async def delete(self, keys: Sequence[str], call: Call) -> None:
        await self.below.delete(keys, call)

    async def folders(self, prefix: str, call: Call) -> list[str]:
        return await self.below.folders(prefix, call)

    async def list(self, prefix: str, call: Call) -> list[ObjectInfo]:
        return await self.below.list(prefix, call)
