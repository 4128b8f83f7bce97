"""Sealed bytes of packs that are in the store: sparse files `cache/<pack name>`, least recently used packs go first.

The cache may lose anything at any time and may hold wrong bytes: every chunk verifies itself when it is opened, so a table that does
not match its file (a crash, a hole where bytes were not synced) costs one more request, never an answer. Hence nothing here is fsynced
but the table, and no error of the disk leaves this module: a disk that is full or fails makes the cache smaller, and reads go on from
the store.

Valid ranges are byte intervals whose borders are multiples of `fetch_align_bytes` or the pack's end, so a pack of 64 MiB has at most
512; they are kept as 32 bit numbers (ranges.py, and the table of them). Bytes in valid ranges are what `used_bytes` counts. A file being
read or written is not evicted. Everything runs on the event-loop thread but the bodies named `*_in_thread`.
"""
from __future__ import annotations

import errno
import logging
from collections import OrderedDict
from collections.abc import Sequence

import trio

from s3cfs.blocks.handles import SHORT, Handle, Handles, Turn, read_fully
from s3cfs.blocks.ranges import TABLE, Ranges, Table
from s3cfs.doors import DiskFile, Doors
from s3cfs.ids import PackName

log = logging.getLogger(__name__)

FOLDER = "cache"
MAX_PACKS = 50_000                 # files, so that a cache of tiny packs stays bounded in memory and inodes
OPEN_FILES = 64
SHRINK = 0.75                      # of what is used: the new limit after the disk refused a write
AT_ONCE = 500                      # entries that are handled without giving way


