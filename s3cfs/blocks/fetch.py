"""Ranged GETs of packs, be they objects or riders in a record's: aligned, merged, a few at a time, urgent ones first.

A reader asks for a range with `get`. The range becomes a want in one queue; whenever a slot is free the oldest urgent want (else the oldest
of read-ahead) is taken together with the wants near it in the same pack, as one GET of at most `fetch_max_bytes`. Wants join a GET under
way that covers them, so a hundred readers of one range make one request. While all slots are busy wants pile up and merge by themselves;
when slots are free they wait for one pass of the scheduler, so that readers woken together are served together.

A second miss in one pack soon after the first takes the neighbourhood with it: files written together lie together and are read together.

Whoever waits, in the queue or for a request, gets Temporary when no byte has come from the store for `store_deadline_s` since it asked
(remote/patience.py): an outage is two minutes for the thousandth reader too, and a slow link may take its time.

A want whose last waiter was cancelled leaves the queue; a GET under way is finished for the cache. Bytes in memory are bounded by slots x
`fetch_max_bytes`: a slot is free again only when its bytes are in the cache. Event-loop thread only.
"""
from __future__ import annotations

import copy
from collections import OrderedDict
from dataclasses import dataclass, field

import trio

from s3cfs.blocks.cache import PackCache
from s3cfs.doors import Clock
from s3cfs.errors import Damaged, S3cfsError, StoreError, Temporary
from s3cfs.ids import PackName
from s3cfs.limits import DEFAULTS, Limits
from s3cfs.remote import Lane, Remote

RESERVED_SLOTS = 2                 # of the downloads at once, never taken by read-ahead
NEIGHBOUR_S = 30.0                 # "soon after"
RECENT_PACKS = 1024


@dataclass(slots=True)
class ReadStats:
    """Since the start. Of the chunks that a reader asked for (read-ahead's own not counted) `hits` were in memory, `local` on the disk,
    `misses` in the store."""

    hits: int = 0
    local: int = 0
    misses: int = 0
    prefetched: int = 0            # chunks that read-ahead asked for
    fetches: int = 0               # GETs
    fetched_bytes: int = 0
    healed: int = 0                # damaged in the cache or in transfer, whole at the second try
    bad: int = 0                   # damaged or missing in the store


@dataclass(frozen=True, slots=True)
class Source:
    """A pack in the store: an object of its own, or `size` bytes from `base` of a record's."""

    name: PackName
    size: int
    key: str
    base: int


@dataclass(slots=True, eq=False)
class _Fetch:
    pack: Source
    start: int
    end: int
    done: trio.Event = field(default_factory=trio.Event)
    data: memoryview | None = None
    error: S3cfsError | None = None
    fresh: bool = False


@dataclass(slots=True, eq=False)
class _Want:
    pack: Source
    start: int
    end: int
    urgent: bool
    fresh: bool
    waiters: int = 0
    started: trio.Event = field(default_factory=trio.Event)
    fetch: _Fetch | None = None


