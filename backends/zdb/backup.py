"""A backup of the records (D7): all that the replicas know, as objects in shards on the servers themselves.

Records lie on a few servers, shards on all. A backup is cut like any object and survives what any object survives, also the loss of every
replica. It is found with nothing but the list of servers: each has the names of the last backups under `s3cfs:backup`. (Should that be
gone too: its shards say what they are, see restore.py.)

    s3cfs:backup    sealed: JSON {"backups": [{"time_ns", "slots", "sheets": [{"size", "where": hex}]}]}, the newest first
    a sheet         sealed: magic, its number u32, whether it is the last u8; zstd of: length of a key u16, of its value u32, both; ...

Keys and values are those of a replica (record.py), all versions of them: putting them back where they are missing is all of a restore.
"""
from __future__ import annotations

import json
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import zstandard

from s3cfs.backends.zdb import agree, commands, reading, writing
from s3cfs.backends.zdb.cluster import Cluster, Member
from s3cfs.backends.zdb.record import Signer, Where
from s3cfs.errors import Corrupt, StoreError, Temporary
from s3cfs.limits import MIB

NAME = b"s3cfs:backup"             # in a 0-db; and what sheets are sealed as
KEY = "s3cfs:backup"               # of a sheet, as its shards have it
KEPT = 2                           # backups
SHEET_BYTES = 16 * MIB             # before compression
KEYS_AT_ONCE = 100

_MAGIC = b"s3cfs zdb records 1\0"
_HEAD = struct.Struct(">20sIB")
_SLOT = struct.Struct(">HI")
_LEVEL = 3

Slot = tuple[bytes, bytes]         # key and value, as a replica has them
Report = Callable[[str, int, int | None], None]                # what is being done, how far, of how much


@dataclass(frozen=True, slots=True)
class Sheet:
    size: int
    where: Where


@dataclass(frozen=True, slots=True)
class Backup:
    """`slots`: how many keys of a replica are in it."""

    time_ns: int
    slots: int
    sheets: tuple[Sheet, ...]

    @property
    def size(self) -> int:
        return sum(sheet.size for sheet in self.sheets)

    def as_json(self) -> Mapping[str, Any]:
        return {"time_ns": self.time_ns, "slots": self.slots,
                "sheets": [{"size": sheet.size, "where": sheet.where.encode().hex()} for sheet in self.sheets]}

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Backup:
        return cls(int(said["time_ns"]), int(said["slots"]),
                   tuple(Sheet(int(one["size"]), Where.decode(bytes.fromhex(one["where"]))) for one in said["sheets"]))


# ---------------------------------------------------------------- making one

def back_up(cluster: Cluster, report: Report, time_ns: Callable[[], int] = time.time_ns) -> Backup:
    """Make one, and remove those that are too old. StoreError: there is none then, and those before are as they were."""
    making = _Making(cluster, time_ns())
    versions = agree.keys_of(cluster)
    keys = sorted(versions)
    before = backups(cluster)
    try:
        for at in range(0, len(keys), KEYS_AT_ONCE):
            for said in agree.views(cluster, {key: versions[key] for key in keys[at:at + KEYS_AT_ONCE]}).said.values():
                making.add(agree.opinion(said, cluster.signer).values)
            report("reading the records", at, len(keys))
        made = making.done()
        _announce(cluster, [made, *before][:KEPT])
    except BaseException:
        _drop(cluster, making.sheets)
        raise
    for old in before[KEPT - 1:]:
        _drop(cluster, old.sheets)
    return made


class _Making:
    def __init__(self, cluster: Cluster, time_ns: int) -> None:
        self._cluster, self._time_ns = cluster, time_ns
        self.sheets: list[Sheet] = []
        self._waiting: list[bytes] = []
        self._bytes = self._slots = 0

    def add(self, slots: Mapping[bytes, bytes]) -> None:
        for name, value in slots.items():
            if self._bytes >= SHEET_BYTES:
                self._write(is_last=False)
            self._waiting += (_SLOT.pack(len(name), len(value)), name, value)
            self._bytes += len(name) + len(value)
            self._slots += 1

    def done(self) -> Backup:
        self._write(is_last=True)
        return Backup(self._time_ns, self._slots, tuple(self.sheets))

    def _write(self, *, is_last: bool) -> None:
        packed = zstandard.ZstdCompressor(level=_LEVEL).compress(b"".join(self._waiting))
        data = self._cluster.signer.seal(NAME, _HEAD.pack(_MAGIC, len(self.sheets), is_last) + packed)
        self._waiting, self._bytes = [], 0
        self.sheets.append(Sheet(len(data), writing.write(self._cluster, KEY, data, self._time_ns).where))


