"""`s3cfs ipfs export`: a file or a tree as UnixFS, named by the CID that `ipfs add -r` gives it.

Files are read by a few threads, a leaf at a time, and their blocks go on at once; a directory's node follows from the names of what is
in it. So memory holds some leaves, and of each directory on the way down its entries.
"""
from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from s3cfs.app.store import open_store
from s3cfs.backends.ipfs.cid import DAG_PB, Cid
from s3cfs.backends.ipfs.dag import Form, Root
from s3cfs.backends.ipfs.exports import Exports
from s3cfs.backends.wrapper import Wrapper
from s3cfs.config import Settings
from s3cfs.errors import ConfigError, ExitCode, Interrupted, SystemFailure, Unsupported
from s3cfs.moves.ipfs.reading import Reading
from s3cfs.moves.ipfs.sinks import Both, Nowhere, Sink, Store, archive
from s3cfs.moves.ipfs.tree import Kind, Step, Walk, look
from s3cfs.moves.places import OnProgress

ADD = Form(links_max=174)          # Kubo's default number of links; LINKS_MAX is that of its profile unixfs-v1-2025
READERS = 4                        # files that are read at once
AHEAD = 16                         # steps of the walk that are under way
VANISHED = (Kind.FILE, Kind.SYMLINK, Kind.GONE)       # where one of these comes to nothing; another kind never comes to anything
NOTHING = "IPFS has nothing for that"


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """`car`: an archive to write. `hidden`: names that begin with '.', too."""

    form: Form = ADD
    car: str | None = None
    hidden: bool = False


@dataclass(slots=True)
class ExportResult:
    cid: str = ""
    files: int = 0
    folders: int = 0
    symlinks: int = 0
    bytes: int = 0                 # of content
    block_bytes: int = 0           # of all blocks; one that occurs twice counts twice
    hidden: int = 0                # names that were left out since they begin with '.'
    changed: list[str] = field(default_factory=list)          # what was read last may be of no one moment
    gone: list[str] = field(default_factory=list)             # left out
    special: list[str] = field(default_factory=list)          # left out: IPFS has nothing for it

    @property
    def exit_code(self) -> ExitCode:
        return (ExitCode.UNSUPPORTED if self.special else ExitCode.DAMAGED if self.changed else
                ExitCode.OBJECT_MISSING if self.gone else ExitCode.OK)


Report = Callable[[str, str], None]        # a path, and what is the matter with it


def export(path: str, target: Settings | None, options: ExportOptions, report: Report, progress: OnProgress) -> ExportResult:
    """`target` None: no store. Whatever ends it early, nothing names what was stored so far."""
    with contextlib.ExitStack() as stack:
        sinks: list[Sink] = []
        if options.car is not None:
            sinks.append(stack.enter_context(archive(_apart(options.car, path), Cid(options.form.version, DAG_PB, bytes(32)))))
        if target is not None:
            sinks.append(stack.enter_context(_opened(target, _title(path))))
        return _Export(Both(*sinks) if sinks else Nowhere(), options, report, progress).run(path)


@contextlib.contextmanager
def _opened(target: Settings, name: str) -> Iterator[Store]:
    backend = open_store(target)
    bare = backend.inner if isinstance(backend, Wrapper) else backend
    try:
        if not isinstance(bare, Exports):
            raise ConfigError(f"{target.url} is no IPFS datastore: say where to (--to URL, --car FILE), or --only-hash")
        bare.check()
        store = Store(bare, name, bare.capabilities.parallel_writes)
        try:
            yield store
        finally:
            store.close()
    finally:
        backend.close()


def _title(path: str) -> str:
    """For people, whatever bytes the name is made of."""
    name = os.fsencode(os.path.basename(os.path.abspath(path))).decode("utf-8", "replace")
    return "".join(c if c.isprintable() else " " for c in name) or "root"


def _apart(archive_path: str, path: str) -> str:
    """ConfigError: an archive that is exported itself would have no end."""
    file, top = os.path.realpath(archive_path), os.path.realpath(path)
    if file == top or file.startswith(os.path.join(top, "")):
        raise ConfigError(f"{archive_path} lies in what is exported: give the archive another place")
    return archive_path


