"""The way from a known record to the tip: which records lie between, found without listing them.

From the tip backwards one request for each run (log.py) says where it begins and what came before it. So the keys of all records of the
way are known, and they can be read forwards, several at once, while those before them are applied (replica.py). What the records say of
runs is a hint: the hashes by which each names the one before decide.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from s3cfs import ids
from s3cfs.errors import Damaged
from s3cfs.formats import record
from s3cfs.formats.record import Record
from s3cfs.formats.seal import Seals
from s3cfs.history.log import Tip, fetch_record, number_of, open_record, run_of
from s3cfs.ids import ObjectHash
from s3cfs.remote import Remote


class Read(NamedTuple):
    """A record with its hash, and how many bytes of its object are its own (not its riders')."""

    record: Record
    hash: ObjectHash
    size: int


class Run(NamedTuple):
    """Records `first` to `last` of one folder."""

    folder: str
    first: int
    last: int


class Way(NamedTuple):
    runs: tuple[Run, ...]                  # oldest first; of the first one only what comes after the base
    prev: tuple[str, ObjectHash]           # what the first record of the way names as the one before; the tip where the way is empty
    skips: int                             # how many records a repair left out before it

    @property
    def length(self) -> int:
        return sum(run.last - run.first + 1 for run in self.runs)

    def keys(self) -> Iterator[str]:
        for folder, first, last in self.runs:
            for n in range(first, last + 1):
                yield ids.record_key(folder, n)


class LogReader:
    """Records of one log, by key."""

    def __init__(self, remote: Remote, sealer: Seals, known: Mapping[str, Read] | None = None) -> None:
        """`known`: records that cannot be read in the store, and what they are (retreat.py)."""
        self._remote, self._sealer, self._known = remote, sealer, dict(known or {})

    def know(self, key: str, data: bytes) -> None:
        """What this process has put itself: a store that is late would let it wait for that. Damaged."""
        self._known[key] = self.open(key, data)

    async def fetch(self, key: str, *, named: bool = True) -> bytes | Read:
        """For `open`, which may be called in a thread. ObjectMissing; `named`: a later record says that it is there (`Remote.get`)."""
        return self._known.get(key) or await fetch_record(self._remote, key, named=named)

    def open(self, key: str, fetched: bytes | Read) -> Read:
        """Damaged."""
        if isinstance(fetched, Read):
            return fetched
        found = open_record(key, fetched, self._sealer)
        return Read(found, record.record_hash(fetched), found.head_bytes)

    async def read(self, key: str) -> Read:
        return self.open(key, await self.fetch(key))

    async def way(self, tip: Tip, base: int) -> Way:
        """From record number `base` to `tip`. ObjectMissing, Damaged: the first that is in the way."""
        runs: list[Run] = []
        key, run = tip.key, tip.run
        while (last := number_of(key)) > base:
            first, before = run or run_of((await self.read(key)).record)
            if number_of(before) >= first:
                raise Damaged(f"log record {key} is damaged: it says that {before} came before record {first}")
            runs.append(Run(ids.folder_of(key), max(first, base + 1), last))
            if first <= base:
                break
            key, run = before, None
        if not runs:
            return Way((), (tip.key, tip.hash), 0)
        oldest = (await self.read(ids.record_key(runs[-1].folder, runs[-1].first))).record
        return Way(tuple(runs[::-1]), (str(oldest.info.get("prev_key", "")), oldest.prev), int(oldest.info.get("skips", 0)))


def size_of(fetched: bytes | Read) -> int:
    return len(fetched) if isinstance(fetched, bytes) else len(fetched.record.changeset)
