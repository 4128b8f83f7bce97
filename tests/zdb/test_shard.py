"""What lies in a 0-db is cut, named and sealed so that a value is itself or none."""
from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3cfs.backends.zdb import shard as module
from s3cfs.backends.zdb.coder import Coder
from s3cfs.backends.zdb.shard import (
    SHARD_MIN_BYTES,
    Code,
    Head,
    code_for,
    cut,
    decode_value,
    encode_value,
    encode_values,
    name_of,
    names_of,
    parse_name,
    parts_of,
    pieces,
)

ID = bytes(range(16))
CODE = Code(4, 2)


def made_of(head: Head, payload: bytes) -> dict[bytes, bytes]:
    return {name: b"".join(pieces) for name, pieces in encode_values(head, payload)}


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def values_of(data: bytes, code: Code) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for index, payload in enumerate(cut(data, code)):
        found.update(made_of(Head(ID, code, len(data), 7, "pack/1", index), bytes(payload)))
    return found


def put_together(values: dict[bytes, bytes], size: int, code: Code) -> bytes:
    """From every value of the first k shards that are whole, the others rebuilt."""
    each, whole = Coder(*code).shard_bytes(size), {}
    for index in range(sum(code)):
        names = names_of(ID, index, each)
        if all(name in values for name in names):
            whole[index] = b"".join(decode_value(values[name], name)[1] for name in names)
    lost = [index for index in range(code.k) if index not in whole]
    shards = whole | {index: bytes(shard) for index, shard in Coder(*code).rebuild(whole, lost, each).items()}
    return b"".join(shards[index] for index in range(code.k))[:size]


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 399, 400, 401, 1600, 4001])
@pytest.mark.parametrize("code", [CODE, Code(1, 2), Code(3, 0)])
def test_cut_named_and_put_together(size: int, code: Code, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "PART_BYTES", 100)
    data = noise(size)
    values = values_of(data, code)
    each = math.ceil(size / code.k)
    assert len(values) == sum(code) * max(1, math.ceil(each / 100))
    for name, value in values.items():
        head, payload = decode_value(value, name)
        assert parse_name(name) == (ID, head.shard, head.part) and len(payload) <= 100
        assert (head.object_id, head.code, head.size, head.stamp, head.key) == (ID, code, size, 7, "pack/1")
    assert put_together(values, size, code) == data
    for lost in (range(code.m), range(1, code.m + 1)):
        left = {name: value for name, value in values.items() if decode_value(value)[0].shard not in lost}
        assert put_together(left, size, code) == data


def test_a_rebuilt_shard_is_the_value_that_it_was():
    data = noise(1601)
    values, shards = values_of(data, CODE), cut(data, CODE)
    rebuilt = Coder(*CODE).rebuild({index: shards[index] for index in (0, 1, 2, 5)}, [3, 4], 401)
    made: dict[bytes, bytes] = {}
    for index, payload in rebuilt.items():
        made.update(made_of(Head(ID, CODE, 1601, 7, "pack/1", index), bytes(payload)))
    assert made == {name: value for name, value in values.items() if decode_value(value)[0].shard in (3, 4)}


def test_no_value_reaches_eight_mib():
    size = 9 << 20
    made = [len(value) for value in made_of(Head(ID, Code(1, 0), size, 7, "k" * 900), bytes(size)).values()]
    assert len(made) == parts_of(size) == 3 and max(made) < (4 << 20) + 1024


def test_small_objects_are_replicated():
    asked = Code(16, 4)
    assert code_for(16 * SHARD_MIN_BYTES, asked) == asked
    assert code_for(16 * SHARD_MIN_BYTES - 1, asked) == code_for(0, asked) == Code(1, 4)


@given(size=st.integers(0, 300), k=st.integers(1, 9), offset=st.integers(0, 310), length=st.none() | st.integers(0, 310))
def test_where_a_range_lies(size: int, k: int, offset: int, length: int | None):
    data = noise(size)
    shards = Coder(k, 0).slices(data)
    found = pieces(size, k, offset, length)
    assert b"".join(shards[at.shard][at.begin:at.end] for at in found) == data[offset:None if length is None else offset + length]
    assert all(at.begin < at.end for at in found) and len({at.shard for at in found}) == len(found)


def test_any_flipped_bit_and_any_other_length_is_noticed():
    name, value = next(iter(values_of(b"x" * 40, CODE).items()))
    for at in range(len(value)):
        for bit in (1, 128):
            rotten = bytearray(value)
            rotten[at] ^= bit
            with pytest.raises(ValueError, match=r"^(is|does|says) "):
                decode_value(rotten, name)
    for other in (value[:-1], value + b"\0", value[:20], b"", b"{}"):
        with pytest.raises(ValueError, match=r"^(is|does|says) "):
            decode_value(other, name)


def test_a_value_under_another_key_is_noticed():
    values = values_of(b"x" * 40, CODE)
    (first, value), (other, _), *_ = values.items()
    assert decode_value(value, first)[0].name == first
    with pytest.raises(ValueError, match="another one"):
        decode_value(value, other)


def test_what_is_sealed_but_cannot_be():
    head = Head(ID, CODE, 4, 7, "k")
    value = b"".join(encode_value(head, b"x"))
    fields = module._FIELDS.unpack_from(value)
    for at, wrong in ((2, 0), (2, 254), (4, 6), (5, 1), (6, 2), (8, 5)):      # k, k, shard, part, parts, size
        lied = list(fields)
        lied[at] = wrong
        packed = module._FIELDS.pack(*lied)
        with pytest.raises(ValueError, match=r"cannot be|the length"):
            decode_value(packed + module._sum(packed, b"k", b"x") + b"k" + b"x")
    with pytest.raises(ValueError, match="a payload of 2"):
        encode_value(head, b"xx")


def test_foreign_keys_are_no_names():
    assert parse_name(name_of(ID, 19, 65535)) == (ID, 19, 65535)
    for foreign in (b"", b"d", b"m" + name_of(ID, 0)[1:], name_of(ID, 0) + b"x", b"s3cfs:server"):
        assert parse_name(foreign) is None