class _Export:
    def __init__(self, sink: Sink, options: ExportOptions, report: Report, progress: OnProgress) -> None:
        self._sink, self._options, self._report, self._progress = sink, options, report, progress
        self._reading = Reading(options.form, sink.put, self._moved)
        self._over, self._lock = threading.Event(), threading.Lock()
        self._error: BaseException | None = None       # the first
        self._done = 0
        self._total: int | None = None                 # bytes; how much a tree holds is known when all of it was read
        self.result = ExportResult()

    def run(self, path: str) -> ExportResult:
        kind, size = look(path)
        if kind is not Kind.FOLDER:
            self._total = size
        root = self._tree(path) if kind is Kind.FOLDER else self._one(kind, path)
        if root is None and kind in VANISHED:
            raise SystemFailure(f"{path}: there is no such file")
        if root is None:
            raise Unsupported("export", path, f"it is a {kind.value}: {NOTHING}")
        self._sink.finish(root.cid)
        result = self.result
        result.cid, result.bytes, result.block_bytes = str(root.cid), root.size, root.tsize
        return result

    def _tree(self, path: str) -> Root:
        """Steps are settled in the order of the walk: so what is in a folder is there when the folder's turn comes."""
        walk, under_way = Walk(path, with_hidden=self._options.hidden), deque[tuple[Step, Future[Root | None]]]()
        with ThreadPoolExecutor(READERS, "read") as readers:
            try:
                for step in walk:
                    if len(under_way) == AHEAD:
                        self._settle(*under_way.popleft())
                    under_way.append((step, readers.submit(self._in_a_thread, step)))
                while under_way:
                    root = self._settle(*under_way.popleft())
            except BaseException as error:
                readers.shutdown(wait=False, cancel_futures=True)
                raise self._gave_up(error) from None
        self.result.hidden = walk.hidden
        assert root is not None                        # the last step is the top
        return root

    def _in_a_thread(self, step: Step) -> Root | None:
        try:
            return self._one(step.kind, step.path)
        except BaseException as error:
            raise self._gave_up(error) from None

    def _gave_up(self, error: BaseException) -> BaseException:
        """All who are at work end at their next leaf. The error that came first."""
        with self._lock:
            self._error = self._error or error
        self._over.set()
        self._sink.abandon()
        return self._error

    def _one(self, kind: Kind, path: str) -> Root | None:
        """Anything but a folder. None: it is not, or not any more, what IPFS has something for."""
        found = None
        if kind is Kind.SYMLINK:
            found = self._reading.symlink(path)
        elif kind is Kind.FILE:
            found = self._reading.file(path)
        if found is None:
            return None
        root, same = found
        with self._lock:
            self.result.files += kind is Kind.FILE
            self.result.symlinks += kind is Kind.SYMLINK
            if not same:
                self.result.changed.append(path)
                self._report(path, "changed while it was read: what is exported may be of no one moment")
        return root

    def _settle(self, step: Step, looked: Future[Root | None]) -> Root | None:
        root, into = looked.result(), step.folder if step.kind is not Kind.FOLDER else step.folder.above
        if step.kind is Kind.FOLDER:
            try:
                root = step.folder.made.finish(self._options.form, self._sink.put)
            except ValueError as error:
                raise Unsupported("export", step.path, error) from None
            self.result.folders += 1
        if root is None:
            self._left_out(step)
        elif into is not None:
            into.made.add(step.name, root)
        return root

    def _left_out(self, step: Step) -> None:
        vanished = step.kind in VANISHED
        with self._lock:
            (self.result.gone if vanished else self.result.special).append(step.path)
            self._report(step.path, "vanished meanwhile, and is left out" if vanished else f"a {step.kind.value}, left out: {NOTHING}")

    def _moved(self, size: int) -> None:
        """In any thread."""
        if self._over.is_set():
            raise Interrupted("the export was given up")
        with self._lock:
            self._done += size
            self._progress({"done": self._done, "total": self._total, "unit": "bytes", "text": "exporting"})
