from __future__ import annotations

import json
from dataclasses import replace

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from s3cfs.errors import ConfigError, Damaged, NewerFormat, UsageError, WrongPassphrase
from s3cfs.formats import superblock
from s3cfs.formats.keys import KeyRing
from s3cfs.formats.superblock import Argon2Params, Superblock
from s3cfs.limits import DEFAULTS

from .kit import FixedRandomness, assert_any_damage_is_found

CHEAP = Argon2Params(memory_kib=64, passes=1, lanes=1)
SIZES = (DEFAULTS.chunk_min_bytes, DEFAULTS.chunk_avg_bytes, DEFAULTS.chunk_max_bytes)
KEY_FILE = b"key file content of some length"


def create(
    passphrase: str | None = "correct horse", plain: bool = False, key_file: bytes | None = None
) -> tuple[Superblock, KeyRing, str | None]:
    return superblock.create("archive", FixedRandomness(), plain, *SIZES, passphrase, now_ns=123, key_file=key_file, argon2=CHEAP)


def unlock(sb: Superblock, **secret: str | bytes) -> KeyRing:
    return superblock.unlock(sb, random=FixedRandomness(b"other"), **secret)  # type: ignore[arg-type]


def rewritten(sb: Superblock, **changes: object) -> bytes:
    """As somebody without the key would rewrite it: check right, mac as it was."""
    values = json.loads(superblock.encode(sb))
    del values["check"]
    for name, value in changes.items():
        if value is ...:
            del values[name]
        else:
            values[name] = value
    text = json.dumps(values, separators=(",", ":")).encode()[:-1]
    return text + b',"check":"' + blake3(text).hexdigest().encode() + b'"}\n'


def test_round_trip_and_text() -> None:
    sb, _, _ = create()
    data = superblock.encode(sb)
    assert superblock.decode(memoryview(data)) == superblock.decode(data, 1) == sb
    assert data.startswith(b'{"s3cfs":0,') and json.loads(data)["label"] == "archive"
    assert (sb.n, sb.label, sb.chunk_avg, sb.created_ns, [slot.kind for slot in sb.slots]) == (
        1,
        "archive",
        SIZES[1],
        123,
        ["passphrase", "recovery"],
    )


def test_every_secret_opens_it() -> None:
    sb, ring, recovery = create(key_file=KEY_FILE)
    assert recovery is not None
    sb = superblock.decode(superblock.encode(sb))
    for secret in (
        {"passphrase": "correct horse"},
        {"recovery_key": recovery},
        {"recovery_key": recovery.lower().replace("-", " ")},
        {"key_file": KEY_FILE},
        {"passphrase": "wrong", "key_file": KEY_FILE},
    ):
        assert unlock(sb, **secret).chunk_id(b"x") == ring.chunk_id(b"x")


def test_wrong_secrets() -> None:
    sb, _, recovery = create(key_file=KEY_FILE)
    assert recovery is not None
    _, _, other = superblock.create("", FixedRandomness(b"2"), False, *SIZES, "x", now_ns=0, argon2=CHEAP)
    for secret in (
        {},
        {"passphrase": "Correct horse"},
        {"passphrase": ""},
        {"passphrase": recovery},
        {"recovery_key": other},
        {"recovery_key": "short"},
        {"recovery_key": recovery[:-1] + ("0" if recovery[-1] != "0" else "1")},
        {"key_file": KEY_FILE + b"\n"},
    ):
        with pytest.raises(WrongPassphrase) as raised:
            unlock(sb, **secret)
        text = str(raised.value)
        assert "\n" not in text and recovery not in text and "horse" not in text
    with pytest.raises(UsageError, match="key file"):
        unlock(sb, key_file=b"short")


def test_letters_composed_in_two_ways_are_one_passphrase() -> None:
    sb, _, _ = create("Zu\u0308rich")
    unlock(sb, passphrase="Z\u00fcrich")
    sb, _, _ = create("\udcff raw")  # a byte that is no UTF-8, as os.fsdecode gives it
    unlock(sb, passphrase="\udcff raw")


