"""Shards that no record names: of a put that failed or died between its shards and its record, of a repair that lost to another one.

They are found by going through the keys of every server, when it is known which objects are alive: all replicas of the records have
been asked, and have answered. A value younger than a day, by its server's own clock, may be of a put under way and is left alone; so is
what is not of an object (backups have keys of their own), and what is damaged. Before anything is removed its record is read once more.
"""
from __future__ import annotations

import threading
from array import array

import numpy as np

from s3cfs.backends.progress import moved
from s3cfs.backends.zdb import commands
from s3cfs.backends.zdb.cluster import Member
from s3cfs.backends.zdb.commands import Entry
from s3cfs.backends.zdb.replicas import Known, Replicas
from s3cfs.backends.zdb.shard import decode_value, parse_name
from s3cfs.errors import StoreError

GRACE_S = 24 * 3600
OWN = "s3cfs:"                     # keys of what is no object


class Alive:
    """Object ids, by eight bytes of each: two that share these would keep each other's shards, which does no harm. For several threads."""

    def __init__(self) -> None:
        self._ids = array("Q")
        self._sorted = np.empty(0, np.uint64)

    def add(self, object_id: bytes) -> None:
        self._ids.append(int.from_bytes(object_id[:8], "big"))

    def close(self) -> None:
        """Nothing is added any more."""
        self._sorted = np.unique(np.array(self._ids, np.uint64))

    def has(self, object_id: bytes) -> bool:
        wanted = np.uint64(int.from_bytes(object_id[:8], "big"))
        at = int(np.searchsorted(self._sorted, wanted))
        return at < len(self._sorted) and self._sorted[at] == wanted


def sweep(replicas: Replicas, alive: Alive, *, remove: bool, stop: threading.Event) -> tuple[int, int]:
    """How many values belong to nothing, and their bytes; with `remove` they are gone. Servers that do not answer are left out."""
    alive.close()
    cluster = replicas.cluster
    outcome = cluster.fanout.all(cluster.holders(), lambda member: _Sweep(replicas, alive, member, remove).run(stop))
    return sum(count for count, _ in outcome.good.values()), sum(size for _, size in outcome.good.values())


class _Sweep:
    """Of one server."""

    def __init__(self, replicas: Replicas, alive: Alive, member: Member, remove: bool) -> None:
        self._replicas, self._alive, self._member, self._remove = replicas, alive, member, remove
        self._found = self._bytes = 0

    def run(self, stop: threading.Event) -> tuple[int, int]:
        cursor: bytes | None = None
        before = commands.now(self._member) - GRACE_S
        while not stop.is_set() and (page := commands.scan(self._member, cursor)) is not None:
            cursor = page.cursor
            for entry in page.entries:
                said = parse_name(entry.key)
                if said is not None and entry.time < before and not self._alive.has(said[0]):
                    self._look_at(entry, said[0])
            moved()
        return self._found, self._bytes

    def _look_at(self, entry: Entry, object_id: bytes) -> None:
        value = commands.get(self._member, entry.key)
        try:
            key = decode_value(value or b"", entry.key)[0].key
            known = self._replicas.read(key)
        except (ValueError, StoreError):
            return                                         # nobody can tell whose it is
        if key.startswith(OWN) or (known is not None and known.is_there and object_id in _ids(known)):
            return
        self._found, self._bytes = self._found + 1, self._bytes + entry.size
        if self._remove:
            commands.delete(self._member, entry.key)


def _ids(known: Known) -> tuple[bytes, bytes]:
    return known.record.where.object_id, known.where.object_id
