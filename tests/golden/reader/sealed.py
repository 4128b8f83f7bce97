"""What all objects share: header, seal, keys; JSON and zstd that are not believed before they were looked at."""
from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

import zstandard
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from .store import Newer, Wrong

VERSION = 0
HEADER = 16
OVERHEAD = 32                  # of a seal
LARGEST = 1 << 29              # uncompressed content of one record or part


def integer(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at:at + size], "little")


def crc16(data: bytes) -> int:
    """CCITT, polynomial 0x1021, start 0xFFFF, nothing reflected, no final XOR."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc


def header(key: str, data: bytes, letter: str) -> int:
    """The epoch in an object's first 16 bytes."""
    if len(data) < HEADER or crc16(data[:14]) != integer(data, 14, 2):
        raise Wrong(key, "its header is damaged")
    if data[:8] != b"s3cfs" + letter.encode() + b"\0\0":
        raise Wrong(key, "it is an object of another kind")
    if integer(data, 8, 2) > VERSION:
        raise Newer(key)
    return integer(data, 10, 4)


class Keys:
    """All keys of one filesystem, from its root key."""

    def __init__(self, fs_id: bytes, master: bytes | None) -> None:
        self.fs_id, self.plain = fs_id, master is None
        self._root = master if master is not None else blake3(fs_id, derive_key_context="s3cfs plain root").digest()
        self._derived: dict[str, bytes] = {}

    def derive(self, purpose: str) -> bytes:
        if purpose not in self._derived:
            self._derived[purpose] = HKDF(hashes.SHA256(), 32, self.fs_id, b"s3cfs/" + purpose.encode()).derive(self._root)
        return self._derived[purpose]

    def mac(self, text: bytes) -> bytes:
        return hmac.new(self.derive("superblock-mac"), text, hashlib.sha256).digest()

    def chunk_id(self, content: bytes) -> bytes:
        return blake3(content, key=self.derive("chunk-id")).digest()

    def open(self, key: str, purpose: str, sealed: bytes, aad: bytes) -> bytes:
        """What is inside a seal of `purpose`."""
        if len(sealed) < OVERHEAD:
            raise Wrong(key, "too short for a seal")
        epoch, nonce = integer(sealed, 0, 4), sealed[4:16]
        if self.plain:
            content, tag = sealed[16:-16], sealed[-16:]
            check = blake3(sealed[:4] + len(aad).to_bytes(4, "little") + aad + content, derive_key_context="s3cfs plain seal")
            if any(nonce) or check.digest(16) != tag:
                raise Wrong(key, "its checksum does not match")
            return content
        try:
            return AESGCM(self.derive(f"{purpose}/{epoch}")).decrypt(nonce, sealed[16:], aad)
        except InvalidTag:
            raise Wrong(key, "its seal does not hold") from None


def unpack(key: str, packed: bytes, length: int) -> bytes:
    """One zstd frame that states `length`, and nothing after it."""
    try:
        if zstandard.frame_content_size(packed) != length:
            raise Wrong(key, "a zstd frame states another length")
        content = zstandard.ZstdDecompressor().decompress(packed, max_output_size=length, allow_extra_data=False)
    except zstandard.ZstdError:
        raise Wrong(key, "a zstd frame is damaged") from None
    if len(content) != length:
        raise Wrong(key, "a zstd frame has another length")
    return content


def parse(key: str, text: bytes) -> dict[str, Any]:
    """A JSON object in which nothing is there twice."""
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise ValueError("a name is there twice")
        return dict(pairs)

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no JSON")

    try:
        found = json.loads(text, object_pairs_hook=unique, parse_constant=refuse)
    except (ValueError, RecursionError):
        raise Wrong(key, "its JSON is damaged") from None
    if not isinstance(found, dict):
        raise Wrong(key, "its JSON is no object")
    return found


def fields(key: str, found: Any, /, **types: type) -> dict[str, Any]:
    """The object itself, when it has exactly these fields, of exactly these types."""
    if not isinstance(found, dict) or found.keys() != types.keys():
        raise Wrong(key, "fields are missing, or too many")
    for name, kind in types.items():
        if type(found[name]) is not kind:
            raise Wrong(key, f"the field {name} is no {kind.__name__}")
    return found


def from_hex(key: str, text: str, size: int) -> bytes:
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if len(found) != size or found.hex() != text:
        raise Wrong(key, f"not {size} bytes in lower-case hex: {text!r:.80}")
    return found


def bounded(key: str, value: int, low: int = 0, high: int = 2**63 - 1) -> int:
    if not low <= value <= high:
        raise Wrong(key, f"the number {value} is out of bounds")
    return value
