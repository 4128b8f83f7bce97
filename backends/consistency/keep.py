"""What the lock writes down on the local disk, so that a restart of the mount forgets neither delays nor what keys must hold.

Files that are only appended to, `<number>.log`: a line for the beginning of each write and delete and one for how it ended, each a checksum
and a list in JSON. A line that is torn or rotten is passed over. A beginning without an end is a write that may still be under way at a
gateway, whatever killed its process. Files whose lines are too old to matter are removed, and so is the oldest when there are too many.

Nothing is synced. What a process wrote survives its death; when the machine dies, the last seconds may be missing. It is back
no sooner than most delays last, and what is missing here is missing to every other machine too: the floors above do with that.

Times are written by the wall clock and by the monotonic one. The first may have jumped and the second may be of another boot. One by which
it is in the future is wrong; of two that may be right the one counts by which less time has passed, so a delay is too long rather than
too short. And none is longer than its bound.
"""
from __future__ import annotations

import contextlib
import json
import logging
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from s3cfs.backends.consistency import bounds
from s3cfs.backends.consistency.truth import Content, Held
from s3cfs.doors import Clock, Disk, DiskFile

log = logging.getLogger(__name__)

SUFFIX = ".log"


@dataclass(slots=True)
class Written:
    """One write or delete, as it was written down. Seconds ago by the clocks of now."""

    name: str
    keys: tuple[str, ...]
    held: Held
    began_ago: float
    outcome: str = ""                  # "": not known
    only: bool = False
    ended_ago: float = 0.0
    delay_s: float = 0.0


@dataclass(slots=True)
class _Segment:
    number: int
    last: float                        # clock.monotonic() of its last line
    keys: int = 0
    file: DiskFile | None = None
    size: int = 0


