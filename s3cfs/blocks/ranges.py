"""Which bytes of a file are there, and the table on disk that says so of all files of the cache.

The table is a journal: a line for each entry that changed since the last save, `[name, [start, end, start, end, ...]]` (no borders: it is
gone; no list at all: it was used), so a save costs what changed. A later line counts, and lines stand in the order of use. When the file is
twice as long as it was when it was last written anew, it is written anew. A line that cannot be read is passed over: an entry that is
wrong or missing costs a request (cache.py).
"""
from __future__ import annotations

import json
import logging
import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from s3cfs.blocks.handles import read_fully
from s3cfs.doors import Disk, DiskFile

log = logging.getLogger(__name__)

TABLE = "cache/ranges"
GROWS_BYTES = 256 << 10            # so long it may become in any case before it is written anew
_FILE = re.compile(r"\d{1,10}-[0-9a-f]{64}")


class Ranges:
    """A set of bytes as sorted, disjoint, non-touching intervals [start, end)."""

    __slots__ = ("_borders", "total")

    def __init__(self, borders: list[int] | None = None) -> None:
        self._borders = array("I", borders or [])
        self.total = sum(self._borders[1::2]) - sum(self._borders[0::2])

    def borders(self) -> list[int]:
        return self._borders.tolist()

    def covers(self, start: int, end: int) -> bool:
        if start >= end:
            return True
        at = bisect_right(self._borders, start)
        return at % 2 == 1 and self._borders[at] >= end

    def add(self, start: int, end: int) -> None:
        self._replace(start, end, inside=True)

    def remove(self, start: int, end: int) -> None:
        self._replace(start, end, inside=False)

    def _replace(self, start: int, end: int, *, inside: bool) -> None:
        if start >= end:
            return
        borders = self._borders
        low, high = bisect_left(borders, start), bisect_right(borders, end)
        new = array("I")                     # an even index means outside, an odd one inside an interval
        if (low % 2 == 0) == inside:
            new.append(start)
        if (high % 2 == 0) == inside:
            new.append(end)
        borders[low:high] = new
        self.total = sum(borders[1::2]) - sum(borders[0::2])


class Table:
    """Everything blocks. OSError: it is written anew the next time."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._file: DiskFile | None = None        # the new one
        self._bytes = self._written_bytes = 0
        self._usable = False                      # lines may be appended

    @property
    def wants_rewrite(self) -> bool:
        return not self._usable or self._bytes > 2 * self._written_bytes + GROWS_BYTES

    def load(self) -> dict[str, list[int]]:
        """{name: borders}, least recently used first."""
        found: dict[str, list[int]] = {}
        try:
            if not self._disk.exists(TABLE):
                return {}
            file = self._disk.open(TABLE)
            try:
                data = read_fully(file, file.size(), 0)
            finally:
                file.close()
        except OSError as error:
            log.warning("cache: %s cannot be read (%s): starting empty", TABLE, error)
            return {}
        lines = data.split(b"\n")
        self._usable = not lines.pop()            # after a torn line nothing can be appended
        for line in lines:
            try:
                name, *rest = json.loads(line)
                borders = found.pop(name, []) if not rest else [int(border) for border in rest[0]]
            except (ValueError, TypeError, RecursionError):
                self._usable = False
                continue
            if borders and _FILE.fullmatch(str(name)) and len(borders) % 2 == 0 and all(x < y for x, y in pairwise([-1, *borders])):
                found[name] = borders
            else:
                found.pop(name, None)
        self._bytes = self._written_bytes = len(data)
        return found

    def append(self, entries: Sequence[tuple[str, list[int] | None]]) -> None:
        """(name, borders), None: it was used."""
        self._usable = False                      # until it is known to be
        file = self._disk.open(TABLE)
        try:
            data = _lines(entries)
            file.pwrite(data, file.size())
            file.fsync()
        finally:
            file.close()
        self._bytes += len(data)
        self._usable = True

    def begin(self) -> None:
        """Anew: then `add` all entries, a few at a time, and `finish`."""
        self._usable = False
        self.abandon()
        self._file, self._bytes = self._disk.open(TABLE + ".new", create=True), 0

    def add(self, entries: Sequence[tuple[str, list[int] | None]]) -> None:
        assert self._file is not None
        data = _lines(entries)
        self._file.pwrite(data, self._bytes)
        self._bytes += len(data)

    def finish(self) -> None:
        assert self._file is not None
        self._file.fsync()
        self.abandon()
        self._disk.rename(TABLE + ".new", TABLE)
        self._written_bytes, self._usable = self._bytes, True

    def abandon(self) -> None:
        """What was begun."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _lines(entries: Sequence[tuple[str, list[int] | None]]) -> bytes:
    lines: list[Any] = [[name] if borders is None else [name, borders] for name, borders in entries]
    return "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines).encode()
