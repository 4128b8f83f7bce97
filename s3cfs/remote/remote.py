"""The one async door to a store: everything above calls it through `Remote` and nothing else does.

One call is one or more attempts. Each passes the store's layers (stack.py), waits for a slot of its lane, and has a thread (lines.py).
An attempt that failed and may be repeated frees both before it sleeps.

| call | tried again after |
|---|---|
| get, stat, delete, list, folders, check, put | every retryable error |
| put with only_if_absent | what was surely not carried out: Throttled said by the store itself, Corrupt (it checked and refused) |
| probe_create_only | never: it is made of many puts, its caller asks again |

An ambiguous create-only put is not repeated here: the repetition would find the key taken by its own first attempt and report
a race lost that was won. Only the caller knows what it wrote and can read it back.

INVARIANT Q1: no caller waits longer than `limits.store_deadline_s` of silence, counted from its asking, the queue and all attempts
included. Then it gets Temporary, even when its attempt hangs in a thread: that one is abandoned, goes on, and may still take effect
(contract S1). Silence is what is left of the time when that is taken off in which something of its call moved, or in which, while it
queued, others of its lane were answered; in which a layer held it back (Progress.held); and what the process slept through
(patience.py). So a slow line on which bytes flow may take its time, an outage is two minutes for the thousandth caller too, and an
object that breaks off each time is given up some day.

Bodies of puts stay untouched by their callers for ever, also after a cancelled or failed call: a thread may still be sending them.
Whatever a backend or a layer raises that is no error of s3cfs (a third party's bug) becomes a StoreError: one call fails, not the mount.
Counters live on the event-loop thread and need no lock. They count calls; further attempts are `retries`.
"""
from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import trio

from s3cfs.backends.base import PROBE_ROUNDS, Backend, Body, Capabilities, ObjectInfo
from s3cfs.backends.layer import Call, Lane, Originals
from s3cfs.backends.settling import SETTLES_S
from s3cfs.backends.types import Degraded
from s3cfs.doors import Doors
from s3cfs.errors import Exists, NotFound, StoreError, Temporary

from .errand import Errand, never, retryable, surely_not_carried_out
from .patience import Patience
from .stack import Stack

T = TypeVar("T")

BULK_KINDS = frozenset(("pack", "checkpoint"))
FOLDER = "backend"                 # a backend's own, in the local state
WHOLE_AGAIN_S = 60.0               # after the last degraded put, when others were whole since
OPERATIONS = ("get", "put", "stat", "examine", "delete", "list", "probe", "check")


def kind_of(key: str) -> str:
    """First part of a key: pack, log, checkpoint, super, claim, probe."""
    return key.partition("/")[0]


