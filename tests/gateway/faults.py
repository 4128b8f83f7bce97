"""What goes wrong, when, and how often."""
from __future__ import annotations

import random
import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tests.gateway.clock import Clock

OPERATIONS = ("get", "head", "put", "delete", "list", "other")
NAMES = ("throttle", "error", "slow", "hang", "reset", "lost", "late", "cut", "stale", "stays", "returns")


@dataclass(slots=True)
class Fault:
    """Applies to a request that fits all of its conditions, until it has fired `count` times or its time has passed."""

    name: str
    only: tuple[str, ...] = ()         # operations; none: every one it can apply to
    key: str = ""                      # a regular expression, searched in the key (of a listing: its prefix)
    count: int | None = None
    until: float | None = None         # by the gateway's clock
    share: float = 1.0                 # of the requests that fit
    seconds: float = 0.0
    status: int = 0
    retry_after: float | None = None
    younger_s: float | None = None     # only keys that were put less than so long ago
    fired: int = 0

    def said(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__ if getattr(self, name) not in ((), "", None)}


class Faults:
    """Those that are on. Thread-safe."""

    def __init__(self, clock: Clock, seed: int) -> None:
        self._clock, self._random = clock, random.Random(seed)
        self._lock = threading.Lock()
        self.on: list[Fault] = []
        self.ended = threading.Event()     # set and replaced by `clear`: what waits for a fault's sake goes on

    def add(self, fault: Fault, for_s: float | None) -> Fault:
        if fault.name not in NAMES:
            raise ValueError(f"no fault {fault.name!r}: one of {', '.join(NAMES)}")
        if unknown := set(fault.only) - set(OPERATIONS):
            raise ValueError(f"no operation {', '.join(unknown)}: some of {', '.join(OPERATIONS)}")
        re.compile(fault.key)
        fault.until = None if for_s is None else self._clock.now() + for_s
        with self._lock:
            self.on.append(fault)
        return fault

    def end(self, fault: Fault) -> None:
        with self._lock:
            self.on = [other for other in self.on if other is not fault]

    def clear(self) -> None:
        with self._lock:
            self.on = []
            ended, self.ended = self.ended, threading.Event()
        ended.set()

    def choose(self, names: Iterable[str], operation: str, key: str, age: float | None) -> Fault | None:
        """The first that fits and fires. `age`: seconds since the key was put, if that is known."""
        now = self._clock.now()
        with self._lock:
            self.on = [fault for fault in self.on if fault.until is None or now < fault.until]
            for fault in self.on:
                if fault.name not in names or (fault.only and operation not in fault.only) or fault.count == fault.fired:
                    continue
                if fault.key and not re.search(fault.key, key):
                    continue
                if fault.younger_s is not None and (age is None or age >= fault.younger_s):
                    continue
                if fault.share < 1 and self._random.random() >= fault.share:
                    continue
                fault.fired += 1
                return fault
        return None
