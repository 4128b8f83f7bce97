"""Checkpoints: all metadata at one commit, in parts, and a manifest that is written last and names them.

    part       header 16 | seal( packed_len u32 | raw_len u32 | zstd( (len u32 | changeset)* ) | zeros )
    manifest   header 16 | seal( json_len u32 | json | zeros )

aad = header | "checkpoint part" | commit u64, or header | "checkpoint manifest" (the commit is in the JSON).
The manifest holds each part's hash, so order and set of parts are
bound by it; and the hash of the log record that made the commit, so a checkpoint is tied to one history. It says which packs ride in
records (record.py), and where: no row does.
"""
from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from s3cfs.errors import Damaged
from s3cfs.formats import envelope
from s3cfs.formats.envelope import HEADER_BYTES, Body, Fields, padme
from s3cfs.formats.seal import Sealer, Seals

LEVEL = 3
PARTS_MAX = 1_000_000
RIDING_MAX = 1_000_000
_LENGTHS = struct.Struct("<II")
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Part:
    key: str
    size: int
    hash: str                      # hex BLAKE3 of the object as stored


@dataclass(frozen=True, slots=True)
class Manifest:
    commit: int
    epoch: int
    record_hash: str               # hex, of the log record that made this commit
    record_key: str
    parts: list[Part]
    time_ns: int
    counters: dict[str, int] = field(default_factory=dict)
    riding: list[tuple[int, str, int]] = field(default_factory=list)      # packs in records' objects: row, key of the record, first byte


def _seal(letter: str, name: bytes, inner: list[bytes], sealer: Sealer) -> bytes:
    head = envelope.header(letter, sealer.epoch)
    size = HEADER_BYTES + sealer.OVERHEAD + sum(map(len, inner))
    plain = b"".join((*inner, bytes(padme(size) - size)))
    return head + sealer.seal(plain, head + name)


def _open(letter: str, name: bytes, data: Body, sealer: Seals, what: str) -> memoryview:
    envelope.read_header(data, letter, what)
    view = memoryview(data)
    try:
        plain = sealer.open(view[HEADER_BYTES:], bytes(view[:HEADER_BYTES]) + name)
    except Damaged as error:
        raise Damaged(f"{what}: {error}") from None
    return memoryview(plain)


def _part_name(commit: int) -> bytes:
    return b"checkpoint part" + commit.to_bytes(8, "little")


def encode_part(changesets: Sequence[bytes], commit: int, sealer: Sealer) -> bytes:
    raw = b"".join(piece for one in changesets for piece in (_LENGTH.pack(len(one)), one))
    if len(raw) > envelope.PLAIN_MAX_BYTES:
        raise ValueError(f"{len(raw)} bytes are too much for one part of a checkpoint")
    packed = envelope.compress(raw, LEVEL)
    return _seal(envelope.PART, _part_name(commit), [_LENGTHS.pack(len(packed), len(raw)), packed], sealer)


def decode_part(data: Body, commit: int, sealer: Seals) -> list[bytes]:
    """The changesets, to be applied in order; Damaged when these bytes are no part of the checkpoint at `commit`."""
    what = f"part of checkpoint {commit}"
    inner = _open(envelope.PART, _part_name(commit), data, sealer, what)
    packed_len, raw_len = _LENGTHS.unpack_from(inner) if len(inner) >= _LENGTHS.size else (len(inner), 0)
    end = _LENGTHS.size + packed_len
    if end > len(inner) or raw_len > envelope.PLAIN_MAX_BYTES or any(inner[end:]):
        raise Damaged(f"{what}: its lengths contradict each other")
    raw = memoryview(envelope.decompress(inner[_LENGTHS.size:end], raw_len, what))
    found, at = [], 0
    while at < len(raw):
        start = at + _LENGTH.size
        at = start + _LENGTH.unpack_from(raw, at)[0] if start <= len(raw) else len(raw) + 1
        if at > len(raw):
            raise Damaged(f"{what}: a changeset is cut off")
        found.append(bytes(raw[start:at]))
    return found


def encode_manifest(manifest: Manifest, sealer: Sealer) -> bytes:
    text = envelope.dump_json({
        "commit": manifest.commit, "epoch": manifest.epoch, "record_hash": manifest.record_hash, "record_key": manifest.record_key,
        "time_ns": manifest.time_ns, "counters": manifest.counters,
        "parts": [{"key": part.key, "size": part.size, "hash": part.hash} for part in manifest.parts],
        "riding": [list(one) for one in manifest.riding]})
    return _seal(envelope.MANIFEST, b"checkpoint manifest", [_LENGTH.pack(len(text)), text], sealer)


def decode_manifest(data: Body, sealer: Seals, commit: int | None = None) -> Manifest:
    """Damaged when these bytes are no manifest, or not the one of `commit` (which its key names)."""
    what = "checkpoint manifest" if commit is None else f"manifest of checkpoint {commit}"
    inner = _open(envelope.MANIFEST, b"checkpoint manifest", data, sealer, what)
    text_len = _LENGTH.unpack_from(inner)[0] if len(inner) >= _LENGTH.size else len(inner)
    end = _LENGTH.size + text_len
    if end > len(inner) or any(inner[end:]):
        raise Damaged(f"{what}: its lengths contradict each other")
    fields = Fields.parse(inner[_LENGTH.size:end], what)
    parts = [_part(one, what) for one in fields.items("parts", PARTS_MAX)]
    counters = fields.mapping("counters")
    if any(type(value) is not int for value in counters.values()):
        raise fields.wrong("counters")
    found = Manifest(fields.integer("commit"), fields.integer("epoch", 0, 2**32 - 1), fields.hex("record_hash", 32).hex(),
                     fields.text("record_key"), parts, fields.integer("time_ns", -(2**63)), counters,
                     [_riding(one, fields) for one in fields.items("riding", RIDING_MAX)])
    fields.done()
    if commit is not None and found.commit != commit:
        raise Damaged(f"{what}: it says it is of commit {found.commit}")
    return found


def _riding(value: object, fields: Fields) -> tuple[int, str, int]:
    if type(value) is not list or [type(one) for one in value] != [int, str, int]:
        raise fields.wrong("riding")
    pack, key, base = value
    if pack < 1 or base < 1 or not 1 <= len(key) <= 1024:
        raise fields.wrong("riding")
    return pack, key, base


def _part(value: object, what: str) -> Part:
    fields = Fields(value, what)
    part = Part(fields.text("key"), fields.integer("size", 1), fields.hex("hash", 32).hex())
    fields.done()
    return part
