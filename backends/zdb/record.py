"""What the store knows of an object: its record, and where its shards have gone since. Pure: bytes and their meaning.

    key in a 0-db                        value
    "m", object's key, 0, version u32    a record: the object was put
    "t", object's key, 0, version u32    a tombstone: it was deleted; says where the shards were
    "p", object's key                    a placement: a repair moved the shards of one put; ignored when its object is not the record's

A version of a key has its own key in the 0-db and is written once: a put that a server sees late (it was stopped, say) cannot undo what
came after it. The highest version counts, a tombstone before a record. Values are sealed with a keyed BLAKE2b over all of them and the
object's key; the hash's key follows from the store's id and the list's `secret`.
"""
from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

RECORD, TOMBSTONE, PLACEMENT = b"m", b"t", b"p"
OBJECT_ID_BYTES = 16
STORE_ID_BYTES = 16
NAME_MAX_BYTES = 255               # of a key in a 0-db
VERSION_BYTES = 4
KEY_MAX_BYTES = NAME_MAX_BYTES - 2 - VERSION_BYTES             # of an object
NOWHERE = 0                        # no server has this id

_SEAL_BYTES = 32
_FORMAT = 1
_FIELDS = struct.Struct(">BBIQQQ")         # format, kind, version or revision, size, time (ns), writer
_WHERE = struct.Struct(">16sBB")


class Signer:
    """Seals values for one store. `secret` may be empty: then they are proof against damage and mistakes, not against who can read them."""

    def __init__(self, store_id: bytes, secret: str) -> None:
        self._key = hashlib.blake2b(store_id + secret.encode(), digest_size=32, person=b"s3cfs zdb").digest()

    def seal(self, name: bytes, body: bytes) -> bytes:
        """`body`, sealed as what lies under `name`."""
        return body + self._sum(name, body)

    def unseal(self, name: bytes, value: bytes) -> bytes:
        """ValueError: damaged, moved from elsewhere, or another store's."""
        body, seal = value[:-_SEAL_BYTES], value[-_SEAL_BYTES:]
        if self._sum(name, body) != seal:
            raise ValueError("is not sealed by this store")
        return body

    def _sum(self, name: bytes, body: bytes) -> bytes:
        return hashlib.blake2b(len(name).to_bytes(2, "big") + name + body, key=self._key, digest_size=_SEAL_BYTES).digest()


