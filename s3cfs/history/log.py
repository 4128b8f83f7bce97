"""The log of records in the store, as whoever reads it sees it.

Every record has a number n; numbers run on over all writers. A writer's records lie in a folder of its own,
`log/<branch>/<epoch // 1000>/<epoch>-<nonce>/`, in ranges of a thousand below ranges of a million, and each names the one before by key
and hash, so the history is what a walk backwards from the tip finds.
The tip is the highest n in the folder of the highest epoch that holds a record. It is found from above, by six requests whatever the
age of the filesystem: no listing has more than some thousand names, but for `list_whole_log`, which fsck alone uses.

A *run* is an unbroken row of numbers in one folder, each naming the one before. Every record says where its run begins and what came
before that (`info["run"]`), so that the keys from the tip back to any record are known after one request for each run (plan.py).
"""
from __future__ import annotations

import datetime
import re
from dataclasses import dataclass, field
from typing import Any

from s3cfs import ids
from s3cfs.errors import Damaged, NotFound, ObjectMissing
from s3cfs.formats import record
from s3cfs.formats.record import Kind, Record
from s3cfs.formats.seal import Seals
from s3cfs.ids import ObjectHash
from s3cfs.remote import Remote

HEAD_BYTES = 16 << 10                       # what riders are behind; heads are mostly smaller
LEVELS = 4                                  # of folders between the log and its records: a thousand epochs, one, a million, a thousand
_FOLDER = re.compile(r"(\d{1,20})(?:-([0-9a-f]{16}))?")
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
        return ids.folder_of(self.key) if self.key else GENESIS

    @property
    def run(self) -> tuple[int, str] | None:
        """First number of its run, and the key of the record before that; None: not known here."""
        return _run(self.n, self.info)

    def run_of_next(self, key: str) -> tuple[int, str]:
        """First number of the run of the record that follows as `key`, and the key of the record before that run."""
        n = number_of(key)
        goes_on = n > 1 and self.key == ids.record_key(ids.folder_of(key), n - 1)
        return (self.run if goes_on else None) or (n, self.key)


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


async def read_record(remote: Remote, key: str, sealer: Seals, *, named: bool = False) -> tuple[Record, bytes]:
    """One record with the bytes of its head, and perhaps more. ObjectMissing, Damaged; also when its place contradicts what it says.
    `named`: see `Remote.get`."""
    data = await fetch_record(remote, key, named=named)
    return open_record(key, data, sealer), data


async def fetch_record(remote: Remote, key: str, *, named: bool = False) -> bytes:
    """The head of a record's object, perhaps with more of it: in one request where it is small, else in two. ObjectMissing; `named`: see
    `Remote.get`."""
    try:
        data = await remote.get(key, 0, HEAD_BYTES, named=named)
        missing = record.head_bytes(data) - len(data)
        return data + await remote.get(key, len(data), missing) if missing > 0 and len(data) == HEAD_BYTES else data
    except NotFound:
        raise ObjectMissing(f"log record {key} is missing from the store") from None


def open_record(key: str, data: bytes, sealer: Seals) -> Record:
    """What they say. Damaged, also when its place contradicts that. Takes some ms per MiB: for a thread when there are many."""
    _, epoch, nonce, n = ids.parse_log_key(key)
    try:
        found = record.decode(data, n, sealer)
    except Damaged as exc:
        raise Damaged(f"log record {key} is damaged: {exc}") from None
    if found.n != n or (found.kind is not Kind.SEAL and (found.epoch, found.writer) != (epoch, nonce)):
        raise Damaged(f"log record {key} is damaged: it was written for another place")
    return found


async def list_whole_log(remote: Remote) -> dict[tuple[int, str], dict[int, str]]:
    """Keys of all records there ever were: {(epoch, nonce): {n: key}}. For fsck and repairs: it takes longer every day.

    Foreign names are ignored.
    """
    found: dict[tuple[int, str], dict[int, str]] = {}
    for info in await remote.list(ids.log_prefix()):
        try:
            _, epoch, nonce, n = ids.parse_log_key(info.key)
        except ValueError:
            continue
        found.setdefault((epoch, nonce), {})[n] = info.key
    return found


async def newest_key(remote: Remote) -> str:
    """Key of the highest number in the folder of the highest epoch; "" when there is no record."""
    return await _newest_below(remote, ids.log_prefix(), LEVELS)


async def _newest_below(remote: Remote, prefix: str, levels: int) -> str:
    """The highest folder that holds no record gives way to the next (foreign names)."""
    if not levels:
        keys = [info.key for info in await remote.list(prefix) if _is_record(info.key)]
        return max(keys, key=number_of, default="")
    for name in await folders_newest_first(remote, prefix):
        if found := await _newest_below(remote, f"{prefix}{name}/", levels - 1):
            return found
    return ""


async def folders_newest_first(remote: Remote, prefix: str) -> list[str]:
    """Of the folders that are named by a number, or by an epoch and a writer. One request."""
    found = [(int(match[1]), match[2] or "", match[0]) for name in await remote.folders(prefix) if (match := _FOLDER.fullmatch(name))]
    return [name for *_, name in sorted(found, reverse=True)]


async def newest_epoch(remote: Remote) -> int:
    """Of all writers' folders; 0: there is none."""
    for thousand in await folders_newest_first(remote, ids.log_prefix()):
        for name in await folders_newest_first(remote, f"{ids.log_prefix()}{thousand}/"):
            return int(name.partition("-")[0])
    return 0


async def find_tip(remote: Remote, sealer: Seals) -> Tip:
    """The newest record of the history (see the module's text)."""
    key = await newest_key(remote)
    if not key:
        return Tip()
    found, data = await read_record(remote, key, sealer, named=True)       # a listing showed it
    return tip_of(key, data, found)


async def find_record(remote: Remote, sealer: Seals, tip: Tip, n: int) -> str:
    """Key of record n of the history that ends at `tip`; "" when it has none. One request for each run since. ObjectMissing, Damaged."""
    key = tip.key
    while number_of(key) > n:
        first, before = run_of((await read_record(remote, key, sealer))[0])
        key = ids.record_key(ids.folder_of(key), n) if n >= first else before
    return key if n and number_of(key) == n else ""


def run_of(found: Record) -> tuple[int, str]:
    """First number of the record's run, and the key of the one before that. It is a hint; hashes decide."""
    return _run(found.n, found.info) or (found.n, str(found.info.get("prev_key", "")))


def _run(n: int, info: dict[str, Any]) -> tuple[int, str] | None:
    match info.get("run"):
        case [int(first), str(before)] if 0 < first <= n:
            return first, before
    return None


def _is_record(key: str) -> bool:
    try:
        ids.parse_log_key(key)
    except ValueError:
        return False
    return True


def number_of(key: str) -> int:
    """Number of a record, from its key; 0 for the empty one, which comes before the first. Damaged."""
    try:
        return ids.parse_log_key(key)[3] if key else 0
    except ValueError:
        raise Damaged(f"a log record names {key!r:.80} as the one before") from None


def epoch_of(folder: str) -> int:
    """Epoch of a log folder."""
    return int(folder.rstrip("/").rpartition("/")[2].partition("-")[0])
