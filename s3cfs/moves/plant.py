"""A tree of another kind (source.py) is planted into a running filesystem, below one of its folders.

One task walks the folders: it makes every name, and then gives the folder its own attributes. Files are filled by several others; each
fetches its next extents ahead of what it writes, all together within `memory_bytes`. Bytes that occur several times are fetched once and
then read back from where they were planted.

INVARIANT G3 (it can be killed anywhere and go on). All that is known of the progress is in the target: an inode has the source's ctime only
when everything else of it is as it shall be, since setting its times is the last that is done to it, and a transaction that holds the times
holds the content that was written before. So whoever begins again, on another machine even, passes over what is whole, and makes the
rest anew. A file that lost something has no such ctime: it is tried again each time.
The folder that is planted into says in an attribute (MARK) whose import it is, until all has come; and when it ended, and was begun again.
Nothing is ever removed. What is there and cannot be what the import made is left alone and told; so is, after an import that ended with
losses, whatever was changed since.
"""
from __future__ import annotations

import json
import os
import stat
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from s3cfs.doors import Doors
from s3cfs.errors import FsError, NoAttribute, NoSpace, ReadOnly, UsageError
from s3cfs.limits import MIB
from s3cfs.meta.types import Inode
from s3cfs.vfs.core import Vfs
from s3cfs.vfs.types import ROOT_CALLER, SetAttr

from .fetching import Budget, Shared
from .source import Child, Extent, Finding, Kind, Lost, Source, Thing

MARK = b"trusted.s3cfs.import"
FILES_AT_ONCE = 24                 # most trees are small files: as many requests as that are under way
EXTENTS_AHEAD = 16                 # of one file
MEMORY_BYTES = 64 * MIB            # fetched and not written
WRITE_BYTES = 128 * 1024           # one call: others have their turn between two
WAITING_FILES = 256                # made, and to be filled
TIME_MIN_NS, TIME_MAX_NS = -(2**63), 2**63 - 1

OnProgress = Callable[[int], None]         # bytes that have come, or were there, since the last call


@dataclass(slots=True)
class Planted:
    """What came of it. `counts`: things by kind, names beyond the first (hard_links), attributes, files that were there already."""

    counts: Counter[str] = field(default_factory=Counter)
    bytes: int = 0                         # of files, in extents; without what was there already
    findings: Counter[Kind] = field(default_factory=Counter)


@dataclass(slots=True)
class _File:
    thing: Thing
    ino: int
    path: bytes
    blank: bool                            # made in this run, nothing written


@dataclass(slots=True)
class _Folder:
    thing: Thing
    ino: int
    path: bytes
    fresh: bool                            # made in this run: nothing can be in it


