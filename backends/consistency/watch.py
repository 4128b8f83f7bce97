"""Which objects are to be looked at, and when. Pure: its caller brings time and chance.

An object is looked at some times after its put or delete, at growing intervals (`check_delays`), then it is forgotten. What is due waits in
line by kind (the key's first part), and the kinds take turns; what is suspicious goes first. A line that gets longer than can be served
soon loses looks by chance, whichever they are: each of those objects keeps its later looks.
"""
from __future__ import annotations

import heapq
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

KEYS_MAX = 10_000                  # beyond it the oldest are forgotten: they have had their first looks
KINDS_MAX = 16
BODY_BYTES = 64 << 10              # of objects up to this what was put is kept while they are watched,
BODIES_BYTES = 4 << 20             # so much of all of them together: records have no other original
SUSPICIOUS = "suspicious"
TRANSIENT = frozenset(("claim", "probe"))        # kinds that others delete: their absence says nothing


@dataclass(slots=True, eq=False)
class Watched:
    """One object, since a put or delete of it by this machine was answered."""

    key: str
    there: bool                    # whether it must be
    since: float
    size: int = -1                 # -1: not known
    digest: bytes | None = None    # of the content; None: not known
    body: bytes | None = None      # what was put
    content: bool = False          # the next look is at the content
    put_here: bool = True          # False: somebody only asked for it, and did not find it
    rewritten: bool = False        # an earlier put or delete of the key was watched: an old answer may be another object
    look: int = 0                  # which of the looks is the next one
    due: float = math.inf
    in_line: bool = False
    misses: int = 0                # looks in a row that did not see what they should
    failures: int = 0              # without an answer, in a row
    repairs: int = 0
    hastened: float = -math.inf    # when it was last looked at out of turn

    @property
    def kind(self) -> str:
        return self.key.partition("/")[0]

    @property
    def folder(self) -> str:
        """With its '/'; "" when it is in none."""
        return self.key[:self.key.rfind("/") + 1]


class Watch:
    def __init__(self, delays: Callable[[], Sequence[float]], in_line_most: Callable[[], int], choose: Callable[[int], int]) -> None:
        """`choose(n)`: one of range(n), by chance."""
        self._delays, self._in_line_most, self._choose = delays, in_line_most, choose
        self._all: OrderedDict[str, Watched] = OrderedDict()           # the oldest first
        self._folders: dict[str, dict[str, Watched]] = {}
        self._heap: list[tuple[float, int, Watched]] = []
        self._number = 0
        self._lines: OrderedDict[str, list[Watched]] = OrderedDict()   # what is due, by kind; whose turn it is first
        self.bodies_bytes = 0
        self.dropped = 0                                               # looks that did not take place for want of room or budget

    def __len__(self) -> int:
        return len(self._all)

    def get(self, key: str) -> Watched | None:
        return self._all.get(key)

    def below(self, prefix: str) -> Iterator[Watched]:
        """A pass over all."""
        return iter([each for each in self._all.values() if each.key.startswith(prefix)])

    def in_folder(self, folder: str) -> list[Watched]:
        return list(self._folders.get(folder, {}).values())

    def newest(self, count: int) -> list[Watched]:
        return [self._all[key] for _, key in zip(range(count), reversed(self._all), strict=False)]

    # ------------------------------------------------------------ coming and going

    def add(self, watched: Watched) -> None:
        """From its first look on. One of the same key is forgotten."""
        self.forget(watched.key)
        if watched.body is not None:
            if self.bodies_bytes + len(watched.body) > BODIES_BYTES:
                watched.body = None
            else:
                self.bodies_bytes += len(watched.body)
        self._all[watched.key] = watched
        self._folders.setdefault(watched.folder, {})[watched.key] = watched
        self._next(watched, watched.since)
        if len(self._all) > KEYS_MAX:
            self.dropped += 1
            self.forget(next(iter(self._all)))

    def forget(self, key: str) -> Watched | None:
        watched = self._all.pop(key, None)
        if watched is not None:
            self.bodies_bytes -= len(watched.body or b"")
            self._leave_line(watched)
            watched.due = math.inf
            folder = self._folders[watched.folder]
            del folder[key]
            if not folder:
                del self._folders[watched.folder]
        return watched

    def looked(self, watched: Watched, now: float) -> None:
        """That look is over: on to the next, or it is forgotten."""
        if self._all.get(watched.key) is not watched:
            return
        self._leave_line(watched)
        watched.look += 1
        watched.misses = watched.failures = 0
        self._next(watched, now)

    def again(self, watched: Watched, due: float) -> None:
        """The same look once more."""
        if self._all.get(watched.key) is not watched:
            return
        self._leave_line(watched)
        watched.due = due
        self._number += 1
        heapq.heappush(self._heap, (due, self._number, watched))
        if len(self._heap) > 2 * len(self._all) + 64:                  # of what was forgotten or moved its entries are left
            self._heap = [entry for entry in self._heap if entry[0] == entry[2].due]
            heapq.heapify(self._heap)

    def _next(self, watched: Watched, now: float) -> None:
        delays = self._delays()
        if watched.look < len(delays):
            self.again(watched, max(now, watched.since + delays[watched.look]))
        else:
            self.forget(watched.key)

    # ------------------------------------------------------------ what is due

    def next_due(self) -> float | None:
        """When there is something to do; None: never, as things are."""
        if self._lines:
            return -math.inf
        while self._heap and self._heap[0][0] != self._heap[0][2].due:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def take(self, now: float) -> Watched | None:
        """Whose turn it is. It stays watched, and is due no more until `looked` or `again` says so."""
        self._line_up(now)
        for line in (SUSPICIOUS, *self._lines):
            if line in self._lines:
                watched = self._lines[line][0]
                self._leave_line(watched)
                if line in self._lines:
                    self._lines.move_to_end(line)
                return watched
        return None

    def _line_up(self, now: float) -> None:
        while self._heap and self._heap[0][0] <= now:
            due, _, watched = heapq.heappop(self._heap)
            if due == watched.due:
                watched.due, watched.in_line = -math.inf, True
                self._lines.setdefault(self._line_of(watched), []).append(watched)
        for name, line in list(self._lines.items()):
            while name != SUSPICIOUS and len(line) > self._in_line_most():
                self.dropped += 1
                self.looked(line[self._choose(len(line))], now)

    def _line_of(self, watched: Watched) -> str:
        if watched.misses:
            return SUSPICIOUS
        return watched.kind if watched.kind in self._lines or len(self._lines) < KINDS_MAX else next(reversed(self._lines))

    def _leave_line(self, watched: Watched) -> None:
        if not watched.in_line:
            return
        watched.in_line = False
        for name, line in self._lines.items():
            if watched in line:
                line.remove(watched)
                if not line:
                    del self._lines[name]
                return
