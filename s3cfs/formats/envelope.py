"""What the formats share: the header of every sealed object, Padmé padding, bounded decompression, JSON read strictly.

Everything read here came from a store and may be damaged or hostile: each check that fails raises Damaged with one line that names
the object (`what`), a higher version raises NewerFormat, and nothing is allocated on the word of a length that was not checked.
The byte by byte description is docs/format.md.
"""
from __future__ import annotations

import binascii
import json
import struct
from typing import Any

import zstandard

from s3cfs.errors import Damaged, NewerFormat
from s3cfs.ids import FORMAT_VERSION

Body = bytes | bytearray | memoryview

PACK, RECORD, PART, MANIFEST = "P", "L", "C", "M"

HEADER_BYTES = 16
PLAIN_MAX_BYTES = 1 << 29          # uncompressed content of one record or checkpoint part
_HEADER = struct.Struct("<8sHIH")


def magic(letter: str) -> bytes:
    return b"s3cfs" + letter.encode("ascii") + b"\0\0"


def header(letter: str, epoch: int) -> bytes:
    """magic 8 | version u16 | epoch u32 | CRC-16 of those 14 bytes.

    The CRC lets a reader without a key tell a flipped bit in the version (Damaged) from a newer format.
    """
    start = _HEADER.pack(magic(letter), FORMAT_VERSION, epoch, 0)[:-2]
    return start + binascii.crc_hqx(start, 0xFFFF).to_bytes(2, "little")


def read_header(data: Body, letter: str, what: str) -> int:
    """Check an object's first 16 bytes; its epoch."""
    if len(data) < HEADER_BYTES:
        raise Damaged(f"{what}: {len(data)} bytes are too short to be one")
    start = bytes(data[:HEADER_BYTES])
    found, version, epoch, check = _HEADER.unpack(start)
    if binascii.crc_hqx(start[:-2], 0xFFFF) != check:
        raise Damaged(f"{what}: its header is damaged")
    if found != magic(letter):
        raise Damaged(f"{what}: its header is that of another kind of object")
    check_version(version, what)
    return int(epoch)


def check_version(version: int, what: str) -> None:
    if version > FORMAT_VERSION:
        raise NewerFormat(f"{what}: written in format {version}, this s3cfs reads up to {FORMAT_VERSION}: use a newer s3cfs")


def padme(size: int) -> int:
    """`size` rounded up so that only O(log log size) of its bits say anything: at most 12 % more, about 3 % at 16 MiB.

    Nikitin et al., "Reducing Metadata Leakage from Encrypted Files and Communication with PURBs", 2019.
    """
    if size < 2:
        return size
    exponent = size.bit_length() - 1
    mask = (1 << (exponent - exponent.bit_length())) - 1
    return (size + mask) & ~mask


def compress(data: Body, level: int) -> bytes:
    """One zstd frame that states its content size (decompress relies on it)."""
    return zstandard.ZstdCompressor(level=level, write_content_size=True, write_checksum=False).compress(data)


def decompress(data: Body, length: int, what: str, context: zstandard.ZstdDecompressor | None = None) -> bytes:
    """Exactly `length` bytes (already checked by the caller), or Damaged.

    The frame's own statement of its size is compared first: the library allocates what it says.
    """
    try:
        if zstandard.frame_content_size(data) != length:
            raise Damaged(f"{what}: its compressed data states another length")
        plain = (context or zstandard.ZstdDecompressor()).decompress(data, max_output_size=length, allow_extra_data=False)
    except zstandard.ZstdError:
        raise Damaged(f"{what}: its compressed data is damaged") from None
    if len(plain) != length:
        raise Damaged(f"{what}: its compressed data has another length")
    return plain


def dump_json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode("ascii")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key appears twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


class Fields:
    """A JSON object taken apart strictly: every key must be asked for, be of the right type and within its bounds."""

    def __init__(self, values: Any, what: str) -> None:
        if not isinstance(values, dict):
            raise Damaged(f"{what}: a JSON object was expected")
        self._values, self._what = dict(values), what

    @classmethod
    def parse(cls, text: Body, what: str) -> Fields:
        try:
            values = json.loads(bytes(text), object_pairs_hook=_unique, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            raise Damaged(f"{what}: its JSON is damaged") from None
        return cls(values, what)

    def _take(self, name: str) -> Any:
        try:
            return self._values.pop(name)
        except KeyError:
            raise Damaged(f"{self._what}: {name} is missing") from None

    def wrong(self, name: str) -> Damaged:
        return Damaged(f"{self._what}: {name} is not valid")

    def integer(self, name: str, low: int = 0, high: int = 2**63 - 1) -> int:
        value = self._take(name)
        if type(value) is not int or not low <= value <= high:
            raise self.wrong(name)
        return value

    def boolean(self, name: str) -> bool:
        value = self._take(name)
        if type(value) is not bool:
            raise self.wrong(name)
        return value

    def text(self, name: str, max_chars: int = 1024) -> str:
        value = self._take(name)
        if type(value) is not str or len(value) > max_chars:
            raise self.wrong(name)
        return value

    def hex(self, name: str, size: int) -> bytes:
        """Bytes written as lower-case hex, exactly `size` of them."""
        value = self._take(name)
        if type(value) is str and len(value) == 2 * size:
            try:
                found = bytes.fromhex(value)
            except ValueError:
                found = b""
            if found.hex() == value:
                return found
        raise self.wrong(name)

    def nothing(self, name: str) -> None:
        if self._take(name) is not None:
            raise self.wrong(name)

    def mapping(self, name: str) -> dict[str, Any]:
        value = self._take(name)
        if type(value) is not dict:
            raise self.wrong(name)
        return value

    def items(self, name: str, max_items: int) -> list[Any]:
        value = self._take(name)
        if type(value) is not list or len(value) > max_items:
            raise self.wrong(name)
        return value

    def done(self) -> None:
        """Nothing may be left: an unknown key in a known version is damage, not an extension."""
        if self._values:
            raise Damaged(f"{self._what}: unknown key {next(iter(self._values))!r:.40}")
