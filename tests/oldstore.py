"""A store that looks as ten years leave it: a million records of thousands of writers, and a checkpoint near the newest of them.

What nobody may need is not there: of the old records only the folders they lie in, which listings show. To read one of them, or to list
the log as a whole, is an error. The newest record, the checkpoint and all that comes later are real.
"""
from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator

import trio

from s3cfs import ids
from s3cfs.backends.base import ObjectInfo
from s3cfs.backends.memory import MemoryBackend
from s3cfs.doors import Doors, SystemClock, SystemDisk, SystemRandomness, TrioThreads
from s3cfs.formats import record
from s3cfs.formats.keys import KeyRing
from s3cfs.formats.record import Kind, Record
from s3cfs.history.checkpoints import Checkpoints
from s3cfs.history.health import Health
from s3cfs.history.log import Tip, tip_of
from s3cfs.limits import DEFAULTS, Limits
from s3cfs.meta import Meta
from s3cfs.remote import Remote

WRITER = "a" * 16
TOO_MUCH = 3000                    # names in one listing: S3 gives a thousand a request


class OldStore(MemoryBackend):
    """`epochs` writers, all but the last of whom are names only. `records`: the number of the newest record, which the last one wrote."""

    def __init__(self, records: int, epochs: int) -> None:
        super().__init__()
        self.records, self.epochs = records, epochs
        self.tip = Tip()
        self._names: dict[str, set[str]] = {}
        for epoch in range(1, epochs):
            self._there_was(ids.epoch_prefix(epoch, WRITER))
        for n in range(records - records // 10, records, 1000):              # the last one was in office for long
            self._there_was(ids.log_key(epochs, WRITER, n))
        for commit in range(500, records - 1000, 5000):
            self._there_was(ids.checkpoint_key(commit, f"manifest-{WRITER}"))

    def _there_was(self, key: str) -> None:
        parts = key.rstrip("/").split("/")
        for at in range(1, len(parts)):
            self._names.setdefault("/".join(parts[:at]) + "/", set()).add(parts[at])

    def folders(self, prefix: str) -> Iterator[str]:
        rest = [info.key[len(prefix):] for info in super().list(prefix)]
        found = {*(name.partition("/")[0] for name in rest if "/" in name), *self._names.get(prefix, ())}
        assert len(found) <= TOO_MUCH, f"{len(found)} names in {prefix}"
        yield from found

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        assert all(name == prefix or not name.startswith(prefix) for name in self._names), f"all of {prefix} is listed"
        yield from super().list(prefix)

    def get(self, key: str, offset: int = 0, size: int | None = None) -> bytes:
        assert key.rpartition("/")[2] not in self._names.get(key.rpartition("/")[0] + "/", ()), f"{key} is read"
        return super().get(key, offset, size)


def old_store(keyring: KeyRing, records: int, epochs: int, fill: Callable[[Doors, str], object], limits: Limits = DEFAULTS) -> OldStore:
    """`fill` puts rows into the database (path relative to the doors' disk), which nobody has open; they are what the checkpoint holds.

    The last writer has unmounted, so that a mount need not wait.
    """
    store = OldStore(records, epochs)
    run = [records - records // 10, ids.log_key(epochs - 1, WRITER, records - records // 10 - 1)]
    made = Record(Kind.RELEASE, records, epochs, WRITER, ids.ObjectHash(b"?" * 32), 0,
                  {"tier": "T1", "final": True, "prev_key": ids.log_key(epochs, WRITER, records - 1), "run": run})
    key = ids.log_key(epochs, WRITER, records)
    data = record.encode(made, keyring.sealer("record", epochs))
    store.put(key, data)
    store.tip = tip_of(key, data, made)
    with tempfile.TemporaryDirectory(prefix="s3cfs-old-") as folder:
        doors = on_disk(folder, limits)
        Meta.open(doors, "old.db", None).close()
        fill(doors, "old.db")
        trio.run(_checkpoint, doors, store, keyring)
    return store


def on_disk(folder: str, limits: Limits = DEFAULTS) -> Doors:
    return Doors(SystemClock(), SystemRandomness(), TrioThreads(), SystemDisk(folder), limits)


async def _checkpoint(doors: Doors, store: OldStore, keyring: KeyRing) -> None:
    meta = Meta.open(doors, "old.db", None)
    try:
        remote = Remote(store, doors)
        writing = Checkpoints(doors, meta, remote, keyring, store.epochs, Health(read_only=False))
        await writing.write(meta.snapshot(), store.tip)
        assert writing.written == 1
    finally:
        meta.close()
