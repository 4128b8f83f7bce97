"""The wire format, without a socket."""
from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from s3cfs.backends.zdb import resp
from s3cfs.backends.zdb.resp import Ended, Nonsense, Reader, Refusal, Reply, encode


def reader(*pieces: bytes) -> Reader:
    """One that gets these pieces one after the other, and then the end."""
    left: Iterator[bytes] = iter(pieces)
    rest = b""

    def receive(room: memoryview) -> int:
        nonlocal rest
        rest = rest or next(left, b"")
        count = min(len(rest), len(room))
        room[:count] = rest[:count]
        rest = rest[count:]
        return count

    return Reader(receive)


def said(reply: Reply) -> bytes:
    """The bytes of a reply, as a server sends them."""
    match reply:
        case None:
            return b"$-1\r\n"
        case Refusal(words):
            return b"-" + words.encode() + b"\r\n"
        case int(number):
            return b":%d\r\n" % number
        case bytes(data):
            return b"$%d\r\n%b\r\n" % (len(data), data)
        case _:
            return b"*%d\r\n" % len(reply) + b"".join(map(said, reply))


scanned: some.SearchStrategy[Reply] = some.builds(
    lambda *item: list(item), some.binary(max_size=100), some.integers(0, 2**40), some.integers(0, 2**32))
values: some.SearchStrategy[Reply] = some.recursive(
    some.none() | some.integers(-2**63, 2**64 - 1) | some.binary(max_size=300) | some.just(Refusal("Internal Error")),
    lambda inner: some.lists(inner, max_size=5) | some.lists(scanned, max_size=5), max_leaves=20)


@settings(max_examples=60, deadline=None)
@given(some.lists(values.filter(lambda value: depth(value) <= resp.DEPTH_MAX), min_size=1, max_size=4), some.randoms(use_true_random=False))
def test_whatever_the_pieces_the_replies_are_the_same(replies, random):
    stream = b"".join(map(said, replies))
    pieces, at = [], 0
    while at < len(stream):
        step = random.randint(1, 40)
        pieces.append(stream[at:at + step])
        at += step
    source = reader(*pieces)
    assert [source.reply() for _ in replies] == replies
    assert not source.holds_more
    with pytest.raises(Ended):
        source.reply()


def depth(reply: Reply) -> int:
    return 1 + max(map(depth, reply), default=0) if isinstance(reply, list) else 0


@pytest.mark.parametrize("size", [0, 1, resp.READ_BYTES - 7, resp.READ_BYTES, 3 * resp.READ_BYTES + 5, 8 << 20])
def test_a_value_of_any_size_and_what_follows_it(size):
    value = bytes(range(256)) * (size // 256) + bytes(size % 256)
    source = reader(said(value) + b"+OK\r\n")
    assert source.reply() == value
    assert source.holds_more
    assert source.reply() == b"OK"


def test_many_short_replies_wander_through_the_buffer():
    count = 3 * resp.READ_BYTES // 8
    source = reader(*[b":1234567\r\n"] * count)
    assert all(source.reply() == 1234567 for _ in range(count))


@pytest.mark.parametrize("stream", [
    b"HTTP/1.1 400 Bad Request\r\n", b"$abc\r\n", b"$-2\r\n", b":\r\n", b":1x\r\n", b"$3\r\nabcde", b"$99999999\r\n", b"*-2\r\n",
    b"*9999999\r\n", b"*1\r\n" * 6, b"+" + b"x" * 5000, b":" + b"9" * 30 + b"\r\n"])
def test_what_is_no_reply_is_said_to_be_none(stream):
    with pytest.raises(Nonsense):
        reader(stream, b"\r\n").reply()


def test_arrays_in_arrays_have_an_end():
    with pytest.raises(Nonsense, match="depth 4"):
        reader(b"*1\r\n" * 6).reply()


@pytest.mark.parametrize("stream", [b"", b"$5\r\nab", b"+O", b"*2\r\n:1\r\n", b"$2\r\nab"])
def test_an_end_in_the_middle_is_an_end(stream):
    with pytest.raises(Ended):
        reader(stream).reply()


def test_a_request():
    assert b"".join(encode([b"SET", bytearray(b"k"), memoryview(b"v\r\n\0")])) == b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$4\r\nv\r\n\0\r\n"
    large = bytes(resp.JOINED_MAX_BYTES + 1)
    parts = encode([b"SET", b"k", large])
    assert parts[1] is large, "large values are not copied"
    assert b"".join(parts) == b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$%d\r\n%b\r\n" % (len(large), large)


def test_a_request_that_the_server_would_not_take_is_not_sent():
    encode([b"SET", b"k", bytes(resp.ARGUMENT_MAX_BYTES)])
    encode([b"MGET", *[b"k"] * 1023])
    for arguments in ([], [b"SET", b"k", bytes(resp.ARGUMENT_MAX_BYTES + 1)], [b"MGET", *[b"k"] * 1024]):
        with pytest.raises(ValueError, match="argument"):
            encode(arguments)
