"""The way of a read below the files: a chunk's plaintext, from wherever it is nearest.

    decoded chunks in memory -> journal (not yet in the store) -> cache (sealed, on disk) -> ranged GET

One chunk is obtained once however many ask (a flight); the flight belongs to the first that asked, and if that one is cancelled another
takes over. Sealed bytes verify themselves when they are opened: what fails is forgotten, fetched once more past the cache, and only then
reported as damage and answered with DataError, for this chunk alone. A pack that is absent is looked up again, since a pack may
be rewritten and its chunks move, before it is an error. An error of the local disk says nothing about a chunk: reads of the journal are
tried a few times and then fail, those of the cache go to the store.

Bounded in bytes: decoded chunks (`decoded_bytes`), read-ahead under way (`readahead_max_bytes`), fetches (see fetch.py).
Event-loop thread only, but for decoding: sealed pieces above INLINE_BYTES are read and opened in threads, several at once.
"""
from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import trio

from s3cfs.blocks.cache import PackCache
from s3cfs.blocks.fetch import Fetcher, ReadStats, Source
from s3cfs.blocks.handles import PAUSE_S, TRIES, Handle, read_fully
from s3cfs.blocks.journal import ClosedPack, Journal
from s3cfs.doors import DiskFile, Doors
from s3cfs.errors import Damaged, DataError, NotFound, S3cfsError, StoreError
from s3cfs.formats.chunk import ChunkCodec
from s3cfs.ids import PackName
from s3cfs.limits import KIB
from s3cfs.meta.types import Chunk, Pack
from s3cfs.remote import Remote

log = logging.getLogger(__name__)

INLINE_BYTES = 64 * KIB            # sealed; smaller ones that are local are read and opened on the event loop
INLINE_PLAIN_BYTES = 256 * KIB     # and do not unpack to more than this
NAMES_MAX = 4096                   # pack names remembered
ENTRY_BYTES = 256                  # what a decoded chunk costs beside its bytes
AHEAD_MAX = 4096                   # chunks that read-ahead is at, however small


class Finds(Protocol):
    """Who is told what reads find out about chunks (blocks/damage.py)."""

    def bad(self, chunk: Chunk, name: PackName | None, what: str, text: str) -> None:
        """Neither journal nor store has it whole."""

    def whole(self, chunk: Chunk) -> None:
        """The journal or the store has it whole. Called for every read from there."""


class _Flight:
    __slots__ = ("asked", "data", "done", "error", "passing", "urgent")

    def __init__(self, urgent: bool, asked: float) -> None:
        self.done = trio.Event()
        self.data: bytes | None = None
        self.error: str | None = None
        self.passing = False                             # the error: the store did not answer
        self.urgent = urgent
        self.asked = asked                               # see Fetcher.asked: from when patience counts


