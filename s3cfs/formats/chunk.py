"""A chunk on its way into a pack and back: compressed when that helps, sealed, bound to its id.

    seal( algorithm u8 | payload ),  aad = "chunk" | filesystem id | format version u16 | chunk id

The place is no part of it, so a pack can be rewritten by copying bytes. The id is checked against the plaintext by `verify` (fsck,
scrub); a reader relies on the seal, which binds the id already.
"""
from __future__ import annotations

import threading
from hmac import compare_digest

import zstandard

from s3cfs.errors import Damaged
from s3cfs.formats.envelope import Body, decompress
from s3cfs.formats.keys import KeyRing
from s3cfs.ids import FORMAT_VERSION, ChunkId

STORED, ZSTD = 0, 1
LEVELS = range(1, 20)
_SAVING = 32                       # compressed must save 1/32 (3 %): less is not worth decompressing for
_SAMPLE_FROM_BYTES = 32 << 10      # shorter chunks are simply compressed
_SAMPLES, _SAMPLE_BYTES = 8, 2 << 10


class _Contexts(threading.local):
    """zstd contexts are not thread-safe and expensive to make."""

    def __init__(self, level: int | None) -> None:
        self.decompressor = zstandard.ZstdDecompressor()
        self.compressor = zstandard.ZstdCompressor(level=level, write_content_size=True, write_checksum=False) if level else None
        self.taster = zstandard.ZstdCompressor(level=1)


class ChunkCodec:
    """Encodes under one epoch, decodes all. Thread-safe."""

    def __init__(self, keyring: KeyRing, epoch: int, level: int | None) -> None:
        """`level`: zstd's, or None to store as it is."""
        if level is not None and level not in LEVELS:
            raise ValueError(f"zstd levels are {LEVELS[0]} to {LEVELS[-1]}, not {level}")
        self._keyring, self._sealer = keyring, keyring.sealer("chunk", epoch)
        self._contexts = _Contexts(level)
        self._aad = b"chunk" + keyring.fs_id + FORMAT_VERSION.to_bytes(2, "little")

    @property
    def overhead(self) -> int:
        """Most bytes a sealed chunk has more than its plaintext."""
        return self._sealer.OVERHEAD + 1

    def encode(self, chunk_id: ChunkId, plain: Body) -> bytes:
        packed = self._compressed(plain)
        inner = b"".join((b"\0", plain)) if packed is None else b"\1" + packed
        return self._sealer.seal(inner, self._aad + chunk_id)

    def _compressed(self, plain: Body) -> bytes | None:
        size, contexts = len(plain), self._contexts
        if contexts.compressor is None or size == 0:
            return None
        if size >= _SAMPLE_FROM_BYTES:  # a taste of 16 KiB: random data would cost as much as sealing it
            view, step = memoryview(plain), (size - _SAMPLE_BYTES) // (_SAMPLES - 1)
            taste = b"".join(view[at * step:at * step + _SAMPLE_BYTES] for at in range(_SAMPLES))
            if len(contexts.taster.compress(taste)) > len(taste) - len(taste) // _SAVING:
                return None
        packed = contexts.compressor.compress(plain)
        return packed if len(packed) <= size - max(1, size // _SAVING) else None

    def decode(self, chunk_id: ChunkId, sealed: Body, length: int) -> bytes:
        """The plaintext, exactly `length` bytes of it; Damaged when anything is wrong."""
        what = f"chunk {chunk_id.hex()[:16]}"
        try:
            inner = memoryview(self._sealer.open(sealed, self._aad + chunk_id))
        except Damaged as error:
            raise Damaged(f"{what}: {error}") from None
        algorithm, payload = (inner[0] if inner else -1), inner[1:]
        if algorithm == STORED:
            if len(payload) != length:
                raise Damaged(f"{what}: it has {len(payload)} bytes, not {length}")
            return bytes(payload)
        if algorithm == ZSTD:
            return decompress(payload, length, what, self._contexts.decompressor)
        raise Damaged(f"{what}: unknown compression {algorithm}")

    def verify(self, chunk_id: ChunkId, plain: Body) -> bool:
        """Is this the content the id was made from?"""
        return compare_digest(self._keyring.chunk_id(plain), chunk_id)
