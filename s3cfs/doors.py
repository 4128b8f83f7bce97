"""The doors: time, randomness, threads, the disk and the bounds enter s3cfs here and nowhere else (the store's is `remote`).

`app` makes the real ones; the simulator makes its own, so one seed replays one run, a crash can fall at any await, at any
remote call and at any disk sync, and what was not synced can be dropped. Code from `vfs` down takes a `Doors` as an
argument and never calls `time`, `random`, `os.urandom`, `open`, `trio.to_thread` or `trio.sleep` itself.
"""
from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import trio

from s3cfs.limits import DEFAULTS, Limits

T = TypeVar("T")


class Clock(Protocol):
    def time_ns(self) -> int:
        """Wall clock, nanoseconds since the epoch; may jump."""

    def monotonic(self) -> float:
        """Seconds since some moment; never goes back."""

    async def sleep(self, seconds: float) -> None: ...


class Randomness(Protocol):
    def bytes(self, count: int) -> bytes:
        """Unpredictable bytes, good for keys and nonces."""

    def uniform(self, low: float, high: float) -> float:
        """For jitter."""


class Threads(Protocol):
    async def run(self, function: Callable[..., T], *args: Any) -> T:
        """Run a blocking function beside the event loop; not cancellable once begun (a cancel is seen afterwards).

        A hop costs about 100 us: batch. Only calls that release the GIL for long belong here.
        """


class StoreThreads(Protocol):
    """For calls of the store, apart from all others: a store that hangs in every thread must not hold up one local fsync."""

    async def run(self, function: Callable[..., T], *args: Any, ended: Callable[[], None]) -> T:
        """Run a blocking function beside the event loop. When cancelled it is abandoned: it goes on, and may still take effect.

        `ended` is called on the event loop when the function has ended, whoever waits, or when it never began; once in any case.
        """


class DiskFile(Protocol):
    """An open file. Offsets and sizes in bytes. Calls block; all but `fsync` are short."""

    def pread(self, size: int, offset: int) -> bytes: ...
    def pwrite(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        """Write everything or raise OSError."""
    def truncate(self, size: int) -> None: ...
    def fsync(self) -> None:
        """After an error never retried on the same file: write a new one from memory, or stop."""
    def size(self) -> int: ...
    def close(self) -> None: ...


class Disk(Protocol):
    """The local state folder. Paths are relative to it, with '/'. Raises OSError as the system does.

    A name (create, rename, unlink) is durable only after `sync_dir` of its folder, content only after `fsync`.
    """

    def open(self, path: str, *, create: bool = False) -> DiskFile:
        """Open for reading and writing; with `create` the file is made or emptied, else it must exist."""
    def rename(self, old: str, new: str) -> None: ...
    def unlink(self, path: str) -> None:
        """Absent is success."""
    def exists(self, path: str) -> bool: ...
    def size(self, path: str) -> int: ...
    def listdir(self, path: str) -> list[str]: ...
    def makedirs(self, path: str) -> None:
        """Mode 0700; present is success."""
    def sync_dir(self, path: str) -> None: ...
    def free_bytes(self) -> int: ...
    def blocks_read(self) -> int:
        """By this thread from the medium, as opposed to the system's memory, since it began; of any size, and 0 where nobody counts."""
    def real_path(self, path: str) -> str:
        """Where SQLite finds it, together with `sqlite_vfs`."""
    @property
    def sqlite_vfs(self) -> str | None:
        """Name of the apsw VFS below the encrypting one, or None for the system's own. It must have shared memory."""


@dataclass(frozen=True, slots=True)
class Doors:
    clock: Clock
    random: Randomness
    threads: Threads
    disk: Disk
    limits: Limits = DEFAULTS
    store_threads: StoreThreads = field(default_factory=lambda: OwnThreads())


class ShortCalls:
    """Calls that block for a time nobody knows beforehand, mostly fsyncs: on the event loop while they prove to be short, else in a thread.

    A hop to a thread and back costs 100-300 us; an fsync on a fast disk as little. What the last ones took decides, and a
    slow one counts at once: a disk that is not fast stalls the loop once, not always. `short_s` 0: always a thread.
    """

    def __init__(self, threads: Threads, clock: Clock, short_s: float) -> None:
        self._threads, self._clock, self._short_s = threads, clock, short_s
        self._expected_s = 2 * short_s

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        def timed() -> tuple[T, float]:
            began = self._clock.monotonic()
            answer = function(*args)
            return answer, self._clock.monotonic() - began

        answer, took_s = timed() if self._expected_s < self._short_s else await self._threads.run(timed)
        self._expected_s = max(took_s, 0.8 * self._expected_s + 0.2 * took_s)
        return answer


# ---------------------------------------------------------------- the real ones

class SystemClock:
    time_ns = staticmethod(time.time_ns)
    monotonic = staticmethod(time.monotonic)          # asked for twice a statement of the database

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)


