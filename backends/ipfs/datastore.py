"""A node's datastore in an object store, as its S3 plugin (go-ds-s3) lays it out: the whole contract of go-datastore, without the plugin's
faults. A table of the differences is in docs/ipfs.md.

    object = rootDirectory / key        key = "/CIQ…" where the node mounts the plugin at /blocks, which is taken away; else "/blocks/CIQ…"

Keys begin with '/', are clean (no empty part, no '.' or '..', no '/' at the end), and are the same that the node uses: what `query` answers
can be given to `get`. Values are bytes. Errors are those of s3cfs/errors.py; absence is NotFound where go-datastore has ErrNotFound, and a
missing bucket is never taken for it. Thread-safe where the store is.
"""
from __future__ import annotations

import functools
import itertools
import posixpath
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from s3cfs.backends.base import Backend, Body
from s3cfs.backends.ipfs.cid import block_key
from s3cfs.backends.ipfs.crowd import Crowd
from s3cfs.errors import ConfigError, NotFound

BLOCKS = "/blocks"                 # where a node keeps its blocks, and mounts the plugin most often
MOUNTPOINTS = (BLOCKS, "/")
OURS = ("s3cfs.names", "names.s3cfs")      # top folders of name tables (names.py): no keys of a datastore
VALUES_AT_ONCE = 16                # of a query that wants values: so many are in memory


@dataclass(frozen=True, slots=True)
class Entry:
    """What a query finds. `value` is None where only keys were asked for; `size` is always known."""

    key: str
    size: int
    value: bytes | None = None


Filter = Callable[[Entry], bool]
Order = Callable[[Entry, Entry], int]      # below 0: the first one comes first


@dataclass(frozen=True, slots=True)
class Query:
    """`prefix`: what lies below that key, by whole parts. Then filters, orders, offset and limit (0: all), in that order.

    Entries that are equal by all orders come by their keys; without orders they come in none. Filters and orders see values, unless
    `keys_only`.
    """

    prefix: str = ""
    filters: Sequence[Filter] = ()
    orders: Sequence[Order] = ()
    limit: int = 0
    offset: int = 0
    keys_only: bool = False


def by_key(one: Entry, other: Entry) -> int:
    return (one.key > other.key) - (one.key < other.key)


def by_value(one: Entry, other: Entry) -> int:
    a, b = one.value or b"", other.value or b""
    return (a > b) - (a < b)


def by_size(one: Entry, other: Entry) -> int:
    return one.size - other.size


def descending(order: Order) -> Order:
    return lambda one, other: order(other, one)


