"""Log records: what happened from one commit to the next, and who may write; each names the hash of the one before.

    header 16 | seal( json_len u32 | packed_len u32 | json | zstd(changeset) | zeros ),  aad = header | "record" | n u64

The zeros round the object up (Padmé, at least 512 bytes), so small transactions, claims and releases look alike in size.
"""
from __future__ import annotations

import enum
import re
import struct
from dataclasses import dataclass, field
from typing import Any

from blake3 import blake3

from s3cfs.errors import Damaged
from s3cfs.formats import envelope
from s3cfs.formats.envelope import HEADER_BYTES, Body, Fields, padme
from s3cfs.formats.seal import Sealer, Seals
from s3cfs.ids import ObjectHash

OBJECT_MIN_BYTES = 512
_LENGTHS = struct.Struct("<II")
_WRITER = re.compile("[0-9a-f]{16}")


class Kind(enum.StrEnum):
    COMMIT = "commit"              # metadata changes; commit n exists when this record does
    CLAIM = "claim"                # a writer takes office
    RELEASE = "release"            # it has nothing to say for now: nobody need wait for it
    SEAL = "seal"                  # the end of an epoch, put there by the next writer


@dataclass(frozen=True)
class Record:
    kind: Kind
    n: int
    epoch: int
    writer: str                    # 16 hex digits, drawn by the writer
    prev: ObjectHash               # hash of the record before, as stored; zeros before the first
    time_ns: int
    info: dict[str, Any] = field(default_factory=dict)
    changeset: bytes = field(default=b"", repr=False)


def _aad(head: bytes, n: int) -> bytes:
    return head + b"record" + n.to_bytes(8, "little")


def encode(record: Record, sealer: Seals, level: int = 3) -> bytes:
    if len(record.changeset) > envelope.PLAIN_MAX_BYTES:
        raise ValueError(f"a changeset of {len(record.changeset)} bytes is too large for one record")
    if record.changeset and record.kind is not Kind.COMMIT:
        raise ValueError(f"a {record.kind} carries no changes")
    if not _WRITER.fullmatch(record.writer) or len(record.prev) != 32:
        raise ValueError("writer or prev is malformed")
    text = envelope.dump_json({
        "kind": record.kind.value, "n": record.n, "epoch": record.epoch, "writer": record.writer, "prev": record.prev.hex(),
        "time_ns": record.time_ns, "changeset": len(record.changeset), "info": record.info})
    packed = envelope.compress(record.changeset, level) if record.changeset else b""
    size = HEADER_BYTES + Sealer.OVERHEAD + _LENGTHS.size + len(text) + len(packed)
    padding = bytes(max(OBJECT_MIN_BYTES, padme(size)) - size)
    head = envelope.header(envelope.RECORD, record.epoch)
    inner = b"".join((_LENGTHS.pack(len(text), len(packed)), text, packed, padding))
    return head + sealer.seal(inner, _aad(head, record.n))


def decode(data: Body, n: int, sealer: Seals) -> Record:
    """The record with number `n`; Damaged when these bytes are not it."""
    what = f"log record {n}"
    epoch = envelope.read_header(data, envelope.RECORD, what)
    view = memoryview(data)
    try:
        inner = memoryview(sealer.open(view[HEADER_BYTES:], _aad(bytes(view[:HEADER_BYTES]), n)))
    except Damaged as error:
        raise Damaged(f"{what}: {error}") from None
    text_len, packed_len = _LENGTHS.unpack_from(inner) if len(inner) >= _LENGTHS.size else (len(inner), 0)
    end = _LENGTHS.size + text_len + packed_len
    if end > len(inner) or any(inner[end:]):
        raise Damaged(f"{what}: its lengths contradict each other")
    fields = Fields.parse(inner[_LENGTHS.size:end - packed_len], what)
    kind = fields.text("kind")
    if kind not in set(Kind):
        raise fields.wrong("kind")
    writer = fields.hex("writer", 8).hex()
    length = fields.integer("changeset", 0, envelope.PLAIN_MAX_BYTES)
    if (length > 0) != (packed_len > 0) or (length and kind != Kind.COMMIT):
        raise fields.wrong("changeset")
    changeset = envelope.decompress(inner[end - packed_len:end], length, what) if length else b""
    record = Record(Kind(kind), fields.integer("n"), fields.integer("epoch", 0, 2**32 - 1), writer, ObjectHash(fields.hex("prev", 32)),
                    fields.integer("time_ns", -(2**63)), fields.mapping("info"), changeset)
    fields.done()
    if record.n != n or record.epoch != epoch:
        raise Damaged(f"{what}: it says it is record {record.n} of epoch {record.epoch}")
    return record


def object_hash(data: Body) -> ObjectHash:
    """What the next record's `prev` must be: BLAKE3 of the object as stored."""
    return ObjectHash(blake3(data).digest())
