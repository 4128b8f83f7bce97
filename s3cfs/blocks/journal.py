"""Packs that are not in the store yet: the files `journal/<pack id>.pack`, written by appending only.

What an earlier process left is taken over by recovery.py; what the disk damaged is given up by salvage.py.

INVARIANTS
  J1  A byte is written once; what `append` returned never moves. A pack opened by an earlier process is never appended to: recovery
      copies what is valid of it into a new file.
  J2  After `sync` returned, everything whose `append` returned before the call is on disk, names included. The caller syncs BEFORE
      the COMMIT whose rows point into a pack, so a row never points at bytes that a crash can take.
  J3  A failed write or fsync is never retried on the same file (the kernel may have dropped the dirty page and call the next fsync a
      success). The journal is then poisoned: `failed` is set, and every later append, sync or close raises it. Nothing that had not
      been synced may be acknowledged; the caller still holds it (the dirty pool keeps staged data until its transaction is durable)
      and stops writing, so no row ever names it. Reading and loading go on: sealed bytes verify themselves, loads are hashed.
      What neither wrote nor synced anything (an open, a read) is tried a few times.
  J4  A closed pack is named by the hash of its bytes, taken while they were written, and `load` compares them again before they are
      uploaded: what a disk lost or changed meanwhile never reaches the store under a name that vouches for it.

Appends are serial (offsets are a shared counter), syncs are serial among themselves but run beside appends: the next group fills while
one is being fsynced. Uncontended, taking a turn is no checkpoint, and a batch below 64 KiB costs no thread hop.
Everything here belongs to the event-loop thread; only the bodies named `*_in_thread` run elsewhere.
"""
from __future__ import annotations

import contextlib
import errno
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import trio

from s3cfs.blocks.handles import TRIES_LONG, Handle, Handles, Turn, patiently, read_fully
from s3cfs.doors import DiskFile, Doors, ShortCalls
from s3cfs.errors import CacheFull, CacheUnusable, Damaged, S3cfsError
from s3cfs.formats import pack as packs
from s3cfs.formats.pack import HEADER_BYTES, RANDOM_BYTES, PackEntry, PackHasher
from s3cfs.formats.seal import Sealer
from s3cfs.ids import ChunkId, PackName, pack_name
from s3cfs.limits import KIB, MIB

T = TypeVar("T")

FOLDER = "journal"
INLINE_BYTES = 64 * KIB           # a batch up to this is written on the event loop: a hop costs more
JOIN_BYTES = 1 * MIB              # batches of small chunks up to this are joined into one write
OPEN_FILES = 512                  # a pack's file stays open while it is here (beyond it the oldest is closed): it survives its folder


@dataclass(frozen=True, slots=True)
class ClosedPack:
    """A finished pack, synced when it is handed out. Upload it only after the transaction that records its name."""

    pack_id: int
    name: PackName
    size: int
    path: str


@dataclass(slots=True)
class JournalPack:
    """A pack of this process that is not finished, or not yet synced."""

    pack_id: int
    path: str
    handle: Handle
    hasher: PackHasher
    size: int = 0                  # written bytes
    synced: int = 0                # of them on disk
    entries: list[PackEntry] = field(default_factory=list)
    closed: ClosedPack | None = None