class SystemRandomness:
    def bytes(self, count: int) -> bytes:
        return os.urandom(count)

    def uniform(self, low: float, high: float) -> float:
        import random
        return random.uniform(low, high)


class TrioThreads:
    """Worker threads of trio, at most `at_once`."""

    def __init__(self, at_once: int = 16) -> None:
        self._limiter = trio.CapacityLimiter(at_once)

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        return await trio.to_thread.run_sync(function, *args, limiter=self._limiter)


class OwnThreads:
    """A new thread for each call, gone with it (60 us): nothing is left of them where a process is to fork. How many there are at once is
    their caller's matter."""

    def __init__(self) -> None:
        self._running: set[threading.Thread] = set()

    async def run(self, function: Callable[..., T], *args: Any, ended: Callable[[], None]) -> T:
        token, done = trio.lowlevel.current_trio_token(), trio.Event()
        answers: list[T] = []
        errors: list[BaseException] = []

        def work() -> None:
            try:
                answers.append(function(*args))
            except BaseException as error:
                errors.append(error)
            try:
                token.run_sync_soon(finish)
            except trio.RunFinishedError:                # nobody is left to be told
                pass

        def finish() -> None:
            if not done.is_set():
                self._running.discard(thread)
                ended()
                done.set()

        thread = threading.Thread(target=work, name="store", daemon=True)
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            thread.start()
        except BaseException:                            # a KeyboardInterrupt may come when the thread has begun already
            finish()
            raise
        self._running.add(thread)
        await done.wait()
        thread.join()
        if errors:
            raise errors.pop()
        return answers.pop()


class SystemFile:
    def __init__(self, fd: int) -> None:
        self._fd = fd

    def pread(self, size: int, offset: int) -> bytes:
        return os.pread(self._fd, size, offset)

    def pwrite(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        view = memoryview(data)
        while view:
            done = os.pwrite(self._fd, view, offset)
            view, offset = view[done:], offset + done

    def truncate(self, size: int) -> None:
        os.ftruncate(self._fd, size)

    def fsync(self) -> None:
        os.fdatasync(self._fd)

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def close(self) -> None:
        os.close(self._fd)


class SystemDisk:
    """A real folder, made with mode 0700; files with 0600."""

    sqlite_vfs: str | None = None

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)
        os.makedirs(self.root, mode=0o700, exist_ok=True)

    def real_path(self, path: str) -> str:
        return os.path.join(self.root, path)

    def open(self, path: str, *, create: bool = False) -> SystemFile:
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT | os.O_TRUNC if create else 0)
        return SystemFile(os.open(self.real_path(path), flags, 0o600))

    def rename(self, old: str, new: str) -> None:
        os.rename(self.real_path(old), self.real_path(new))

    def unlink(self, path: str) -> None:
        try:
            os.unlink(self.real_path(path))
        except FileNotFoundError:
            pass

    def exists(self, path: str) -> bool:
        return os.path.lexists(self.real_path(path))

    def size(self, path: str) -> int:
        return os.stat(self.real_path(path)).st_size

    def listdir(self, path: str) -> list[str]:
        return sorted(os.listdir(self.real_path(path)))

    def makedirs(self, path: str) -> None:
        os.makedirs(self.real_path(path), mode=0o700, exist_ok=True)

    def sync_dir(self, path: str) -> None:
        fd = os.open(self.real_path(path), os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def free_bytes(self) -> int:
        found = os.statvfs(self.root)
        return found.f_bavail * found.f_frsize

    def blocks_read(self) -> int:
        return resource.getrusage(resource.RUSAGE_THREAD).ru_inblock
