from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from s3cfs import ids
from s3cfs.errors import Damaged
from s3cfs.formats import envelope, record
from s3cfs.formats.record import Kind, Record, Rider
from s3cfs.ids import ObjectHash

from .kit import assert_any_damage_is_found, both_modes, keyring, noise

COMMIT = Record(
    Kind.COMMIT, 7, 3, "0123456789abcdef", ObjectHash(bytes(range(32))), 1_700_000_000_123_456_789, {"transactions": 4}, b"changes " * 9
)
CARGO = [noise(300, b"one"), noise(7000, b"two")]
NAME = ids.pack_name(3, blake3(CARGO[0]).digest())
LOADED = replace(
    COMMIT, riders=tuple(Rider(n, ids.pack_name(3, blake3(one).digest()), len(one)) for n, one in enumerate(CARGO, 4))
)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def records(draw: st.DrawFn) -> Record:
    kind = draw(st.sampled_from(Kind))
    return Record(
        kind,
        draw(st.integers(0, 2**63 - 1)),
        draw(st.integers(0, 2**32 - 1)),
        draw(st.binary(min_size=8, max_size=8)).hex(),
        ObjectHash(draw(st.binary(min_size=32, max_size=32))),
        draw(st.integers(-(2**63), 2**63 - 1)),
        draw(st.dictionaries(st.text(max_size=5), values, max_size=3)),
        draw(st.binary(max_size=2000)) if kind is Kind.COMMIT else b"",
    )


@both_modes
@given(made=records())
@settings(deadline=None)
def test_round_trip(plain: bool, made: Record) -> None:
    data = record.encode(made, keyring(plain).sealer("record", made.epoch))
    assert record.decode(memoryview(data), made.n, keyring(plain).sealer("record", 0)) == made
    assert len(data) >= 512 and len(data) == envelope.padme(len(data))


@both_modes
def test_any_damage_is_found(plain: bool) -> None:
    sealer = keyring(plain).sealer("record", 3)
    assert_any_damage_is_found(record.encode(COMMIT, sealer), lambda data: record.decode(data, 7, sealer))


@both_modes
def test_another_number(plain: bool) -> None:
    sealer = keyring(plain).sealer("record", 3)
    data = record.encode(COMMIT, sealer)
    for n in (0, 6, 8, 7 + 2**32):
        with pytest.raises(Damaged, match=f"log record {n}"):
            record.decode(data, n, sealer)


def test_small_records_have_one_size() -> None:
    sealer = keyring().sealer("record", 3)
    assert {
        len(record.encode(replace(COMMIT, kind=kind, changeset=b"", info={"by": "x" * size}), sealer)) for kind in Kind for size in (0, 99)
    } == {512}


def test_the_chain() -> None:
    """The hash of what comes before the riders: whatever becomes of them, the log is whole."""
    sealer = keyring().sealer("record", 3)
    data = record.encode(COMMIT, sealer)
    assert record.record_hash(data) == blake3(data).digest() and len(ids.ZERO_HASH) == 32
    loaded = record.encode(LOADED, sealer, cargo=CARGO)
    head = loaded[: record.head_bytes(loaded)]
    assert record.record_hash(loaded) == record.record_hash(head) == blake3(head).digest()
    for strange in (b"", b"x", loaded[:19], loaded[:20]):
        assert record.record_hash(strange) == blake3(strange).digest()


def test_what_rides() -> None:
    sealer = keyring().sealer("record", 3)
    data = record.encode(LOADED, sealer, cargo=CARGO)
    found = record.decode(data, 7, sealer)
    assert found == LOADED and found.head_bytes == record.head_bytes(data) == len(data) - sum(map(len, CARGO))
    assert [data[at : at + rider.size] for rider, at in found.bases()] == CARGO
    assert record.decode(data[: found.head_bytes], 7, sealer) == LOADED          # the head alone says everything
    rotten = bytearray(data)
    rotten[-1] ^= 1
    assert record.decode(rotten, 7, sealer) == LOADED and record.record_hash(rotten) == record.record_hash(data)
    with pytest.raises(Damaged, match="more in its object"):
        record.decode(data + b"x", 7, sealer)
    with pytest.raises(Damaged, match="not all of it"):
        record.decode(data[: found.head_bytes - 1], 7, sealer)