@dataclass
class Keep:
    """One process at a time. Whatever the disk raises, the lock goes on without it: `failures` counts."""

    disk: Disk
    folder: str
    clock: Clock
    failures: int = 0
    _segments: list[_Segment] = field(default_factory=list)
    _open: dict[str, tuple[Sequence[str], str]] = field(default_factory=dict)      # begun and not ended: id to keys and line
    _next: int = 1                     # file
    _first: int = 1                    # of this process
    _count: int = 0
    _ends: list[tuple[str, int]] = field(default_factory=list)                     # lines to be written, with their keys

    # ------------------------------------------------------------ reading

    def load(self) -> list[Written]:
        """All that earlier processes wrote down, in order."""
        found: dict[str, Written] = {}
        order: list[Written] = []
        for number in self._numbers():
            self._segments.append(_Segment(number, self.clock.monotonic()))
            self._next = self._first = number + 1
            for said in self._lines(number):
                try:
                    self._replay(said, found, order)
                except (KeyError, TypeError, ValueError, IndexError):
                    continue                       # of another version, perhaps
        return order

    def _replay(self, said: list[Any], found: dict[str, Written], order: list[Written]) -> None:
        name, wall_ns, moment = str(said[1]), int(said[2]), float(said[3])
        if said[0] == "begin":
            held = None if said[5] is None else Content(int(said[5][0]), bytes.fromhex(said[5][1]))
            if name not in found:                  # else it was written down again, in a newer file
                found[name] = Written(name, tuple(map(str, said[4])), held, self._ago(wall_ns, moment))
                order.append(found[name])
        elif said[0] == "end":
            ended = found[name]
            ended.outcome, ended.only, ended.delay_s = str(said[4]), bool(said[5]), float(said[6])
            ended.ended_ago = self._ago(wall_ns, moment)

    def _ago(self, wall_ns: int, moment: float) -> float:
        """Seconds, at least 0: see the module's text."""
        passed = (self.clock.time_ns() - wall_ns) / 1e9, self.clock.monotonic() - moment
        return min((seconds for seconds in passed if seconds >= 0.0), default=0.0)

    def _numbers(self) -> list[int]:
        try:
            names = self.disk.listdir(self.folder)
        except OSError as error:
            self._failed(error)
            return []
        return sorted(int(name.removesuffix(SUFFIX)) for name in names if name.endswith(SUFFIX) and name.removesuffix(SUFFIX).isdigit())

    def _lines(self, number: int) -> Iterator[list[Any]]:
        try:
            file = self.disk.open(self._path(number))
            try:
                data = file.pread(file.size(), 0)
            finally:
                file.close()
        except OSError as error:
            self._failed(error)
            return
        for line in data.split(b"\n"):
            check, _, text = line.partition(b" ")
            try:
                if int(check, 16) == zlib.crc32(text) and isinstance(said := json.loads(text), list):
                    yield said
            except ValueError:
                continue

    # ------------------------------------------------------------ writing

    def began(self, keys: Sequence[str], held: Held) -> str:
        """Before it is sent; its name."""
        self._count += 1
        name = f"{self._first}.{self._count}"
        content = None if held is None else [held.size, held.digest.hex()]
        line = _line(["begin", name, self.clock.time_ns(), self.clock.monotonic(), list(keys), content])
        self._append([(line, len(keys))])
        self._open[name] = keys, line
        return name

    def ended(self, name: str, outcome: str, only: bool, delay_s: float) -> None:
        """Written down by the next `save`. It touches no disk."""
        self._open.pop(name, None)
        self._ends.append((_line(["end", name, self.clock.time_ns(), self.clock.monotonic(), outcome, only, delay_s]), 0))

    def save(self) -> None:
        ends, self._ends = self._ends, []
        if ends:
            self._append(ends)

    def _append(self, lines: Sequence[tuple[str, int]]) -> None:
        now = self.clock.monotonic()
        try:
            segment = self._segments[-1] if self._segments else None
            if segment is None or segment.file is None or segment.keys >= bounds.SEGMENT_KEYS:
                segment = self._begin_segment(now)
            assert segment.file is not None
            data = "".join(line for line, _ in lines).encode()
            segment.file.pwrite(data, segment.size)
        except OSError as error:
            self._failed(error)
            self._close_last()                     # what came of the line is passed over; the next one goes into another file
            return
        segment.size, segment.last = segment.size + len(data), now
        segment.keys += sum(count for _, count in lines)

    def _begin_segment(self, now: float) -> _Segment:
        """What is under way is written down once more: files before this one may go."""
        self._close_last()
        number, self._next = self._next, self._next + 1
        data = "".join(line for _, line in self._open.values()).encode()
        file = self.disk.open(self._path(number), create=True)
        try:
            file.pwrite(data, 0)
        except OSError:
            file.close()
            self.disk.unlink(self._path(number))
            raise
        segment = _Segment(number, now, sum(len(keys) for keys, _ in self._open.values()), file, len(data))
        self._segments.append(segment)
        while len(self._segments) > bounds.SEGMENTS:
            self.disk.unlink(self._path(self._segments.pop(0).number))
        return segment

    def tidy(self, older_than: float) -> None:
        """Files that were last written to before that (clock.monotonic()) go."""
        try:
            while self._segments and self._segments[0].last < older_than and self._segments[0].file is None:
                self.disk.unlink(self._path(self._segments[0].number))
                self._segments.pop(0)
        except OSError as error:
            self._failed(error)

    def close(self) -> None:
        self.save()
        self._close_last()

    def _close_last(self) -> None:
        if self._segments and (file := self._segments[-1].file) is not None:
            self._segments[-1].file = None
            with contextlib.suppress(OSError):
                file.close()

    def _path(self, number: int) -> str:
        return f"{self.folder}/{number}{SUFFIX}"

    def _failed(self, error: OSError) -> None:
        if not self.failures:
            log.warning("what the consistency lock knows cannot be kept on the local disk: %s", error)
        self.failures += 1


def _line(said: list[Any]) -> str:
    text = json.dumps(said, separators=(",", ":"))
    return f"{zlib.crc32(text.encode()):08x} {text}\n"
