"""Small helpers of the floor that keeps packs on disk: a fair lock without a checkpoint, a bounded set of open files, patience.

They belong to the event-loop thread; only the file inside a `Handle` is touched by worker threads. A handle that is in use
(`uses` > 0) is never closed: closing a descriptor under a thread that is about to read it would let the number be reused, and the
thread would read another file.
"""
from __future__ import annotations

import contextlib
import errno
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TypeVar

import trio

from s3cfs.doors import Clock, Disk, DiskFile

T = TypeVar("T")

TRIES = 4                          # of what the disk refused and may be asked again
TRIES_LONG = 12                    # a minute and a half: for want of descriptors or memory, and where nobody waits for the answer
PAUSE_S = 0.05                     # before the second; doubled each time
SHORT = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM))


class Turn:
    """A lock, first come first served. When it is free, taking it is no checkpoint (trio.Lock costs a pass of the scheduler)."""

    def __init__(self) -> None:
        self._held = False
        self._waiting: deque[trio.Event] = deque()

    async def __aenter__(self) -> None:
        if not self._held:
            self._held = True
            return
        event = trio.Event()
        self._waiting.append(event)
        try:
            await event.wait()
        except BaseException:
            if event.is_set():              # it was handed to us while we were being cancelled: pass it on
                self._pass_on()
            else:
                self._waiting.remove(event)
            raise

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._pass_on()

    def _pass_on(self) -> None:
        if self._waiting:
            self._waiting.popleft().set()   # stays held: it now belongs to the one woken
        else:
            self._held = False


class Handle:
    """An open file and how many are using it."""

    __slots__ = ("dropped", "file", "path", "uses")

    def __init__(self, path: str, file: DiskFile) -> None:
        self.path, self.file = path, file
        self.uses = 0
        self.dropped = False


class Handles:
    """At most about `limit` open files, by path, least recently used ones are closed first; those in use are never closed."""

    def __init__(self, disk: Disk, limit: int) -> None:
        self._disk = disk
        self._limit = limit
        self._open: OrderedDict[str, Handle] = OrderedDict()

    def take(self, path: str, *, create: bool = False) -> Handle:
        """The file at `path`, opened if it is not; pair it with `give_back`. Raises OSError."""
        handle = self._open.get(path)
        if handle is not None and create:
            self.drop(path)
            handle = None
        if handle is None:
            handle = Handle(path, self._disk.open(path, create=create))
            self._open[path] = handle
        else:
            self._open.move_to_end(path)
        handle.uses += 1
        self._shrink()
        return handle

    def give_back(self, handle: Handle) -> None:
        handle.uses -= 1
        if handle.dropped and handle.uses == 0:
            _close(handle)

    def in_use(self, path: str) -> bool:
        handle = self._open.get(path)
        return handle is not None and handle.uses > 0

    def drop(self, path: str) -> None:
        """The path means another file from now on (renamed, unlinked); who reads the old one may finish."""
        handle = self._open.pop(path, None)
        if handle is not None:
            handle.dropped = True
            if handle.uses == 0:
                _close(handle)

    def close(self) -> None:
        for path in list(self._open):
            self.drop(path)

    def _shrink(self) -> None:
        excess = len(self._open) - self._limit
        if excess > 0:
            idle = [path for path, handle in self._open.items() if handle.uses == 0]
            for path in idle[:excess]:
                self.drop(path)


def _close(handle: Handle) -> None:
    with contextlib.suppress(OSError):      # what counts was fsynced; a close says nothing about it
        handle.file.close()


async def patiently(clock: Clock, call: Callable[[], Awaitable[T]], tries: int = TRIES) -> T:
    """The answer of `call`, which is tried again after an OSError: a process may be short of descriptors, or a disk of luck, for a moment.
    Only for calls that leave nothing behind (an open, a read)."""
    failures = 0
    while True:
        try:
            return await call()
        except OSError as error:
            failures += 1
            if failures >= (TRIES_LONG if error.errno in SHORT else tries):
                raise
            await clock.sleep(PAUSE_S * 2 ** (failures - 1))


def read_fully(file: DiskFile, size: int, offset: int) -> bytes:
    """`size` bytes from `offset`; fewer only at the end of the file."""
    data = file.pread(size, offset)
    if len(data) in (0, size):
        return data
    pieces, got = [data], len(data)
    while got < size:
        data = file.pread(size - got, offset + got)
        if not data:
            break
        pieces.append(data)
        got += len(data)
    return b"".join(pieces)