@dataclass(frozen=True, slots=True)
class Where:
    """Where an object's shards lie: `servers[index]` is the id of a server, or NOWHERE. `unsure`: indices that nobody acknowledged."""

    object_id: bytes
    data: int
    parity: int
    servers: tuple[int, ...]
    unsure: frozenset[int] = frozenset()

    def encode(self) -> bytes:
        count = self.data + self.parity
        marks = sum(1 << index for index in self.unsure)
        return (_WHERE.pack(self.object_id, self.data, self.parity) + struct.pack(f">{count}I", *self.servers)
                + marks.to_bytes((count + 7) // 8, "big"))

    @classmethod
    def decode(cls, body: bytes) -> Where:
        if len(body) < _WHERE.size:
            raise ValueError("is too short")
        object_id, data, parity = _WHERE.unpack_from(body)
        count = data + parity
        at = _WHERE.size + 4 * count
        if not data or len(body) != at + (count + 7) // 8:
            raise ValueError("is of a length that it cannot have")
        marks = int.from_bytes(body[at:], "big")
        return cls(object_id, data, parity, struct.unpack(f">{count}I", body[_WHERE.size:at]),
                   frozenset(index for index in range(count) if marks >> index & 1))


@dataclass(frozen=True, slots=True)
class Record:
    """`size`: bytes of the object. `time_ns`: since 1970, of its put or delete. `writer`: a number of the process that wrote it."""

    key: str
    version: int
    is_tombstone: bool
    size: int
    where: Where
    time_ns: int = 0
    writer: int = 0

    @property
    def name(self) -> bytes:
        return name_of(self.key, self.version, is_tombstone=self.is_tombstone)

    @property
    def rank(self) -> tuple[int, bool, int, bytes]:
        """What has the highest counts. Two of one version should not be; but a put that failed may have left one on few replicas, which the
        next process to put did not see: the later one counts."""
        return self.version, self.is_tombstone, self.time_ns, self.where.object_id

    def encode(self, signer: Signer) -> bytes:
        body = _FIELDS.pack(_FORMAT, self.is_tombstone, self.version, self.size, self.time_ns, self.writer) + self.where.encode()
        return signer.seal(self.name, body)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the shards of the put with the object id `of` are by now; those there may be of another code, and so have another id."""

    key: str
    of: bytes
    revision: int
    where: Where
    time_ns: int = 0
    writer: int = 0

    @property
    def name(self) -> bytes:
        return PLACEMENT + self.key.encode()

    @property
    def rank(self) -> tuple[int, bytes]:
        return self.revision, self.where.object_id

    def encode(self, signer: Signer) -> bytes:
        body = _FIELDS.pack(_FORMAT, 0, self.revision, 0, self.time_ns, self.writer) + self.of + self.where.encode()
        return signer.seal(self.name, body)


def name_of(key: str, version: int, *, is_tombstone: bool = False) -> bytes:
    return (TOMBSTONE if is_tombstone else RECORD) + key.encode() + b"\0" + version.to_bytes(VERSION_BYTES, "big")


def placement_name(key: str) -> bytes:
    return PLACEMENT + key.encode()


class Name(NamedTuple):
    """What the key of a record or tombstone says."""

    key: str
    version: int
    is_tombstone: bool


def parse_name(name: bytes) -> Name | None:
    """None: it is neither a record's nor a tombstone's."""
    key, zero, version = name[1:-VERSION_BYTES - 1], name[-VERSION_BYTES - 1:-VERSION_BYTES], name[-VERSION_BYTES:]
    if name[:1] not in (RECORD, TOMBSTONE) or zero != b"\0" or not key.isascii() or b"\0" in key:
        return None
    return Name(key.decode(), int.from_bytes(version, "big"), name[:1] == TOMBSTONE)


def decode_record(name: bytes, value: bytes, signer: Signer) -> Record:
    """What lies under `name`, the key of a record or a tombstone. ValueError: damaged, or not ours."""
    said = parse_name(name)
    body = signer.unseal(name, value)
    if said is None or len(body) < _FIELDS.size:
        raise ValueError("is no record")
    form, is_tombstone, version, size, time_ns, writer = _FIELDS.unpack_from(body)
    if form != _FORMAT:
        raise ValueError("is of a later version of s3cfs")
    return Record(said.key, version, bool(is_tombstone), size, Where.decode(body[_FIELDS.size:]), time_ns, writer)


def decode_placement(name: bytes, value: bytes, signer: Signer) -> Placement:
    """ValueError: damaged, or not ours."""
    body = signer.unseal(name, value)
    if name[:1] != PLACEMENT or len(body) < _FIELDS.size + OBJECT_ID_BYTES:
        raise ValueError("is no placement")
    form, _, revision, _, time_ns, writer = _FIELDS.unpack_from(body)
    if form != _FORMAT:
        raise ValueError("is of a later version of s3cfs")
    at = _FIELDS.size
    return Placement(name[1:].decode(), body[at:at + OBJECT_ID_BYTES], revision, Where.decode(body[at + OBJECT_ID_BYTES:]), time_ns, writer)


@dataclass(frozen=True, slots=True)
class Said:
    """What one replica says of a key: the highest of what it has that is whole, and its bytes. `rotten`: names of values that are not."""

    record: Record | None
    placement: Placement | None
    values: Mapping[bytes, bytes]
    rotten: tuple[bytes, ...] = ()


def understood(values: Mapping[bytes, bytes | None], signer: Signer) -> Said:
    """`values`: of records, tombstones and the placement of one key, by their names."""
    record: Record | None = None
    placement: Placement | None = None
    good: dict[bytes, bytes] = {}
    rotten: list[bytes] = []
    for name, value in values.items():
        if value is None:
            continue
        try:
            if name[:1] == PLACEMENT:
                placement = decode_placement(name, value, signer)
            else:
                found = decode_record(name, value, signer)
                record = found if record is None or found.rank > record.rank else record
        except ValueError:
            rotten.append(name)
        else:
            good[name] = value
    return Said(record, placement, good, tuple(rotten))