class Planter:
    """`run` once."""

    def __init__(self, doors: Doors, vfs: Vfs, source: Source, into: int, *, report: Callable[[Finding], None],
                 progress: OnProgress = lambda count: None, memory_bytes: int = MEMORY_BYTES) -> None:
        """`into`: the folder, a number of the target's; it becomes what the source's root is."""
        self._vfs, self._source, self._into = vfs, source, into
        self._report_to, self._progress = report, progress
        self._budget = Budget(memory_bytes)
        self._shared = Shared(doors, vfs, source)
        self._now_ns = doors.clock.time_ns
        self._again = False
        self._others_ns = (0, 0)                       # what was changed between these was changed by somebody else
        self._links: dict[int, int] = {}               # of things with several names: source's number -> ours
        self._whole: set[int] = set()                  # of those, which have all of theirs
        self._lost = False
        self.planted = Planted()

    async def run(self) -> Planted:
        """FsError, StoreError: it can be begun again. UsageError when the folder holds something else."""
        await self._claim()
        root = await self._source.root()
        give, take = trio.open_memory_channel[_File](WAITING_FILES)
        async with trio.open_nursery() as nursery:
            async with take:
                for _ in range(FILES_AT_ONCE):
                    nursery.start_soon(self._fill_files, take.clone())
            async with give:
                await self._walk(_Folder(root, self._into, b"", fresh=not self._again), give)
        await self._finish(root)
        return self.planted

    # ---------------------------------------------------------------- the mark

    async def _claim(self) -> None:
        mine = self._source.identity
        try:
            mark = json.loads(await self._vfs.getxattr(self._into, MARK))
            known, ended_ns, again_ns = str(mark["source"]), mark.get("ended_ns"), mark.get("again_ns")
        except NoAttribute:
            handle = await self._vfs.opendir(self._into)
            full = bool(await self._vfs.readdir(handle, 0, 1))
            await self._vfs.releasedir(handle)
            if full:
                raise UsageError("the folder to import into is not empty: name one that is, or a new one (--into)") from None
            await self._mark()
            return
        except (ValueError, KeyError, TypeError, AttributeError):
            known = "?"
        if known != mine:
            raise UsageError(f"an import of something else into this folder has not ended ({known}): name another folder (--into)")
        self._again = True
        if ended_ns is not None:                       # with losses; what comes from now on is the import's again, killed or not
            again_ns = again_ns or self._now_ns()
            await self._mark(ended_ns=ended_ns, again_ns=again_ns)
            self._others_ns = int(ended_ns), int(again_ns)

    async def _mark(self, **more: int) -> None:
        await self._vfs.setxattr(self._into, MARK, json.dumps({"source": self._source.identity, **more}).encode())

    async def _finish(self, root: Thing) -> None:
        await self._attributes(root, self._into, b"", MARK)
        if self._lost:
            await self._mark(ended_ns=self._now_ns())
        else:
            await self._vfs.removexattr(self._into, MARK)
        await self._vfs.setattr(self._into, SetAttr(ctime_ns=_clamp(root.ctime_ns)), ROOT_CALLER)

    # ---------------------------------------------------------------- names

    async def _walk(self, top: _Folder, files: trio.MemorySendChannel[_File]) -> None:
        left = [top]
        while left:
            folder, after = left.pop(), 0
            expected = set[bytes]()
            while batch := await self._source.children(folder.thing.ino, after):
                for child in batch:
                    if not folder.fresh:
                        expected.add(child.name)
                    if (below := await self._child(folder, child, files)) is not None:
                        left.append(below)
                after = batch[-1].after
            if not folder.fresh:
                await self._tell_others(folder, expected)
            if folder is not top:
                await self._attributes(folder.thing, folder.ino, folder.path)
            self.planted.counts["folders"] += 1

    async def _child(self, folder: _Folder, child: Child, files: trio.MemorySendChannel[_File]) -> _Folder | None:
        """Make a name, or find it made; a folder is handed back to be walked."""
        name, thing = child.name, child.thing
        path = _below(folder.path, name)
        try:
            found = None if folder.fresh else await self._vfs.lookup(folder.ino, name)
            if found is not None and stat.S_IFMT(found.mode) != stat.S_IFMT(thing.mode):
                self._report(Kind.REFUSED, path, "something else has this name already; it is left alone")
            elif stat.S_ISDIR(thing.mode):
                if found is None:
                    found = await self._vfs.mkdir(folder.ino, name, 0o700, ROOT_CALLER)
                    return _Folder(thing, found.ino, path, True)
                return _Folder(thing, found.ino, path, False)
            elif thing.names > 1 and thing.ino in self._links:
                await self._further_name(folder.ino, name, path, thing, found)
            else:
                await self._first_name(folder.ino, name, path, thing, found, files)
        except FsError as error:
            if isinstance(error, (NoSpace, ReadOnly)):
                raise
            self._report(Kind.REFUSED, path, f"not imported: {error}")
        return None

    async def _further_name(self, parent: int, name: bytes, path: bytes, thing: Thing, found: Inode | None) -> None:
        ino = self._links[thing.ino]
        if found is None:
            await self._vfs.link(ino, parent, name)
            if ino in self._whole:                     # the new name moved its ctime
                await self._vfs.setattr(ino, SetAttr(ctime_ns=_clamp(thing.ctime_ns)), ROOT_CALLER)
        elif found.ino != ino:
            self._report(Kind.REFUSED, path, "another file has this name already; it is left alone, and is no hard link")
            return
        self.planted.counts["hard_links"] += 1

    async def _first_name(self, parent: int, name: bytes, path: bytes, thing: Thing, found: Inode | None,
                          files: trio.MemorySendChannel[_File]) -> None:
        self.planted.counts[_word(thing.mode)] += 1
        blank = found is None
        if found is None:
            if stat.S_ISLNK(thing.mode):
                found = await self._vfs.symlink(parent, name, thing.target, ROOT_CALLER)
            else:
                found = await self._vfs.mknod(parent, name, stat.S_IFMT(thing.mode) | 0o600, thing.rdev, ROOT_CALLER)
        if thing.names > 1:
            self._links[thing.ino] = found.ino
        if not blank:
            if _same(found, thing):
                self.planted.counts["there_already"] += 1
                self._whole.add(found.ino)
                if stat.S_ISREG(thing.mode):
                    await self._skip(thing.ino)
                return
            if (found.target or b"") != thing.target or (_word(thing.mode) == "devices" and found.rdev != thing.rdev):
                self._report(Kind.REFUSED, path, "something else has this name already; it is left alone")
                return
            if self._others_ns[0] < found.ctime_ns < self._others_ns[1]:
                self._report(Kind.NOTE, path, "it was changed since it was imported, and is left alone")
                return
        if stat.S_ISREG(thing.mode):
            await files.send(_File(thing, found.ino, path, blank))
        else:
            await self._attributes(thing, found.ino, path)

    async def _tell_others(self, folder: _Folder, expected: set[bytes]) -> None:
        handle, cookie = await self._vfs.opendir(folder.ino), 0
        while rows := await self._vfs.readdir(handle, cookie, 500):
            for name, _, cookie in rows:  # noqa: B007
                if name not in expected:
                    self._report(Kind.NOTE, _below(folder.path, name), "it is not in the source, and is left alone")
        await self._vfs.releasedir(handle)

    # ---------------------------------------------------------------- files

    async def _fill_files(self, files: trio.MemoryReceiveChannel[_File]) -> None:
        async with files:
            async for file in files:
                await self._fill(file)

    async def _fill(self, file: _File) -> None:
        lost: list[tuple[Extent, Lost]] = []
        await self._vfs.open(file.ino, os.O_WRONLY | (0 if file.blank else os.O_TRUNC))
        try:
            end = await self._write(file, lost)
            if end != file.thing.size:
                await self._vfs.setattr(file.ino, SetAttr(size=file.thing.size), ROOT_CALLER)
            await self._vfs.flush(file.ino)
        finally:
            await self._vfs.release(file.ino)
        for kind in (Kind.MISSING, Kind.DAMAGED):
            if these := [(extent, why) for extent, why in lost if why.kind is kind]:
                reasons = list(dict.fromkeys(str(why) for _, why in these))
                text = "; ".join(reasons[:3]) + (f"; and {len(reasons) - 3} more" if len(reasons) > 3 else "")
                more = f" ({file.thing.names - 1} further names)" if file.thing.names > 1 else ""
                self._report(kind, file.path, text + more, _joined([extent for extent, _ in these], file.thing.size))
        self._lost |= bool(lost)
        await self._attributes(file.thing, file.ino, file.path, whole=not lost)

    async def _write(self, file: _File, lost: list[tuple[Extent, Lost]]) -> int:
        """All extents, each fetched ahead; where the last byte was written."""
        coming: deque[_Coming] = deque()
        written = at = 0

        async def put_down() -> None:
            nonlocal written
            one = coming.popleft()
            await one.done.wait()
            if one.lost is not None:
                lost.append((one.extent, one.lost))
            else:
                data = memoryview(one.data)[:max(0, file.thing.size - one.extent.offset)]
                for start in range(0, len(data), WRITE_BYTES):
                    piece = data[start:start + WRITE_BYTES]
                    await self._vfs.write(file.ino, one.extent.offset + start, bytes(piece))
                    written = one.extent.offset + start + len(piece)
                self._shared.planted(one.extent, file.ino, len(data))
                self.planted.bytes += len(data)
            one.data = b""
            self._budget.give(one.extent.length)
            self._progress(one.extent.length)

        async with trio.open_nursery() as nursery:
            while batch := await self._source.extents(file.thing.ino, at):
                for extent in batch:
                    while coming and (len(coming) >= EXTENTS_AHEAD or not self._budget.free(extent.length)):
                        await put_down()               # whoever waits for memory holds none
                    await self._budget.take(extent.length)
                    one = _Coming(extent)
                    coming.append(one)
                    nursery.start_soon(self._fetch, file.thing.ino, one)
                at = batch[-1].offset + batch[-1].length
            while coming:
                await put_down()
        return written

    async def _fetch(self, ino: int, one: _Coming) -> None:
        try:
            one.data = await self._shared.fetch(ino, one.extent)
        except Lost as why:
            one.lost = why
        one.done.set()

    async def _skip(self, ino: int) -> None:
        """Of a file that is there: its share of the bar."""
        at = 0
        while batch := await self._source.extents(ino, at):
            self._progress(sum(extent.length for extent in batch))
            at = batch[-1].offset + batch[-1].length

    # ---------------------------------------------------------------- attributes

    async def _attributes(self, thing: Thing, ino: int, path: bytes, *spared: bytes, whole: bool = True) -> None:
        """All of them, the times last; without ctime unless it is `whole`."""
        for text in thing.dropped:
            self._report(Kind.DROPPED, path, text)
        if thing.xattrs:
            for name, value in await self._source.xattrs(thing.ino):
                if name in spared:
                    continue
                try:
                    await self._vfs.setxattr(ino, name, value)
                    self.planted.counts["xattrs"] += 1
                except FsError as error:
                    if isinstance(error, (NoSpace, ReadOnly)):
                        raise
                    self._report(Kind.DROPPED, path, f"extended attribute {name.decode('utf-8', 'backslashreplace')}: {error}")
        wanted = SetAttr(mode=stat.S_IMODE(thing.mode), uid=thing.uid, gid=thing.gid, atime_ns=thing.atime_ns, mtime_ns=thing.mtime_ns,
                         ctime_ns=thing.ctime_ns if whole else None)
        try:
            await self._vfs.setattr(ino, wanted, ROOT_CALLER)
        except FsError as error:
            if isinstance(error, (NoSpace, ReadOnly)):
                raise
            self._report(Kind.REFUSED, path, f"owner, mode and times are not kept: {error}")
        if whole:
            self._whole.add(ino)

    def _report(self, kind: Kind, path: bytes, text: str, ranges: tuple[tuple[int, int], ...] = ()) -> None:
        self.planted.findings[kind] += 1
        self._report_to(Finding(kind, path, text, ranges))


