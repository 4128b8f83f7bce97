"""Any object of the store, taken apart for people and scripts (`s3cfs debug dump OBJECT`). Holds no secret, changes nothing."""
from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import apsw

from s3cfs.errors import Damaged, UsageError
from s3cfs.formats import chunk, pack, record, superblock
from s3cfs.formats.checkpoint import decode_manifest, decode_part
from s3cfs.formats.keys import KeyRing
from s3cfs.ids import pack_key, parse_checkpoint_key, parse_log_key, parse_pack_key, parse_super_key
from s3cfs.remote import Remote

_CLAIM = re.compile(r"claim/[a-z0-9._-]+/\d{1,10}-[0-9a-f]{16}")
_OPERATIONS = {apsw.SQLITE_INSERT: "insert", apsw.SQLITE_UPDATE: "update", apsw.SQLITE_DELETE: "delete"}


async def dump(remote: Remote, key: str, keyring: KeyRing | None, *, rows: bool = False) -> dict[str, Any]:
    """What the object `key` holds, JSON-able. Superblocks can be read without a key ring.

    `rows`: every row of a changeset, not only how many of each table. NotFound, Damaged, NewerFormat; UsageError for a key that is none.
    """
    if _is_one(parse_super_key, key):
        data = await remote.get(key)
        return {"key": key, "size": len(data), "kind": "superblock", **_superblock(key, data)}
    reader = next((read for parse, read in _READERS if _is_one(parse, key)), None)
    if reader is None:
        raise UsageError(f"{key}: no object of s3cfs has such a name")
    if keyring is None:
        raise UsageError(f"{key}: it is sealed, its keys are needed")
    data = await remote.get(key)
    return {"key": key, "size": len(data), **reader(key, data, keyring, rows)}


def _is_one(parse: Callable[[str], Any], key: str) -> bool:
    try:
        parse(key)
    except ValueError:
        return False
    return True


def _superblock(key: str, data: bytes) -> dict[str, Any]:
    sb = superblock.decode(data, parse_super_key(key)[0])
    slots = [{"id": slot.id, "kind": slot.kind, "created_ns": slot.created_ns, "argon2": asdict(slot.argon2) if slot.argon2 else None}
             for slot in sb.slots]
    return {"format": sb.version, "n": sb.n, "fs_id": sb.fs_id.hex(), "label": sb.label,
            "plain": sb.plain, "chunk_min": sb.chunk_min, "chunk_avg": sb.chunk_avg, "chunk_max": sb.chunk_max,
            "created_ns": sb.created_ns, "slots": slots}


def _pack(key: str, data: bytes, keyring: KeyRing, _rows: bool) -> dict[str, Any]:
    """Every chunk is unsealed, so the dump says which ones are damaged; a damaged name alone does not stop it."""
    epoch = pack.read_header(data)
    codec = chunk.ChunkCodec(keyring, epoch, None)
    entries = []
    for entry in pack.read_index(data, len(data), keyring.sealer("index", epoch)):
        try:
            plain = codec.decode(entry.chunk_id, memoryview(data)[entry.offset:entry.offset + entry.size], entry.length)
            problem = "" if codec.verify(entry.chunk_id, plain) else "its content is not what its id says"
        except Damaged as error:
            problem = str(error)
        entries.append({"chunk": entry.chunk_id.hex(), "offset": entry.offset, "size": entry.size, "length": entry.length,
                        "intact": not problem, **({"problem": problem} if problem else {})})
    return {"kind": "pack", "epoch": epoch, "name_matches": pack.verify_name(key, data), "plain_bytes": sum(e["length"] for e in entries),
            "chunks": entries}


def _parse_claim_key(key: str) -> None:
    if not _CLAIM.fullmatch(key):
        raise ValueError


def _claim(_key: str, data: bytes, keyring: KeyRing, rows: bool) -> dict[str, Any]:
    """It is a record that is in no history, of number 1."""
    return {**_as_record(data, 1, keyring, rows), "kind": "claim"}


def _record(key: str, data: bytes, keyring: KeyRing, rows: bool) -> dict[str, Any]:
    return _as_record(data, parse_log_key(key)[3], keyring, rows)


def _as_record(data: bytes, n: int, keyring: KeyRing, rows: bool) -> dict[str, Any]:
    found = record.decode(data, n, keyring.sealer("record", 0))
    return {"kind": "record", "hash": record.record_hash(data).hex(), "record": found.kind.value, "n": found.n, "epoch": found.epoch,
            "writer": found.writer, "prev": found.prev.hex(), "time_ns": found.time_ns, "info": found.info,
            "changeset_bytes": len(found.changeset),
            "riders": [_rider(rider, base, data[base:base + rider.size], keyring) for rider, base in found.bases()],
            **_changes([found.changeset], rows)}


def _rider(rider: record.Rider, base: int, data: bytes, keyring: KeyRing) -> dict[str, Any]:
    key = pack_key(rider.name)
    try:
        inside = _pack(key, data, keyring, False)
    except Damaged as error:
        inside = {"name_matches": pack.verify_name(key, data), "problem": str(error)}
    return {"pack": rider.pack, "name": rider.name, "offset": base, "size": rider.size, **inside}


def _checkpoint(key: str, data: bytes, keyring: KeyRing, rows: bool) -> dict[str, Any]:
    (commit, part), sealer = parse_checkpoint_key(key), keyring.sealer("checkpoint", 0)
    if part.startswith("manifest-"):
        return {"kind": "manifest", **asdict(decode_manifest(data, sealer, commit))}
    found = decode_part(data, commit, sealer)
    return {"kind": "part", "commit": commit, "changesets": [len(one) for one in found], **_changes(found, rows)}


def _changes(changesets: list[bytes], rows: bool) -> dict[str, Any]:
    counts: Counter[tuple[str, str]] = Counter()
    listed = []
    try:
        for change in (change for one in changesets for change in apsw.Changeset.iter(one)):
            operation = _OPERATIONS.get(change.opcode, str(change.opcode))
            counts[change.name, operation] += 1
            if rows:
                listed.append({"table": change.name, "operation": operation, "old": _values(change.old), "new": _values(change.new)})
    except apsw.Error as error:
        raise Damaged(f"a changeset in it cannot be read: {error}") from None
    tables: dict[str, dict[str, int]] = {}
    for (table, operation), count in sorted(counts.items()):
        tables.setdefault(table, {})[operation] = count
    return {"changes": tables, **({"rows": listed} if rows else {})}


def _values(row: Any) -> list[Any] | None:
    """Bytes as hex, a column the changeset does not hold as "-"."""
    if row is None:
        return None
    return ["-" if value is apsw.no_change else {"hex": value.hex()} if isinstance(value, bytes) else value for value in row]


_READERS: tuple[tuple[Callable[[str], Any], Callable[[str, bytes, KeyRing, bool], dict[str, Any]]], ...] = (
    (parse_pack_key, _pack), (parse_log_key, _record), (parse_checkpoint_key, _checkpoint), (_parse_claim_key, _claim))
