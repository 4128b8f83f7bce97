from __future__ import annotations

import binascii
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from s3cfs.errors import Damaged, NewerFormat
from s3cfs.formats import envelope
from s3cfs.formats.envelope import Fields

from .kit import assert_any_damage_is_found


@pytest.mark.parametrize("letter", ["P", "L", "C", "M"])
def test_header(letter: str) -> None:
    made = envelope.header(letter, 0xDEADBEEF)
    assert len(made) == envelope.HEADER_BYTES and made[:8] == b"s3cfs" + letter.encode() + b"\0\0"
    assert envelope.read_header(made + b"more", letter, "it") == 0xDEADBEEF
    for bit in range(128):
        changed = bytearray(made)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Damaged):
            envelope.read_header(changed, letter, "it")
    with pytest.raises(Damaged, match="another kind"):
        envelope.read_header(made, "X", "it")


def test_newer_header() -> None:
    start = envelope.header("P", 1)[:8] + (7).to_bytes(2, "little") + bytes(4)
    with pytest.raises(NewerFormat, match="format 7"):
        envelope.read_header(start + binascii.crc_hqx(start, 0xFFFF).to_bytes(2, "little"), "P", "it")


@given(st.integers(0, 2**40))
def test_padme(size: int) -> None:
    padded = envelope.padme(size)
    assert size <= padded <= size * 1.12 + 1
    assert envelope.padme(padded) == padded
    if size > 1:
        bits = size.bit_length() - 1
        assert bin(padded).rstrip("0").count("") <= bits.bit_length() + 4  # few significant bits are left


def test_padme_at_a_pack() -> None:
    assert envelope.padme(16 << 20) == 16 << 20
    assert envelope.padme((16 << 20) + 1) == (16 << 20) + (512 << 10)


@given(st.binary(max_size=5000), st.integers(1, 5))
def test_compression(data: bytes, level: int) -> None:
    assert envelope.decompress(envelope.compress(data, level), len(data), "it") == data


def test_decompression_is_bounded() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(100 << 20))
    with pytest.raises(Damaged, match="another length"):
        envelope.decompress(bomb, 1000, "it")
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(100 << 20))
    with pytest.raises(Damaged):
        envelope.decompress(unsized, 1000, "it")
    lying = bytearray(bomb)
    assert zstandard.frame_content_size(bytes(lying)) == 100 << 20
    lying[6:10] = (1000).to_bytes(4, "little")  # behind magic 4, descriptor 1, window 1
    assert zstandard.frame_content_size(bytes(lying)) == 1000
    with pytest.raises(Damaged):
        envelope.decompress(bytes(lying), 1000, "it")
    with pytest.raises(Damaged):
        envelope.decompress(envelope.compress(b"abc", 1) + b"extra", 3, "it")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{",
        b'{"a":1,"a":2}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b"\xff",
        b"[" * 100_000,
        b'{"a":' + b"1" * 10_000 + b"}",
        b"null",
    ],
)
def test_json_that_is_none_of_ours(text: bytes) -> None:
    with pytest.raises(Damaged):
        Fields.parse(text, "it")


def test_fields_are_strict() -> None:
    def one(value: object) -> Fields:
        return Fields({"a": value}, "it")

    assert one(5).integer("a", 5, 5) == 5
    for bad in (True, 4, 6, 5.0, "5", None):
        with pytest.raises(Damaged):
            one(bad).integer("a", 5, 5)
    assert one("00ff").hex("a", 2) == b"\0\xff"
    for bad in ("00FF", "00f", "00 f", "zz00", 5, "00ff00", "\u0660\u0660ff"):
        with pytest.raises(Damaged):
            one(bad).hex("a", 2)
    reads: list[Callable[[Fields], object]] = [
        lambda f: f.text("a", 3),
        lambda f: f.boolean("a"),
        lambda f: f.mapping("a"),
        lambda f: f.items("a", 3),
        lambda f: f.nothing("a"),
    ]
    for read in reads:
        with pytest.raises(Damaged):
            read(one(7))
    with pytest.raises(Damaged, match="b is missing"):
        one(1).integer("b")
    with pytest.raises(Damaged, match="unknown key"):
        one(1).done()


def test_headers_and_damage_together() -> None:
    assert_any_damage_is_found(
        envelope.header("L", 3), lambda data: envelope.read_header(data, "L", "it") if len(data) == 16 else _short(data)
    )


def _short(data: bytes) -> None:
    if len(data) > 16:
        raise Damaged("longer: the seal that follows covers it")
    envelope.read_header(data, "L", "it")
