from __future__ import annotations

from dataclasses import replace

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from s3cfs import ids
from s3cfs.errors import Damaged
from s3cfs.formats import pack
from s3cfs.formats.chunk import ChunkCodec
from s3cfs.formats.envelope import padme
from s3cfs.formats.pack import NeedMore, PackEntry

from .kit import assert_any_damage_is_found, both_modes, keyring, noise


def make(contents: list[bytes], plain: bool = False, epoch: int = 4) -> tuple[bytes, list[PackEntry]]:
    ring = keyring(plain)
    codec = ChunkCodec(ring, epoch, 3)
    data, entries = bytearray(pack.header(epoch, bytes(range(16)))), []
    for content in contents:
        sealed = codec.encode(ring.chunk_id(content), content)
        entries.append(PackEntry(ring.chunk_id(content), len(data), len(sealed), len(content)))
        data += sealed
    return bytes(data + pack.tail(entries, len(data), ring.sealer("index", epoch))), entries


@both_modes
@given(contents=st.lists(st.binary(min_size=1, max_size=500), min_size=1, max_size=20))
@settings(deadline=None)
def test_round_trip(plain: bool, contents: list[bytes]) -> None:
    data, entries = make(contents, plain)
    ring = keyring(plain)
    sealer = ring.sealer("index", 99)
    assert pack.read_header(data) == 4
    assert pack.read_index(data, len(data), sealer) == entries
    assert pack.read_index(memoryview(data)[-pack.tail_bytes(len(entries)) :], len(data), sealer) == entries
    codec = ChunkCodec(ring, 99, None)
    assert [codec.decode(e.chunk_id, memoryview(data)[e.offset : e.offset + e.size], e.length) for e in entries] == contents
    assert len(data) == padme(len(data))


@both_modes
def test_any_damage_of_the_end_is_found(plain: bool) -> None:
    data, entries = make([b"one", b"two" * 100], plain)
    end, sealer = data[-pack.tail_bytes(2) :], keyring(plain).sealer("index", 1)

    def read(damaged: bytes) -> None:
        whole = data[: -len(end)] + damaged
        assert pack.read_index(whole, len(whole), sealer) == entries

    assert_any_damage_is_found(end, read)


def test_any_damage_anywhere_changes_the_name() -> None:
    data, _ = make([b"one", b"two" * 100])
    key = ids.pack_key(ids.pack_name(4, blake3(data).digest()))

    def read(damaged: bytes) -> None:
        if not pack.verify_name(key, damaged):
            raise Damaged("the name does not match")

    assert_any_damage_is_found(data, read)
    with pytest.raises(ValueError, match="not a pack"):
        pack.verify_name("log/main/1", data)


def test_any_damage_of_the_header_is_found() -> None:
    with pytest.raises(Damaged):
        pack.read_header(b"")
    with pytest.raises(Damaged):
        pack.read_header(pack.header(4, bytes(16))[:-1])
    for bit in range(128):
        changed = bytearray(pack.header(4, bytes(16)))
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Damaged):
            pack.read_header(changed)


def test_need_more() -> None:
    data, entries = make([b"%d" % number for number in range(50)])
    sealer = keyring().sealer("index", 1)
    for given_bytes in (0, 15, 16, 17, pack.tail_bytes(50) - 1):
        with pytest.raises(NeedMore) as raised:
            pack.read_index(data[len(data) - given_bytes :], len(data), sealer)
        needed = raised.value.needed
        assert given_bytes < needed <= len(data)
        if given_bytes >= 16:
            assert needed == pack.tail_bytes(50)
            assert pack.read_index(data[-needed:], len(data), sealer) == entries


@given(st.binary(max_size=300), st.integers(0, 2**33))
def test_anything_else_is_damaged(data: bytes, total: int) -> None:
    with pytest.raises((Damaged, NeedMore)):
        pack.read_index(data, total, keyring().sealer("index", 1))


def test_an_index_belongs_to_its_size() -> None:
    """Bytes cut out of (or put into) the chunks are noticed from the index alone."""
    data, _ = make([noise(1000)])
    for changed in (data[:100] + data[101:], data[:100] + b"x" + data[100:]):
        with pytest.raises(Damaged, match="seal"):
            pack.read_index(changed, len(changed), keyring().sealer("index", 1))


@pytest.mark.parametrize(
    "change", [{"offset": 31}, {"offset": 33}, {"size": 32}, {"size": 1000}, {"length": 0}, {"length": 5}, {"length": 1 << 25}]
)
def test_impossible_entries(change: dict[str, int]) -> None:
    """Neither written nor believed, even when sealed with the right key."""
    data, entries = make([b"x" * 10])
    entry = entries[0]
    wrong, sealer = (
        [PackEntry(entry.chunk_id, **{"offset": entry.offset, "size": entry.size, "length": entry.length, **change})],
        keyring().sealer("index", 4),
    )
    chunks_end = entries[0].offset + entries[0].size
    with pytest.raises(ValueError, match="no pack"):
        pack.tail(wrong, chunks_end, sealer)
    index = pack._ENTRY.pack(wrong[0].chunk_id, wrong[0].offset, wrong[0].size, wrong[0].length)
    forged = data[:chunks_end] + sealer.seal(index, pack._aad(chunks_end + pack.tail_bytes(1))) + data[-pack.TRAILER_BYTES :]
    with pytest.raises(Damaged, match="pack"):
        pack.read_index(forged, len(forged), sealer)


def test_overlapping_entries() -> None:
    _, entries = make([b"x" * 100, b"y" * 100])
    with pytest.raises(ValueError, match="entry 1"):
        pack.tail([entries[0], replace(entries[1], offset=entries[1].offset - 1)], 1000, keyring().sealer("index", 4))
    with pytest.raises(ValueError, match="nothing"):
        pack.tail([], 16, keyring().sealer("index", 4))


def test_the_filler_does_not_look_like_one() -> None:
    data, entries = make([noise(98_400)])
    start, end = entries[-1].offset + entries[-1].size, len(data) - pack.tail_bytes(1)
    assert end - start > 300 and data[start : start + 4] == data[32:36] and bytes(8) not in data[start + 4 : end]


def test_the_same_chunks_make_packs_of_different_names() -> None:
    """Also in a plain filesystem, where nothing else differs."""
    ring = keyring(plain=True)
    with pytest.raises(ValueError):
        pack.header(4, bytes(15))
    one, other = pack.header(4, b"a" * 16), pack.header(4, b"b" * 16)
    assert len(one) == pack.HEADER_BYTES == 32 and pack.read_header(one) == pack.read_header(other) == 4 and one != other
    sealed = ChunkCodec(ring, 4, None).encode(ring.chunk_id(b"x"), b"x")
    entries = [PackEntry(ring.chunk_id(b"x"), 32, len(sealed), 1)]
    end = sealed + pack.tail(entries, 32 + len(sealed), ring.sealer("index", 4))
    assert blake3(one + end).digest() != blake3(other + end).digest()


def test_hasher() -> None:
    data, hasher = noise(100_000), pack.PackHasher()
    for at in range(0, len(data), 7777):
        hasher.update(memoryview(data)[at : at + 7777])
        assert hasher.digest() == blake3(data[: at + 7777]).digest()
