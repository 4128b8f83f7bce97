"""The one async door to a backend: everything above calls the store through `Remote` and nothing else does.

Backends block, so each call runs in a thread. Three limits keep the kinds of work from starving one another: reads (a user waits
for them), bulk uploads (packs and parts of checkpoints: they fill the link), and urgent small puts (log records, claims,
superblocks: a commit exists only when its record does, so it must never queue behind the packs of the next one).
A cancelled call is not abandoned: its thread ends first, so the caller may free or reuse the buffer that it gave.
Whatever a backend raises that is no error of s3cfs (a third party's bug) becomes a StoreError here: one call fails, not the mount.
The retry wrapper's deadline counts from the asking, the wait for a slot included; but for bulk uploads, which nobody waits for.
Counters live on the event-loop thread and need no lock. They count calls; attempts repeated by the retry wrapper are `retries`.
"""
from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

import trio

from s3cfs.backends.base import Backend, Body, Capabilities, ObjectInfo
from s3cfs.backends.retry import asked_at
from s3cfs.doors import Clock, Threads
from s3cfs.errors import Exists, NotFound, S3cfsError, StoreError

log = logging.getLogger(__name__)

T = TypeVar("T")

URGENT_PUTS_AT_ONCE = 4
BULK_KINDS = frozenset(("pack", "checkpoint"))
OPERATIONS = ("get", "put", "stat", "delete", "list", "probe", "check")


def kind_of(key: str) -> str:
    """First part of a key: pack, log, checkpoint, super, claim, probe."""
    return key.partition("/")[0]


class Remote:
    """See the module's text. `uploads` and `downloads` are how many run at once."""

    def __init__(self, backend: Backend, threads: Threads, clock: Clock, uploads: int, downloads: int) -> None:
        self.backend = backend
        self._threads, self._clock = threads, clock
        self._reads = trio.CapacityLimiter(downloads)
        self._bulk = trio.CapacityLimiter(uploads)
        self._urgent = trio.CapacityLimiter(URGENT_PUTS_AT_ONCE)
        self.requests: Counter[tuple[str, str]] = Counter()      # (operation, kind of object)
        self.bytes_up: Counter[str] = Counter()
        self.bytes_down: Counter[str] = Counter()
        self.errors: Counter[tuple[str, str]] = Counter()        # (operation, name of the error); absence and lost races are answers
        self.last_success: float | None = None                   # clock.monotonic()
        self.last_error: StoreError | None = None                # None again after the next success
        self.away_since: float | None = None                     # clock.monotonic(); calls are being repeated, none succeeded since
        self.last_retry = float("-inf")                          # clock.monotonic(); when one was last said to be repeated

    @property
    def capabilities(self) -> Capabilities:
        return self.backend.capabilities

    @property
    def location(self) -> str:
        return self.backend.location

    async def get(self, key: str, offset: int = 0, size: int | None = None) -> bytes:
        data = await self._call("get", key, self._reads, self.backend.get, key, offset, size)
        self.bytes_down[kind_of(key)] += len(data)
        return data

    async def put(self, key: str, data: Body, only_if_absent: bool = False) -> None:
        limit = self._bulk if kind_of(key) in BULK_KINDS else self._urgent
        await self._call("put", key, limit, self.backend.put, key, data, only_if_absent)
        self.bytes_up[kind_of(key)] += len(data)

    async def stat(self, key: str) -> ObjectInfo:
        return await self._call("stat", key, self._reads, self.backend.stat, key)

    async def delete(self, key: str) -> None:
        await self._call("delete", key, self._bulk, self.backend.delete, key)

    async def folders(self, prefix: str) -> list[str]:
        """Names of the folders directly below `prefix`, in no order."""
        return await self._call("list", prefix, self._reads, lambda: list(self.backend.folders(prefix)))

    async def list(self, prefix: str) -> list[ObjectInfo]:
        """All of it, in no order. Claims are listed after each record of tier T2: no user's read may keep a sign of life waiting."""
        limit = self._urgent if kind_of(prefix) == "claim" else self._reads
        return await self._call("list", prefix, limit, lambda: list(self.backend.list(prefix)))

    async def probe_create_only(self) -> bool:
        return await self._call("probe", "probe/", self._urgent, self.backend.probe_create_only)

    async def probe_linearizable(self) -> bool:
        return await self._call("probe", "probe/", self._urgent, self.backend.probe_linearizable)

    async def check(self) -> None:
        await self._call("check", "", self._urgent, self.backend.check)

    async def create(self) -> None:
        """Make the store's place where that is possible (see Backend.create); only mkfs calls it."""
        await self._call("check", "", self._urgent, self.backend.create)

    async def close(self) -> None:
        await self._threads.run(self.backend.close)

    async def _call(self, operation: str, key: str, limit: trio.CapacityLimiter, function: Callable[..., T], *arguments: Any) -> T:
        asked = self._clock.monotonic()
        async with limit:
            self.requests[operation, kind_of(key)] += 1
            begun = self._clock.monotonic() if limit is self._bulk else asked
            try:
                result: T = await self._threads.run(_call_in_thread, begun, operation, key, function, *arguments)
            except (NotFound, Exists):
                self._succeeded()
                raise
            except StoreError as error:
                self.errors[operation, type(error).__name__] += 1
                self.last_error = error
                raise
            self._succeeded()
            return result

    def retrying(self, error: StoreError, pause_s: float) -> None:
        """A call failed and is going to be repeated; from any thread."""
        self.last_error, self.last_retry = error, self._clock.monotonic()
        if self.away_since is None:
            self.away_since = self.last_retry

    def _succeeded(self) -> None:
        self.last_success, self.last_error, self.away_since = self._clock.monotonic(), None, None

    def snapshot(self) -> dict[str, Any]:
        """The counters as plain data: {"requests": {operation: {kind: n}}, "bytes_up": {kind: n}, ...}, for `stat --json`."""
        requests: dict[str, dict[str, int]] = {operation: {} for operation in OPERATIONS}
        for (operation, kind), count in sorted(self.requests.items()):
            requests[operation][kind] = count
        errors: dict[str, dict[str, int]] = {}
        for (operation, name), count in sorted(self.errors.items()):
            errors.setdefault(operation, {})[name] = count
        silent = None if self.last_success is None else self._clock.monotonic() - self.last_success
        return {
            "location": self.location,
            "create_only": self.capabilities.create_only,
            "requests": requests,
            "bytes_up": dict(sorted(self.bytes_up.items())),
            "bytes_down": dict(sorted(self.bytes_down.items())),
            "errors": errors,
            "retries": getattr(self.backend, "retries", 0),
            "seconds_since_success": silent,
            "last_error": None if self.last_error is None else str(self.last_error),
        }


def _call_in_thread(asked: float, operation: str, key: str, function: Callable[..., T], *arguments: Any) -> T:
    try:
        with asked_at(asked):
            return function(*arguments)
    except S3cfsError:
        raise
    except Exception as error:
        log.exception("%s %s: the backend raised what no backend may", operation, key)
        raise StoreError(operation, key, f"unexpected {type(error).__name__}: {error}") from error
