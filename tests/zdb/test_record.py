"""Records of objects: what is written is read, and nothing that is damaged, moved or another store's is taken for one."""
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3cfs.backends.zdb.record import (
    KEY_MAX_BYTES,
    NAME_MAX_BYTES,
    Placement,
    Record,
    Signer,
    Where,
    decode_placement,
    decode_record,
    name_of,
    parse_name,
    placement_name,
    understood,
)

SIGNER = Signer(b"s" * 16, "secret")
keys = st.text("abcdefghij0123456789/-.", min_size=1, max_size=KEY_MAX_BYTES)


@st.composite
def wheres(draw):
    k, m = draw(st.integers(1, 20)), draw(st.integers(0, 9))
    servers = tuple(draw(st.lists(st.integers(0, 2**32 - 1), min_size=k + m, max_size=k + m)))
    return Where(draw(st.binary(min_size=16, max_size=16)), k, m, servers, frozenset(draw(st.sets(st.integers(0, k + m - 1)))))


records = st.builds(Record, keys, st.integers(1, 2**32 - 1), st.booleans(), st.integers(0, 2**63), wheres(), st.integers(0, 2**63),
                    st.integers(0, 2**63))
placements = st.builds(Placement, keys, st.binary(min_size=16, max_size=16), st.integers(0, 2**32 - 1), wheres(), st.integers(0, 2**63))


@given(records, placements)
def test_what_is_written_is_read(record, placement):
    assert len(record.name) <= NAME_MAX_BYTES and parse_name(record.name) == (record.key, record.version, record.is_tombstone)
    assert decode_record(record.name, record.encode(SIGNER), SIGNER) == record
    assert decode_placement(placement.name, placement.encode(SIGNER), SIGNER) == placement


@given(records, st.data())
def test_damage_is_noticed(record, data):
    value = record.encode(SIGNER)
    at = data.draw(st.integers(0, len(value) - 1))
    flipped = bytearray(value)
    flipped[at] ^= data.draw(st.integers(1, 255))
    for damaged in (bytes(flipped), value[:at], value + b"x", b""):
        with pytest.raises(ValueError):
            decode_record(record.name, damaged, SIGNER)
        assert understood({record.name: damaged}, SIGNER).rotten == (record.name,)


def test_what_is_anothers_is_no_record():
    record = Record("pack/1", 3, False, 5, Where(b"o" * 16, 1, 1, (1, 2)))
    value = record.encode(SIGNER)
    for name in (name_of("pack/2", 3), name_of("pack/1", 4), name_of("pack/1", 3, is_tombstone=True)):
        with pytest.raises(ValueError):
            decode_record(name, value, SIGNER)
    for signer in (Signer(b"t" * 16, "secret"), Signer(b"s" * 16, "other")):
        with pytest.raises(ValueError):
            decode_record(record.name, value, signer)


def test_the_highest_version_counts_and_a_tombstone_before_a_record():
    where = Where(b"o" * 16, 1, 1, (1, 2))
    made = [Record("k", version, gone, 5, where) for version, gone in ((1, False), (2, True), (2, False), (3, False), (3, True))]
    placement = Placement("k", b"o" * 16, 1, where)
    values = {record.name: record.encode(SIGNER) for record in made}
    said = understood({**values, placement.name: placement.encode(SIGNER), name_of("k", 9): None}, SIGNER)
    assert said.record == made[-1] and said.placement == placement and len(said.values) == 6
    assert understood({made[1].name: values[made[1].name], made[2].name: values[made[2].name]}, SIGNER).record == made[1]
    assert understood({made[4].name: b"rot", **{made[0].name: values[made[0].name]}}, SIGNER).record == made[0]


@pytest.mark.parametrize("name", [b"", b"m", b"mk", b"d" + bytes(19), b"mk\0\0\0\1", b"xk\0\0\0\0\1", b"m\xff\0\0\0\0\1",
                                  b"mk\0k\0\0\0\0\1", placement_name("k"), b"s3cfs:server"])
def test_other_keys_are_no_records(name):
    assert parse_name(name) is None
