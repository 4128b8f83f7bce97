"""From the one master key to a key for every purpose.

HKDF-SHA256 with the filesystem's id as salt; sealing keys change with the epoch, the key of the chunk ids never does, so sealing can be
rotated without ending deduplication. No key leaves this object but those whose user is another library (the local database) or
that wrap the master key itself (the superblock's slots).
"""
from __future__ import annotations

import hashlib
import hmac
from typing import NoReturn

from blake3 import blake3
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from s3cfs.doors import Randomness
from s3cfs.formats.envelope import Body
from s3cfs.formats.seal import NONCE_BYTES, PlainSealer, Sealer
from s3cfs.ids import ChunkId

FS_ID_BYTES = 16
MASTER_BYTES = 32
PURPOSES = ("chunk", "index", "record", "checkpoint")


class KeyRing:
    """All keys of one filesystem; `master` None is --plain. Thread-safe; shows no key in any repr, cannot be pickled."""

    def __init__(self, fs_id: bytes, master: bytes | None, random: Randomness) -> None:
        if len(fs_id) != FS_ID_BYTES or (master is not None and len(master) != MASTER_BYTES):
            raise ValueError("a filesystem id has 16 bytes, a master key 32")
        self.fs_id, self.plain = fs_id, master is None
        self._random, self._master = random, master
        # In plain mode these keys are public: they only keep filesystems apart.
        self._root = master if master is not None else blake3(fs_id, derive_key_context="s3cfs plain root").digest()
        self._id_key = self._derive("chunk-id")
        self._mac_key = self._derive("superblock-mac")
        self._spool_key = random.bytes(32)

    def __repr__(self) -> str:
        return f"KeyRing({self.fs_id.hex()}{', plain' if self.plain else ''})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key ring is not to be written anywhere")

    def _derive(self, info: str, length: int = 32) -> bytes:
        return HKDF(hashes.SHA256(), length, self.fs_id, b"s3cfs/" + info.encode("ascii")).derive(self._root)

    def sealer(self, purpose: str, epoch: int) -> Sealer:
        """Seals under the key of `purpose` and `epoch`, opens any epoch of that purpose."""
        if purpose not in PURPOSES:
            raise ValueError(f"no such purpose: {purpose}")
        if self.plain:
            return PlainSealer(epoch, self._random)
        return Sealer(lambda one: self._derive(f"{purpose}/{one}"), epoch, self._random)

    def chunk_id(self, plain: Body) -> ChunkId:
        """Keyed BLAKE3: the same content has the same id in this filesystem, and an unguessable one to others."""
        return ChunkId(blake3(plain, key=self._id_key).digest())

    def chunker_seed(self) -> int:
        """62 bits that move the chunk boundaries, so they do not tell a known file's at a glance; 0 in plain mode."""
        return 0 if self.plain else int.from_bytes(self._derive("chunker-seed", 8), "little") >> 2 or 1

    def database_key(self) -> bytes | None:
        """For the local metadata database; None in plain mode."""
        return None if self.plain else self._derive("database")

    def spool_sealer(self) -> Sealer:
        """For what never outlives this process: a key that nothing stores."""
        return PlainSealer(0, self._random) if self.plain else Sealer(lambda _: self._spool_key, 0, self._random)

    def mac(self, data: bytes) -> bytes:
        """HMAC-SHA256 with a key of its own, for the superblock (no protection in plain mode)."""
        return hmac.new(self._mac_key, data, hashlib.sha256).digest()

    def wrap_master(self, wrapping_key: bytes, aad: bytes) -> bytes:
        """The master key sealed for a key slot: nonce 12 | ciphertext 32 | tag 16."""
        if self._master is None:
            raise ValueError("a plain filesystem has no master key")
        nonce = self._random.bytes(NONCE_BYTES)
        return nonce + AESGCM(wrapping_key).encrypt(nonce, self._master, aad)