class PackCache:
    def __init__(self, doors: Doors, limit_bytes: int | None = None) -> None:
        """Run `load` in a thread before anything else."""
        self._doors, self._align = doors, doors.limits.fetch_align_bytes
        limit_bytes = doors.limits.cache_bytes if limit_bytes is None else limit_bytes
        self._handles = Handles(doors.disk, OPEN_FILES)
        self._packs: OrderedDict[str, Ranges] = OrderedDict()    # least recently used first
        self._doomed: dict[str, None] = {}                       # paths to unlink; their names take no data until that is done
        self._saving, self._trimming = Turn(), Turn()
        self._allowed = limit_bytes                              # what the disk seems to bear, at most limit_bytes
        self.limit_bytes = limit_bytes
        self._table = Table(doors.disk)
        self._unsaved: dict[str, bool] = {}                      # since the table was written: changed, or used only; in the order of use
        self._changed = False
        self.used_bytes = 0
        self.failures = 0                                        # errors of the disk that were swallowed

    # ------------------------------------------------------------ reading

    def covers(self, name: PackName, offset: int, size: int) -> bool:
        ranges = self._packs.get(name)
        return ranges is not None and ranges.covers(offset, offset + size)

    def takes(self, size: int) -> bool:
        """Would so many bytes be kept? Not while the disk is full, or when the cache is smaller than that."""
        return size <= self._allowed

    def lease(self, name: PackName, offset: int, size: int) -> Handle | None:
        """The pack's file if it holds that range, for reads in a thread; pair with `give_back`. It is not evicted meanwhile."""
        ranges = self._packs.get(name)
        if ranges is None or not ranges.covers(offset, offset + size):
            return None
        try:
            handle = self._handles.take(_path(name))
        except OSError as error:
            self._broken(name, "open", error)
            return None
        self._packs.move_to_end(name)
        self._unsaved[name] = self._unsaved.pop(name, False)
        return handle

    def give_back(self, handle: Handle) -> None:
        self._handles.give_back(handle)

    def read(self, name: PackName, offset: int, size: int) -> bytes | None:
        """Sealed bytes, or None when they are not here."""
        handle = self.lease(name, offset, size)
        if handle is None:
            return None
        try:
            data = read_fully(handle.file, size, offset)
        except OSError as error:
            data = b""
            self.failures += 1
            log.warning("cache: read of %s: %s", name, error)
        finally:
            self.give_back(handle)
        if len(data) != size:
            self.invalidate(name, offset, size)
            return None
        return data

    async def whole(self, name: PackName) -> bytes | None:
        """All bytes of the pack, if they are here. Not verified. OSError."""
        ranges = self._packs.get(name)
        borders = ranges.borders() if ranges is not None else []
        handle = self.lease(name, 0, borders[1]) if len(borders) == 2 and not borders[0] else None
        if handle is None:
            return None
        try:
            return await self._doors.threads.run(read_fully, handle.file, borders[1], 0)
        finally:
            self.give_back(handle)

    # ------------------------------------------------------------ filling

    async def store(self, name: PackName, offset: int, data: bytes | memoryview) -> None:
        """Keep these bytes of the pack. `offset` is aligned, the end too or it is the pack's. Never raises for the disk's sake."""
        if offset % self._align:
            raise ValueError(f"not aligned: {offset}")
        path = _path(name)
        if len(data) > self._allowed or path in self._doomed:
            self._regain(len(data))
            return
        try:
            handle = self._handles.take(path, create=name not in self._packs)
        except OSError as error:
            self._broken(name, "open", error)
            return
        self._packs.setdefault(name, Ranges())
        self._packs.move_to_end(name)
        try:
            with trio.CancelScope(shield=True):                  # ms; the table must say what was written
                await self._doors.threads.run(self._store_in_thread, handle.file, offset, data)
        except OSError as error:
            self._broken(name, "write", error)
        else:
            self._regain(len(data))
            if self._packs.get(name) is not None and not handle.dropped:
                self._change(name, offset, offset + len(data), add=True)
        finally:
            self._handles.give_back(handle)
        await self.trim()

    def _regain(self, stored_bytes: int) -> None:
        """A disk that was full may have room again: the limit grows back slowly."""
        self._allowed = min(self.limit_bytes, self._allowed + stored_bytes // 8)

    def _store_in_thread(self, file: DiskFile, offset: int, data: bytes | memoryview) -> None:
        # the journal's and the database's needs come first
        if self._doors.disk.free_bytes() < 2 * self._doors.limits.disk_reserve_bytes + len(data):
            raise OSError(errno.ENOSPC, "the disk's reserve is not for the cache")
        file.pwrite(data, offset)

    def adopt(self, name: PackName, path: str, size: int) -> None:
        """Take over the file of a whole pack that is in the store now. The old path is gone afterwards, whatever happens."""
        mine = _path(name)
        if size > self._allowed or mine in self._doomed:
            self._doomed[path] = None
            return
        self._forget(name)
        try:
            self._doors.disk.rename(path, mine)
        except OSError as error:
            self._doomed[path] = self._doomed[mine] = None
            self._broken(name, "rename", error)
            return
        self._packs[name] = Ranges()
        self._change(name, 0, size, add=True)

    def invalidate(self, name: PackName, offset: int, size: int) -> None:
        """These bytes are not what they should be: forget them and what shares their aligned blocks."""
        if name in self._packs:
            start = offset - offset % self._align
            self._change(name, start, -(-(offset + size) // self._align) * self._align, add=False)

    def _change(self, name: str, start: int, end: int, *, add: bool) -> None:
        ranges = self._packs[name]
        before = ranges.total
        self._note(name)
        (ranges.add if add else ranges.remove)(start, end)
        self.used_bytes += ranges.total - before

    def _note(self, name: str) -> None:
        """The table is to say so."""
        self._unsaved.pop(name, None)
        self._unsaved[name] = self._changed = True

    # ------------------------------------------------------------ going

    async def trim(self, to_bytes: int | None = None) -> None:
        """Evict down to the limit (or to `to_bytes`, when the journal needs the disk), unlinking in a thread. For after `adopt`; `store`
        does it itself."""
        limit = self._allowed if to_bytes is None else min(to_bytes, self._allowed)
        while True:
            victims = self._victims(limit)
            for name in victims:
                self._forget(name)
                self._doomed[_path(name)] = None
            if self._doomed:
                async with self._trimming:
                    paths = list(self._doomed)
                    with trio.CancelScope(shield=True):
                        await self._doors.threads.run(self._unlink_in_thread, paths)
                    for path in paths:
                        self._doomed.pop(path, None)
            if len(victims) < AT_ONCE:
                return

    def _victims(self, limit: int) -> list[str]:
        """At most AT_ONCE."""
        used, count, victims = self.used_bytes, len(self._packs), list[str]()
        for name, ranges in self._packs.items():
            if len(victims) == AT_ONCE or (used <= limit and count <= MAX_PACKS):
                break
            if not self._handles.in_use(_path(name)):
                victims.append(name)
                used, count = used - ranges.total, count - 1
        return victims

    async def discard(self, names: Sequence[PackName]) -> None:
        """Nobody will ask for these packs any more; who reads one may finish."""
        for name in names:
            if name in self._packs:
                self._forget(name)
                self._doomed[_path(name)] = None
        await self.trim()

    async def drop_all(self) -> None:
        """Forget everything that nobody is reading at this moment."""
        await self.trim(0)

    def _unlink_in_thread(self, paths: list[str]) -> None:
        for path in paths:
            try:
                self._doors.disk.unlink(path)
            except OSError as error:
                log.warning("cache: %s cannot be removed: %s", path, error)

    def _forget(self, name: str) -> None:
        ranges = self._packs.pop(name, None)
        if ranges is not None:
            self._note(name)
            self.used_bytes -= ranges.total
            self._handles.drop(_path(name))

    def _broken(self, name: str, what: str, error: OSError) -> None:
        """The disk refused: this file goes, and if it was for want of space the cache shrinks. Nobody above needs to know."""
        self.failures += 1
        (log.warning if self.failures == 1 else log.debug)("cache: %s of %s: %s; the cache goes on smaller", what, name, error)
        if error.errno in SHORT:
            return                                               # says nothing of the file
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            self._allowed = int(self.used_bytes * SHRINK)
            ranges = self._packs.get(name)
            if ranges is not None and ranges.total:
                return                                           # what it holds already is still good
        self._forget(name)
        self._doomed[_path(name)] = None

    # ------------------------------------------------------------ the table

    async def save(self) -> None:
        """Write what changed into the table: every now and then, and at the end. A crash forgets what was stored after the last save."""
        async with self._saving:
            if not self._changed:
                return
            unsaved, self._unsaved, self._changed = self._unsaved, {}, False
            try:
                with trio.CancelScope(shield=True):
                    await (self._rewrite() if self._table.wants_rewrite else self._append(unsaved))
            except OSError as error:
                self._unsaved = {**unsaved, **self._unsaved}
                self._changed = True
                self.failures += 1
                log.warning("cache: %s cannot be written: %s", TABLE, error)

    async def _append(self, unsaved: dict[str, bool]) -> None:
        entries = [(name, self._borders(name) if changed else None) for name, changed in unsaved.items()]
        await self._doors.threads.run(self._table.append, entries)

    async def _rewrite(self) -> None:
        """A few entries at a time. One that changes meanwhile is as it was at some moment here, and is appended the next time."""
        names = [name for name, ranges in self._packs.items() if ranges.total]
        await self._doors.threads.run(self._table.begin)
        try:
            for start in range(0, len(names), AT_ONCE):
                await self._doors.threads.run(self._table.add, [(name, self._borders(name)) for name in names[start:start + AT_ONCE]])
            await self._doors.threads.run(self._table.finish)
        finally:
            self._table.abandon()

    def _borders(self, name: str) -> list[int]:
        ranges = self._packs.get(name)
        return ranges.borders() if ranges is not None else []

    def load(self) -> None:
        """Take over what an earlier process left; files that the table does not know are removed. For the start, in a thread."""
        disk = self._doors.disk
        try:
            disk.makedirs(FOLDER)
            names = dict.fromkeys(disk.listdir(FOLDER))
        except OSError as error:
            self.failures += 1
            log.warning("cache: %s is of no use (%s): starting empty", FOLDER, error)
            return
        for name, borders in self._table.load().items():
            if name in names:
                del names[name]
                try:
                    ranges, size = Ranges(borders), disk.size(_path(name))
                except (OSError, OverflowError, TypeError):
                    names[name] = None
                    continue
                ranges.remove(size, 2**32 - 1)
                self._packs[name] = ranges
                self.used_bytes += ranges.total
        names.pop(TABLE.rpartition("/")[2], None)
        self._unlink_in_thread([_path(name) for name in names])

    async def close(self) -> None:
        await self.trim()
        self._changed = self._changed or bool(self._unsaved)     # what was used, too
        await self.save()
        self._handles.close()


def _path(name: str) -> str:
    return f"{FOLDER}/{name}"
