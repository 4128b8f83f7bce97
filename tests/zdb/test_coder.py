"""Reed-Solomon: zstor's bytes, and any k shards are the object."""
from __future__ import annotations

import itertools
import random
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3cfs.backends.zdb import coder as module
from s3cfs.backends.zdb.coder import BLOCK_BYTES, PRODUCT, SHORT_BYTES, Coder, generator

VECTORS = ((2, 2, 4, "08090a0b 0c0d0e0f"), (10, 5, 3, "27c982 98b94c 230df7 47de41 702de3"),
           (16, 4, 5, "69eb33b2d6 41e9a2fb25 490659f172 c6722b8c87"))
EDGES = (SHORT_BYTES - 1, SHORT_BYTES, SHORT_BYTES + 1, BLOCK_BYTES + SHORT_BYTES + 7, 2 * BLOCK_BYTES, 2 * BLOCK_BYTES + 1)


def product(left: int, right: int) -> int:
    """By the definition: as polynomials, modulo 0x11D."""
    found = 0
    for bit in range(8):
        found ^= (left << bit) * (right >> bit & 1)
    for bit in range(14, 7, -1):
        found ^= (0x11D << bit - 8) * (found >> bit & 1)
    return found


def parity_by_hand(k: int, m: int, data: bytes) -> list[bytes]:
    each = -(-len(data) // k)
    padded = data.ljust(k * each, b"\0")
    rows = []
    for row in generator(k, m)[k:]:
        sums = bytearray(each)
        for column, factor in enumerate(row):
            for at in range(each):
                sums[at] ^= int(PRODUCT[factor, padded[column * each + at]])
        rows.append(bytes(sums))
    return rows


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def all_shards(coder: Coder, data: bytes) -> dict[int, bytes]:
    return {index: bytes(shard) for index, shard in enumerate([*coder.slices(data), *coder.encode(data)])}


def check_rebuild(coder: Coder, data: bytes, lost: list[int]) -> None:
    shards, each = all_shards(coder, data), coder.shard_bytes(len(data))
    found = coder.rebuild({index: shard for index, shard in shards.items() if index not in lost}, lost, each)
    assert {index: bytes(shard) for index, shard in found.items()} == {index: shards[index].ljust(each, b"\0") for index in lost}


def test_the_field_is_that_of_the_polynomial():
    picked = random.Random(1)
    for left, right in [(0, 7), (7, 0), (1, 1), (255, 255), *((picked.randrange(256), picked.randrange(256)) for _ in range(500))]:
        assert PRODUCT[left, right] == product(left, right)


@pytest.mark.parametrize(("k", "m", "each", "parity"), VECTORS)
def test_zstors_vectors(k: int, m: int, each: int, parity: str):
    assert [bytes(shard).hex() for shard in Coder(k, m).encode(bytes(range(k * each)))] == parity.split()


def test_every_loss_of_at_most_m_is_made_good():
    for k, m in ((1, 2), (2, 2), (5, 3), (3, 4), (4, 0)):
        coder, data = Coder(k, m), noise(k * 7 - 3)
        for count in range(m + 1):
            for lost in itertools.combinations(range(k + m), count):
                check_rebuild(coder, data, list(lost))


@given(k=st.integers(1, 20), m=st.integers(0, 9), size=st.one_of(st.integers(0, 40), st.integers(0, 3000)), seed=st.integers(0, 99))
def test_any_code_any_size_any_loss(k: int, m: int, size: int, seed: int):
    data, coder = noise(size, seed), Coder(k, m)
    assert b"".join(coder.slices(data)) == data
    if size < 200:
        assert [bytes(shard) for shard in coder.encode(data)] == parity_by_hand(k, m, data)
    check_rebuild(coder, data, random.Random(seed).sample(range(k + m), m))


@pytest.mark.parametrize("each", EDGES)
@pytest.mark.parametrize(("k", "m", "short"), [(4, 3, 0), (4, 3, 1), (3, 5, 2), (16, 4, 9)])
def test_both_kinds_of_table_at_the_edges_of_blocks(k: int, m: int, short: int, each: int, monkeypatch: pytest.MonkeyPatch):
    data, coder = noise(k * each - short), Coder(k, m)
    parity = [bytes(shard) for shard in coder.encode(data)]
    check_rebuild(coder, data, random.Random(each).sample(range(k + m), m))
    monkeypatch.setattr(module, "SHORT_BYTES", 1 << 40)         # single bytes only, all in one block
    monkeypatch.setattr(module, "BLOCK_BYTES", 1 << 40)
    assert parity == [bytes(shard) for shard in coder.encode(data)]


def test_a_range_of_shards_gives_that_range():
    coder, data = Coder(5, 3), noise(5000)
    shards = all_shards(coder, data)
    part = {index: memoryview(shard)[301:778] for index, shard in shards.items() if index not in (0, 2, 6)}
    found = coder.rebuild(part, [0, 2, 6], 477)
    assert {index: bytes(shard) for index, shard in found.items()} == {index: shards[index][301:778] for index in (0, 2, 6)}


def test_the_largest_code():
    check_rebuild(Coder(251, 4), noise(251 * 3), [0, 100, 250, 254])
    check_rebuild(Coder(16, 239), noise(16 * 3), list(range(239)))


def test_one_data_shard_is_replication_without_a_copy():
    data = noise(1000)
    assert all(shard is data for shard in Coder(1, 4).encode(data))
    assert Coder(1, 4).encode(b"") == [b""] * 4


def test_what_it_refuses():
    for k, m in ((0, 4), (1, -1), (252, 4)):
        with pytest.raises(ValueError, match="at least one data shard"):
            Coder(k, m)
    coder = Coder(2, 2)
    for shards, wanted, why in (({0: b"a"}, [1], "of the 2"), ({0: b"a", 1: b"b"}, [4], "below 4"), ({0: b"a", 7: b"b"}, [1], "below 4"),
                                ({0: b"aa", 1: b"b"}, [2], "longer than 1")):
        with pytest.raises(ValueError, match=why):
            coder.rebuild(shards, wanted, 1)


def test_memory_is_that_of_the_parity_and_a_little():
    coder, data = Coder(4, 2), noise(16 << 20)
    coder.encode(data)                      # the tables
    tracemalloc.start()
    try:
        parity = coder.encode(data)
        grown = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(map(len, parity)) == 8 << 20 and grown < (8 << 20) + (2 << 20)