class Journal:
    def __init__(self, doors: Doors, sealer: Sealer, epoch: int, *, short_sync_s: float = 0.0) -> None:
        """`sealer` seals the packs' indexes; `short_sync_s` as in doors.ShortCalls. Recovery comes before the first append."""
        self._syncs = ShortCalls(doors.threads, doors.clock, short_sync_s)
        self._doors, self.sealer, self.epoch = doors, sealer, epoch
        self._handles = Handles(doors.disk, OPEN_FILES)
        self._appending, self._syncing = Turn(), Turn()
        self._unsynced: dict[int, JournalPack] = {}      # packs with bytes or a tail that no fsync covered; their handles are held
        self._sizes: dict[int, int] = {}                 # every pack in the journal
        self._names: dict[int, ClosedPack] = {}          # the closed ones
        self._closed: list[ClosedPack] = []              # not yet taken
        self._new_names = False
        self.current: JournalPack | None = None
        self.failed: S3cfsError | None = None
        self.bytes_total = 0                             # size of the journal's packs
        try:
            doors.disk.makedirs(FOLDER)
        except OSError as error:
            raise CacheUnusable(f"{FOLDER} cannot be made: {error}") from error

    # ------------------------------------------------------------ writing

    async def append(
        self, pack_id_of_new: Callable[[], Awaitable[int]], sealed: Sequence[tuple[ChunkId, bytes, int]]
    ) -> list[tuple[int, int]]:
        """Write sealed chunks (id, bytes, plain length); where each went: (pack id, offset), in the order given.

        A cancel is seen before anything is written or not at all. Chunks that were written for a caller who never recorded them
        stay in the pack's index and harm nothing.
        """
        async with self._appending:
            places: list[tuple[int, int]] = []
            at = 0
            while at < len(sealed):
                self._check()
                pack = self.current
                if pack is None:
                    pack = await self._begin(await pack_id_of_new())
                end, size = at, max(pack.size, HEADER_BYTES)
                while end < len(sealed) and not self._full(pack, size):
                    chunk_id, data, length = sealed[end]
                    pack.entries.append(PackEntry(chunk_id, size, len(data), length))
                    places.append((pack.pack_id, size))
                    size += len(data)
                    end += 1
                await self._write(pack, [data for _, data, _ in sealed[at:end]], finish=self._full(pack, size))
                at = end
            return places

    async def sync(self) -> None:
        """J2. Fsyncs only what has unsynced bytes, and the folder when a name is new. Raises `failed`; after an error writing must stop."""
        async with self._syncing:
            self._check()
            if not self._unsynced and not self._new_names:
                return
            work = [(pack, pack.size, pack.closed is not None) for pack in self._unsynced.values()]
            new_names, self._new_names = self._new_names, False
            little = not new_names and sum(size - pack.synced for pack, size, _ in work) <= INLINE_BYTES
            files = [pack.handle.file for pack, _, _ in work]
            await self.hop(f"{FOLDER}: fsync", self._sync_in_thread, files, new_names, little=little)
            for pack, size, closed in work:
                pack.synced = size
                if closed:
                    self._settle(pack)
                elif pack.size == size:                 # else it grew, or was finished, beside this fsync: the next one's work
                    self._unsynced.pop(pack.pack_id, None)

    def take_closed(self) -> list[ClosedPack]:
        """Packs that filled up and are synced, not yet taken. One that fills beside a sync waits for the next: were its name recorded
        before its tail is on disk, a crash would make a short file of it, and rows that were durable while it was open would be lost."""
        taken = [pack for pack in self._closed if pack.pack_id not in self._unsynced]
        self._closed = [pack for pack in self._closed if pack.pack_id in self._unsynced]
        return taken

    def pending(self) -> list[ClosedPack]:
        """Every closed and synced pack in the journal, taken or not, recovered ones too."""
        return [pack for pack_id, pack in sorted(self._names.items()) if pack_id not in self._unsynced]

    async def close_current(self) -> list[ClosedPack]:
        """For a commit: finish the open pack if there is one, sync, and hand out as `take_closed` does (so [] when there is nothing)."""
        async with self._appending:
            self._check()
            if self.current is not None:
                await self._write(self.current, [], finish=True)
        await self.sync()
        return self.take_closed()

    async def close(self) -> None:
        """Sync what can be synced and close the files. An open pack stays open on disk; the next process recovers it."""
        try:
            if self.failed is None:
                await self.sync()
        finally:
            held = {pack.pack_id: pack for pack in (*self._unsynced.values(), *([self.current] if self.current else []))}
            for pack in held.values():
                self._handles.give_back(pack.handle)
            self._unsynced.clear()
            self.current = None
            self._handles.close()

    def _check(self) -> None:
        if self.failed is not None:
            raise type(self.failed)(*self.failed.args) from self.failed

    def _poison(self, what: str, error: BaseException) -> S3cfsError:
        if self.failed is None:
            full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
            kind = CacheFull if full else CacheUnusable
            self.failed = kind(f"{what}: {error}; nothing more is written, to not lose data silently")
        return self.failed

    async def hop(self, what: str, function: Callable[..., T], *args: object, little: bool = False) -> T:
        """Run in a thread to its end, whoever is cancelled; any error poisons the journal (J3). `little`: perhaps not worth a thread."""
        run = self._syncs.run if little else self._doors.threads.run
        done: list[T] = []
        try:
            with trio.CancelScope(shield=True):
                done.append(await run(function, *args))
        except Exception as error:
            raise self._poison(what, error) from error
        except BaseException as error:
            self._poison(what, error)
            raise
        return done[0]

    def _full(self, pack: JournalPack, size: int) -> bool:
        limits = self._doors.limits
        return size >= limits.pack_target_bytes or len(pack.entries) >= limits.pack_entries

    async def _begin(self, pack_id: int) -> JournalPack:
        path = self.path(pack_id)
        try:
            with trio.CancelScope(shield=True):
                handle = await patiently(self._doors.clock, lambda: self._take(path, create=True))
        except OSError as error:
            raise self._poison(path, error) from error
        self._new_names = True
        self.current = JournalPack(pack_id, path, handle, PackHasher())
        self._sizes[pack_id] = 0
        return self.current

    async def _write(self, pack: JournalPack, pieces: list[bytes], *, finish: bool) -> None:
        if pack.size == 0:
            pieces = [packs.header(self.epoch, self._doors.random.bytes(RANDOM_BYTES)), *pieces]
        added = sum(map(len, pieces))
        entries = pack.entries if finish else None
        if finish or added > INLINE_BYTES:
            size = await self.hop(pack.path, self._write_in_thread, pack.handle.file, pack.hasher, pieces, pack.size, entries)
        else:
            try:
                size = self._write_in_thread(pack.handle.file, pack.hasher, pieces, pack.size, entries)
            except OSError as error:
                raise self._poison(pack.path, error) from error
        self.bytes_total += size - pack.size
        pack.size = self._sizes[pack.pack_id] = size
        self._unsynced[pack.pack_id] = pack
        if finish:
            pack.closed = ClosedPack(pack.pack_id, pack_name(self.epoch, pack.hasher.digest()), size, pack.path)
            pack.entries = []
            self._names[pack.pack_id] = pack.closed
            self._closed.append(pack.closed)
            self.current = None

    def adopt(self, closed: ClosedPack) -> None:
        """A finished pack of an earlier process is in the journal."""
        self._names[closed.pack_id] = closed
        self._sizes[closed.pack_id] = closed.size
        self.bytes_total += closed.size
        with contextlib.suppress(OSError):
            self._handles.give_back(self._handles.take(closed.path))      # open from now on, whatever becomes of its folder

    def _settle(self, pack: JournalPack) -> None:
        """A pack that will not change any more is on disk: its file need not stay open."""
        if self._unsynced.pop(pack.pack_id, None) is not None:
            self._handles.give_back(pack.handle)

    def _write_in_thread(
        self, file: DiskFile, hasher: PackHasher, pieces: list[bytes], offset: int, entries: Sequence[PackEntry] | None
    ) -> int:
        """Append, and the tail if `entries` are given; the file's size after it."""
        if len(pieces) > 1 and sum(map(len, pieces)) <= JOIN_BYTES:
            pieces = [b"".join(pieces)]
        for piece in pieces:
            file.pwrite(piece, offset)
            hasher.update(piece)
            offset += len(piece)
        if entries is not None:
            tail = packs.tail(entries, offset, self.sealer)
            file.pwrite(tail, offset)
            hasher.update(tail)
            offset += len(tail)
        return offset

    def _sync_in_thread(self, files: list[DiskFile], new_names: bool) -> None:
        for file in files:
            file.fsync()
        if new_names:
            self._doors.disk.sync_dir(FOLDER)

    # ------------------------------------------------------------ reading

    def path(self, pack_id: int) -> str:
        return f"{FOLDER}/{pack_id}.pack"

    def has(self, pack_id: int) -> bool:
        return pack_id in self._sizes

    def size(self, pack_id: int) -> int:
        """Bytes of this pack in the journal so far; 0 when it is not here."""
        return self._sizes.get(pack_id, 0)

    def sizes(self) -> dict[int, int]:
        """Pack id -> bytes, of every pack in the journal."""
        return dict(self._sizes)

    def read(self, pack_id: int, offset: int, size: int) -> bytes:
        """Sealed bytes; KeyError when the pack is not in the journal, OSError as the disk says. Short only where the file ends."""
        handle = self.lease(pack_id)
        try:
            return read_fully(handle.file, size, offset)
        finally:
            self.give_back(handle)

    def lease(self, pack_id: int) -> Handle:
        """The pack's file for reads in a thread; pair with `give_back`. KeyError, OSError."""
        if pack_id not in self._sizes:
            raise KeyError(pack_id)
        return self._handles.take(self.path(pack_id))

    def give_back(self, handle: Handle) -> None:
        self._handles.give_back(handle)

    def named(self, name: PackName) -> int | None:
        """The closed pack of that name."""
        return next((pack_id for pack_id, closed in self._names.items() if closed.name == name), None)

    async def load(self, pack_id: int) -> bytes:
        """All bytes of a closed pack, for the upload. Damaged when they are not what was written (J4), OSError when they cannot be read."""
        closed = self._names.get(pack_id)
        if closed is None:
            raise KeyError(pack_id)
        return await self.in_file(pack_id, self._load_in_thread, closed)

    async def in_file(self, pack_id: int, function: Callable[..., T], *args: object) -> T:
        """`function(the pack's file, *args)` in a thread, which only reads; tried again for a minute and a half. KeyError, OSError."""
        async def once() -> T:
            handle = self.lease(pack_id)
            try:
                return await self._doors.threads.run(function, handle.file, *args)
            finally:
                self.give_back(handle)

        return await patiently(self._doors.clock, once, TRIES_LONG)

    async def _take(self, path: str, *, create: bool) -> Handle:
        return self._handles.take(path, create=create)

    @staticmethod
    def _load_in_thread(file: DiskFile, closed: ClosedPack) -> bytes:
        data = read_fully(file, closed.size + 1, 0)
        hasher = PackHasher()
        hasher.update(data)
        if len(data) != closed.size or not closed.name.endswith(hasher.digest().hex()):
            raise Damaged(f"{closed.path} is not what was written ({closed.name}, {closed.size} bytes): the local disk changed or lost it")
        return data

    def forget(self, pack_id: int) -> None:
        """The pack is in the store, and its file has been adopted by the cache or removed."""
        size = self._sizes.pop(pack_id, None)
        if size is not None:
            self.bytes_total -= size
            self._names.pop(pack_id, None)
            self._handles.drop(self.path(pack_id))
