"""One object of S3QL: its header, its encryption, its compression.

Here an object is one run of bytes, as S3QL's `local` backend has it in a file: `s3ql_1` LF, u16 LE length of the header, the header as
text, the body. The header is the text of a Python dict; it is parsed as what it is, a few literals, and never evaluated.
An object of an encrypted filesystem must be signed, and say the name it was asked for by: who can write to the bucket can neither plant nor
exchange one. That it is an old version of itself cannot be seen here.
"""
from __future__ import annotations

import ast
import base64
import binascii
import bz2
import hashlib
import hmac
import lzma
import struct
import zlib
from collections.abc import Mapping
from typing import Protocol

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from s3cfs.errors import Damaged

Value = str | int | float | bool | bytes | None
Header = dict[str, Value]

MAGIC = b"s3ql_1\n"
HEADER_MAX_CHARS = 1 << 20
XZ_MEMORY_BYTES = 256 << 20
VERSION = 2
HASH_BYTES = 32


def parse(text: str) -> Header:
    """A dict's text: strings, numbers, booleans, None, and bytes, which hold base64. Damaged."""
    if len(text) > HEADER_MAX_CHARS:
        raise Damaged("a header of S3QL that is too long")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise Damaged("not a header of S3QL") from None
    if not isinstance(tree, ast.Dict):
        raise Damaged("not a header of S3QL")
    found: Header = {}
    for key, value in zip(tree.keys, tree.values, strict=True):
        if not isinstance(key, ast.Constant) or not isinstance(key.value, str) or key.value in found:
            raise Damaged("a header of S3QL with a strange key")
        found[key.value] = _literal(value)
    return found


def _literal(node: ast.expr) -> Value:
    sign = 1
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        node, sign = node.operand, -1
    value = node.value if isinstance(node, ast.Constant) else ...
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return sign * value
    if sign == 1 and isinstance(value, bytes):
        try:
            return base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise Damaged("a header of S3QL with bytes that are no base64") from None
    if sign == 1 and (value is None or isinstance(value, (str, bool))):
        return value
    raise Damaged("a header of S3QL with a strange value")


def canonical(header: Mapping[str, Value]) -> bytes:
    """What signatures are over: every key but `signature`, sorted."""
    made = bytearray()
    for key in sorted(header):
        if key == "signature":
            continue
        value = header[key]
        made += key.encode()
        if value is None or value is True or value is False:
            made += {None: b"\0n", True: b"\0t", False: b"\0f"}[value]
        elif isinstance(value, str):
            made += b"\0s" + value.encode() + b"\0"
        elif isinstance(value, int):
            made += b"\0i" + str(value).encode() + b"\0"
        elif isinstance(value, bytes):
            made += b"\0b" + struct.pack("<I", len(value)) + value
        else:
            made += b"\0d" + struct.pack("<d", value)
    return bytes(made)


def pack(header: str, body: bytes) -> bytes:
    """An object as one run of bytes."""
    text = header.encode()
    return MAGIC + struct.pack("<H", len(text)) + text + body


def unpack(data: bytes) -> tuple[Header, memoryview]:
    if not data.startswith(MAGIC) or len(data) < len(MAGIC) + 2:
        raise Damaged("not an object of S3QL")
    start = len(MAGIC) + 2
    end = start + struct.unpack_from("<H", data, len(MAGIC))[0]
    try:
        text = data[start:end].decode()
    except UnicodeDecodeError:
        raise Damaged("a header of S3QL that is no text") from None
    if len(data) < end:
        raise Damaged("it is cut off")
    return parse(text), memoryview(data)[end:]


