"""The recovery key in the place of the passphrase."""
from __future__ import annotations

import pytest

from s3cfs.app.store import unlock
from s3cfs.config import Secret, Settings
from s3cfs.doors import SystemRandomness
from s3cfs.errors import WrongPassphrase
from s3cfs.formats import superblock
from s3cfs.formats.superblock import Argon2Params

CHEAP = Argon2Params(memory_kib=64, passes=1, lanes=1)
SUPERBLOCK, KEYRING, RECOVERY = superblock.create("x", SystemRandomness(), False, 4096, 16384, 65536, "right", now_ns=0, argon2=CHEAP)


def settings(text: str) -> Settings:
    return Settings(url="memory://x", cachedir="/nowhere", passphrase=Secret(text))


def test_passphrase_and_recovery_key_open_the_same() -> None:
    assert RECOVERY is not None
    for text in ("right", RECOVERY, RECOVERY.lower().replace("-", " ")):
        assert unlock(SUPERBLOCK, settings(text)).database_key() == KEYRING.database_key()


@pytest.mark.parametrize("text", ["wrong", "0" * 54, "right "])
def test_nothing_else_does(text: str) -> None:
    with pytest.raises(WrongPassphrase):
        unlock(SUPERBLOCK, settings(text))
