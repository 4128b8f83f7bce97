"""Sealing: bytes become bytes that only the holder of the key can read, and that nobody can change unnoticed.

A sealed piece is  epoch u32 | nonce 12 | AES-256-GCM ciphertext | tag 16.  Nonces are random and travel with the data: there is no
counter that a restored cache or a cloned machine could repeat; 2^32 seals under one key are the limit, and every epoch has its own key.
"""
from __future__ import annotations

import struct
import threading
from collections.abc import Callable
from typing import Protocol

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from s3cfs.doors import Randomness
from s3cfs.errors import Damaged
from s3cfs.formats.envelope import Body

NONCE_BYTES = 12
TAG_BYTES = 16
OPEN_MAX_BYTES = 1 << 30           # AES-GCM of the library ends at 2^31; no object is near it
_EPOCH = struct.Struct("<I")
_START = _EPOCH.size + NONCE_BYTES
_CIPHERS_MAX = 256                 # epochs whose cipher is kept: a store that invents epochs cannot fill the memory


class Seals(Protocol):
    """What those need who seal and open but do not care with what."""

    def seal(self, plain: Body, aad: bytes) -> bytes: ...
    def open(self, sealed: Body, aad: bytes) -> bytes: ...


class Sealer:
    """Seals with the key of its epoch, opens what any epoch sealed. Thread-safe."""

    OVERHEAD: int = _START + TAG_BYTES

    def __init__(self, keys: Callable[[int], bytes], epoch: int, random: Randomness) -> None:
        """`keys(epoch)` gives the 32 byte key of an epoch."""
        self.epoch = epoch
        self._keys, self._random = keys, random
        self._ciphers: dict[int, AESGCM] = {}
        self._lock = threading.Lock()

    def _cipher(self, epoch: int) -> AESGCM:
        found = self._ciphers.get(epoch)
        if found is None:
            found = AESGCM(self._keys(epoch))
            with self._lock:
                if len(self._ciphers) >= _CIPHERS_MAX:
                    self._ciphers.clear()
                self._ciphers[epoch] = found
        return found

    def seal(self, plain: Body, aad: bytes) -> bytes:
        nonce = self._random.bytes(NONCE_BYTES)
        return b"".join((_EPOCH.pack(self.epoch), nonce, self._cipher(self.epoch).encrypt(nonce, plain, aad)))

    def open(self, sealed: Body, aad: bytes) -> bytes:
        """The plaintext; Damaged when `sealed` or `aad` is not what was sealed, or the key is another."""
        epoch, nonce, rest = self._split(sealed)
        try:
            return self._cipher(epoch).decrypt(nonce, rest, aad)
        except InvalidTag:
            raise Damaged("the seal does not hold (damaged, in the wrong place, or of another key)") from None

    def _split(self, sealed: Body) -> tuple[int, bytes, memoryview]:
        if not self.OVERHEAD <= len(sealed) <= OPEN_MAX_BYTES:
            raise Damaged(f"{len(sealed)} bytes cannot be a sealed piece")
        view = memoryview(sealed)
        return _EPOCH.unpack_from(view)[0], bytes(view[_EPOCH.size:_START]), view[_START:]


class PlainSealer(Sealer):
    """For --plain: same interface and sizes, nonce zero, tag a checksum. Finds damage, hides nothing, stops no forger."""

    def __init__(self, epoch: int, random: Randomness) -> None:
        super().__init__(_no_key, epoch, random)

    @staticmethod
    def _tag(epoch: bytes, plain: Body, aad: bytes) -> bytes:
        hasher = blake3(epoch + len(aad).to_bytes(4, "little") + aad, derive_key_context="s3cfs plain seal")
        return hasher.update(plain).digest(TAG_BYTES)

    def seal(self, plain: Body, aad: bytes) -> bytes:
        epoch = _EPOCH.pack(self.epoch)
        return b"".join((epoch, bytes(NONCE_BYTES), plain, self._tag(epoch, plain, aad)))

    def open(self, sealed: Body, aad: bytes) -> bytes:
        epoch, nonce, rest = self._split(sealed)
        plain = bytes(rest[:-TAG_BYTES])
        if any(nonce) or self._tag(_EPOCH.pack(epoch), plain, aad) != rest[-TAG_BYTES:]:
            raise Damaged("the checksum does not match (damaged, in the wrong place, or of another filesystem)")
        return plain


def _no_key(_epoch: int) -> bytes:
    raise RuntimeError("a plain filesystem has no keys")