def _announce(cluster: Cluster, newest: list[Backup]) -> None:
    value = cluster.signer.seal(NAME, json.dumps({"backups": [one.as_json() for one in newest]}).encode())
    members = list(cluster)
    outcome = cluster.fanout.all(members, lambda member: commands.put(member, NAME, value))
    if 2 * len(outcome.good) <= len(members):
        why = next(iter(outcome.bad.values()), "")
        raise Temporary("backup", "", f"only {len(outcome.good)} of {len(members)} servers took its name; {why}")


def _drop(cluster: Cluster, sheets: Iterable[Sheet]) -> None:
    for sheet in sheets:
        writing.drop(cluster, sheet.where, sheet.size)


# ---------------------------------------------------------------- finding and reading one

def backups(cluster: Cluster) -> list[Backup]:
    """Those that any server that answers knows, the newest first; the last of them may be gone."""
    outcome = cluster.fanout.all(list(cluster), lambda member: _known_on(member, cluster.signer))
    found = {one.time_ns: one for known in outcome.good.values() for one in known}
    return [found[time_ns] for time_ns in sorted(found, reverse=True)]


def _known_on(member: Member, signer: Signer) -> list[Backup]:
    value = commands.get(member, NAME)
    if value is None:
        return []
    try:
        return [Backup.from_json(one) for one in json.loads(signer.unseal(NAME, value))["backups"]]
    except (ValueError, KeyError, TypeError, struct.error):
        return []                      # damaged: the others have it


def slots(cluster: Cluster, sheets: Iterable[Sheet]) -> Iterator[Slot]:
    """All of a backup. Corrupt, Temporary: a sheet cannot be read."""
    last = False
    for number, sheet in enumerate(sheets):
        head, body = read_sheet(cluster, sheet)
        if head.number != number or last:
            raise Corrupt("restore", KEY, "its parts do not belong together")
        last = head.is_last
        yield from _unpacked(body)
    if not last:
        raise Corrupt("restore", KEY, "it has no end")


@dataclass(frozen=True, slots=True)
class SheetHead:
    number: int
    is_last: bool


def read_sheet(cluster: Cluster, sheet: Sheet) -> tuple[SheetHead, bytes]:
    """What it says of itself, and its slots, unpacked. StoreError."""
    stored = reading.Stored(KEY, sheet.size, sheet.where)
    try:
        data = reading.read(cluster, stored, 0, None)
    except reading.Shortage:
        try:
            data = reading.read(cluster, reading.Stored(KEY, sheet.size, reading.find(cluster, stored)), 0, None)
        except reading.Shortage as shortage:
            raise shortage.as_error() from None
    try:
        body = cluster.signer.unseal(NAME, data)
        magic, number, is_last = _HEAD.unpack_from(body)
        if magic != _MAGIC:
            raise ValueError("it is of a later version of s3cfs")
        return SheetHead(number, bool(is_last)), zstandard.ZstdDecompressor().decompress(body[_HEAD.size:])
    except (ValueError, struct.error, zstandard.ZstdError) as error:
        raise Corrupt("restore", KEY, str(error)) from None


def _unpacked(body: bytes) -> Iterator[Slot]:
    at = 0
    while at < len(body):
        name_bytes, value_bytes = _SLOT.unpack_from(body, at)
        at += _SLOT.size
        middle, end = at + name_bytes, at + name_bytes + value_bytes
        yield body[at:middle], body[middle:end]
        at = end


def newest_readable(cluster: Cluster, known: Iterable[Backup]) -> tuple[Backup | None, list[StoreError]]:
    """The first of them that can be read from beginning to end, and what is wrong with those before."""
    troubles: list[StoreError] = []
    for one in known:
        try:
            for sheet in one.sheets:
                read_sheet(cluster, sheet)
        except StoreError as error:
            troubles.append(error)
        else:
            return one, troubles
    return None, troubles
