"""What is in memory of a file that is open or not yet staged, laid over its row in the database.

    dirty      written since, newest
    away       taken from `dirty` at one moment and being staged; the bytes that are in no row yet. At most one at a time
    extents    the database's, of which only those below `valid_to` still count (a truncation is staged like a write)

Reading goes through these in this order. `size` and the times are the file's as its users see them; the row follows when the data is
staged, in the same transaction (INVARIANT V1: extents, size and times of a row change together).

A file is always in one of four states:

    up to date        due is NOT, nothing away: the row says everything
    changed           due is LATER or NEXT, nothing away
    being staged      due is NOT, `away`: what was changed is on its way into the row
    changed again     due and `away`
"""
from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import trio

from s3cfs.meta import Inode

from .dirty import DirtyMap

EVERYTHING = 1 << 62


class Due(IntEnum):
    """When what the row lacks is staged."""

    NOT = 0      # it lacks nothing
    LATER = 1    # the file is open: when a run is long, memory is short, or the change is old
    NEXT = 2     # the next transaction has to hold it: closed, renamed over another file, or without content in its row


@dataclass(slots=True, eq=False)
class Away:
    """Taken of one file at one moment, staged slice by slice."""

    data: DirtyMap           # in no row yet; what a thread works on is a copy (of the map, not of the bytes)
    size: int                # of the file at that moment
    valid_to: int            # extents below it counted; EVERYTHING once the rows know
    whole: bool              # all there was: size and times follow. Otherwise long runs only, and not their undecided ends
    due: Due
    sliced_to: int = 0       # data below this was in a slice
    sliced: bool = False     # there is no further slice


@dataclass(slots=True, eq=False)
class FileState:
    ino: int
    size: int
    inline: bytes | None                 # content that lives in the row, None when it is in extents or dirty
    dirty: DirtyMap
    blank: bool = False                  # the row shows a file without content
    opens: int = 0
    due: Due = Due.NOT
    away: Away | None = None
    valid_to: int = EVERYTHING
    mtime_ns: int | None = None          # None: the row's
    ctime_ns: int | None = None
    awaited_until: float = 0.0           # monotonic: empty, changed just now, its first write is expected any moment
    dirty_since: float = 0.0             # monotonic, of the oldest change that is in `dirty`
    look_at_bytes: int = 0               # of dirty data: then it is worth looking for long runs
    error: Exception | None = None       # a write that could not be kept: reported by the next write, flush, fsync
    lock: trio.Lock = field(default_factory=trio.Lock)     # whoever stages it
    read_end: int = -1                   # where the last read ended
    readahead_to: int = 0
    readahead_bytes: int = 0

    @property
    def pending(self) -> bool:
        """Whether the row is behind."""
        return self.due is not Due.NOT or self.away is not None

    @property
    def due_next(self) -> bool:
        """Whether the next transaction has to wait for its content."""
        return self.due is Due.NEXT or (self.away is not None and self.away.due is Due.NEXT)

    @property
    def extents_valid_to(self) -> int:
        return min(self.valid_to, self.away.valid_to) if self.away is not None else self.valid_to

    @property
    def pending_bytes(self) -> int:
        return self.dirty.bytes + (self.away.data.bytes if self.away is not None else 0)

    def promise(self) -> None:
        """The next transaction holds its content, though it be open."""
        if self.due is not Due.NOT:
            self.due = Due.NEXT
        if self.away is not None:
            self.away.due = Due.NEXT

    def take_back(self, data: DirtyMap) -> None:
        """Bytes that were away, or in the row, count as dirty again: where nothing was written since, and below every truncation since."""
        for at, (buffer, inner, length) in data.items():
            left = min(length, self.valid_to - at)
            if left > 0:
                self.dirty.put_under(at, (buffer, inner, left))

    def come_back(self, *, failed: bool) -> None:
        """Staging ended. What did not get into rows is dirty again."""
        away = self.away
        if away is None:
            return
        self.away = None
        self.take_back(away.data)
        away.data.clear()
        self.valid_to = min(self.valid_to, away.valid_to)
        if failed:
            self.due = max(self.due, away.due)

    def forget(self) -> None:
        """The file is gone: nothing of it counts, nor what comes back."""
        self.dirty.clear()
        self.due, self.valid_to = Due.NOT, 0

    def over(self, row: Inode) -> Inode:
        """The row as users see it."""
        if not self.pending:
            return row
        alloc = min(self.size, min(row.alloc, self.extents_valid_to) + self.pending_bytes)
        return Inode(row.ino, row.mode, row.nlink, row.uid, row.gid, row.rdev, self.size, alloc, row.atime_ns,
                     self.mtime_ns if self.mtime_ns is not None else row.mtime_ns,
                     max(row.ctime_ns, self.ctime_ns or 0), row.parent, row.target, None)