@dataclass(slots=True)
class _Coming:
    extent: Extent
    data: bytes = b""
    lost: Lost | None = None
    done: trio.Event = field(default_factory=trio.Event)


def _below(path: bytes, name: bytes) -> bytes:
    return path + b"/" + name if path else name


def _clamp(time_ns: int) -> int:
    return min(max(time_ns, TIME_MIN_NS), TIME_MAX_NS)


def _same(found: Inode, thing: Thing) -> bool:
    """Whether all that is set last is set."""
    return ((found.mode, found.uid, found.gid, found.atime_ns, found.mtime_ns, found.ctime_ns)
            == (thing.mode, thing.uid, thing.gid, _clamp(thing.atime_ns), _clamp(thing.mtime_ns), _clamp(thing.ctime_ns))
            and (not stat.S_ISREG(thing.mode) or found.size == thing.size))


def _word(mode: int) -> str:
    return {stat.S_IFREG: "files", stat.S_IFLNK: "symlinks", stat.S_IFIFO: "fifos", stat.S_IFSOCK: "sockets", stat.S_IFCHR: "devices",
            stat.S_IFBLK: "devices"}.get(stat.S_IFMT(mode), "others")


def _joined(extents: list[Extent], size: int) -> tuple[tuple[int, int], ...]:
    """Ranges that touch are one."""
    found: list[tuple[int, int]] = []
    for extent in sorted(extents):
        start, end = extent.offset, min(extent.offset + extent.length, max(size, extent.offset + 1))
        if found and found[-1][1] >= start:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((start, end))
    return tuple(found)
