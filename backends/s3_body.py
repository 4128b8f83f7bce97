"""Bodies on their way: to the store never copied, and with what it checks them by; both ways in pieces, each of which is progress."""
from __future__ import annotations

import hashlib
import io
import zlib
from base64 import b64encode
from typing import Any

from s3cfs.backends.progress import moved
from s3cfs.backends.types import Body
from s3cfs.limits import MIB

SEND_BYTES = 256 * 1024            # one send; each has the whole tcp-timeout
RECEIVE_BYTES = 128 * 1024         # one piece of an answer: more than two minutes for it is not called flowing
MD5_MAX_BYTES = 1 * MIB            # 1.5 ms of CPU; larger bodies rely on TLS
CHECKSUMS = ("auto", "md5", "crc32", "none")


class Reader:
    """A buffer as a file for the SDK: slices without a copy, of a size of our choosing."""

    def __init__(self, data: Body) -> None:
        self._view = memoryview(data).cast("B")
        self._at = 0

    def __len__(self) -> int:
        return len(self._view)

    def read(self, size: int | None = None) -> memoryview:
        piece = self._view[self._at:self._at + SEND_BYTES] if size is not None and size >= 0 else self._view[self._at:]
        self._at += len(piece)
        moved()                                # what was handed out before has gone
        return piece

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: len(self._view)}[whence]
        return self._at


def received(body: Any) -> bytes:
    """All that comes."""
    pieces: list[bytes] = []
    while piece := body.read(RECEIVE_BYTES):
        pieces.append(piece)
        moved()
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def md5_of(data: Body) -> str:
    """As the header Content-MD5 has it."""
    return b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


def checksum(kind: str, data: Body, *, aws: bool, signed: bool) -> dict[str, str]:
    """The argument the store verifies the body by. CRC32 is nearly free, but only AWS is sure to know it; MD5 everybody knows."""
    if kind == "auto":
        kind = "crc32" if aws else "md5" if len(data) <= MD5_MAX_BYTES and not signed else "none"
    if kind == "md5":
        return {"ContentMD5": md5_of(data)}
    if kind == "crc32":
        return {"ChecksumCRC32": b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()}
    return {}
