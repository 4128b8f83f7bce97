"""Shards that no record names: of a put that failed or died between its shards and its record, of a repair that lost to another one.

They are found by going through the keys of every server, when it is known which objects are alive: all replicas of the records have
been asked, and have answered. A value younger than a day, by its server's own clock, may be of a put under way and is left alone.
"""
from __future__ import annotations

import threading
from array import array

import numpy as np

from s3cfs.backends.progress import moved
from s3cfs.backends.zdb import commands
from s3cfs.backends.zdb.cluster import Cluster, Member
from s3cfs.backends.zdb.shard import parse_name

GRACE_S = 24 * 3600


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


def sweep(cluster: Cluster, alive: Alive, *, remove: bool, stop: threading.Event) -> tuple[int, int]:
    """How many values belong to nothing, and their bytes; with `remove` they are gone. Servers that do not answer are left out."""
    alive.close()
    outcome = cluster.fanout.all(cluster.holders(), lambda member: _sweep_one(member, alive, remove, stop))
    return sum(count for count, _ in outcome.good.values()), sum(size for _, size in outcome.good.values())


def _sweep_one(member: Member, alive: Alive, remove: bool, stop: threading.Event) -> tuple[int, int]:
    count = size = 0
    cursor: bytes | None = None
    before = commands.now(member) - GRACE_S
    while not stop.is_set() and (page := commands.scan(member, cursor)) is not None:
        cursor = page.cursor
        for entry in page.entries:
            said = parse_name(entry.key)
            if said is None or entry.time >= before or alive.has(said[0]):
                continue
            count, size = count + 1, size + entry.size
            if remove:
                commands.delete(member, entry.key)
        moved()
    return count, size