class Datastore:
    """`store`: the whole bucket; `root`: rootDirectory as the plugin has it, "" for none. Closing it is its owner's matter."""

    def __init__(self, store: Backend, root: str = "", mountpoint: str = BLOCKS, crowd: Crowd | None = None) -> None:
        if mountpoint not in MOUNTPOINTS:
            raise ConfigError(f"a node keeps blocks below {BLOCKS}: its plugin is mounted there or at /, not at {mountpoint!r}")
        self.store, self.crowd = store, crowd or Crowd()
        self.root, self.mountpoint = clean_root(root), mountpoint
        self._folder = f"{self.root}/" if self.root else ""

    # ------------------------------------------------------------ single keys

    def put(self, key: str, value: Body) -> None:
        self.store.put(self.object_of(key), value)

    def get(self, key: str) -> bytes:
        return self.store.get(self.object_of(key))

    def has(self, key: str) -> bool:
        try:
            self.get_size(key)
        except NotFound:
            return False
        return True

    def get_size(self, key: str) -> int:
        return self.store.stat(self.object_of(key)).size

    def delete(self, key: str) -> None:
        """Absent is success."""
        self.store.delete(self.object_of(key))

    def sync(self, prefix: str = "/") -> None:
        """Nothing to do: what a put or delete returned for is durable, as the store sees that."""

    def disk_usage(self) -> int:
        """Bytes of all values. A listing of everything below the root."""
        return sum(entry.size for entry in self._listed("/"))

    def batch(self) -> Batch:
        return Batch(self)

    # ------------------------------------------------------------ queries

    def query(self, query: Query) -> Iterator[Entry]:
        """Keys as `get` takes them. What goes while it runs may be missing. A listing, and a get for each value."""
        if query.limit < 0 or query.offset < 0:
            raise ValueError("negative limit or offset")
        found = self._listed(posixpath.normpath("/" + query.prefix.lstrip("/")))
        if query.filters or query.orders:
            found = found if query.keys_only else self._with_values(found)
            for accepts in query.filters:
                found = filter(accepts, found)
        if query.orders:
            for order in (by_key, *reversed(query.orders)):        # sorting is stable: the first order last
                found = iter(sorted(found, key=functools.cmp_to_key(order)))
        found = itertools.islice(found, query.offset, query.offset + query.limit if query.limit else None)
        return found if query.keys_only or query.filters or query.orders else self._with_values(found)

    def _listed(self, prefix: str) -> Iterator[Entry]:
        """Everything strictly below this clean key. What others left there and no key can name (folder marks) is left out."""
        below = prefix.lstrip("/") + "/" if prefix != "/" else ""
        for info in self.store.list(self._folder + below):
            key = "/" + info.key[len(self._folder):]
            if is_clean(key) and not (not self._folder and key.split("/")[1] in OURS):
                yield Entry(key, info.size)

    def _with_values(self, entries: Iterator[Entry]) -> Iterator[Entry]:
        while some := list(itertools.islice(entries, VALUES_AT_ONCE)):
            yield from (entry for entry in self.crowd.each(self._with_value, some) if entry is not None)

    def _with_value(self, entry: Entry) -> Entry | None:
        try:
            value = self.get(entry.key)
        except NotFound:                           # it went since it was listed
            return None
        return replace(entry, value=value, size=len(value))

    # ------------------------------------------------------------ names

    def object_of(self, key: str) -> str:
        """The object of a key. ValueError: that is no key."""
        if not is_clean(key):
            raise ValueError(f"not a key of a datastore: {key!r}")
        return self._folder + key[1:]

    def block(self, digest: bytes) -> str:
        """The key of the block with this sha2-256."""
        return ("" if self.mountpoint == BLOCKS else BLOCKS) + "/" + block_key(digest)

    @property
    def blocks_folder(self) -> str:
        """Of the objects that blocks are, without '/' at its end: the same for all who use the same blocks, however they are mounted."""
        return self.object_of(self.block(bytes(32))).rpartition("/")[0]


class Batch:
    """Puts and deletes that are kept until `commit`; of several on one key the last one counts. Not atomic, and not thread-safe."""

    def __init__(self, datastore: Datastore) -> None:
        self._datastore = datastore
        self._puts: dict[str, Body] = {}
        self._deletes: dict[str, None] = {}

    def put(self, key: str, value: Body) -> None:
        """`value` must not change before `commit` returned."""
        name = self._datastore.object_of(key)
        self._deletes.pop(name, None)
        self._puts[name] = value

    def delete(self, key: str) -> None:
        name = self._datastore.object_of(key)
        self._puts.pop(name, None)
        self._deletes[name] = None

    def commit(self) -> None:
        """Do all of it, several at once. After an error some may be done; it can be called again. Afterwards the batch is empty."""
        store, names = self._datastore.store, list(self._deletes)
        at_once = max(1, store.capabilities.batch_delete)
        self._datastore.crowd.each(lambda name: store.put(name, self._puts[name]), list(self._puts))
        self._datastore.crowd.each(store.delete_many, [names[at:at + at_once] for at in range(0, len(names), at_once)])
        self._puts.clear()
        self._deletes.clear()


def is_clean(key: str) -> bool:
    return key.startswith("/") and not key.startswith("//") and key != "/" and posixpath.normpath(key) == key


def clean_root(root: str) -> str:
    """rootDirectory as the plugin uses it: cleaned, without '/' at either end (the SDK below it drops a leading one)."""
    return posixpath.normpath("/" + root).strip("/")
