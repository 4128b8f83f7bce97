"""What this machine notes of the history: how far its database is, and bytes of its own records whose put may have begun."""
from __future__ import annotations

import json
from dataclasses import dataclass

from s3cfs import ids
from s3cfs.doors import Disk
from s3cfs.history.log import Tip
from s3cfs.ids import ObjectHash
from s3cfs.meta import Meta


@dataclass(frozen=True, slots=True)
class LocalTip:
    """How far the database is; kept in it as JSON under `tip`."""

    n: int = 0
    key: str = ""
    hash: ObjectHash = ids.ZERO_HASH
    log_bytes: int = 0                 # of the heads of the records since the last checkpoint
    log_records: int = 0
    checkpoint_commit: int = 0
    checkpoint_bytes: int = 0

    def advanced(self, tip: Tip, size: int) -> LocalTip:
        return LocalTip(tip.n, tip.key, tip.hash, self.log_bytes + size, self.log_records + 1, self.checkpoint_commit,
                        self.checkpoint_bytes)

    def with_checkpoint(self, commit: int, size: int, log_bytes: int) -> LocalTip:
        """`log_bytes`: of the records that came while it was being written."""
        return LocalTip(self.n, self.key, self.hash, log_bytes, self.n - commit, commit, size)

    def save(self, meta: Meta) -> None:
        meta.local_set("tip", json.dumps({**{name: getattr(self, name) for name in
                       ("n", "key", "log_bytes", "log_records", "checkpoint_commit", "checkpoint_bytes")},
                       "hash": self.hash.hex()}).encode())

    @classmethod
    def load(cls, meta: Meta) -> LocalTip:
        raw = meta.local_get("tip")
        if raw is None:
            return cls()
        found = json.loads(raw)
        found["hash"] = ObjectHash(bytes.fromhex(found["hash"]))
        return cls(**found)


# ---------------------------------------------------------------- INVARIANT F2

def pending_name(n: int) -> str:
    """Local file with the bytes of a record whose PUT may have begun."""
    return f"journal/segment-{n}"


def pending(disk: Disk) -> dict[int, bytes]:
    """All of them: {number of the record: its bytes}."""
    found = {}
    for name in disk.listdir("journal") if disk.exists("journal") else []:
        kind, _, n = name.partition("-")
        if kind == "segment" and n.isdigit():
            file = disk.open(f"journal/{name}")
            try:
                found[int(n)] = file.pread(file.size(), 0)
            finally:
                file.close()
    return found


def drop_pending(disk: Disk) -> None:
    """No record of theirs can arrive any more, or there is no outbox that they belong to."""
    for name in disk.listdir("journal") if disk.exists("journal") else []:
        kind, _, n = name.partition("-")
        if kind == "segment" and n.isdigit():
            disk.unlink(pending_name(int(n)))
