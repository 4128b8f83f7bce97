"""Log records: what happened from one commit to the next, and who may write; each names the hash of the one before.

    header 16 | sealed_len u32 | seal( json_len u32 | packed_len u32 | json | zstd(changeset) | zeros ) | packs that ride
    aad of the seal = header | "record" | n u64

The zeros round up what comes before the riders, the *head* (Padmé, at least 512 bytes), so small transactions, claims and releases look
alike in size. What the next record names as the hash of this one is that of the head. Riders are small packs that are no objects of their
own; the sealed JSON has their names, and a pack's name is the hash of its bytes. So damage to a rider is damage to a pack, not to the log.
"""
from __future__ import annotations

import enum
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from blake3 import blake3

from s3cfs.errors import Damaged
from s3cfs.formats import envelope
from s3cfs.formats.envelope import HEADER_BYTES, Body, Fields, padme
from s3cfs.formats.seal import Sealer, Seals
from s3cfs.ids import ObjectHash, PackName, pack_key, parse_pack_key

HEAD_MIN_BYTES = 512
RIDERS_MAX = 1024
_SEALED = struct.Struct("<I")
SEAL_AT = HEADER_BYTES + _SEALED.size
_LENGTHS = struct.Struct("<II")
_WRITER = re.compile("[0-9a-f]{16}")


class Kind(enum.StrEnum):
    COMMIT = "commit"              # metadata changes; commit n exists when this record does
    CLAIM = "claim"                # a writer takes office
    RELEASE = "release"            # it has nothing to say for now: nobody need wait for it
    SEAL = "seal"                  # the end of an epoch, put there by the next writer


class Rider(NamedTuple):
    """A pack whose bytes lie in a record's object."""

    pack: int                      # its row
    name: PackName
    size: int                      # bytes


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
    riders: tuple[Rider, ...] = ()
    head_bytes: int = field(default=0, compare=False)      # of its object, where it was read: riders begin there

    def bases(self) -> Iterator[tuple[Rider, int]]:
        """Where its riders lie."""
        return bases(self.head_bytes, self.riders)


def bases(head_bytes: int, riders: Iterable[Rider]) -> Iterator[tuple[Rider, int]]:
    """Each rider with the offset of its first byte in an object with such a head."""
    at = head_bytes
    for rider in riders:
        yield rider, at
        at += rider.size


def _aad(header: bytes, n: int) -> bytes:
    return header + b"record" + n.to_bytes(8, "little")


def encode(record: Record, sealer: Seals, level: int = 3, cargo: Sequence[Body] = ()) -> bytes:
    """The object. `cargo`: the bytes of each of `record.riders`."""
    if [len(one) for one in cargo] != [rider.size for rider in record.riders] or len(cargo) > RIDERS_MAX:
        raise ValueError("the riders are not what the record says")
    if record.riders and record.kind is not Kind.COMMIT:
        raise ValueError(f"nothing rides in a {record.kind}")
    if len(record.changeset) > envelope.PLAIN_MAX_BYTES:
        raise ValueError(f"a changeset of {len(record.changeset)} bytes is too large for one record")
    if record.changeset and record.kind is not Kind.COMMIT:
        raise ValueError(f"a {record.kind} carries no changes")
    if not _WRITER.fullmatch(record.writer) or len(record.prev) != 32:
        raise ValueError("writer or prev is malformed")
    text = envelope.dump_json({
        "kind": record.kind.value, "n": record.n, "epoch": record.epoch, "writer": record.writer, "prev": record.prev.hex(),
        "time_ns": record.time_ns, "changeset": len(record.changeset), "info": record.info,
        "riders": [list(rider) for rider in record.riders]})
    packed = envelope.compress(record.changeset, level) if record.changeset else b""
    least = SEAL_AT + Sealer.OVERHEAD + _LENGTHS.size + len(text) + len(packed)
    size = max(HEAD_MIN_BYTES, padme(least))
    header = envelope.header(envelope.RECORD, record.epoch)
    sealed = sealer.seal(b"".join((_LENGTHS.pack(len(text), len(packed)), text, packed, bytes(size - least))), _aad(header, record.n))
    return b"".join((header, _SEALED.pack(len(sealed)), sealed, *cargo))


def head_bytes(data: Body) -> int:
    """How much of a record's object comes before its riders, from its first 20 bytes. If it is damaged, perhaps more than there is."""
    return SEAL_AT + _SEALED.unpack_from(data, HEADER_BYTES)[0] if len(data) >= SEAL_AT else len(data)


def decode(data: Body, n: int, sealer: Seals) -> Record:
    """The record with number `n`, from its object or from the head of that; Damaged when these bytes are not it.

    Riders are not looked at: what is wrong with them is a matter of their packs.
    """
    what = f"log record {n}"
    epoch = envelope.read_header(data, envelope.RECORD, what)
    view, head = memoryview(data), head_bytes(data)
    if head > len(view):
        raise Damaged(f"{what}: {len(view)} bytes are not all of it")
    try:
        inner = memoryview(sealer.open(view[SEAL_AT:head], _aad(bytes(view[:HEADER_BYTES]), n)))
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
                    fields.integer("time_ns", -(2**63)), fields.mapping("info"), changeset, _riders(fields, Kind(kind)), head)
    fields.done()
    if len(view) - head > sum(rider.size for rider in record.riders):
        raise Damaged(f"{what}: there is more in its object than it says")
    if record.n != n or record.epoch != epoch:
        raise Damaged(f"{what}: it says it is record {record.n} of epoch {record.epoch}")
    return record


def _riders(fields: Fields, kind: Kind) -> tuple[Rider, ...]:
    riders = []
    for found in fields.items("riders", RIDERS_MAX if kind is Kind.COMMIT else 0):
        if type(found) is not list or [type(value) for value in found] != [int, str, int]:
            raise fields.wrong("riders")
        rider = Rider(*found)
        if rider.pack < 1 or not 1 <= rider.size < 2**32 or not _is_pack_name(rider.name):
            raise fields.wrong("riders")
        riders.append(rider)
    return tuple(riders)


def _is_pack_name(name: str) -> bool:
    try:
        parse_pack_key(pack_key(PackName(name)))
    except ValueError:
        return False
    return True


def record_hash(data: Body) -> ObjectHash:
    """What the next record's `prev` must be: BLAKE3 of the head of the object as stored."""
    return object_hash(memoryview(data)[:head_bytes(data)])


def object_hash(data: Body) -> ObjectHash:
    return ObjectHash(blake3(data).digest())