class BlockStore:
    def __init__(
        self,
        doors: Doors,
        remote: Remote,
        journal: Journal,
        cache: PackCache,
        codec: ChunkCodec,
        pack_of: Callable[[int], Awaitable[Pack | None]],
        *,
        finds: Finds,
        chunk_of: Callable[[int], Awaitable[Chunk | None]] | None = None,
        decoded_bytes: int | None = None,
        readahead_bytes: int | None = None,
    ) -> None:
        """`pack_of` and `chunk_of` look up rows (Meta.pack, which may also say Damaged; Meta.chunk). The bounds are those of
        `doors.limits` where they are not given."""
        bounds = doors.limits
        self._doors, self._journal, self._cache, self._codec = doors, journal, cache, codec
        self._pack_of, self._chunk_of, self._finds = pack_of, chunk_of, finds
        self.stats = ReadStats()
        self._fetcher = Fetcher(remote, cache, doors.clock, self.stats, bounds)
        self._decoded: OrderedDict[int, bytes] = OrderedDict()
        self._decoded_limit = bounds.decoded_cache_bytes if decoded_bytes is None else decoded_bytes
        self.decoded_bytes = 0
        self._flights: dict[int, _Flight] = {}
        self._packs: OrderedDict[int, Source] = OrderedDict()                 # where packs lie in the store: that never changes
        self._ahead: dict[int, None] = {}                                        # chunks read-ahead is at
        self._ahead_limit = bounds.readahead_max_bytes if readahead_bytes is None else readahead_bytes
        self._ahead_bytes = 0
        self._nursery: trio.Nursery | None = None

    async def run(self, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        """The home of background work: `await nursery.start(store.run)`. Without it only local bytes can be read."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._fetcher.start(nursery)
            try:
                task_status.started()
                await trio.sleep_forever()
            finally:
                self._nursery = None
                self._fetcher.stop()

    @property
    def busy(self) -> int:
        """Requests and read-ahead under way, and fetched bytes on their way into the cache; 0 is idle."""
        return self._fetcher.busy + len(self._ahead) + len(self._flights)

    # ------------------------------------------------------------ decoded chunks

    def cached(self, chunk_id: int) -> bytes | None:
        """The decoded chunk if it is in memory: no await, the hot path."""
        data = self._decoded.get(chunk_id)
        if data is not None:
            self._decoded.move_to_end(chunk_id)
            self.stats.hits += 1
        return data

    def put_decoded(self, chunk_id: int, data: bytes) -> None:
        """Remember a decoded chunk, for instance one just written."""
        old = self._decoded.pop(chunk_id, None)
        if old is not None:
            self.decoded_bytes -= len(old) + ENTRY_BYTES
        if len(data) + ENTRY_BYTES > self._decoded_limit:
            return
        self._decoded[chunk_id] = data
        self.decoded_bytes += len(data) + ENTRY_BYTES
        while self.decoded_bytes > self._decoded_limit:
            self.decoded_bytes -= len(self._decoded.popitem(last=False)[1]) + ENTRY_BYTES

    def drop_decoded(self) -> None:
        self._decoded.clear()
        self.decoded_bytes = 0

    # ------------------------------------------------------------ reading

    async def chunk(self, chunk: Chunk) -> bytes:
        """The chunk's plaintext. DataError when it cannot be had, naming chunk and pack."""
        data = self.cached(chunk.id)
        if data is None and chunk.id not in self._flights:
            data = self._quick(chunk)
        return data if data is not None else await self._fly(chunk, urgent=True)

    async def chunks(self, wanted: Sequence[Chunk]) -> list[bytes]:
        """Several at once, in their order; neighbours among the missing ones become one GET. The first error, when all have ended."""
        results: dict[int, bytes] = {}
        errors: dict[int, DataError] = {}

        async def one(chunk: Chunk) -> None:
            try:
                results[chunk.id] = await self._fly(chunk, urgent=True)
            except DataError as error:
                errors[chunk.id] = error

        missing: dict[int, Chunk] = {}
        for chunk in wanted:
            data = self.cached(chunk.id)
            if data is None and chunk.id not in self._flights:
                data = self._quick(chunk)
            if data is None:
                missing[chunk.id] = chunk
            else:
                results[chunk.id] = data
        if len(missing) == 1:
            await one(*missing.values())
        elif missing:
            async with trio.open_nursery() as nursery:
                for chunk in missing.values():
                    nursery.start_soon(one, chunk)
        for error in errors.values():
            raise error
        return [results[chunk.id] for chunk in wanted]

    def _quick(self, chunk: Chunk) -> bytes | None:
        """A small chunk that is local, without leaving the event loop; None in every other case (damage too: the long way mends it)."""
        if chunk.clen > INLINE_BYTES or chunk.len > INLINE_PLAIN_BYTES:
            return None
        try:
            in_journal = self._journal.has(chunk.pack)
            if in_journal:
                sealed: bytes | None = self._journal.read(chunk.pack, chunk.off, chunk.clen)
            else:
                known = self._packs.get(chunk.pack)      # of a pack not met yet the long way asks for the name, once
                sealed = self._cache.read(known.name, chunk.off, chunk.clen) if known else None
            if sealed is None:
                return None
            data = self._codec.decode(chunk.hash, sealed, chunk.len)
        except (OSError, Damaged):
            return None
        if in_journal:
            self._finds.whole(chunk)
        self.stats.local += 1
        self.put_decoded(chunk.id, data)
        return data

    async def _fly(self, chunk: Chunk, *, urgent: bool) -> bytes:
        return await self._join_or_fly(chunk, urgent, self._fetcher.asked())

    async def _join_or_fly(self, chunk: Chunk, urgent: bool, asked: float) -> bytes:
        again = True                                     # after a flight that gave up: it asked before us
        while True:
            flight = self._flights.get(chunk.id)
            if flight is None:
                break
            first = urgent and not flight.urgent         # to wait for it: the flight counts as a miss or a local one, not as a hit
            if first:
                flight.urgent = True
                known = self._packs.get(chunk.pack)
                if known is not None:
                    self._fetcher.promote(known.name, chunk.off, chunk.clen)
            await flight.done.wait()
            if flight.data is not None:
                self.stats.hits += urgent and not first
                return flight.data
            if flight.error is not None and not (flight.passing and again):
                raise DataError(flight.error)
            again = again and not flight.passing
            # else the task that obtained it was cancelled: one of those who waited takes over
        flight = self._flights[chunk.id] = _Flight(urgent, asked)
        try:
            flight.data = await self._obtain(chunk, flight)
            self.put_decoded(chunk.id, flight.data)
            return flight.data
        except DataError as error:
            flight.error = str(error)
            raise
        finally:
            del self._flights[chunk.id]
            flight.done.set()

    async def _obtain(self, chunk: Chunk, flight: _Flight) -> bytes:
        problem: S3cfsError | None = None
        place = chunk                                    # where it lies; `chunk` stays what was asked for
        fresh = looked_again = False
        failures = 0                                     # of the local disk
        while True:
            name: PackName | None = None
            try:
                if self._journal.has(place.pack):
                    data = await self._local(place, self._journal.lease(place.pack), self._journal.give_back, flight)
                    self._finds.whole(place)
                else:
                    source = await self._source(place)
                    name = source.name
                    data = await self._stored(place, source, flight, fresh)
                if problem is not None:
                    self.stats.healed += 1
                    log.warning("%s: %s; whole at the second try", _what(place, name), problem)
                return data
            except Damaged as error:
                if name is not None:
                    self._cache.invalidate(name, place.off, place.clen)
                if fresh:
                    raise self._bad(place, name, error) from error
                problem, fresh = error, True
            except OSError as error:
                failures += 1
                if name is not None:
                    self._cache.invalidate(name, place.off, place.clen)
                elif failures == TRIES:
                    raise DataError(f"{_what(place, name)}: the local disk: {error}") from error
                else:
                    await self._doors.clock.sleep(PAUSE_S * 2 ** (failures - 1))
            except NotFound as error:
                if looked_again:
                    raise self._bad(place, name, error) from error
                looked_again = True
                moved = await self._moved(place, name)
                if moved is None:
                    raise self._bad(place, name, error) from error
                place = moved
            except StoreError as error:
                flight.passing = error.retryable
                how = "store unreachable" if error.retryable else "the store refuses"
                raise DataError(f"{_what(place, name)}: {how}: {error}") from error

    async def _stored(self, chunk: Chunk, source: Source, flight: _Flight, fresh: bool) -> bytes:
        handle = None if fresh else self._cache.lease(source.name, chunk.off, chunk.clen)
        if handle is not None:
            return await self._local(chunk, handle, self._cache.give_back, flight)
        sealed = await self._fetcher.get(source, chunk.off, chunk.clen, flight.asked, urgent=flight.urgent, fresh=fresh)
        self.stats.misses += flight.urgent
        if chunk.clen <= INLINE_BYTES and chunk.len <= INLINE_PLAIN_BYTES:
            data = self._codec.decode(chunk.hash, sealed, chunk.len)
        else:
            data = await self._doors.threads.run(self._codec.decode, chunk.hash, sealed, chunk.len)
        self._finds.whole(chunk)
        return data

    async def _local(self, chunk: Chunk, handle: Handle, give_back: Callable[[Handle], None], flight: _Flight) -> bytes:
        try:
            with trio.CancelScope(shield=True):          # ms; the file stays open while the thread reads it
                data = await self._doors.threads.run(self._open_in_thread, handle.file, chunk)
        finally:
            give_back(handle)
        self.stats.local += flight.urgent
        return data

    def _open_in_thread(self, file: DiskFile, chunk: Chunk) -> bytes:
        return self._codec.decode(chunk.hash, read_fully(file, chunk.clen, chunk.off), chunk.len)

    async def _source(self, chunk: Chunk) -> Source:
        if (known := self._packs.get(chunk.pack)) is not None:
            return known
        try:
            pack = await self._pack_of(chunk.pack)
        except Damaged as error:                         # its row may have gone, when its chunks moved
            raise NotFound("get", f"pack {chunk.pack}", str(error)) from None
        if pack is None or pack.name is None:
            raise NotFound("get", f"pack {chunk.pack}", "it is not in the journal, and was never given a name")
        return self.remember(pack)

    def remember(self, pack: Pack) -> Source:
        """Where a pack lies, though its row may go: who holds a place in it reads there."""
        assert pack.name is not None
        known = self._packs[pack.id] = Source(pack.name, pack.size, pack.key, pack.base)
        if len(self._packs) > NAMES_MAX:
            self._packs.popitem(last=False)
        return known

    async def _moved(self, place: Chunk, name: PackName | None) -> Chunk | None:
        """The chunk's row again, if it or its pack says something else now than where nothing was found."""
        self._packs.pop(place.pack, None)
        found = await self._chunk_of(place.id) if self._chunk_of is not None else place
        if found is None:
            return None
        if (found.pack, found.off, found.clen) != (place.pack, place.off, place.clen) or self._journal.has(found.pack):
            return found
        try:
            pack = await self._pack_of(found.pack)
        except Damaged:
            return None
        return found if pack is not None and pack.name is not None and pack.name != name else None

    def _bad(self, chunk: Chunk, name: PackName | None, error: Exception) -> DataError:
        self.stats.bad += 1
        what = "missing" if isinstance(error, NotFound) else "damaged"
        text = f"{_what(chunk, name)}: {what}: {error}"
        self._finds.bad(chunk, name, what, text)
        return DataError(text)

    # ------------------------------------------------------------ read-ahead

    async def prefetch(self, chunks: Sequence[Chunk]) -> int:
        """Begin to bring these here, in the background and after whatever is waited for; how many of them, from the first, are on their way
        or here. The nearer ones are decoded, the later ones only laid into the cache. Never raises for what cannot be had.
        """
        if self._nursery is None:
            return 0
        plain = 0
        for count, chunk in enumerate(chunks):
            plain += chunk.len
            if chunk.id in self._decoded or chunk.id in self._flights or chunk.id in self._ahead:
                continue
            if self._ahead and (self._ahead_bytes + chunk.len > self._ahead_limit or len(self._ahead) >= AHEAD_MAX):
                return count
            decode = plain <= self._decoded_limit // 2
            if not decode and not self._cache.takes(chunk.clen):
                return count                             # nowhere to lay it: it would be fetched twice
            self._ahead[chunk.id] = None
            self._ahead_bytes += chunk.len
            self.stats.prefetched += 1
            self._nursery.start_soon(self._bring, chunk, decode)
        return len(chunks)

    async def _bring(self, chunk: Chunk, decode: bool) -> None:
        try:
            if decode:
                await self._fly(chunk, urgent=False)
            elif not self._journal.has(chunk.pack):
                source = await self._source(chunk)
                if not self._cache.covers(source.name, chunk.off, chunk.clen):
                    await self._fetcher.get(source, chunk.off, chunk.clen, self._fetcher.asked(), urgent=False)
        except (S3cfsError, OSError) as error:
            log.debug("read-ahead of chunk %s: %s", chunk.id, error)
        finally:
            del self._ahead[chunk.id]
            self._ahead_bytes -= chunk.len

    # ------------------------------------------------------------ from journal to cache

    async def uploaded(self, pack: ClosedPack) -> None:
        """The pack is in the store and its commit too, and the database says so: its file becomes part of the cache."""
        if self._journal.has(pack.pack_id):
            self._cache.adopt(pack.name, self._journal.path(pack.pack_id), pack.size)
            self._journal.forget(pack.pack_id)
            await self._cache.trim()


def _what(chunk: Chunk, name: PackName | None) -> str:
    return f"chunk {chunk.id} ({chunk.hash.hex()[:16]}) in pack {name or chunk.pack}"
