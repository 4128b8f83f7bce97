"""Makes a golden store: the same few objects every time, of every kind, with every number fixed.

    python -m tests.golden.make FOLDER

It is run once for each format version, into tests/golden/v<version>/, and what it made is never changed afterwards:
tests/golden/test_golden.py asks every later s3cfs to read it. Next to the objects (`sealed/` and `plain/`, a file for each key) lies
expected.json: every field that must come out, and the secrets that open the sealed one. Other zstd versions may compress otherwise, so
making it again need not give the same bytes.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from typing import Any

import apsw
from blake3 import blake3

from s3cfs import ids
from s3cfs.formats import checkpoint, pack, record, superblock
from s3cfs.formats.chunk import ChunkCodec
from s3cfs.formats.keys import KeyRing
from s3cfs.formats.record import Kind, Record, Rider
from s3cfs.formats.superblock import Argon2Params
from s3cfs.ids import ObjectHash

PASSPHRASE, KEY_FILE = "Zürich, golden", b"a key file, golden as well"
NOW_NS, EPOCH, WRITER = 1_750_000_000_123_456_789, 3, "00c0ffee00c0ffee"
SIZES = (64 << 10, 256 << 10, 1 << 20)


class FixedRandomness:
    """A stream that never changes: BLAKE3 of nothing, read on and on."""

    def __init__(self) -> None:
        self._at = 0

    def bytes(self, count: int) -> bytes:
        found = blake3(b"", derive_key_context="s3cfs golden randomness").digest(count, seek=self._at)
        self._at += count
        return found

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * int.from_bytes(self.bytes(8), "little") / 2**64


def contents() -> list[bytes]:
    """One that zstd shrinks, one that it cannot, one of a single byte."""
    return [b"gold does not tarnish. " * 200, blake3(b"incompressible").digest(5000), b"!"]


def changeset(value: int) -> bytes:
    """A real one, of an insert and an update in a table of its own."""
    db = apsw.Connection(":memory:")
    db.execute("CREATE TABLE golden (id INTEGER PRIMARY KEY, name BLOB, value INTEGER) STRICT")
    db.execute("INSERT INTO golden VALUES (1, x'00ff', 1)")
    session = apsw.Session(db, "main")
    session.attach()
    db.execute("UPDATE golden SET value = ? WHERE id = 1", (value,))
    db.execute("INSERT INTO golden VALUES (2, x'6e616d65', NULL)")
    return session.changeset()


def make(plain: bool) -> tuple[dict[str, bytes], dict[str, Any]]:
    random = FixedRandomness()
    sb, ring, recovery = superblock.create(
        "golden",
        random,
        plain,
        *SIZES,
        None if plain else PASSPHRASE,
        now_ns=NOW_NS,
        key_file=None if plain else KEY_FILE,
        argon2=Argon2Params(memory_kib=256, passes=2, lanes=2),
    )
    objects = {ids.super_key(1): superblock.encode(sb)}
    expected: dict[str, Any] = {
        "passphrase": None if plain else PASSPHRASE,
        "key_file": None if plain else KEY_FILE.hex(),
        "recovery_key": recovery,
        "superblock": {
            "n": 1,
            "fs_id": sb.fs_id.hex(),
            "label": "golden",
            "version": ids.FORMAT_VERSION,
            "plain": plain,
            "chunk_min": SIZES[0],
            "chunk_avg": SIZES[1],
            "chunk_max": SIZES[2],
            "created_ns": NOW_NS,
            "slots": [slot.kind for slot in sb.slots],
        },
        "database_key_hash": blake3(ring.database_key() or b"").hexdigest(),
        "chunker_seed": ring.chunker_seed(),
    }
    expected["pack"] = _pack(ring, objects)
    expected["records"] = _records(ring, objects, expected["pack"]["key"])
    expected["checkpoint"] = _checkpoint(ring, objects, expected["records"][1])
    return objects, expected


def _pack(ring: KeyRing, objects: dict[str, bytes]) -> dict[str, Any]:
    codec, data, entries = ChunkCodec(ring, EPOCH, 3), bytearray(pack.header(EPOCH, bytes(range(16)))), []
    for content in contents():
        chunk_id = ring.chunk_id(content)
        sealed = codec.encode(chunk_id, content)
        entries.append(pack.PackEntry(chunk_id, len(data), len(sealed), len(content)))
        data += sealed
    data += pack.tail(entries, len(data), ring.sealer("index", EPOCH))
    key = ids.pack_key(ids.pack_name(EPOCH, blake3(data).digest()))
    objects[key] = bytes(data)
    return {
        "key": key,
        "epoch": EPOCH,
        "entries": [
            {"chunk_id": entry.chunk_id.hex(), "offset": entry.offset, "size": entry.size, "length": entry.length, "content": content.hex()}
            for entry, content in zip(entries, contents(), strict=True)
        ],
    }


def _records(ring: KeyRing, objects: dict[str, bytes], pack_key: str) -> list[dict[str, Any]]:
    """A whole epoch, chained: claim, commit (in which the pack rides), release, seal."""
    prev, expected = ids.ZERO_HASH, []
    cargo = objects[pack_key]
    rider = Rider(5, ids.PackName(pack_key.rpartition("/")[2]), len(cargo))
    for n, kind in enumerate((Kind.CLAIM, Kind.COMMIT, Kind.RELEASE, Kind.SEAL), 1):
        made = Record(
            kind,
            n,
            EPOCH,
            WRITER,
            prev,
            NOW_NS + n,
            {"note": f"golden {kind}", "packs": n, "nested": {"a": [None, True]}},
            changeset(7) if kind is Kind.COMMIT else b"",
            (rider,) if kind is Kind.COMMIT else (),
        )
        data = record.encode(made, ring.sealer("record", EPOCH), cargo=[cargo] if made.riders else [])
        key = ids.log_key(EPOCH, WRITER, n)
        objects[key] = data
        prev = record.record_hash(data)
        expected.append(
            {
                "key": key,
                "kind": kind.value,
                "n": n,
                "epoch": EPOCH,
                "writer": WRITER,
                "prev": made.prev.hex(),
                "hash": prev.hex(),
                "time_ns": made.time_ns,
                "info": made.info,
                "changeset": made.changeset.hex(),
                "riders": [[one.pack, one.name, at, one.size] for one, at in replace(made, head_bytes=record.head_bytes(data)).bases()],
            }
        )
    return expected


def _checkpoint(ring: KeyRing, objects: dict[str, bytes], commit: dict[str, Any]) -> dict[str, Any]:
    sealer, parts = ring.sealer("checkpoint", EPOCH), []
    changesets = [[changeset(8), b""], [changeset(9)]]
    for number, some in enumerate(changesets):
        data, key = checkpoint.encode_part(some, 2, sealer), ids.checkpoint_key(2, f"{WRITER}-{number}")
        objects[key] = data
        parts.append(checkpoint.Part(key, len(data), ObjectHash(blake3(data).digest()).hex()))
    made = checkpoint.Manifest(2, EPOCH, commit["hash"], commit["key"], parts, NOW_NS, {"next_ino": 3, "used_bytes": 4096},
                               [(pack, commit["key"], base) for pack, _, base, _ in commit["riders"]])
    key = ids.checkpoint_key(2, f"manifest-{WRITER}")
    objects[key] = checkpoint.encode_manifest(made, sealer)
    return {
        "key": key,
        "commit": 2,
        "epoch": EPOCH,
        "record_hash": made.record_hash,
        "record_key": made.record_key,
        "time_ns": NOW_NS,
        "counters": made.counters,
        "riding": [list(one) for one in made.riding],
        "changesets": [[one.hex() for one in some] for some in changesets],
    }


def main(folder: str) -> None:
    if os.path.exists(folder):
        sys.exit(f"{folder} exists: a golden store is never changed")
    for name, plain in (("sealed", False), ("plain", True)):
        objects, expected = make(plain)
        for key, data in objects.items():
            path = os.path.join(folder, name, key)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(data)
        with open(os.path.join(folder, name, "expected.json"), "w", encoding="utf-8") as file:
            json.dump(expected, file, indent=1, ensure_ascii=False)
            file.write("\n")


if __name__ == "__main__":
    main(sys.argv[1])
