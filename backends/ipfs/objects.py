"""Objects as graphs of IPFS blocks in a datastore, under names: what `ipfs+s3://` is, whatever the datastore lies in.

    put     the blocks, several at once, then the entry of the name table (names.py): with it the object is there, whole (S1); a create-only
            put is one of the entry (S4)
    get     the entry, each time, so that no answer is old (S2); then the blocks of the range. An entry that is known from before is
            asked for beside the blocks
    list    the entries by a listing (S3), then each of them for the size: a request an object
    delete  a burial, which says what the entries named, and then the entries. Blocks stay until the collector looks (collector.py)

Each block is compared with its hash. One that is missing makes the object missing; of one that is rotten what the store has is given, and
the log names it: the seals of what stands above find out what it hits, and lose no more than that.
"""
from __future__ import annotations

import contextlib
import itertools
import logging
import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from s3cfs.backends.base import PROBE_ROUNDS, Backend, Body, Capabilities, Listing, ObjectInfo
from s3cfs.backends.ipfs import names
from s3cfs.backends.ipfs.blocks import Blocks, named
from s3cfs.backends.ipfs.cid import DAG_PB, Cid
from s3cfs.backends.ipfs.dag import LEAF_BYTES, Block, blocks_of
from s3cfs.backends.ipfs.datastore import Datastore
from s3cfs.backends.ipfs.names import Entry, Table
from s3cfs.backends.probe import probe
from s3cfs.errors import Exists, NotFound, StoreError, Temporary, Unsupported

log = logging.getLogger(__name__)

ENTRIES_KEPT = 10_000
ENTRIES_AT_ONCE = 128              # of a listing
BATCH_DELETE = 100
SMALL_BYTES = 64                   # a block below this may well be somebody else's, too