def test_plain() -> None:
    sb, ring, recovery = create(None, plain=True)
    assert recovery is None and sb.slots == () and unlock(superblock.decode(superblock.encode(sb))).plain
    assert unlock(sb).chunk_id(b"x") == ring.chunk_id(b"x")
    for secret in ({"passphrase": "expected to be sealed"}, {"recovery_key": "x"}, {"key_file": KEY_FILE}):
        with pytest.raises(ConfigError, match="not encrypted"):
            unlock(sb, **secret)
    for wrong in ({"passphrase": "x", "plain": True}, {"passphrase": None}, {"passphrase": None, "key_file": b"", "plain": True}):
        with pytest.raises(UsageError):
            create(**wrong)


def test_any_damage_is_found() -> None:
    data = superblock.encode(create()[0])
    assert_any_damage_is_found(data, superblock.decode)
    with pytest.raises(Damaged):
        superblock.decode(data + b" " * (65 << 10))


@given(st.binary(max_size=200))
def test_anything_else_is_damaged(data: bytes) -> None:
    with pytest.raises(Damaged):
        superblock.decode(data)


def test_newer() -> None:
    sb, _, _ = create()
    with pytest.raises(NewerFormat, match="format 9"):
        superblock.decode(rewritten(sb, s3cfs=9, something_new=1, slots=...))
    with pytest.raises(Damaged):
        superblock.decode(superblock.encode(sb).replace(b'{"s3cfs":0', b'{"s3cfs":1'))


@pytest.mark.parametrize(
    "change",
    [
        {"n": 0},
        {"n": True},
        {"fs_id": "00"},
        {"label": 1},
        {"label": "x" * 256},
        {"plain": 0},
        {"plain": True},
        {"chunk_min": 1},
        {"chunk_avg": 1 << 40},
        {"slots": []},
        {"slots": {}},
        {"slots": [1]},
        {"mac": ""},
        {"mac": ...},
        {"slots": ...},
        {"extra": 1},
        {"created_ns": "1"},
    ],
)
def test_strict(change: dict[str, object]) -> None:
    with pytest.raises(Damaged):
        superblock.decode(rewritten(create()[0], **change))


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "other"},
        {"id": "0"},
        {"salt": "00"},
        {"wrapped": "00"},
        {"argon2": None},
        {"extra": 1},
        {"argon2": {"memory_kib": 64, "passes": 1}},
        {"argon2": {"memory_kib": 1 << 40, "passes": 1, "lanes": 1}},
        {"argon2": {"memory_kib": 64, "passes": 0, "lanes": 1}},
        {"argon2": {"memory_kib": 64, "passes": 1 << 30, "lanes": 1}},
        {"argon2": {"memory_kib": 64, "passes": 1, "lanes": 1000}},
    ],
)
def test_strict_slots(change: dict[str, object]) -> None:
    sb, _, _ = create()
    slots = json.loads(superblock.encode(sb))["slots"]
    slots[0].update(change)
    with pytest.raises(Damaged):
        superblock.decode(rewritten(sb, slots=slots))
    slots = json.loads(superblock.encode(sb))["slots"]
    with pytest.raises(Damaged):
        superblock.decode(rewritten(sb, slots=slots[:1] * 2))


@pytest.mark.parametrize("change", [{"label": "other"}, {"chunk_max": 1 << 20}, {"n": 5}, {"created_ns": 1}])
def test_a_store_that_changes_parameters_is_found_out(change: dict[str, object]) -> None:
    changed = superblock.decode(rewritten(create()[0], **change))
    with pytest.raises(Damaged, match="without the key"):
        unlock(changed, passphrase="correct horse")


