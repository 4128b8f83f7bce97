"""Identities and the roll: sealed, another store's are told apart, ids are never 0 and never twice."""
from __future__ import annotations

import pytest

from s3cfs.backends.zdb.members import Identity, Roll, fresh_ids
from s3cfs.backends.zdb.record import Signer

STORE = b"0123456789abcdef"


def test_identities():
    mine = Identity(STORE, 0xDEADBEEF, "a1")
    assert Identity.decode(mine.encode("secret"), "secret") == mine
    with pytest.raises(PermissionError):
        Identity.decode(mine.encode("secret"), "other")
    with pytest.raises(PermissionError):
        Identity.decode(mine.encode("secret")[:-1], "secret")
    for value in (b"", b"something else that somebody keeps here, and long enough it is"):
        with pytest.raises(ValueError):
            Identity.decode(value, "secret")


def test_rolls():
    signer = Signer(STORE, "")
    roll = Roll(STORE, 7, {5: "a", 6: "b", 9: "gone"}, (5, 6), (5, 8), "ff")
    assert Roll.decode(roll.encode(signer), signer) == roll
    assert (roll.id_of("b"), roll.id_of("z")) == (6, None)
    assert roll.joining == (8,) and roll.voters == ((5, 6), (5, 8)) and Roll(STORE, 1, {}, (5, 6)).voters == ((5, 6),)
    for damaged in (roll.encode(signer)[1:], roll.encode(Signer(b"f" * 16, "")), b""):
        with pytest.raises(ValueError):
            Roll.decode(damaged, signer)
    assert Roll(STORE, 8, {}, ()).rank > roll.rank > Roll(STORE, 7, {}, (), mark="fe").rank


def test_ids():
    names = [f"server-{number}" for number in range(300)]
    found = fresh_ids(names, STORE, taken=(1, 2))
    assert len(set(found.values())) == 300 and 0 not in found.values() and max(found.values()) < 2**32
    again = fresh_ids(names, STORE, taken=found.values())
    assert not set(again.values()) & set(found.values())
