"""How an object lies in 0-dbs: cut in shards, and a shard in values of at most 4 MiB, each sealed with what it belongs to.

    key     "d", object id (16 bytes), shard (1 byte), part (2 bytes)
    value   magic "s3c0", version, k, m, shard, part u16, parts u16, object id (16), size of the object u64, stamp u64, length of its key
            u16; BLAKE2b (32 bytes) over all of that, the object's key and the payload; the object's key; the payload

Numbers are big-endian. `shard` counts from 0, data first. The payload of a data shard is the slice of the object as it is (the last
slices may be short, or empty), that of a parity shard always ceil(size / k) bytes. 0-db gives flipped bytes back as good ones, so a
value says itself whether it is whole. And it says enough that the records of a store (which object is where) can be made anew from
all values, should every replica of them be lost: of two objects of one key that with the larger stamp is the newer one.
"""
from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from s3cfs.backends.types import Body
from s3cfs.backends.zdb.coder import SHARDS_MAX, Coder
from s3cfs.limits import KIB, MIB

PART_BYTES = 4 * MIB               # of payload in a value: 0-db takes 8 MiB, and serves nobody else while it writes one
SHARD_MIN_BYTES = 10 * KIB         # objects whose shards would be smaller are replicated
OBJECT_ID_BYTES = 16
PREFIX = b"d"                      # of the keys of values

_MAGIC, _VERSION = b"s3c0", 1
_FIELDS = struct.Struct(">4s4B2H16sQQH")
_SUM_BYTES = 32
_NAME = struct.Struct(">c16sBH")


Value = tuple[bytes, Body]         # in two pieces: what it says of itself, and the payload


class Code(NamedTuple):
    """k data and m parity shards. k = 1: 1 + m copies."""

    k: int
    m: int


def code_for(size: int, code: Code) -> Code:
    """The code of an object of so many bytes: the one asked for, or replication where its shards would be too small."""
    return code if size >= code.k * SHARD_MIN_BYTES else Code(1, code.m)


def parts_of(shard_bytes: int) -> int:
    """How many values a shard of so many bytes is: one at least."""
    return max(1, -(-shard_bytes // PART_BYTES))


def cut(data: Body, code: Code) -> list[Body]:
    """The k + m payloads. Those of data shards are views of `data`."""
    coder = Coder(*code)
    return [*coder.slices(data), *coder.encode(data)]


class Piece(NamedTuple):
    """Bytes of a data shard: [begin, end)."""

    shard: int
    begin: int
    end: int


def pieces(size: int, k: int, offset: int = 0, length: int | None = None) -> list[Piece]:
    """Where the range of an object of so many bytes lies, in its order; nothing is listed past the object's end."""
    each = -(-size // k)
    stop = size if length is None else min(size, offset + length)
    found = []
    while offset < stop:
        shard, begin = divmod(offset, each)
        end = min(each, begin + stop - offset)
        found.append(Piece(shard, begin, end))
        offset += end - begin
    return found


@dataclass(frozen=True, slots=True)
class Head:
    """What a value says of itself: part `part` of `parts` of shard `shard` of an object."""

    object_id: bytes               # of 16 bytes; each put has a new one
    code: Code
    size: int                      # of the object
    stamp: int                     # orders the puts of one key
    key: str                       # of the object
    shard: int = 0
    part: int = 0
    parts: int = 1

    @property
    def name(self) -> bytes:
        """The value's key in the 0-db."""
        return name_of(self.object_id, self.shard, self.part)

    @property
    def shard_bytes(self) -> int:
        """Of each shard of the object."""
        return Coder(*self.code).shard_bytes(self.size)

    @property
    def payload_bytes(self) -> int:
        """How long this value's payload is: shards of data end where the object ends."""
        each = self.shard_bytes
        whole = min(each, max(0, self.size - self.shard * each)) if self.shard < self.code.k else each
        return min(PART_BYTES, max(0, whole - self.part * PART_BYTES))


def name_of(object_id: bytes, shard: int, part: int = 0) -> bytes:
    return _NAME.pack(PREFIX, object_id, shard, part)


def names_of(object_id: bytes, shard: int, shard_bytes: int) -> list[bytes]:
    """The keys of all values of a shard of so many bytes."""
    return [name_of(object_id, shard, part) for part in range(parts_of(shard_bytes))]


def parse_name(name: bytes) -> tuple[bytes, int, int] | None:
    """(object id, shard, part); None: it is no key of a value of ours."""
    if len(name) != _NAME.size or not name.startswith(PREFIX):
        return None
    _, object_id, shard, part = _NAME.unpack(name)
    return object_id, shard, part


def encode_values(head: Head, payload: Body) -> Iterator[tuple[bytes, Value]]:
    """Key and value of each part of the shard `head.shard`, whose whole payload it is; `part` and `parts` of `head` are not looked at.

    Values are made when they are asked for, one at a time, and the payload is not copied. A data shard's payload may be filled up with
    zeros, as `Coder.rebuild` does.
    """
    view = memoryview(payload).cast("B")
    parts = parts_of(head.shard_bytes)
    for part in range(parts):
        each = replace(head, part=part, parts=parts)
        begin = part * PART_BYTES
        yield each.name, encode_value(each, view[begin:begin + each.payload_bytes])


def encode_value(head: Head, payload: Body) -> Value:
    if len(payload) != head.payload_bytes:
        raise ValueError(f"a payload of {len(payload)} bytes, of {head.payload_bytes}")
    key = head.key.encode()
    fields = _FIELDS.pack(_MAGIC, _VERSION, *head.code, head.shard, head.part, head.parts, head.object_id, head.size, head.stamp, len(key))
    return b"".join((fields, _sum(fields, key, payload), key)), payload


def decode_value(value: Body, name: bytes | None = None) -> tuple[Head, memoryview]:
    """What it says of itself, and its payload (a view). ValueError, with what is wrong: it is damaged, none of ours, or not what lies
    under the key `name`, if that is given."""
    view = memoryview(value).cast("B")
    begin = _FIELDS.size + _SUM_BYTES
    if len(view) < begin or bytes(view[:len(_MAGIC)]) != _MAGIC:
        raise ValueError("is no shard")
    _, version, k, m, shard, part, parts, object_id, size, stamp, key_bytes = _FIELDS.unpack_from(view)
    if version != _VERSION:
        raise ValueError("is of a later version of s3cfs, or damaged")
    key, payload = view[begin:begin + key_bytes], view[begin + key_bytes:]
    if _sum(view[:_FIELDS.size], key, payload) != view[_FIELDS.size:begin]:
        raise ValueError("does not have its checksum")
    if not (k and k + m <= SHARDS_MAX and shard < k + m):
        raise ValueError("says what cannot be")
    head = Head(object_id, Code(k, m), size, stamp, str(key, "utf-8", "replace"), shard, part, parts)
    if parts != parts_of(head.shard_bytes) or part >= parts or len(payload) != head.payload_bytes:
        raise ValueError("is not of the length that it says")
    if name not in (None, head.name):
        raise ValueError("is another one than its key says")
    return head, payload


def _sum(fields: Body, key: Body, payload: Body) -> bytes:
    hashing = hashlib.blake2b(digest_size=_SUM_BYTES)
    for piece in (fields, key, payload):
        hashing.update(piece)
    return hashing.digest()