def open_object(key: str, data: bytes, passphrase: bytes | None, most_bytes: int) -> tuple[Header, bytes]:
    """Its inner header and its plaintext, of `most_bytes` at most, verified. `passphrase` None: of a plain filesystem. Damaged."""
    header, body = unpack(data)
    if not header:
        raise Damaged("it has no header of S3QL: was it copied without its metadata?")
    if header.get("format_version") != VERSION:
        raise Damaged(f"its format is version {header.get('format_version')!r}, not {VERSION}")
    offset = header.get("payload_offset", 0)
    if not isinstance(offset, int) or not 0 <= offset <= len(body):
        raise Damaged("it says nonsense of where it begins")
    body = body[offset:]
    encryption = header.get("encryption")
    if encryption == "None":
        if passphrase is not None:
            raise Damaged("it is not encrypted, in an encrypted filesystem: somebody else may have put it there")
        inner = header.get("data", "{}")
        # the inner header of a plain object is text, or bytes of it
        text = inner.decode("utf-8", "replace") if isinstance(inner, bytes) else str(inner)
        return parse(text), _decompressed(str(header.get("compression")), body, most_bytes)
    if encryption != "AES_v2":
        raise Damaged(f"its encryption is {encryption!r}, which this version does not know")
    if passphrase is None:
        raise Damaged("it is encrypted, in a filesystem without encryption")
    nonce, signature, inner = header.get("nonce"), header.get("signature"), header.get("data")
    if not isinstance(nonce, bytes) or not isinstance(signature, bytes) or not isinstance(inner, bytes):
        raise Damaged("its header lacks something")
    meta_key = hashlib.sha256(passphrase + nonce + b"meta").digest()
    if not hmac.compare_digest(signature, hmac.digest(meta_key, canonical(header), "sha256")):
        raise BadSignature("its signature is wrong")
    if header.get("object_id") != key:
        raise Damaged(f"it is {header.get('object_id')!r} under another name")
    try:
        found = parse(_ctr(meta_key, inner).decode())
    except UnicodeDecodeError:
        raise Damaged("its inner header is no text") from None
    sealed = _frames(_ctr(hashlib.sha256(passphrase + nonce).digest(), body), hashlib.sha256(passphrase + nonce).digest())
    return found, _decompressed(str(header.get("compression")), sealed, most_bytes)


class BadSignature(Damaged):
    """The passphrase is wrong, or the header is damaged: they look the same."""


def _ctr(key: bytes, data: bytes | memoryview) -> bytes:
    return Cipher(AES(key), CTR(bytes(16))).decryptor().update(data)


def _frames(plain: bytes, key: bytes) -> bytes:
    """Frames of u32 length and bytes, an empty one, and an HMAC of everything before it."""
    view, pieces, at = memoryview(plain), [], 0
    while True:
        if at + 4 > len(plain):
            raise Damaged("it is cut off")
        size = struct.unpack_from("<I", plain, at)[0]
        at += 4
        if not size:
            break
        pieces.append(view[at:at + size])
        at += size
    if len(plain) != at + HASH_BYTES or not hmac.compare_digest(bytes(view[at:]), hmac.digest(key, view[:at], "sha256")):
        raise Damaged("its checksum is wrong")
    return b"".join(pieces)


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def _decompressed(kind: str, data: bytes | memoryview, most_bytes: int) -> bytes:
    """All of it; never more than a byte above `most_bytes` is made, whatever it claims to be."""
    if kind == "None":
        plain = bytes(data)
    elif kind == "ZLIB":
        stream = zlib.decompressobj()
        try:
            plain = stream.decompress(data, most_bytes + 1)
        except zlib.error:
            raise Damaged("it cannot be decompressed") from None
        if len(plain) <= most_bytes and (not stream.eof or stream.unused_data):
            raise Damaged("it does not end with its compressed stream")
    elif kind in ("BZIP2", "LZMA"):
        made: _Decompressor = bz2.BZ2Decompressor() if kind == "BZIP2" else lzma.LZMADecompressor(lzma.FORMAT_XZ, XZ_MEMORY_BYTES)
        pieces, size, left = [], 0, bytes(data)
        try:
            while not made.eof and size <= most_bytes:
                piece = made.decompress(left, most_bytes + 1 - size)
                if not piece and not made.eof:
                    raise Damaged("it is cut off")
                pieces.append(piece)
                size, left = size + len(piece), b""
        except (OSError, lzma.LZMAError, EOFError):
            raise Damaged("it cannot be decompressed") from None
        plain = b"".join(pieces)
        if len(plain) <= most_bytes and made.unused_data:
            raise Damaged("it does not end with its compressed stream")
    else:
        raise Damaged(f"its compression is {kind!r}, which this version does not know")
    if len(plain) > most_bytes:
        raise Damaged(f"it holds more than the {most_bytes} bytes that it may")
    return plain
