"""What the operations on names and attributes need from below: the content of files, and the transactions.

`vfs/files.py` implements Content, `commits` implements Transactions; tests have simple ones in memory.

Which methods may wait is part of the contract, because nothing may wait between an operation's validation and its last write
(core.py): `async` methods marked *never suspends* return without giving way to another task, all others may take long.
"""
from __future__ import annotations

from typing import Protocol

from s3cfs.errors import ReadOnly
from s3cfs.history.admission import Kind
from s3cfs.meta.types import Inode

__all__ = ["Content", "Gate", "Kind", "Transactions"]


class Content(Protocol):
    """Bytes of regular files. All inodes given to it are regular files unless a method says otherwise."""

    def overlay(self, inode: Inode) -> Inode:
        """The row with size, alloc, mtime and ctime of changes that are not staged yet put over it (a new object);
        the very same object when nothing is pending."""

    def is_open(self, ino: int) -> bool: ...

    async def open(self, ino: int, flags: int) -> None:
        """Count one more user; `flags` as of open(2), O_TRUNC has been done. Any inode. *Never suspends*."""

    async def release(self, ino: int) -> None:
        """One user less. What is pending stays pending; the inode may have no name any more (vfs drops it afterwards)."""

    async def read(self, ino: int, offset: int, size: int) -> bytes: ...

    async def write(self, ino: int, offset: int, data: bytes) -> int: ...

    async def truncate(self, ino: int, size: int, now_ns: int) -> None:
        """Size, mtime and ctime change together; mtime and ctime also when the size stays. StaleInode when it is gone."""

    async def fsync(self, ino: int) -> None:
        """Data, size, times, and every operation done before, on the local disk (or in the store under --sync=remote). Any inode."""

    async def flush(self, ino: int) -> None:
        """At each close(2): raises what went wrong with this file's writes."""

    async def before_replace(self, ino: int) -> None:
        """The inode is about to be renamed over another file: stage it, so no crash shows the name with old size and no content."""

    async def set_times(self, ino: int, *, mtime_ns: int | None = None, ctime_ns: int | None = None) -> None:
        """The row was given these times: pending ones become these as well. Only called while something is pending. *Never suspends*."""

    def forget(self, ino: int) -> None:
        """The inode's row is being dropped: throw away everything pending."""


class Transactions(Protocol):
    """Whether changes are possible now, and when they are safe."""

    def check_writable(self) -> None:
        """ReadOnly (deposed, failed), with the reason in the text."""

    def has_room(self, kind: Kind) -> bool:
        """False while changes of this kind have to wait: then `room(kind)` is worth awaiting. Cheap."""

    def would_wait(self, kind: Kind) -> bool:
        """True while such a change has to wait for more than the moment that a transaction takes to close. Cheap."""

    async def room(self, kind: Kind) -> None:
        """Wait until such a change may begin. NoSpace when its caller can be told and nothing has moved for long."""

    async def durable(self) -> None:
        """Everything done so far is in a transaction that is on disk (in the store under --sync=remote)."""


class Gate:
    """What every changing operation passes first. It may wait, so it comes before the validation."""

    def __init__(self, transactions: Transactions, read_only: bool) -> None:
        self._transactions, self._read_only = transactions, read_only

    def check(self) -> None:
        if self._read_only:
            raise ReadOnly("the filesystem is mounted read-only")
        self._transactions.check_writable()

    async def enter(self, kind: Kind) -> None:
        """`kind`: what the change does to the room there is, and who can be told that there is none (history/admission.py)."""
        self.check()
        if not self._transactions.has_room(kind):
            await self._transactions.room(kind)
            self.check()
