"""The log of records in the store, as whoever reads it sees it.

Every record has a number n; numbers run on over all writers. A writer's records lie in a folder of its own,
`log/<branch>/<epoch>-<nonce>/<n>`, and each names the one before by key and hash, so the history is what a walk backwards from
the tip finds.
The tip is the highest n in the folder of the highest epoch that holds a record.
"""
from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from typing import Any

from s3cfs import ids
from s3cfs.errors import Damaged, NotFound, ObjectMissing
from s3cfs.formats import record
from s3cfs.formats.record import Kind, Record
from s3cfs.formats.seal import Seals
from s3cfs.ids import ObjectHash
from s3cfs.remote import Remote

GENESIS = ids.epoch_prefix(0, "0" * 16)     # the current folder of a filesystem that never had a writer


@dataclass(frozen=True, slots=True)
class Tip:
    """The newest record: where it is and what it says. n = 0: there is none yet."""

    n: int = 0
    key: str = ""
    hash: ObjectHash = ids.ZERO_HASH
    epoch: int = 0
    kind: Kind | None = None
    info: dict[str, Any] = field(default_factory=dict)
    writer: str = ""                   # who appended it: the nonce of one time in office
    time_ns: int = 0                   # by that machine's clock
    current: str = ""                  # the folder of the next record, where it is not that of `key` (retreat.py)

    @property
    def signed_off(self) -> bool:
        """Its writer had nothing more to say (`idle`: and is in office still) when it wrote this."""
        return self.kind is Kind.RELEASE

    @property
    def unmounted(self) -> bool:
        """Its writer has left office for good."""
        return self.signed_off and bool(self.info.get("final"))

    @property
    def folder(self) -> str:
        """Where the next record of this history goes in T1."""
        if self.current:
            return self.current
        if self.kind is Kind.SEAL:
            return str(self.info["next"])
        return self.key.rpartition("/")[0] + "/" if self.key else GENESIS


@dataclass(frozen=True, slots=True)
class Host:
    """Who writes, as precisely as a computer can be named, so that a dead process of this very machine is known to be dead."""

    boot_id: str = ""
    pid_namespace: str = ""
    pid: int = 0
    start_ticks: int = 0           # of the process, since boot: a pid alone is reused
    name: str = ""

    def to_info(self) -> dict[str, Any]:
        return {"boot": self.boot_id, "ns": self.pid_namespace, "pid": self.pid, "start": self.start_ticks, "host": self.name}

    @classmethod
    def from_info(cls, info: dict[str, Any]) -> Host | None:
        raw = info.get("by")
        if not isinstance(raw, dict):
            return None
        return cls(str(raw.get("boot", "")), str(raw.get("ns", "")), int(raw.get("pid", 0)), int(raw.get("start", 0)),
                   str(raw.get("host", "")))

    def same_machine(self, other: Host) -> bool:
        return (bool(self.boot_id and self.pid_namespace) and self.boot_id == other.boot_id
                and self.pid_namespace == other.pid_namespace)


def described(tip: Tip) -> str:
    """The writer of a record in words: its machine and process."""
    owner = Host.from_info(tip.info)
    if owner is None or not owner.name:
        return "another machine"
    return f"{owner.name} (process {owner.pid})" if owner.pid else owner.name


def moment(time_ns: int) -> str:
    return datetime.datetime.fromtimestamp(time_ns // 10**9, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def tip_of(key: str, data: bytes, found: Record) -> Tip:
    return Tip(found.n, key, record.record_hash(data), found.epoch, found.kind, found.info, found.writer, found.time_ns)


async def read_record(remote: Remote, key: str, sealer: Seals) -> tuple[Record, bytes]:
    """One record with its bytes. ObjectMissing, Damaged; also when its place contradicts what it says."""
    try:
        data = await remote.get(key)
    except NotFound:
        raise ObjectMissing(f"log record {key} is missing from the store") from None
    _, epoch, nonce, n = ids.parse_log_key(key)
    try:
        found = record.decode(data, n, sealer)
    except Damaged as exc:
        raise Damaged(f"log record {key} is damaged: {exc}") from None
    if found.n != n or (found.kind is not Kind.SEAL and (found.epoch, found.writer) != (epoch, nonce)):
        raise Damaged(f"log record {key} is damaged: it was written for another place")
    return found, data


async def list_log(remote: Remote) -> dict[tuple[int, str], dict[int, str]]:
    """Keys of all records: {(epoch, nonce): {n: key}}. Foreign names are ignored."""
    found: dict[tuple[int, str], dict[int, str]] = {}
    for info in await remote.list(ids.log_prefix()):
        try:
            _, epoch, nonce, n = ids.parse_log_key(info.key)
        except ValueError:
            continue
        found.setdefault((epoch, nonce), {})[n] = info.key
    return found


async def find_tip(remote: Remote, sealer: Seals) -> Tip:
    """The newest record of the history (see the module's text)."""
    folders = await list_log(remote)
    if not folders:
        return Tip()
    records = folders[max(folders)]
    key = records[max(records)]
    found, data = await read_record(remote, key, sealer)
    return tip_of(key, data, found)


def number_of(key: str) -> int:
    """Number of a record, from its key; 0 for the empty one, which comes before the first. Damaged."""
    try:
        return ids.parse_log_key(key)[3] if key else 0
    except ValueError:
        raise Damaged(f"a log record names {key!r:.80} as the one before") from None


def epoch_of(folder: str) -> int:
    """Epoch of a log folder."""
    return int(folder.rstrip("/").rpartition("/")[2].partition("-")[0])
