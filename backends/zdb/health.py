"""How each server is: in which condition, since when, in whose words, how quick, how much room.

`Node` is what calls are made on: it notes what comes of each. A server that failed is left alone for a while; then one call tries it, and
all the others go by what came of that. One that falls silent in the middle of a call is known for it before that call is given up.
`Node.poll` asks how it is, for when nobody calls: how full, whether locked, in which mode.

What a server does not let us write says nothing of reading there, and the other way round: a disk that is full is read as before.
"""
from __future__ import annotations

import bisect
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from s3cfs.backends.zdb import commands
from s3cfs.backends.zdb.link import Answer, Links
from s3cfs.backends.zdb.resp import Argument, size_of
from s3cfs.backends.zdb.setup import Server
from s3cfs.backends.zdb.words import Condition, Trouble
from s3cfs.limits import MIB

LEFT_ALONE_S = 1.0                 # after a first failure; twice that after each further one,
LEFT_ALONE_MAX_S = 30.0            # up to this
SILENT_S = 2.0                     # a call under way without a byte for so long: others are asked first
REFUSED_S = 30.0                   # after words that do not pass by themselves (full, read-only, wrong password …): until it is tried again
RESERVE_BYTES = 64 * MIB           # free on its disk: below it a server is low on space, while there is room for it to note deletions
RESERVE_PART = 0.02                # the same of a namespace's limit, as a part of it
LATENCIES = 64                     # that are remembered, of each class of size
ALPHA = 0.2                        # weight of the newest latency in a server's mean
_WRITES = (b"SET", b"DEL")
_NOT_FOR_READS = (Condition.READ_ONLY, Condition.LOW_SPACE, Condition.DISK_FULL, Condition.WORM, Condition.WRONG_MODE)   # to tell


class Space(NamedTuple):
    """What NSINFO says of room. Bytes. `limit` 0: none. Deleted and overwritten values count in no figure but the disk's."""

    entries: int
    used: int
    limit: int
    disk_free: int

    @property
    def room(self) -> int:
        """For values: what the limit and the disk leave."""
        return max(0, self.disk_free if not self.limit else min(self.limit - self.used, self.disk_free))

    @property
    def is_low(self) -> bool:
        return self.disk_free < RESERVE_BYTES or bool(self.limit and self.limit - self.used < RESERVE_PART * self.limit)


class Status(NamedTuple):
    """For people and for choosing, at one moment."""

    condition: Condition
    words: str                     # of the server, or of what could not reach it; "": it is well
    since: float                   # when this condition began, seconds since 1970
    latency_s: float               # mean of the last calls; 0.0: none yet
    damaged: int                   # answers of "Internal Error" since we know it
    space: Space | None            # None: not asked yet


