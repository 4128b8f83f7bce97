"""What a node may use up, and for how long it may be silent: every bound of the simulator's judgement is in `Bounds`.

`Watch` looks every few virtual seconds; what it finds is a finding like a wrong byte. Where the disk or the store makes trouble
no time is judged, memory and spinning always are.
"""
from __future__ import annotations

import gc
import math
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import trio

from .check import Finding


@dataclass(frozen=True)
class Bounds:
    looks_every_s: float = 4.0
    open_transaction_s: float = 12.0          # age of the oldest change that is in no local transaction (1 s, slow hops, staging)
    silence_slack_s: float = 15.0             # beyond what the writer promises, while it has something to say,
    record_bytes: int = 80_000                # ... and the time that a record of so many bytes takes on the line
    fsyncs_an_operation: float = 12.0         # of the local disk, SQLite's among them
    fsyncs_a_second: float = 8.0              # ... beside those of operations, while something changes
    fsyncs_at_once: int = 150                 # ... and for mounting and leaving
    requests_an_operation: float = 8.0        # to the store
    requests_a_second: float = 2.0
    requests_at_once: int = 250               # twenty packs of an earlier life, each in seven pieces
    idle_requests: int = 8                    # in `idle_s`, once nothing is left to do
    idle_s: float = 600.0
    operation_s: float = 40.0                 # how long one may take when nothing is in its way (threads take up to 4 s here)
    remote_sync_s: float = 160.0              # an fsync under --sync=remote: 120 s, then it fails
    pool_slack_bytes: int = 400_000           # dirty data in memory beyond the pool: writes that were under way


BOUNDS = Bounds()


class Watch:
    """Of one mounted node. `fair_since` says from when on nothing has been in its way (virtual seconds)."""

    def __init__(self, node: Any, disk: Any, store: Any, fair_since: Callable[[], float], operations: Callable[[], int]) -> None:
        self._node, self._disk, self._store, self._fair_since, self._operations = node, disk, store, fair_since, operations
        self._began_s = trio.current_time()
        self._began = disk.fsyncs, len(store.calls), operations()
        self._busy_since = math.inf
        self.silent_s = self.open_s = 0.0     # the longest seen

    async def run(self) -> None:
        while not self._node.ended:
            self.look()
            await trio.sleep(BOUNDS.looks_every_s)

    def look(self) -> None:
        now, fair = trio.current_time(), self._fair_since()
        open_since = self._node.open_since
        if open_since is not None:
            self.open_s = now - max(open_since, fair)
            if self.open_s > BOUNDS.open_transaction_s:
                raise Finding(f"R: a change is in no transaction for {self.open_s:.1f} s")
        if not self._node.busy:
            self._busy_since = math.inf
        elif self._busy_since == math.inf:
            self._busy_since = now
        said = max(self._store.last_log_s, self._busy_since, fair)
        self.silent_s = now - said
        if self.silent_s > self._node.promises_s + BOUNDS.silence_slack_s + BOUNDS.record_bytes / self._store.faults.bytes_per_s:
            raise Finding(f"R: the log is silent for {self.silent_s:.1f} s, though there is something to say")
        self._work_done(now)

    def _work_done(self, now: float) -> None:
        seconds, done = now - self._began_s, self._operations() - self._began[2]
        fsyncs, requests = self._disk.fsyncs - self._began[0], len(self._store.calls) - self._began[1]
        most = BOUNDS.fsyncs_at_once + BOUNDS.fsyncs_an_operation * done + BOUNDS.fsyncs_a_second * seconds
        if fsyncs > most:
            raise Finding(f"R: {fsyncs} fsyncs for {done} operations in {seconds:.0f} s, more than {most:.0f}")
        most = BOUNDS.requests_at_once + BOUNDS.requests_an_operation * done + BOUNDS.requests_a_second * seconds
        if requests > most:
            raise Finding(f"R: {requests} requests for {done} operations in {seconds:.0f} s, more than {most:.0f}")

    async def idle(self) -> None:
        """With nothing to do: it falls silent, when the checker has looked at everything (at six requests a minute that takes its time)."""
        await trio.sleep(120.0)
        for _ in range(60):
            if not self._node.looks_left:
                break
            await trio.sleep(60.0)
        if self._node.looks_left and not self._node.ended and trio.current_time() - self._fair_since() > 3600.0:
            raise Finding("R: an hour after the last change the checker has not come to rest")
        if self._node.busy or self._node.ended:
            return
        before = Counter(f"{operation} {key.partition('/')[0]}" for operation, key in self._store.calls)
        count = len(self._store.calls)
        await trio.sleep(BOUNDS.idle_s)
        if not self._node.ended and trio.current_time() - self._fair_since() > BOUNDS.idle_s:
            if len(self._store.calls) - count > BOUNDS.idle_requests:
                after = Counter(f"{operation} {key.partition('/')[0]}" for operation, key in self._store.calls)
                raise Finding(f"R: {len(self._store.calls) - count} requests in {BOUNDS.idle_s:.0f} s with nothing to do: {after - before}")


# ---------------------------------------------------------------- memory

CONTAINERS = (dict, list, set, deque, frozenset, tuple, bytearray, bytes, str, memoryview)


def weights(node: Any) -> dict[str, int]:
    """{"Class.attribute": entries or bytes} of every container that s3cfs' objects below this node hold, largest of each."""
    found: dict[str, int] = {}
    seen: set[int] = set()
    todo: list[Any] = [node]
    while todo:
        thing = todo.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        kind = type(thing)
        if kind.__module__.startswith("s3cfs.") and not isinstance(thing, type):
            for name, value in _attributes(thing):
                if isinstance(value, CONTAINERS) and not isinstance(value, str | tuple):
                    key = f"{kind.__name__}.{name}"
                    found[key] = max(found.get(key, 0), len(value))
                todo.append(value)
        elif isinstance(thing, dict):
            todo.extend(thing.values())
        elif isinstance(thing, list | set | deque | tuple | frozenset):
            todo.extend(thing)
        elif callable(thing) and getattr(thing, "__self__", None) is not None:
            todo.append(thing.__self__)
        elif (cells := getattr(thing, "__closure__", None)) is not None:
            todo.extend(cell.cell_contents for cell in cells if _filled(cell))
    return found


def _attributes(thing: Any) -> list[tuple[str, Any]]:
    named = dict(getattr(thing, "__dict__", {}))
    for kind in type(thing).__mro__:
        for name in getattr(kind, "__slots__", ()):
            if isinstance(name, str) and hasattr(thing, name):
                named[name] = getattr(thing, name)
    return sorted(named.items())


def _filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def living(kinds: tuple[type, ...]) -> Counter[str]:
    """How many objects of these types exist in this process, after a collection."""
    gc.collect()
    return Counter(type(thing).__name__ for thing in gc.get_objects() if isinstance(thing, kinds))