class Remote:
    """See the module's text. Made outside the event loop, used on it; `running` around its use."""

    def __init__(self, backend: Backend, doors: Doors) -> None:
        """A backend that keeps state gets a folder on `doors.disk`."""
        self.backend = backend
        self.doors, self._clock = doors, doors.clock
        self.patience = Patience(doors.clock)
        self._folder = doors.disk.real_path(FOLDER) if backend.keeps_state else ""
        self.stack = Stack(backend, doors, self._folder)
        self.requests: Counter[tuple[str, str]] = Counter()      # (operation, kind of object)
        self.bytes_up: Counter[str] = Counter()
        self.bytes_down: Counter[str] = Counter()
        self.errors: Counter[tuple[str, str]] = Counter()        # (operation, name of the error); absence and lost races are answers
        self.retries = 0                                         # attempts beyond the first
        self.degraded: Counter[str] = Counter()                  # by kind: puts that were stored less safely than they should be
        self.last_degraded: str | None = None                    # why the last of them was
        self._degraded_at, self._whole_since = float("-inf"), True    # clock.monotonic() of that; whether one was whole since
        self._began = float("-inf")                              # clock.monotonic(), when it began to run
        self.last_success: float | None = None                   # clock.monotonic()
        self.last_error: StoreError | None = None                # None again after the next success
        self.away_since: float | None = None                     # clock.monotonic(); calls fail or are being repeated, none succeeded since

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Remote]:
        """The backend has its folder and the layers are at work; at the end the store is closed."""
        self._began = self._clock.monotonic()
        try:
            if self._folder:
                self.doors.disk.makedirs(FOLDER)
                await self.of_backend("check", "", lambda: self.backend.start(self._folder), never)
            async with self.stack.running():
                yield self
        finally:
            with trio.CancelScope(shield=True):
                await self.close()

    @property
    def originals(self) -> Originals:
        """Where those above say what they can give of an object that the store lost."""
        return self.stack.originals

    @property
    def capabilities(self) -> Capabilities:
        return self.stack.top.capabilities

    @property
    def location(self) -> str:
        return self.backend.location

    def slots(self, lane: Lane) -> int:
        """How many calls of this lane run at once."""
        return self.stack.lines.slots[lane].count

    def last_answer(self, lane: Lane) -> float:
        """Monotonic time when something last came in this lane."""
        return self.stack.lines.slots[lane].last_answer

    async def get(self, key: str, offset: int = 0, size: int | None = None, *, named: bool = False) -> bytes:
        """`named`: something that was read says that it is there. Where answers may be old its absence is then no answer, for as long as
        such a store may take to settle after what an earlier process wrote: Temporary, after the usual patience."""
        data = await self._call("get", key, Lane.READ, lambda call: self._get(key, offset, size, named, call))
        self.bytes_down[kind_of(key)] += len(data)
        return data

    async def _get(self, key: str, offset: int, size: int | None, named: bool, call: Call) -> bytes:
        try:
            return await self.stack.top.get(key, offset, size, call)
        except NotFound:
            late = self.capabilities.linearizable is False and self._clock.monotonic() - self._began < SETTLES_S
            if not (named and late):
                raise
            raise Temporary("get", key, "the store does not show it, or not yet") from None

    async def put(self, key: str, data: Body, only_if_absent: bool = False) -> None:
        """`data` must never change any more: see the module's text."""
        lane = Lane.BULK if kind_of(key) in BULK_KINDS else Lane.URGENT
        answer = await self._call("put", key, lane, lambda call: self.stack.top.put(key, data, only_if_absent, call),
                                  surely_not_carried_out if only_if_absent else retryable)
        self.bytes_up[kind_of(key)] += len(data)
        if isinstance(answer, Degraded):
            self.degraded[kind_of(key)] += 1
            self.last_degraded, self._degraded_at = answer.reason, self._clock.monotonic()
        self._whole_since = answer is None

    async def stat(self, key: str) -> ObjectInfo:
        return await self._call("stat", key, Lane.READ, lambda call: self.stack.top.stat(key, call))

    async def examine(self, key: str) -> str | None:
        """See Backend.examine. Costs nothing where the store keeps no more of an object than it needs."""
        if not self.capabilities.examines:
            return None
        return await self._call("examine", key, Lane.READ, lambda call: self.stack.top.examine(key, call))

    async def delete(self, key: str) -> None:
        await self.delete_many((key,))

    async def delete_many(self, keys: Sequence[str]) -> None:
        """In as few requests as the store allows. After an error some may be gone."""
        most = max(1, self.capabilities.batch_delete)
        for start in range(0, len(keys), most):
            group = keys[start:start + most]
            await self._call("delete", group[0], Lane.BULK, partial(self.stack.top.delete, group))

    async def folders(self, prefix: str) -> list[str]:
        """Names of the folders directly below `prefix`, in no order."""
        return await self._call("list", prefix, Lane.READ, lambda call: self.stack.top.folders(prefix, call))

    async def list(self, prefix: str) -> list[ObjectInfo]:
        """All of it, in no order. Claims are listed after each record of tier T2: no user's read may keep a sign of life waiting."""
        lane = Lane.URGENT if kind_of(prefix) == "claim" else Lane.READ
        return await self._call("list", prefix, lane, lambda call: self.stack.top.list(prefix, call))

    async def probe_create_only(self, rounds: int = PROBE_ROUNDS) -> bool:
        return await self.of_backend("probe", "probe/", lambda: self.backend.probe_create_only(rounds), never)

    async def probe_linearizable(self) -> bool:
        return await self.of_backend("probe", "probe/", self.backend.probe_linearizable, never)

    async def check(self) -> None:
        await self.of_backend("check", "", self.backend.check)

    async def create(self) -> None:
        """Make the store's place where that is possible (see Backend.create); only mkfs calls it."""
        await self.of_backend("check", "", self.backend.create)

    async def close(self) -> None:
        with contextlib.suppress(StoreError):
            await Errand("close", "", Lane.URGENT, lambda call: self.stack.lines.run(call, self.backend.close), never).do(
                self.doors, self.patience, self._on_retry)

    async def of_backend(self, operation: str, key: str, function: Callable[[], T],
                          may_repeat: Callable[[StoreError], bool] = retryable) -> T:
        """A blocking call of it that passes no layer: what concerns the place and no object."""
        return await self._call(operation, key, Lane.URGENT, lambda call: self.stack.lines.run(call, function), may_repeat)

    async def _call(self, operation: str, key: str, lane: Lane, attempt: Callable[[Call], Awaitable[T]],
                    may_repeat: Callable[[StoreError], bool] = retryable) -> T:
        self.requests[operation, kind_of(key)] += 1
        try:
            answer = await Errand(operation, key, lane, attempt, may_repeat).do(self.doors, self.patience, self._on_retry)
        except (NotFound, Exists):
            self._succeeded()
            raise
        except StoreError as error:
            self.errors[operation, type(error).__name__] += 1
            self.last_error = error
            raise
        self._succeeded()
        return answer

    def _on_retry(self, error: StoreError) -> None:
        self.last_error = error
        self.retries += 1
        if self.away_since is None:
            self.away_since = self._clock.monotonic()

    def _succeeded(self) -> None:
        self.last_success, self.last_error, self.away_since = self._clock.monotonic(), None, None

    @property
    def degraded_now(self) -> str | None:
        """Why what is put is less safe than it should be, if it is: until puts have been whole again for a while."""
        over = self._whole_since and self._clock.monotonic() - self._degraded_at > WHOLE_AGAIN_S
        return None if over else self.last_degraded

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
            "retries": self.retries,
            "degraded": {"puts": dict(sorted(self.degraded.items())), "reason": self.degraded_now},
            "layers": self.stack.status(),
            "seconds_since_success": silent,
            "last_error": None if self.last_error is None else str(self.last_error),
        }