class Latencies:
    """How long calls take on all servers together, by size. For several threads."""

    def __init__(self, *, least_s: float = 0.02, most_s: float = 3.0, usual_s: float = 0.5) -> None:
        self._least, self._most, self._usual = least_s, most_s, usual_s
        self._lock = threading.Lock()
        self._seen: dict[int, deque[float]] = {}

    def note(self, size: int, seconds: float) -> None:
        with self._lock:
            self._seen.setdefault(_class_of(size), deque(maxlen=LATENCIES)).append(seconds)

    def delay_s(self, size: int) -> float:
        """After which a call of so many bytes is late: twice what nine of ten take."""
        with self._lock:
            seen = sorted(self._seen.get(_class_of(size), ()))
        if len(seen) < 8:
            return self._usual
        return min(max(self._least, 2 * seen[len(seen) * 9 // 10]), self._most)


def _class_of(size: int) -> int:
    return bisect.bisect((4096, 65536, 1 << 20), size)


class Health:
    """Of one server. For several threads."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        self._clock, self._wall = clock, wall
        self._lock = threading.Lock()
        self._condition, self._words = Condition.OK, ""
        self._since = wall()
        self._failures = 0                     # one after the other: of calls that were under way together, one
        self._is_tried = False                 # by a call under way, after it failed
        self._try_at = 0.0                     # when it may be tried again
        self._latency_s = 0.0
        self._damaged = 0
        self._space: Space | None = None

    @property
    def status(self) -> Status:
        with self._lock:
            return Status(self._condition, self._words, self._since, self._latency_s, self._damaged, self._space)

    @property
    def may_read(self) -> bool:
        """Whether nothing speaks against it, or it is time to try again."""
        with self._lock:
            return self._condition.may_read or self._clock() >= self._try_at

    @property
    def may_write(self) -> bool:
        with self._lock:
            return self._condition.may_write or self._clock() >= self._try_at

    def begins(self) -> None:
        """A call is about to be made. If it is the one that tries a server that failed, the others go on leaving it alone."""
        with self._lock:
            if self._condition is not Condition.OK and self._clock() >= self._try_at:
                self._is_tried = True
                self._try_at = self._clock() + self._pause()

    def answered(self, writes: bool, seconds: float) -> None:
        with self._lock:
            self._latency_s = seconds if not self._latency_s else (1 - ALPHA) * self._latency_s + ALPHA * seconds
            self._failures, self._is_tried = 0, False
            if writes or self._condition not in _NOT_FOR_READS:
                self._become(Condition.OK, "")

    def failed(self, trouble: Trouble) -> None:
        with self._lock:
            if trouble.condition is Condition.OK:
                self._failures = 0             # it answers; what it refused is the caller's affair
            elif trouble.condition is Condition.DAMAGED:
                self._damaged += 1
            else:
                if trouble.condition not in _NOT_FOR_READS and (self._condition is Condition.OK or self._is_tried):
                    self._failures += 1
                self._is_tried = False
                self._become(trouble.condition, trouble.words)
                self._try_at = self._clock() + self._pause()

    def measured(self, space: Space, condition: Condition, words: str) -> None:
        """What a poll found; OK: nothing against it."""
        with self._lock:
            self._space, self._failures = space, 0
            waits = self._condition is not Condition.OK and self._clock() < self._try_at
            if condition is Condition.OK and waits and self._condition in (Condition.READ_ONLY, Condition.DISK_FULL) and not space.is_low:
                return                         # a write met it, and only a write can tell: when its time has come
            self._become(condition, words)
            self._try_at = self._clock() + self._pause()

    def _become(self, condition: Condition, words: str) -> None:
        if condition is not self._condition:
            self._since = self._wall()
        self._condition, self._words = condition, words

    def _pause(self) -> float:
        if not self._condition.passes:
            return REFUSED_S
        return min(LEFT_ALONE_S * 2.0 ** min(max(0, self._failures - 1), 10), LEFT_ALONE_MAX_S)


class Node:
    """A server to make calls on: its links, its health. What `commands` takes. `latencies` are shared with the other servers'."""

    def __init__(self, links: Links, latencies: Latencies | None = None, *, clock: Callable[[], float] = time.monotonic,
                 wall: Callable[[], float] = time.time) -> None:
        self.links, self.latencies = links, latencies or Latencies()
        self.health = Health(clock=clock, wall=wall)
        self._clock = clock

    @property
    def server(self) -> Server:
        return self.links.server

    @property
    def is_silent(self) -> bool:
        """Whether a call under way waits for it, longer than is usual."""
        return self.links.silent_s > SILENT_S

    @property
    def may_read(self) -> bool:
        """Whether it should be asked before others; where there are not enough of them, it may be asked all the same."""
        return self.health.may_read and not self.is_silent

    @property
    def may_write(self) -> bool:
        """The same of writing."""
        return self.health.may_write and not self.is_silent

    @property
    def rank(self) -> tuple[bool, float]:
        """Sorts those to be asked first to the front."""
        return not self.may_read, self.health.status.latency_s

    def call(self, *arguments: Argument, timeout_s: float | None = None) -> Answer:
        self.health.begins()
        began = self._clock()
        try:
            answer = self.links.call(*arguments, timeout_s=timeout_s)
        except Trouble as trouble:
            self.health.failed(trouble)
            raise
        seconds = self._clock() - began
        size = sum(map(size_of, arguments)) + (len(answer) if isinstance(answer, bytes) else 0)
        self.latencies.note(size, seconds)
        self.health.answered(arguments[0] in _WRITES, seconds)
        return answer

    def poll(self, *, timeout_s: float | None = None) -> Status:
        """Ask the server how it is. Never raises Trouble: that is an answer too."""
        try:
            info = commands.own_info(self.links, timeout_s=timeout_s)
            space = space_of(info)
            self.health.measured(space, *self._judged(info, space, timeout_s))
        except Trouble as trouble:
            self.health.failed(trouble)
        return self.health.status

    def _judged(self, info: Mapping[str, str], space: Space, timeout_s: float | None) -> tuple[Condition, str]:
        if info.get("mode") != "userkey":
            return Condition.WRONG_MODE, f"the namespace {self.links.namespace} is {info.get('mode', 'of no mode')}, not in user mode"
        if info.get("locked") == "yes":
            commands.exists(self.links, b"\0", timeout_s=timeout_s)            # frozen: Trouble says so
            return Condition.READ_ONLY, "the namespace is locked"
        if info.get("worm") == "yes":
            return Condition.WORM, "the namespace is in worm mode: nothing in it can be deleted"
        if space.is_low:
            return Condition.LOW_SPACE, f"{space.room // MIB} MiB left"
        return Condition.OK, ""

    def status(self) -> dict[str, Any]:
        """For `--json`."""
        now = self.health.status
        return {"name": self.server.name, "address": self.server.address, "condition": now.condition.value, "words": now.words,
                "since": now.since, "latency_s": now.latency_s, "damaged": now.damaged,
                "space": None if now.space is None else now.space._asdict() | {"room": now.space.room}}

    def close(self) -> None:
        self.links.close()


def space_of(info: Mapping[str, str]) -> Space:
    """Of the lines of NSINFO. Trouble when they are not there."""
    try:
        return Space(int(info["entries"]), int(info["data_size_bytes"]), int(info["data_limits_bytes"]),
                     int(info.get("data_disk_freespace_bytes", 1 << 62)))
    except (KeyError, ValueError) as error:
        raise Trouble(Condition.STRANGE, f"NSINFO says nothing of {error}") from None
