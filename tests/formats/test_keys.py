from __future__ import annotations

import hmac
import pickle

import pytest
from blake3 import blake3

from s3cfs.errors import Damaged
from s3cfs.formats.keys import PURPOSES, KeyRing

from .kit import FS_ID, MASTER, FixedRandomness, both_modes, keyring

OTHERS = [KeyRing(FS_ID, bytes(32), FixedRandomness()), KeyRing(bytes(16), MASTER, FixedRandomness())]


@both_modes
def test_the_same_master_gives_the_same_keys(plain: bool) -> None:
    one, two = keyring(plain, b"1"), keyring(plain, b"2")
    assert one.chunk_id(b"x") == two.chunk_id(memoryview(b"x")) and one.mac(b"x") == two.mac(b"x")
    assert one.database_key() == two.database_key() and one.chunker_seed() == two.chunker_seed()
    for purpose in PURPOSES:
        assert two.sealer(purpose, 9).open(one.sealer(purpose, 3).seal(b"data", b"aad"), b"aad") == b"data"


def test_every_purpose_epoch_and_filesystem_has_its_own_key() -> None:
    ring = keyring()
    keys = {ring._derive(info) for info in ("database", "chunk-id", "superblock-mac", *(f"{p}/{e}" for p in PURPOSES for e in (1, 11, 2)))}
    keys |= {other._derive("database") for other in OTHERS}
    assert len(keys) == 3 + 3 * len(PURPOSES) + len(OTHERS)
    sealed = ring.sealer("chunk", 1).seal(b"data", b"")
    for wrong in (ring.sealer("index", 1), *(other.sealer("chunk", 1) for other in OTHERS)):
        with pytest.raises(Damaged):
            wrong.open(sealed, b"")
    assert len({ring.chunk_id(b""), *(other.chunk_id(b"") for other in OTHERS), keyring(True).chunk_id(b"")}) == 4


def test_known_answers() -> None:
    """The derivation is the format: this must never change. HKDF is done by hand here."""

    def hkdf(info: bytes) -> bytes:
        return hmac.digest(hmac.digest(FS_ID, MASTER, "sha256"), b"s3cfs/" + info + b"\1", "sha256")

    assert blake3(b"hello", key=hkdf(b"chunk-id")).hexdigest() == KNOWN["chunk_id"]
    assert hmac.digest(hkdf(b"superblock-mac"), b"hello", "sha256").hex() == KNOWN["mac"]
    ring = keyring()
    assert ring.chunk_id(b"hello").hex() == KNOWN["chunk_id"]
    assert ring.mac(b"hello").hex() == KNOWN["mac"]
    assert ring.chunker_seed() == KNOWN["seed"]
    assert keyring(True).chunk_id(b"hello").hex() == KNOWN["plain_chunk_id"]


KNOWN = {
    "chunk_id": "38490a6167307c9fd39f2989a30d679f747549d49847fe51bcdac3e2af4c83c1",
    "mac": "7b698f79df69074ee27afe23609df2211bdb5027345c1116731a60969b264f28",
    "seed": 90373788705353599,
    "plain_chunk_id": "fc89166617d1c6ac821b082a7358b894f859c26f5a37ccb04c5e5b99a29ce7aa",
}


def test_plain_has_no_secrets_to_give() -> None:
    ring = keyring(True)
    assert ring.plain and ring.database_key() is None and ring.chunker_seed() == 0
    with pytest.raises(ValueError, match="plain"):
        ring.wrap_master(bytes(32), b"")


@both_modes
def test_the_spool_is_of_this_process(plain: bool) -> None:
    ring = keyring(plain, b"1")
    assert ring.spool_sealer().open(ring.spool_sealer().seal(b"data", b""), b"") == b"data"
    if not plain:
        with pytest.raises(Damaged):
            keyring(plain, b"2").spool_sealer().open(ring.spool_sealer().seal(b"data", b""), b"")


def test_nothing_secret_is_shown_or_written() -> None:
    ring = keyring()
    assert FS_ID.hex() in repr(ring) and MASTER.hex() not in repr(ring) and repr(MASTER) not in repr(ring)
    with pytest.raises(TypeError):
        pickle.dumps(ring)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        KeyRing(b"short", None, FixedRandomness())
    with pytest.raises(ValueError, match="16 bytes"):
        KeyRing(FS_ID, b"short", FixedRandomness())
    with pytest.raises(ValueError, match="purpose"):
        keyring().sealer("spool", 1)