class IpfsBackend(Backend):
    """See the module's text. `table`: the name table's name; `location`: for messages; `clock`: Unix time, for burials."""

    def __init__(self, datastore: Datastore, table: str, location: str, clock: Callable[[], float] = time.time) -> None:
        self.datastore, self.table = datastore, Table(datastore.blocks_folder, table)
        self.blocks = Blocks(datastore, datastore.crowd)
        self._store, self._crowd = datastore.store, datastore.crowd
        self._location, self._clock = location, clock
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._lock = threading.Lock()

    def of_table(self, table: str) -> IpfsBackend:
        """The objects of another table of the same blocks."""
        return IpfsBackend(self.datastore, table, self._location, self._clock)

    def now(self) -> float:
        """Unix time, as burials say it."""
        return self._clock()

    @property
    def capabilities(self) -> Capabilities:
        """A part of an object costs the blocks that it lies in, an object some requests at least, and a deletion a look at its entry."""
        known = self._store.capabilities
        return replace(known, request_bytes=LEAF_BYTES, largest_object_bytes=None, examines=True,
                       batch_delete=min(BATCH_DELETE, known.batch_delete))

    @property
    def location(self) -> str:
        return self._location

    # ------------------------------------------------------------ reading

    def get(self, key: str, offset: int = 0, size: int | None = None) -> bytes:
        if offset < 0 or (size is not None and size < 0):
            raise ValueError("negative offset or size")
        with self._lock:
            known = self._entries.get(key)
        if known is None:
            now = self.entry("get", key)
            data = self._tried(key, now, offset, size)
        else:
            now, data = self._both(key, known, offset, size)
        while isinstance(data, StoreError):
            before, now = now, self.entry("get", key)          # deleted meanwhile, or overwritten?
            if now == before:
                raise data
            data = self._tried(key, now, offset, size)
        self._remember(key, now)
        return data

    def _both(self, key: str, known: Entry, offset: int, size: int | None) -> tuple[Entry, bytes | StoreError]:
        """The entry as it is now, and what it names, fetched at the same time if it is as it was."""
        found: list[bytes | StoreError] = []
        ask: list[Callable[[], Entry | None]] = [
            lambda: self.entry("get", key), lambda: found.append(self._tried(key, known, offset, size))]
        now = self._crowd.each(lambda one: one(), ask)[0]
        assert now is not None
        return now, found[0] if now == known else self._tried(key, now, offset, size)

    def _tried(self, key: str, entry: Entry, offset: int, size: int | None) -> bytes | StoreError:
        """The error instead, where a block is missing or of another length."""
        end = entry.size if size is None else min(entry.size, offset + size)
        if offset >= end:
            return b""
        first = offset // LEAF_BYTES
        digests = entry.digests[first:-(-end // LEAF_BYTES)]
        try:
            with _told("get", key):
                parts = self._crowd.each(lambda at: self._leaf(key, entry, first + at, digests[at]), range(len(digests)))
        except (NotFound, Temporary) as error:
            return error
        parts[-1] = parts[-1][:end - (first + len(parts) - 1) * LEAF_BYTES]
        parts[0] = parts[0][offset - first * LEAF_BYTES:]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _leaf(self, key: str, entry: Entry, number: int, digest: bytes) -> bytes:
        size = min(LEAF_BYTES, entry.size - number * LEAF_BYTES)
        try:
            data, whole = self.blocks.look(digest)
            if len(data) == size:
                if not whole:
                    log.warning("%s: the store has other bytes than it is named by: block %s", key, named(digest))
                return data
            text = f"its block {named(digest)} has {len(data)} bytes, not {size}"
        except NotFound:
            text = f"its block {named(digest)} is missing"
        if self.capabilities.linearizable is False:            # the store may be late
            raise Temporary("get", key, text)
        raise NotFound("get", key, text)

    def entry(self, operation: str, key: str) -> Entry:
        """As the store has it now. NotFound; a damaged one is as good as none."""
        with _told(operation, key):
            data = self._store.get(self.table.object_of(key))
            try:
                entry = Entry.decode(key, data)
            except ValueError:
                try:
                    entry = Entry.decode(key, self._store.get(self.table.object_of(key)))
                except ValueError as error:
                    raise Unusable(operation, key, f"its entry in the name table cannot be used: {error}") from None
        return entry

    def _remember(self, key: str, entry: Entry) -> None:
        with self._lock:
            self._entries[key] = entry
            self._entries.move_to_end(key)
            if len(self._entries) > ENTRIES_KEPT:
                self._entries.popitem(last=False)

    def stat(self, key: str) -> ObjectInfo:
        return ObjectInfo(key, self.entry("stat", key).size)

    def examine(self, key: str) -> str | None:
        """The nodes above the leaves: they are not needed here, but a node of IPFS finds the leaves by them."""
        entry = self.entry("get", key)
        for digest in (node.digest for node in entry.tree.nodes):
            try:
                self.blocks.get(digest)
            except StoreError as error:
                what = "is missing" if isinstance(error, NotFound) else f"cannot be used ({error.cause})"
                return f"its node {Cid(1, DAG_PB, digest)} {what}: a node of IPFS cannot read it"
        return None

    # ------------------------------------------------------------ writing

    def put(self, key: str, data: Body, only_if_absent: bool = False) -> None:
        if only_if_absent and not self._store.capabilities.create_only:
            why = "has none" if self._store.capabilities.create_only is False else "was not probed for it"
            raise Unsupported("put", key, f"create-only put on a store that {why}")
        tree, blocks = blocks_of(data)
        parts = list(blocks)
        entry = Entry.of(len(data), (block.digest for block in parts[:len(parts) - len(tree.nodes)]))
        with _told("put", key):
            self.blocks.put(parts)
            try:
                self._store.put(self.table.object_of(key), entry.encode(key), only_if_absent)
            except Exists:
                self._lost(key, entry)
                raise
        self._remember(key, entry)

    def _lost(self, key: str, entry: Entry) -> None:
        """Somebody else was quicker: our blocks are named by nothing, unless the other one put the same."""
        with contextlib.suppress(StoreError):
            if self.entry("get", key) != entry:
                self.bury([entry])

    def bury(self, entries: Sequence[Entry]) -> None:
        """Write down what they named, for the collector."""
        digests = list(dict.fromkeys(itertools.chain.from_iterable(entry.blocks for entry in entries if not _is_small(entry))))
        if digests:
            name = names.burial_name(int(self._clock()), secrets.token_hex(8))
            self._store.put(self.table.gone + name, names.encode_burial(name, digests))

    def put_block(self, digest: bytes, data: Body) -> None:
        """A block under no name of ours (a file that is published): nothing here ever removes it."""
        self.blocks.put_one(Block(digest, data))

    def keep_root(self, cid: Cid, name: str) -> None:
        """Of what is published: nothing to be done, since nothing removes its blocks."""

    def delete(self, key: str) -> None:
        self.delete_many([key])

    def delete_many(self, keys: Sequence[str]) -> None:
        if not keys:
            return
        with _told("delete", keys[0]):
            if not self.capabilities.may_delete:
                self._store.delete(self.table.object_of(keys[0]))      # it says why not
            self.bury([entry for entry in self._crowd.each(self._there, keys) if entry is not None])
            objects = [self.table.object_of(key) for key in keys]
            if len(objects) == 1:
                self._store.delete(objects[0])
            else:
                self._store.delete_many(objects)

    def _there(self, key: str) -> Entry | None:
        try:
            return self.entry("delete", key)
        except NotFound:
            return None

    # ------------------------------------------------------------ listings

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return _Infos(self.listed(prefix))

    def listed(self, prefix: str) -> Pairs:
        if prefix and not prefix.endswith("/"):
            raise ValueError(f"a listing's prefix ends in '/': {prefix}")
        return Pairs(self, prefix)

    def folders(self, prefix: str) -> Iterator[str]:
        if prefix and not prefix.endswith("/"):
            raise ValueError(f"a listing's prefix ends in '/': {prefix}")
        with _told("list", prefix):
            yield from self._store.folders(self.table.entries + prefix)

    # ------------------------------------------------------------ the rest

    def probe_create_only(self, rounds: int = PROBE_ROUNDS) -> bool:
        """Of what holds it: puts of entries. These are none, and have no blocks."""
        store, before = self._store, self._store.capabilities.create_only
        store.assume_create_only(True)
        found: bool | None = before
        try:
            found = probe(lambda key, data: _ignored(store.put(self.table.object_of(key), data, True)),
                          lambda key: store.get(self.table.object_of(key)), lambda key: store.delete(self.table.object_of(key)),
                          secrets.token_hex(8), rounds)
        finally:
            store.assume_create_only(bool(found))
        return found

    def assume_create_only(self, holds: bool) -> None:
        self._store.assume_create_only(holds)

    def assume_linearizable(self, holds: bool) -> None:
        self._store.assume_linearizable(holds)

    def create(self) -> None:
        self._store.create()

    def check(self) -> None:
        with _told("list", "super/"):
            next(iter(self._store.list(self.table.entries + "super/")), None)

    def close(self) -> None:
        self._store.close()


class Pairs(Iterator[tuple[str, Entry | None]]):
    """Keys and what is said of them, each entry a request, many at once. After an error `next` may be called again and goes on."""

    def __init__(self, backend: IpfsBackend, prefix: str) -> None:
        self._backend, self._prefix = backend, prefix
        self._infos = backend.datastore.store.list(backend.table.entries + prefix)
        self._asked: list[str] = []                            # keys whose entries are still to be got
        self._ready: deque[tuple[str, Entry | None]] = deque()

    def __next__(self) -> tuple[str, Entry | None]:
        while not self._ready:
            with _told("list", self._prefix):
                while len(self._asked) < ENTRIES_AT_ONCE and (info := next(self._infos, None)) is not None:
                    self._asked.append(info.key[len(self._backend.table.entries):])
                answers = self._backend.datastore.crowd.each(self._pair, self._asked)
            if not self._asked:
                raise StopIteration
            self._ready.extend(pair for pair in answers if pair is not None)
            self._asked = []
        return self._ready.popleft()

    def _pair(self, key: str) -> tuple[str, Entry | None] | None:
        """None: it went since it was listed. An entry that is None cannot be used."""
        try:
            return key, self._backend.entry("list", key)
        except NotFound as error:
            return (key, None) if isinstance(error, Unusable) else None


class _Infos(Listing):
    def __init__(self, pairs: Pairs) -> None:
        self._pairs = pairs

    def __next__(self) -> ObjectInfo:
        key, entry = next(self._pairs)
        return ObjectInfo(key, 0 if entry is None else entry.size)


class Unusable(NotFound):
    """The entry is there, and damaged or of a newer s3cfs: the object is as good as missing."""


def _is_small(entry: Entry) -> bool:
    return entry.size < SMALL_BYTES


def _ignored(answer: object) -> None:
    """Whether a probe's bytes are stored safely enough is no matter."""


@contextlib.contextmanager
def _told(operation: str, key: str) -> Iterator[None]:
    """Errors name what was asked of this store, not the object below."""
    try:
        yield
    except StoreError as error:
        error.operation, error.key = operation, key
        raise
