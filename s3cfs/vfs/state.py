"""What is in memory of a file that is open or not yet staged, laid over its row in the database.

    dirty      written since, newest
    staging    frozen while it is being cut, sealed and appended; at most one slice at a time
    extents    the database's, of which only those below `valid_to` still count (a truncation is staged like a write)

Reading goes through these in this order. `size` and the times are the file's as its users see them; the row follows when the
data is staged, in
the same transaction (INVARIANT V1: extents, size and times of a row change together).
"""
from __future__ import annotations

from dataclasses import dataclass, field

import trio

from s3cfs.meta import Inode

from .dirty import DirtyMap

EVERYTHING = 1 << 62


@dataclass(slots=True, eq=False)
class FileState:
    ino: int
    size: int
    inline: bytes | None                 # content that lives in the row, None when it is in extents
    opens: int = 0
    dirty: DirtyMap = field(default_factory=DirtyMap)
    staging: DirtyMap | None = None
    staging_valid_to: int = EVERYTHING   # `valid_to` as it was frozen
    valid_to: int = EVERYTHING
    mtime_ns: int | None = None          # None: the row's
    ctime_ns: int | None = None
    changed: bool = False                # something here is not in the row yet
    fresh: bool = False                  # created, and nothing of it staged yet
    fresh_until: float = 0.0             # monotonic: so long its first write is expected any moment
    must_stage: bool = False             # at the next transaction, though it is open
    dirty_since: float = 0.0             # monotonic, of the oldest unstaged change
    look_at_bytes: int = 0               # of dirty data: then it is worth looking for long runs
    error: Exception | None = None       # a write that could not be kept: reported by the next write, flush, fsync
    lock: trio.Lock = field(default_factory=trio.Lock)
    read_end: int = -1                   # where the last read ended
    readahead_to: int = 0
    readahead_bytes: int = 0

    @property
    def pending(self) -> bool:
        """Whether the row is behind."""
        return self.changed or self.staging is not None

    @property
    def extents_valid_to(self) -> int:
        return min(self.staging_valid_to, self.valid_to)

    @property
    def pending_bytes(self) -> int:
        return self.dirty.bytes + (self.staging.bytes if self.staging else 0)

    def over(self, row: Inode) -> Inode:
        """The row as users see it."""
        if not self.pending:
            return row
        alloc = min(self.size, min(row.alloc, self.extents_valid_to) + self.pending_bytes)
        return Inode(row.ino, row.mode, row.nlink, row.uid, row.gid, row.rdev, self.size, alloc, row.atime_ns,
                     self.mtime_ns if self.mtime_ns is not None else row.mtime_ns,
                     max(row.ctime_ns, self.ctime_ns or 0), row.parent, row.target, None)
