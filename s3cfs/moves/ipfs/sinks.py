"""Where blocks go: into a store, into an archive, nowhere. `put` is called by several threads at once; `finish` once, after all of them."""
from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO, Protocol

from s3cfs.backends.ipfs import car
from s3cfs.backends.ipfs.cid import Cid
from s3cfs.backends.ipfs.exports import Exports
from s3cfs.backends.types import Body
from s3cfs.errors import Interrupted, StoreError, SystemFailure, Throttled

REMEMBERED = 1 << 16               # digests of blocks that went last: what comes again and again (zeros, copies) goes once
PATIENCE_S = 120.0
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0


class Sink(Protocol):
    def put(self, cid: Cid, data: Body) -> None:
        """`data` never changes. May wait, and may raise what became of an earlier block."""

    def finish(self, root: Cid) -> None:
        """Returns when all is where it belongs, the root too."""

    def abandon(self) -> None:
        """Nothing more is wanted: who waits in `put` is let go, with an error."""


class Nowhere:
    def put(self, cid: Cid, data: Body) -> None:
        pass

    def finish(self, root: Cid) -> None:
        pass

    def abandon(self) -> None:
        pass


class Once:
    """Whether a block has not been seen lately."""

    def __init__(self) -> None:
        self._lock, self._seen = threading.Lock(), dict[bytes, None]()

    def first(self, digest: bytes) -> bool:
        with self._lock:
            if digest in self._seen:
                return False
            if len(self._seen) == REMEMBERED:
                del self._seen[next(iter(self._seen))]
            self._seen[digest] = None
            return True


class Archive:
    """A CAR file. It has a name of its own until it is whole; then it replaces what had its name."""

    def __init__(self, file: BinaryIO, root: Cid) -> None:
        """`root`: any that is as long as the one there will be."""
        self._file, self._once, self._lock = file, Once(), threading.Lock()
        self._header_bytes = len(car.header([root]))
        file.write(bytes(self._header_bytes))

    def put(self, cid: Cid, data: Body) -> None:
        if self._once.first(cid.digest):
            with self._lock:
                for piece in car.section(cid, data):
                    self._file.write(piece)

    def finish(self, root: Cid) -> None:
        header = car.header([root])
        blocks = b""
        if len(header) != self._header_bytes:          # a raw block alone, where CIDs are v0 otherwise
            self._file.seek(self._header_bytes)
            blocks = self._file.read()
        self._file.seek(0)
        self._file.write(header + blocks)
        self._file.flush()
        os.fsync(self._file.fileno())

    def abandon(self) -> None:
        pass


@contextlib.contextmanager
def archive(path: str, root: Cid) -> Iterator[Archive]:
    """SystemFailure where the file cannot be written."""
    part = f"{path}.{os.getpid()}.part"
    try:
        with open(part, "x+b") as file:
            try:
                yield Archive(file, root)
                os.replace(part, path)
            except BaseException:
                os.unlink(part)
                raise
    except OSError as error:
        raise SystemFailure(f"{path}: {error.strerror}") from None


class Store:
    """Blocks go `at_once`; what the store refuses for the moment is tried again for two minutes."""

    def __init__(self, store: Exports, name: str, at_once: int, *, clock: Callable[[], float] = time.monotonic,
                 wait: Callable[[threading.Event, float], bool] = threading.Event.wait) -> None:
        """`name`: for people, of what is exported."""
        self._store, self._name, self._clock, self._wait = store, name, clock, wait
        self._once, self._pool = Once(), ThreadPoolExecutor(at_once, "export")
        self._room, self._over = threading.Semaphore(2 * at_once), threading.Event()
        self._error: BaseException | None = None

    def put(self, cid: Cid, data: Body) -> None:
        self._check()
        if self._once.first(cid.digest):
            self._room.acquire()
            self._pool.submit(self._patiently, lambda: self._store.put_block(cid.digest, data)).add_done_callback(self._done)

    def finish(self, root: Cid) -> None:
        self._pool.shutdown()
        self._check()
        self._patiently(lambda: self._store.keep_root(root, self._name))

    def abandon(self) -> None:
        self._over.set()

    def close(self) -> None:
        """What waits is dropped, what is under way ends."""
        self._over.set()
        self._pool.shutdown(cancel_futures=True)

    def _done(self, future: Future[None]) -> None:
        if not future.cancelled() and (error := future.exception()) is not None and self._error is None:
            self._error = error
            self._over.set()
        self._room.release()

    def _check(self) -> None:
        if self._over.is_set():
            raise self._error or Interrupted("the export was given up")

    def _patiently(self, call: Callable[[], None]) -> None:
        end, pause = self._clock() + PATIENCE_S, FIRST_WAIT_S
        while True:
            try:
                return call()
            except StoreError as error:
                wait = max(pause, (error.retry_after or 0.0) if isinstance(error, Throttled) else 0.0)
                if not error.retryable or self._clock() + wait > end or self._wait(self._over, wait):
                    raise
                pause = min(2 * pause, LONGEST_WAIT_S)


class Both:
    def __init__(self, *sinks: Sink) -> None:
        self._sinks = sinks

    def put(self, cid: Cid, data: Body) -> None:
        for sink in self._sinks:
            sink.put(cid, data)

    def finish(self, root: Cid) -> None:
        for sink in self._sinks:
            sink.finish(root)

    def abandon(self) -> None:
        for sink in self._sinks:
            sink.abandon()