def test_riders_are_read_strictly() -> None:
    sealer = keyring().sealer("record", 3)
    for wrong in ((0, NAME, 1), (1, NAME[:-1], 1), (1, "../x", 1), (1, NAME, 0), (1, NAME, 2**32), (True, NAME, 1), (1, NAME), (1, 2, 3)):
        with pytest.raises(Damaged):
            record._riders(envelope.Fields.parse(envelope.dump_json({"riders": [list(wrong)]}), "x"), Kind.COMMIT)
    for kind in (Kind.SEAL, Kind.CLAIM, Kind.RELEASE):
        with pytest.raises(ValueError):
            record.encode(replace(LOADED, kind=kind, changeset=b""), sealer, cargo=CARGO)
        with pytest.raises(Damaged):
            record._riders(envelope.Fields.parse(envelope.dump_json({"riders": [[1, NAME, 1]]}), "x"), kind)
    with pytest.raises(ValueError):
        record.encode(LOADED, sealer, cargo=CARGO[:1])


def test_what_cannot_be_written() -> None:
    sealer = keyring().sealer("record", 3)
    for wrong in (
        replace(COMMIT, kind=Kind.SEAL),
        replace(COMMIT, writer="0123"),
        replace(COMMIT, writer="0123456789ABCDEF"),
        replace(COMMIT, prev=ObjectHash(b"x")),
        replace(COMMIT, info={"a": float("nan")}),
    ):
        with pytest.raises(ValueError):
            record.encode(wrong, sealer)


def _sealed(text: bytes, packed: bytes, lengths: tuple[int, int] | None = None, padding: bytes = b"") -> bytes:
    head = envelope.header(envelope.RECORD, 3)
    inner = struct.pack("<II", *(lengths or (len(text), len(packed)))) + text + packed + padding
    sealed = keyring().sealer("record", 3).seal(inner, record._aad(head, 7))
    return head + struct.pack("<I", len(sealed)) + sealed


def test_sealed_nonsense() -> None:
    """What only a holder of the key could have made is Damaged too, never another exception."""
    good = {"kind": "commit", "n": 7, "epoch": 3, "writer": "0123456789abcdef", "prev": "00" * 32, "time_ns": 1, "changeset": 3, "info": {},
            "riders": []}
    packed, sealer = envelope.compress(b"abc", 3), keyring().sealer("record", 0)

    def text(**changes: object) -> bytes:
        return envelope.dump_json({name: value for name, value in {**good, **changes}.items() if value is not ...})

    assert record.decode(_sealed(text(), packed), 7, sealer).changeset == b"abc"
    assert record.decode(_sealed(text(), packed, None, bytes(9)), 7, sealer).changeset == b"abc"
    bomb = envelope.compress(bytes(100 << 20), 3)
    wrong = [
        *(_sealed(text(**{name: ...}), packed) for name in good),
        _sealed(text(extra=1), packed),
        _sealed(b"{", packed),
        _sealed(b"", b""),
        _sealed(text(kind="other"), packed),
        _sealed(text(kind=["commit"]), packed),
        _sealed(text(kind="seal"), packed),
        _sealed(text(n=8), packed),
        _sealed(text(epoch=4), packed),
        _sealed(text(n=True), packed),
        _sealed(text(info=[]), packed),
        _sealed(text(riders=[[1, NAME]]), packed),
        _sealed(text(writer="0" * 15), packed),
        _sealed(text(prev="00"), packed),
        _sealed(text(changeset=4), packed),
        _sealed(text(changeset=0), packed),
        _sealed(text(), b""),
        _sealed(text(changeset=2**40), packed),
        _sealed(text(), b"zstd?"),
        _sealed(text(), bomb),
        _sealed(text(), packed, (len(text()), 2**32 - 1)),
        _sealed(text(), packed, (2**32 - 1, 0)),
        _sealed(text(), packed, None, b"\0\0x"),
    ]
    for data in wrong:
        with pytest.raises(Damaged):
            record.decode(data, 7, sealer)
    head = envelope.header(envelope.RECORD, 3)
    for inner in (b"", b"\0" * 7):
        with pytest.raises(Damaged):
            record.decode(head + keyring().sealer("record", 3).seal(inner, record._aad(head, 7)), 7, sealer)


def test_a_large_changeset_is_compressed() -> None:
    made = replace(COMMIT, changeset=noise(1000) * 2000)
    data = record.encode(made, keyring().sealer("record", 3))
    assert len(data) < 20_000 and record.decode(data, 7, keyring().sealer("record", 0)) == made
    assert "changes" not in repr(COMMIT)
