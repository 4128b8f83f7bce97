"""Damage that was met: marked so that no machine uses those chunks again, counted, and named with the files that it hits.

`bad` and `whole` are called in the middle of a read and cost nothing but rows; the files are looked up by `run`, for all chunks that came
together, since that is a pass over all extents, in a thread. Marks are replicated rows, so a mount knows what earlier ones and other
machines met. A mount that may not write keeps what it meets in memory.
"""
from __future__ import annotations

import logging
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import trio

from s3cfs.doors import Doors
from s3cfs.errors import ReadOnly, S3cfsError
from s3cfs.ids import PackName
from s3cfs.meta import Chunk, Meta, hits

log = logging.getLogger(__name__)

LAST_MAX = 20                      # finds that are kept
MET_MAX = 100_000                  # chunks that are remembered beside the marks
COUNTED_MAX = 1000                 # marks that are looked up whenever somebody asks; of more the number may be a minute old
AT_ONCE = 200                      # marks that are looked up in one go
HITS_MAX = 1000                    # ranges of files looked up at a time
TOGETHER_S = 0.5                   # what is met within this time is looked up together,
PAUSE_S = 30.0                     # and the next so much later


@dataclass(frozen=True, slots=True)
class Find:
    """Bytes [start, end) of a file that cannot be read."""

    path: str
    start: int
    end: int
    chunk: str                     # 16 hex digits of its id
    pack: str                      # name, or the row's number if it has none
    what: str                      # "damaged" | "missing"
    time_ns: int                   # wall clock


class Damage:
    def __init__(self, doors: Doors, meta: Meta) -> None:
        self._doors, self._meta = doors, meta
        self._begin: Callable[[], None] = _never
        self._met: set[int] = set()                                  # since the mount
        self._pending: dict[int, tuple[str, str, str]] = {}          # to be looked up: chunk -> (hash, pack, what)
        self._wanted = trio.Event()
        self._uncounted = trio.Event()
        self._in_use = sys.maxsize                                   # of the marked ones, when they were last counted
        self.last: deque[Find] = deque(maxlen=LAST_MAX)              # newest last

    def use(self, begin: Callable[[], None]) -> None:
        """`begin` is called before rows change, and raises when they may not."""
        self._begin = begin

    def begin(self) -> None:
        """Rows are about to change. Raises when they may not."""
        self._begin()

    @property
    def count(self) -> int:
        """Chunks known to be damaged or lost that files use, those that earlier mounts and other machines met included."""
        try:
            marks = self._meta.bad_chunks()
            if len(marks) <= COUNTED_MAX:
                self._in_use = self._meta.bad_in_use()
            else:
                self._uncounted.set()
            return min(self._in_use, len(marks)) + len(self._met - marks)
        except S3cfsError:
            return len(self._met)

    @property
    def met(self) -> int:
        """Of them, those met since the mount."""
        return len(self._met)

    def summary(self) -> str | None:
        """One line for people, or None when all is well."""
        if not self.count:
            return None
        chunks = "1 chunk is" if self.count == 1 else f"{self.count} chunks are"
        where = f", in {self.last[-1].path} for one" if self.last else ""
        return f"{chunks} damaged or lost{where}: run s3cfs fsck --full"

    def bad(self, chunk: Chunk, name: PackName | None, what: str, text: str) -> None:
        """The chunk cannot be had whole. `what`: damaged | missing; `text`: one line about it."""
        if chunk.id in self._met:
            log.debug("again: %s", text)
            return
        log.error("%s", text)
        self._change(self._meta.mark_bad, chunk.id)
        if len(self._met) < MET_MAX:
            self._met.add(chunk.id)
            self._pending[chunk.id] = (chunk.hash.hex()[:16], name or str(chunk.pack), what)
            self._wanted.set()

    def whole(self, chunk: Chunk) -> None:
        """The chunk was read whole from where it must be."""
        if chunk.id not in self._met and chunk.id not in self._meta.bad_chunks():
            return
        log.warning("chunk %d (%s) is whole again", chunk.id, chunk.hash.hex()[:16])
        self._met.discard(chunk.id)
        self._pending.pop(chunk.id, None)
        self.last = deque((find for find in self.last if find.chunk != chunk.hash.hex()[:16]), maxlen=LAST_MAX)
        self._change(self._meta.unmark_bad, chunk.id)

    def _change(self, change: Callable[[int], None], chunk: int) -> None:
        try:
            self._begin()
            change(chunk)
        except S3cfsError as error:
            log.debug("the mark of chunk %d is not written: %s", chunk, error)

    async def run(self) -> None:
        """Name the files, until cancelled: first those that were known to be damaged before."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._count)
            await self._name()

    async def _count(self) -> None:
        """Where many are marked: who asks gets what was counted last."""
        while True:
            await self._uncounted.wait()
            try:
                self._in_use = await self._doors.threads.run(self._meta.beside.bad_in_use)
            except S3cfsError as error:
                log.debug("marked chunks cannot be counted: %s", error)
            self._uncounted = trio.Event()
            await self._doors.clock.sleep(PAUSE_S)

    async def _name(self) -> None:
        for number, id in enumerate(sorted(self._meta.bad_chunks())):
            if number % AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
            chunk = await self._meta.chunk(id)
            if chunk is not None and chunk.refs:
                self._pending.setdefault(id, (chunk.hash.hex()[:16], str(chunk.pack), "damaged"))
                self._wanted.set()
        while True:
            await self._wanted.wait()
            await self._doors.clock.sleep(TOGETHER_S)
            self._wanted = trio.Event()
            pending, self._pending = self._pending, {}
            try:
                await self._name_files(pending)
            except S3cfsError as error:
                log.warning("the files of %d damaged chunks cannot be looked up: %s", len(pending), error)
            await self._doors.clock.sleep(PAUSE_S)

    async def _name_files(self, pending: dict[int, tuple[str, str, str]]) -> None:
        found = await hits(self._meta.reverse_beside, pending, HITS_MAX)
        now_ns = self._doors.clock.time_ns()
        for hit in found:
            find = Find(hit.path, hit.start, hit.end, *pending[hit.chunk], now_ns)
            self.last.append(find)
            log.error("%s: %s bytes %d-%d (chunk %s, pack %s)", find.what, find.path, find.start, find.end - 1, find.chunk, find.pack)
        if len(found) == HITS_MAX:
            log.error("damage hits further files: s3cfs fsck --full names them all")
        elif unused := pending.keys() - {hit.chunk for hit in found}:
            log.warning("%d of the damaged chunks are used by no file", len(unused))


def _never() -> None:
    raise ReadOnly("nobody said that rows may change")
