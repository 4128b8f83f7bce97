from __future__ import annotations

import random
import threading

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from s3cfs.errors import Damaged
from s3cfs.formats.chunk import ChunkCodec
from s3cfs.ids import ChunkId
from s3cfs.limits import DEFAULTS

from .kit import assert_any_damage_is_found, both_modes, keyring, noise

levels = pytest.mark.parametrize("level", [None, 1, 3])


@both_modes
@levels
@given(
    data=st.one_of(st.binary(max_size=3000), st.binary(max_size=30).map(lambda some: some * 3000)),
    kind=st.sampled_from([bytes, bytearray, memoryview]),
)
def test_round_trip(plain: bool, level: int | None, data: bytes, kind: type) -> None:
    ring = keyring(plain)
    codec, chunk_id = ChunkCodec(ring, 1, level), ring.chunk_id(data)
    sealed = codec.encode(chunk_id, kind(data))
    assert len(sealed) <= len(data) + codec.overhead
    again = ChunkCodec(keyring(plain), 7, None).decode(chunk_id, kind(sealed), len(data))
    assert type(again) is bytes and again == data and codec.verify(chunk_id, again)


@both_modes
@pytest.mark.parametrize("content", [b"forty-two", b"text " * 200], ids=["stored", "compressed"])
def test_any_damage_is_found(plain: bool, content: bytes) -> None:
    ring = keyring(plain)
    codec, chunk_id = ChunkCodec(ring, 1, 3), ring.chunk_id(content)
    assert_any_damage_is_found(codec.encode(chunk_id, content), lambda data: codec.decode(chunk_id, data, len(content)))


def test_compression_only_where_it_helps() -> None:
    ring = keyring()
    codec = ChunkCodec(ring, 1, 3)
    text, random_data = b"the quick brown fox " * 30_000, noise(DEFAULTS.chunk_avg_bytes)
    assert len(codec.encode(ring.chunk_id(text), text)) < len(text) // 50
    assert len(ChunkCodec(ring, 1, None).encode(ring.chunk_id(text), text)) == len(text) + codec.overhead
    for data in (random_data, random_data[:5000], b"x"):
        assert len(codec.encode(ring.chunk_id(data), data)) == len(data) + codec.overhead
    half = random_data[: DEFAULTS.chunk_avg_bytes // 2] + bytes(DEFAULTS.chunk_avg_bytes // 2)
    assert len(codec.encode(ring.chunk_id(half), half)) < 0.52 * len(half)


def test_the_taste_finds_text_in_any_part() -> None:
    """One eighth of text among random data saves more than 3 %, so it must be compressed wherever it lies."""
    ring, size = keyring(), DEFAULTS.chunk_avg_bytes
    codec, chosen = ChunkCodec(ring, 1, 3), random.Random(1)
    for _ in range(20):
        at = chosen.randrange(size - size // 8)
        data = bytearray(noise(size))
        data[at : at + size // 8] = (b"readable words " * size)[: size // 8]
        assert len(codec.encode(ring.chunk_id(data), data)) < 0.95 * size


@both_modes
def test_the_wrong_place(plain: bool) -> None:
    """Bound to id and filesystem; a wrong length is found even where the seal holds."""
    ring = keyring(plain)
    codec = ChunkCodec(ring, 1, 3)
    for content in (b"short", b"long " * 1000):
        sealed, chunk_id = codec.encode(ring.chunk_id(content), content), ring.chunk_id(content)
        for length in (0, len(content) - 1, len(content) + 1, 1 << 40):
            with pytest.raises(Damaged):
                codec.decode(chunk_id, sealed, length)
        with pytest.raises(Damaged, match="chunk 0000"):
            codec.decode(ChunkId(bytes(32)), sealed, len(content))
        assert not codec.verify(ChunkId(bytes(32)), content) and not codec.verify(chunk_id, content + b"!")


def test_sealed_nonsense() -> None:
    """What only a holder of the key could have made is Damaged too."""
    ring = keyring()
    codec, chunk_id = ChunkCodec(ring, 1, 3), ring.chunk_id(b"")
    bomb = zstandard.ZstdCompressor().compress(bytes(100 << 20))
    for inner in (b"", b"\2abc", b"\1not zstd", b"\1", b"\1" + bomb):
        with pytest.raises(Damaged):
            codec.decode(chunk_id, codec._sealer.seal(inner, codec._aad + chunk_id), 1000)


def test_levels() -> None:
    for level in (0, 20, -1):
        with pytest.raises(ValueError, match="levels"):
            ChunkCodec(keyring(), 1, level)


def test_threads() -> None:
    ring = keyring()
    codec, wrong = ChunkCodec(ring, 1, 3), []

    def work(number: int) -> None:
        data = b"%d " % number * 20_000
        for _ in range(40):
            chunk_id = ring.chunk_id(data)
            if codec.decode(chunk_id, codec.encode(chunk_id, data), len(data)) != data:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
