"""What IPFS names a block: the CID, and the key under which a node's datastore has it. Pure.

Only sha2-256 is known here: s3cfs writes nothing else, and neither does Kubo unless it is told to.
"""
from __future__ import annotations

import base64
import binascii
import hashlib
from typing import NamedTuple

from s3cfs.backends.types import Body

RAW, DAG_PB = 0x55, 0x70           # codecs: bytes as they are; a node of a graph
DIGEST_BYTES = 32

_MULTIHASH = b"\x12\x20"           # sha2-256, 32 bytes
_CODEC_NAMES = {RAW: "raw", DAG_PB: "dag-pb"}
_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


class Cid(NamedTuple):
    """`digest`: the 32 bytes of sha2-256. `str` and `bytes` are how it is written; a v0 is always dag-pb."""

    version: int
    codec: int
    digest: bytes

    def __bytes__(self) -> bytes:
        multihash = _MULTIHASH + self.digest
        return multihash if self.version == 0 else b"\x01" + encode_varint(self.codec) + multihash

    def __str__(self) -> str:
        data = bytes(self)
        return _base58(data) if self.version == 0 else "b" + _base32(data).lower()

    @classmethod
    def parse(cls, text: str) -> Cid:
        """Of v1 in base32 ("b…") or base58 ("z…"), or of v0 ("Qm…"). ValueError, whose text says what is wrong."""
        if text.startswith("Qm") and len(text) == 46:
            return cls.decode(_from_base58(text))
        if text.startswith("z"):
            found = cls.decode(_from_base58(text[1:]))
        elif text.startswith("b"):
            found = cls.decode(_from_base32(text[1:].upper() if text.islower() else ""))
        else:
            raise ValueError(f"{text!r} is no CID in base32 or base58")
        if found.version == 0:
            raise ValueError(f"{text!r} is no CID: version 0 has no letter for its base")
        return found

    @classmethod
    def decode(cls, data: Body) -> Cid:
        """Of exactly these bytes. ValueError, whose text says what is wrong."""
        found, end = cls.read(data, 0)
        if end != len(data):
            raise ValueError("there is more behind the CID")
        return found

    @classmethod
    def read(cls, data: Body, at: int) -> tuple[Cid, int]:
        """The one that begins at `at`, and where it ends."""
        version, codec, multihash = 0, DAG_PB, at
        if bytes(data[at:at + 2]) != _MULTIHASH:
            version, multihash = decode_varint(data, at)
            codec, multihash = decode_varint(data, multihash)
            if version != 1:
                raise ValueError(f"a CID of version {version} is not known")
        function, digest = decode_varint(data, multihash)
        length, digest = decode_varint(data, digest)
        if (function, length) != tuple(_MULTIHASH):
            raise ValueError(f"the block is named by hash function {function:#x}, {length} bytes: only sha2-256 is known")
        end = digest + DIGEST_BYTES
        if end > len(data):
            raise ValueError("the CID is cut short")
        return cls(version, codec, bytes(data[digest:end])), end

    @property
    def codec_name(self) -> str:
        return _CODEC_NAMES.get(self.codec, f"{self.codec:#x}")


def digest_of(data: Body) -> bytes:
    return hashlib.sha256(data).digest()


def block_key(digest: bytes) -> str:
    """The block's key in a node's datastore, without a leading slash: 55 letters, first CIQ. Version and codec are no part of it."""
    return _base32(_MULTIHASH + digest)


def digest_of_key(key: str) -> bytes:
    """ValueError: this is no key of a block named by sha2-256."""
    data = _from_base32(key)
    if data[:2] != _MULTIHASH or len(data) != 2 + DIGEST_BYTES:
        raise ValueError(f"{key!r} is no key of a block named by sha2-256")
    return data[2:]


def encode_varint(number: int) -> bytes:
    """Seven bits a byte, the least first (LEB128)."""
    out = bytearray()
    while number > 0x7f:
        out.append(number & 0x7f | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def decode_varint(data: Body, at: int) -> tuple[int, int]:
    """The number that begins at `at`, and where it ends. ValueError: cut short, or more than 64 bits."""
    number = 0
    for place in range(10):
        if at + place >= len(data):
            raise ValueError("a number is cut short")
        byte = data[at + place]
        number |= (byte & 0x7f) << 7 * place
        if byte < 0x80:
            if number >= 1 << 64:
                break
            return number, at + place + 1
    raise ValueError("a number has more than 64 bits")


def _base32(data: bytes) -> str:
    return base64.b32encode(data).decode().rstrip("=")


def _from_base32(text: str) -> bytes:
    """Of capital letters without padding; only of what `_base32` makes."""
    try:
        data = base64.b32decode(text + "=" * (-len(text) % 8))
    except (binascii.Error, ValueError):
        data = b""
    if not data or _base32(data) != text:
        raise ValueError(f"{text!r} is no base32")
    return data


def _base58(data: bytes) -> str:
    number, out = int.from_bytes(data, "big"), ""
    while number:
        number, place = divmod(number, 58)
        out = _ALPHABET[place] + out
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + out


def _from_base58(text: str) -> bytes:
    number = 0
    for letter in text:
        place = _ALPHABET.find(letter)
        if place < 0:
            raise ValueError(f"{text!r} is no base58")
        number = number * 58 + place
    zeros = len(text) - len(text.lstrip("1"))
    return bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")