def test_a_store_cannot_turn_encryption_off_unseen() -> None:
    """It can put a plain superblock there; but that has other keys, so nothing that was sealed opens: the log does not read."""
    sb, ring, _ = create()
    forged_ring = KeyRing(sb.fs_id, None, FixedRandomness())
    forged = replace(sb, plain=True, slots=())
    forged = replace(forged, mac=forged_ring.mac(superblock._body(forged)))
    opened = unlock(superblock.decode(superblock.encode(forged)))
    with pytest.raises(Damaged):
        opened.sealer("record", 1).open(ring.sealer("record", 1).seal(b"x", b""), b"")


def test_slots_come_and_go() -> None:
    sb, ring, recovery = create()
    more, none = superblock.add_slot(sb, ring, FixedRandomness(b"3"), now_ns=5, passphrase="second", argon2=CHEAP)
    assert none is None and more.n == 2 and superblock.decode(superblock.encode(more), 2) == more
    for secret in ("correct horse", "second"):
        assert unlock(more, passphrase=secret).mac(b"") == ring.mac(b"")
    again, fresh = superblock.add_slot(more, ring, FixedRandomness(b"4"), now_ns=6)
    assert fresh and fresh != recovery and unlock(again, recovery_key=fresh).mac(b"") == ring.mac(b"")
    keyed, _ = superblock.add_slot(again, ring, FixedRandomness(b"5"), now_ns=6, key_file=KEY_FILE, argon2=CHEAP)
    unlock(keyed, key_file=KEY_FILE)
    less = superblock.remove_slot(more, ring, more.slots[0].id)
    assert less.n == 3 and unlock(less, passphrase="second").mac(b"") == ring.mac(b"")
    with pytest.raises(WrongPassphrase):
        unlock(less, passphrase="correct horse")
    unlock(more, passphrase="correct horse")  # a kept copy still opens: the threat model says so


def test_what_slots_cannot() -> None:
    sb, ring, _ = create()
    other = KeyRing(bytes(16), bytes(32), FixedRandomness())
    with pytest.raises(UsageError, match="another filesystem"):
        superblock.add_slot(sb, other, FixedRandomness(), now_ns=0, passphrase="x", argon2=CHEAP)
    with pytest.raises(UsageError, match="no key slot"):
        superblock.remove_slot(sb, ring, "00000000")
    with pytest.raises(UsageError, match="last key slot"):
        superblock.remove_slot(superblock.remove_slot(sb, ring, sb.slots[0].id), ring, sb.slots[1].id)
    random = FixedRandomness(b"many")
    for _ in range(14):
        sb, _ = superblock.add_slot(sb, ring, random, now_ns=0)
    superblock.decode(superblock.encode(sb))
    with pytest.raises(UsageError, match="16 key slots"):
        superblock.add_slot(sb, ring, random, now_ns=0)


@given(st.binary(min_size=32, max_size=32), st.integers(0, 53), st.sampled_from("0123456789ABCDEFGHJKMNPQRSTVWXYZ"))
def test_recovery_key(secret: bytes, at: int, letter: str) -> None:
    text = superblock.format_recovery_key(secret)
    assert len(text) == 62 and superblock.parse_recovery_key(text) == secret
    assert superblock.parse_recovery_key(text.lower().replace("0", "o").replace("1", "l")) == secret
    plain = text.replace("-", "")
    if plain[at] != letter:
        try:
            found = superblock.parse_recovery_key(plain[:at] + letter + plain[at + 1 :])
        except WrongPassphrase:
            return
        assert found != secret  # once in 16,384: then the slot's seal finds it


def test_no_secret_is_shown() -> None:
    sb, _, recovery = create()
    assert recovery and recovery not in repr(sb) and "horse" not in repr(sb) and sb.slots[0].wrapped.hex() not in repr(sb)


def test_the_default_cost_is_what_was_promised() -> None:
    assert Argon2Params() == Argon2Params(64 << 10, 3, 4) and Argon2Params().valid()
