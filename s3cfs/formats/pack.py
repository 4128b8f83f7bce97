"""Packs: many sealed chunks and an index in one immutable object, named by the hash of its bytes.

    header 16 | random 16 | sealed chunks | filler | sealed index | index_len u32 | entry_count u32 | magic 8

The end of the object is enough to know what is in it, the name is enough to know that it is intact (`b3sum`, no key). The random bytes
make every pack an object of its own: without encryption the same chunks would make the same name, and two rows would share one object.
The index: per chunk  id 32 | offset u32 | sealed size u32 | plain length u32;  aad = "pack index" | version u16 | size of the object u64.
"""
from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from hmac import compare_digest

from blake3 import blake3

from s3cfs.errors import Damaged
from s3cfs.formats import envelope
from s3cfs.formats.chunker import MAX_RANGE
from s3cfs.formats.envelope import Body, padme
from s3cfs.formats.seal import Sealer, Seals
from s3cfs.ids import FORMAT_VERSION, ChunkId, parse_pack_key

__all__ = ["HEADER_BYTES", "RANDOM_BYTES", "TRAILER_BYTES", "NeedMore", "PackEntry", "PackHasher", "header", "read_header", "read_index",
           "tail", "tail_bytes", "verify_name"]

RANDOM_BYTES = 16
HEADER_BYTES = envelope.HEADER_BYTES + RANDOM_BYTES       # where the first chunk begins
_ENTRY = struct.Struct("<32sIII")
_TRAILER = struct.Struct("<II8s")
TRAILER_BYTES = _TRAILER.size
_MAGIC = envelope.magic(envelope.PACK)
_SIZE_MAX = 2**32 - 1


class NeedMore(Exception):
    """`needed` bytes from the end of the pack are needed to read its index."""

    def __init__(self, needed: int) -> None:
        super().__init__(f"{needed} bytes from the end are needed")
        self.needed = needed


@dataclass(frozen=True, slots=True)
class PackEntry:
    chunk_id: ChunkId
    offset: int                    # of the sealed chunk, from the start of the object
    size: int                      # sealed bytes
    length: int                    # plain bytes


def header(epoch: int, random: bytes) -> bytes:
    """`random`: 16 bytes drawn for this pack."""
    if len(random) != RANDOM_BYTES:
        raise ValueError(f"{len(random)} random bytes, not {RANDOM_BYTES}")
    return envelope.header(envelope.PACK, epoch) + random


def read_header(data: Body) -> int:
    """The epoch in a pack's header."""
    if len(data) < HEADER_BYTES:
        raise Damaged(f"pack: {len(data)} bytes are too short to be one")
    return envelope.read_header(data, envelope.PACK, "pack")


def _index_len(entries: int) -> int:
    return Sealer.OVERHEAD + entries * _ENTRY.size


def tail_bytes(entries: int) -> int:
    """Bytes from the end that hold the index of so many entries, for a first guess of what to fetch."""
    return _index_len(entries) + TRAILER_BYTES


def _aad(total_size: int) -> bytes:
    return b"pack index" + FORMAT_VERSION.to_bytes(2, "little") + total_size.to_bytes(8, "little")


def _problem(entries: Sequence[PackEntry], index_at: int) -> str | None:
    at = HEADER_BYTES
    for number, entry in enumerate(entries):
        if entry.offset < at or entry.size <= Sealer.OVERHEAD or entry.offset + entry.size > index_at:
            return f"entry {number} does not lie where a chunk can"
        if not 1 <= entry.length <= MAX_RANGE[1] or entry.size > entry.length + Sealer.OVERHEAD + 1:
            return f"entry {number} has impossible sizes"
        at = entry.offset + entry.size
    return None if entries else "it holds nothing"


def tail(entries: Sequence[PackEntry], size_so_far: int, sealer: Seals) -> bytes:
    """What ends a pack of `size_so_far` bytes (header and chunks, in the order of `entries`): filler, index, trailer.

    The filler rounds the whole up (Padmé). It is sealed nothing, so its bytes look like one more chunk rather than like padding.
    """
    problem = _problem(entries, size_so_far)
    if problem:
        raise ValueError(f"no pack can be made: {problem}")
    least = size_so_far + tail_bytes(len(entries))
    total = padme(least)
    if total > _SIZE_MAX:
        raise ValueError(f"a pack of {total} bytes is too large")
    filler = sealer.seal(bytes(max(0, total - least - Sealer.OVERHEAD)), b"pack filler")[:total - least]
    plain = b"".join(_ENTRY.pack(entry.chunk_id, entry.offset, entry.size, entry.length) for entry in entries)
    return b"".join((filler, sealer.seal(plain, _aad(total)), _TRAILER.pack(_index_len(len(entries)), len(entries), _MAGIC)))


def read_index(data_at_end: Body, total_size: int, sealer: Seals) -> list[PackEntry]:
    """The entries, from the last bytes of a pack of `total_size` bytes. Damaged, or NeedMore when the index begins before the data."""
    view = memoryview(data_at_end)
    if not HEADER_BYTES + tail_bytes(1) <= total_size <= _SIZE_MAX or len(view) > total_size:
        raise Damaged(f"pack: {total_size} bytes cannot be one")
    if len(view) < TRAILER_BYTES:
        raise NeedMore(tail_bytes(1))
    index_len, count, magic = _TRAILER.unpack(view[-TRAILER_BYTES:])
    if magic != _MAGIC or index_len != _index_len(count):
        raise Damaged("pack: its last bytes are damaged or missing")
    index_at = total_size - TRAILER_BYTES - index_len
    if index_at < HEADER_BYTES:
        raise Damaged("pack: it is shorter than its index")
    if len(view) < index_len + TRAILER_BYTES:
        raise NeedMore(index_len + TRAILER_BYTES)
    try:
        plain = sealer.open(view[-TRAILER_BYTES - index_len:-TRAILER_BYTES], _aad(total_size))
    except Damaged as error:
        raise Damaged(f"pack index: {error}") from None
    entries = [PackEntry(ChunkId(chunk_id), offset, size, length) for chunk_id, offset, size, length in _ENTRY.iter_unpack(plain)]
    problem = _problem(entries, index_at)
    if problem:
        raise Damaged(f"pack index: {problem}")
    return entries


class PackHasher:
    """BLAKE3 of a pack while it grows."""

    def __init__(self) -> None:
        self._hasher = blake3()

    def update(self, data: Body) -> None:
        self._hasher.update(data)

    def digest(self) -> bytes:
        return self._hasher.digest()


def verify_name(key: str, data: Body) -> bool:
    """Are these the bytes the pack's key names? ValueError when `key` is no pack's."""
    return compare_digest(parse_pack_key(key)[1], blake3(data).digest())