class Fetcher:
    def __init__(self, remote: Remote, cache: PackCache, clock: Clock, stats: ReadStats, bounds: Limits = DEFAULTS) -> None:
        self._remote, self._cache, self._clock, self._stats, self._limits = remote, cache, clock, stats, bounds
        self._align, self._gap = bounds.fetch_align_bytes, bounds.fetch_gap_bytes
        self._slots = remote.slots(Lane.READ)
        self._ahead_slots = max(1, self._slots - RESERVED_SLOTS)
        self._queue: list[_Want] = []
        self._running: dict[PackName, list[_Fetch]] = {}
        self._busy = 0
        self._recent: OrderedDict[PackName, float] = OrderedDict()     # pack -> monotonic time of its last urgent miss
        self._nursery: trio.Nursery | None = None
        self._pumping = False

    def start(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery

    def stop(self) -> None:
        """Nothing is fetched any more; who waits gets an error."""
        self._nursery = None
        for want in self._queue:
            want.fetch = _Fetch(want.pack, want.start, want.end, error=_stopped(want.pack))
            want.fetch.done.set()
            want.started.set()
        self._queue.clear()

    def asked(self) -> float:
        """Patience begins: for the calls of `get` that follow from what is asked now."""
        return self._remote.patience.now()

    @property
    def busy(self) -> int:
        return self._busy + len(self._queue)

    async def get(self, pack: Source, offset: int, size: int, asked: float, *, urgent: bool = True,
                  fresh: bool = False) -> memoryview:
        """These sealed bytes of the pack, from the store. `fresh`: from a request begun after this call, whatever is under way. `asked`:
        what `asked` said.

        Raises what Remote raises, and Damaged when the object is shorter than it should be.
        """
        joined = None if fresh else self._covering(pack.name, offset, offset + size)
        fetch = joined or await self._started(self._want(pack, offset, size, urgent, fresh), asked)
        await self._wait(fetch.done, pack, asked)
        if joined and isinstance(joined.error, StoreError) and joined.error.retryable:        # its patience is not ours
            fetch = await self._started(self._want(pack, offset, size, urgent, fresh), asked)
            await self._wait(fetch.done, pack, asked)
        if fetch.error is not None:
            raise copy.copy(fetch.error)                 # each waiter its own: a traceback is not to be shared
        assert fetch.data is not None
        data = fetch.data[offset - fetch.start:offset - fetch.start + size]
        if len(data) != size:
            raise Damaged(f"{pack.key} ends before byte {pack.base + offset + size}")
        return data

    async def _started(self, want: _Want, asked: float) -> _Fetch:
        want.waiters += 1
        try:
            await self._wait(want.started, want.pack, asked)
        finally:
            want.waiters -= 1
            if want.waiters == 0 and want.fetch is None:
                self._queue.remove(want)
        assert want.fetch is not None
        return want.fetch

    async def _wait(self, event: trio.Event, pack: Source, asked: float) -> None:
        patience, deadline_s = self._remote.patience, self._limits.store_deadline_s

        def left(now: float) -> float:
            return max(asked, patience.counted(self._remote.last_answer(Lane.READ))) + deadline_s - now

        if not await patience.wait(event, left):
            raise Temporary("get", pack.key, f"no answer within {deadline_s:g} s")

    def promote(self, name: PackName, offset: int, size: int) -> None:
        """Somebody waits now for what was wanted for later."""
        for want in self._queue:
            if want.pack.name == name and want.start <= offset and offset + size <= want.end and not want.urgent:
                want.urgent = True
                self._pump_soon()

    # ------------------------------------------------------------ the queue

    def _covering(self, name: PackName, start: int, end: int) -> _Fetch | None:
        for fetch in self._running.get(name, ()):
            if fetch.start <= start and end <= fetch.end:
                return fetch
        return None

    def _want(self, pack: Source, offset: int, size: int, urgent: bool, fresh: bool) -> _Want:
        if self._nursery is None:
            raise _stopped(pack)
        start = offset - offset % self._align
        end = min(-(-(offset + size) // self._align) * self._align, max(pack.size, offset + size))
        for want in self._queue:
            if want.pack == pack and want.start <= start and end <= want.end:      # also if fresh: it has not begun
                if urgent and not want.urgent:
                    want.urgent = True
                    self._pump_soon()                    # slots that are kept from read-ahead may be free
                return want
        want = _Want(pack, start, end, urgent, fresh)
        self._queue.append(want)
        self._pump_soon()
        return want

    def _pump_soon(self) -> None:
        if not self._pumping and self._nursery is not None:
            self._pumping = True
            self._nursery.start_soon(self._pump_later)

    async def _pump_later(self) -> None:
        self._pumping = False
        self._pump()

    def _pump(self) -> None:
        while self._queue and self._busy < self._slots and self._nursery is not None:
            first = next((want for want in self._queue if want.urgent), None)
            if first is None:
                if self._busy >= self._ahead_slots:
                    return
                first = self._queue[0]
            fetch, group = self._merge(first)
            for want in group:
                self._queue.remove(want)
                want.fetch = fetch
                want.started.set()
            self._running.setdefault(fetch.pack.name, []).append(fetch)
            self._busy += 1
            self._nursery.start_soon(self._run, fetch)

    def _merge(self, first: _Want) -> tuple[_Fetch, list[_Want]]:
        """`first` and what lies near it in its pack. What is not urgent does not make an urgent one much longer."""
        start, end, group = first.start, first.end, [first]
        others = [want for want in self._queue if want.pack == first.pack and want is not first]
        grown = True
        while grown and others:
            grown = False
            for want in list(others):
                low, high = min(start, want.start), max(end, want.end)
                most = self._limits.fetch_max_bytes if want.urgent or not first.urgent else self._limits.neighbourhood_bytes
                if want.start <= end + self._gap and start <= want.end + self._gap and (high - low <= most or (low, high) == (start, end)):
                    start, end, grown = low, high, True
                    group.append(want)
                    others.remove(want)
        if first.urgent:
            start, end = self._neighbourhood(first, start, end)
        return _Fetch(first.pack, start, end), group

    def _neighbourhood(self, first: _Want, start: int, end: int) -> tuple[int, int]:
        now = self._clock.monotonic()
        before = self._recent.pop(first.pack.name, None)
        self._recent[first.pack.name] = now
        if len(self._recent) > RECENT_PACKS:
            self._recent.popitem(last=False)
        if before is None or now - before > NEIGHBOUR_S or end - start >= self._limits.neighbourhood_bytes:
            return start, end
        spare = self._limits.neighbourhood_bytes - (end - start)
        low = max(0, start - spare // 4 // self._align * self._align)      # mostly forward: that is how files are read
        high = max(end, min(low + self._limits.neighbourhood_bytes, first.pack.size))
        while low < start and self._cache.covers(first.pack.name, low, self._align):
            low += self._align
        while high > end:
            block = (high - 1) // self._align * self._align
            if block < end or not self._cache.covers(first.pack.name, block, high - block):
                break
            high = block
        return low, high

    async def _run(self, fetch: _Fetch) -> None:
        running = self._running[fetch.pack.name]
        try:
            try:
                data = await self._remote.get(fetch.pack.key, fetch.pack.base + fetch.start, fetch.end - fetch.start, named=True)
                fetch.data = memoryview(data)
                self._stats.fetches += 1
                self._stats.fetched_bytes += len(data)
            except S3cfsError as error:
                fetch.error = error
            finally:
                if fetch.data is None:
                    fetch.error = fetch.error or _stopped(fetch.pack)
                    running.remove(fetch)                # whoever asks next tries anew
                fetch.done.set()
            if fetch.data:
                await self._cache.store(fetch.pack.name, fetch.start, fetch.data)
        finally:
            if fetch in running:
                running.remove(fetch)
            if not running and self._running.get(fetch.pack.name) is running:
                del self._running[fetch.pack.name]
            self._busy -= 1
            self._pump()


def _stopped(pack: Source) -> StoreError:
    return StoreError("get", pack.key, "the mount is ending")
