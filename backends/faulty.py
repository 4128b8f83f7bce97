"""Breaks on purpose, the same way for the same seed and order of calls; a wrapper with the contract's interface.

What stores and networks do: fail before the effect or after it (the lost reply), throttle, say that an object just written is
not there, list without it. What they must not do and some do: hand out fewer bytes, or other ones, without an error.
Chances come from `Rates`, one draw a call; `script` puts single faults first in line for tests that need a certain one.
Errors after the effect of a put are what makes create-only puts ambiguous.
"""
from __future__ import annotations

import random
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from s3cfs.backends.base import Backend, Body, Degraded, Listing, ObjectInfo
from s3cfs.backends.wrapper import Wrapper
from s3cfs.errors import NotFound, Temporary, Throttled

T = TypeVar("T")
RECENT_MAX_KEYS = 1000


class Fault(StrEnum):
    BEFORE = "before"          # Temporary, nothing happened
    AFTER = "after"            # it happened, then Temporary
    THROTTLED = "throttled"    # Throttled, refused by the store, nothing happened
    STALE = "stale"            # get, stat: NotFound although it is there; list: left out (objects put through this wrapper lately)
    TRUNCATED = "truncated"    # get: fewer bytes than there are
    FLIPPED = "flipped"        # get: one bit is wrong


@dataclass(frozen=True, slots=True)
class Rates:
    """Chance of each fault per call, 0 to 1."""

    before: float = 0.0
    after: float = 0.0
    throttled: float = 0.0
    stale: float = 0.0
    truncated: float = 0.0
    flipped: float = 0.0


_APPLIES = {
    Fault.STALE: ("get", "stat", "list"),
    Fault.TRUNCATED: ("get",),
    Fault.FLIPPED: ("get",),
}


class FaultyBackend(Wrapper):
    """`inner` with faults.

    `operations` limits the drawn faults (not the scripted ones); `stale_calls` is for how many calls a put object stays young.
    """

    def __init__(self, inner: Backend, seed: int = 0, rates: Rates | None = None, *, retry_after_s: float | None = None,
                 stale_calls: int = 20, operations: tuple[str, ...] = ("get", "put", "stat", "delete", "list")) -> None:
        super().__init__(inner)
        self.seed, self.rates = seed, rates or Rates()
        self._random = random.Random(seed)
        self._retry_after_s, self._stale_calls, self._operations = retry_after_s, stale_calls, operations
        self._script: list[tuple[str, str, Fault]] = []
        self._recent: OrderedDict[str, int] = OrderedDict()
        self._calls = 0
        self._lock = threading.Lock()
        self.injected: list[tuple[str, str, Fault]] = []

    def script(self, operation: str, fault: Fault, prefix: str = "") -> None:
        """The next `operation` on a key that begins with `prefix` meets this fault."""
        with self._lock:
            self._script.append((operation, prefix, fault))

    def get(self, key: str, offset: int = 0, size: int | None = None) -> bytes:
        fault = self._draw("get", key)
        data = self._around("get", key, fault, lambda: self.inner.get(key, offset, size))
        if not data or fault not in (Fault.TRUNCATED, Fault.FLIPPED):
            return data
        with self._lock:
            at = self._random.randrange(len(data))
        return data[:at] if fault is Fault.TRUNCATED else data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1:]

    def put(self, key: str, data: Body, only_if_absent: bool = False) -> Degraded | None:
        fault = self._draw("put", key)
        with self._lock:
            self._recent[key] = self._calls
            self._recent.move_to_end(key)
            while len(self._recent) > RECENT_MAX_KEYS:
                self._recent.popitem(last=False)
        return self._around("put", key, fault, lambda: self.inner.put(key, data, only_if_absent))

    def stat(self, key: str) -> ObjectInfo:
        return self._around("stat", key, self._draw("stat", key), lambda: self.inner.stat(key))

    def delete(self, key: str) -> None:
        self._around("delete", key, self._draw("delete", key), lambda: self.inner.delete(key))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        fault = self._draw("list", prefix)
        young = {key for key in list(self._recent) if self._young(key)} if fault is Fault.STALE else set()
        return _FaultyListing(self, prefix, fault, young)

    def folders(self, prefix: str) -> Iterator[str]:
        self.fail_before("list", prefix, self._draw("list", prefix))
        return self.inner.folders(prefix)

    def delete_many(self, keys: Sequence[str]) -> None:
        first = keys[0] if keys else ""
        self._around("delete", first, self._draw("delete", first), lambda: self.inner.delete_many(keys))

    def _young(self, key: str) -> bool:
        with self._lock:
            return self._calls - self._recent.get(key, -self._stale_calls) < self._stale_calls

    def _draw(self, operation: str, key: str) -> Fault | None:
        with self._lock:
            self._calls += 1
            for place, (wanted, prefix, fault) in enumerate(self._script):
                if wanted == operation and key.startswith(prefix):
                    del self._script[place]
                    self.injected.append((operation, key, fault))
                    return fault
            chance = self._random.random()
            if operation not in self._operations:
                return None
            for fault in Fault:
                rate: float = getattr(self.rates, fault.value)
                if operation in _APPLIES.get(fault, (operation,)):
                    if chance < rate:
                        self.injected.append((operation, key, fault))
                        return fault
                    chance -= rate
        return None

    def fail_before(self, operation: str, key: str, fault: Fault | None) -> None:
        """Raise what comes before the effect."""
        if fault is Fault.BEFORE:
            raise Temporary(operation, key, f"injected before the effect (seed {self.seed})")
        if fault is Fault.THROTTLED:
            raise Throttled(operation, key, f"injected (seed {self.seed})", self._retry_after_s, refused=True)
        if fault is Fault.STALE and operation in ("get", "stat") and self._young(key):
            raise NotFound(operation, key, f"injected absence (seed {self.seed})")

    def _around(self, operation: str, key: str, fault: Fault | None, call: Callable[[], T]) -> T:
        self.fail_before(operation, key, fault)
        result = call()
        if fault is Fault.AFTER:
            raise Temporary(operation, key, f"injected after the effect (seed {self.seed})")
        return result


class _FaultyListing(Listing):
    """Fails once, at its beginning (BEFORE, THROTTLED) or after its first entry (AFTER), and goes on when asked again."""

    def __init__(self, backend: FaultyBackend, prefix: str, fault: Fault | None, young: set[str]) -> None:
        self._backend, self._prefix, self._fault, self._young = backend, prefix, fault, young
        self._inner = backend.inner.list(prefix)
        self._given = 0

    def __next__(self) -> ObjectInfo:
        fault, when = self._fault, 1 if self._fault is Fault.AFTER else 0
        if fault is not None and self._given >= when:
            self._fault = None
            self._backend.fail_before("list", self._prefix, Fault.BEFORE if fault is Fault.AFTER else fault)
        info = next(info for info in self._inner if info.key not in self._young)
        self._given += 1
        return info
