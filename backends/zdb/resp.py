"""The wire format of a 0-db: RESP2 as Redis has it, of which a 0-db takes arrays of bulk strings only. Pure: no socket here.

Bounds of a request are the server's own (v2.0.7, seen): 1024 arguments, 8 MiB each, to the byte. They are checked before anything is sent:
the server closes the connection while it is still being written to, and its words are lost.
"""
from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from s3cfs.backends.types import Body
from s3cfs.limits import KIB, MIB

ARGUMENTS_MAX = 1024               # of one request, the command among them
ARGUMENT_MAX_BYTES = 8 * MIB
KEY_MAX_BYTES = 255
BULK_MAX_BYTES = 16 * MIB          # of a reply: twice what a value can be
ARRAY_MAX = 1 << 20
DEPTH_MAX = 4                      # SCAN answers arrays in an array in an array
LINE_MAX_BYTES = 4 * KIB
READ_BYTES = 64 * KIB
_SCANNED = re.compile(rb"\*3\r\n\$(\d{1,3})\r\n")
_SCANNED_NUMBERS = re.compile(rb"\r\n:(\d{1,10})\r\n:(\d{1,10})\r\n")
JOINED_MAX_BYTES = 16 * KIB        # arguments up to this size are copied into one buffer; larger ones are sent from where they are


class Refusal(NamedTuple):
    """An error reply: the words behind the "-". 0-db has no code words before them."""

    words: str


Argument: TypeAlias = "Body | str | tuple[Body, ...]"      # a tuple: one argument in several pieces, sent one after the other
Reply: TypeAlias = "bytes | int | Refusal | None | list[Reply]"


class Nonsense(Exception):
    """What came is no RESP."""


class Ended(Exception):
    """The other side closed the connection in the middle of a reply, or before it."""


def pieces_of(argument: Argument) -> tuple[Body, ...]:
    if isinstance(argument, tuple):
        return argument
    return (argument.encode() if isinstance(argument, str) else argument,)


def size_of(argument: Argument) -> int:
    """In bytes, on the wire."""
    return sum(memoryview(piece).nbytes for piece in pieces_of(argument))


def encode(arguments: Sequence[Argument]) -> list[Body]:
    """One request, as buffers to be sent one after the other. ValueError: the server would not take it."""
    if not 0 < len(arguments) <= ARGUMENTS_MAX:
        raise ValueError(f"{len(arguments)} arguments, not 1 to {ARGUMENTS_MAX}")
    buffers: list[Body] = []
    joined = bytearray(b"*%d\r\n" % len(arguments))
    for argument in arguments:
        size = size_of(argument)
        if size > ARGUMENT_MAX_BYTES:
            raise ValueError(f"an argument of {size} bytes, more than {ARGUMENT_MAX_BYTES}")
        joined += b"$%d\r\n" % size
        for piece in pieces_of(argument):
            if memoryview(piece).nbytes <= JOINED_MAX_BYTES:
                joined += piece
            else:
                buffers += [joined, piece]
                joined = bytearray()
        joined += b"\r\n"
    return [*buffers, joined]


class Reader:
    """Replies out of a stream. `receive` fills the start of a buffer with what has come and says how many bytes that is; 0: the end."""

    def __init__(self, receive: Callable[[memoryview], int]) -> None:
        self._receive = receive
        self._buffer = bytearray(READ_BYTES)
        self._start = self._end = 0            # what is in the buffer and not yet used

    @property
    def holds_more(self) -> bool:
        """Whether something came that belongs to no reply so far."""
        return self._start < self._end

    def reply(self) -> Reply:
        """The next one. Raises Nonsense, Ended, and what `receive` raises; then nothing more can be read from this stream."""
        return self._reply(0)

    def _reply(self, depth: int) -> Reply:
        line = self._line()
        kind, rest = line[:1], line[1:]
        if kind == b"+":
            return rest
        if kind == b"-":
            return Refusal(rest.decode("ascii", "replace"))
        if kind == b":":
            return self._number(rest)
        if kind == b"$":
            size = self._number(rest)
            if size == -1:
                return None
            if not 0 <= size <= BULK_MAX_BYTES:
                raise Nonsense(f"a value of {size} bytes")
            return self._bulk(size)
        if kind == b"*":
            count = self._number(rest)
            if count == -1:
                return None
            if not 0 <= count <= ARRAY_MAX or depth == DEPTH_MAX:
                raise Nonsense(f"an array of {count} at depth {depth}")
            return [self._scanned(depth + 1) or self._reply(depth + 1) for _ in range(count)]
        raise Nonsense(f"a reply that begins with {line[:16]!r}")

    def _scanned(self, depth: int) -> list[Reply] | None:
        """A key, a size and a time, which scans answer by the million; None: something else, or not all of it is there yet.

        Two and a half times as quick as by the rules.
        """
        head = _SCANNED.match(self._buffer, self._start, self._end) if depth < DEPTH_MAX else None
        if head is None:
            return None
        end = head.end() + int(head[1])
        tail = _SCANNED_NUMBERS.match(self._buffer, end, self._end)
        if tail is None:
            return None
        self._start = tail.end()
        return [bytes(self._buffer[head.end():end]), int(tail[1]), int(tail[2])]

    @staticmethod
    def _number(text: bytes) -> int:
        if not text.removeprefix(b"-").isdigit() or len(text) > 20:
            raise Nonsense(f"{text[:16]!r} for a number")
        return int(text)

    def _line(self) -> bytes:
        searched = self._start
        while (at := self._buffer.find(b"\r\n", searched, self._end)) < 0:
            if self._end - self._start > LINE_MAX_BYTES:
                raise Nonsense("a line without an end")
            searched = max(self._start, self._end - 1) - self._start
            self._more()
            searched += self._start
        line = bytes(self._buffer[self._start:at])
        self._start = at + 2
        return line

    def _more(self) -> None:
        if self._start == self._end:
            self._start = self._end = 0
        elif READ_BYTES - self._end < LINE_MAX_BYTES:
            rest = self._buffer[self._start:self._end]
            self._buffer[:len(rest)] = rest
            self._start, self._end = 0, len(rest)
        self._end += self._received(memoryview(self._buffer)[self._end:])

    def _received(self, room: memoryview) -> int:
        count = self._receive(room)
        if not count:
            raise Ended("the server closed the connection")
        return count

    def _bulk(self, size: int) -> bytes:
        here = min(size, self._end - self._start)
        if here == size:
            data = bytes(self._buffer[self._start:self._start + size])
        else:
            whole = bytearray(size)
            whole[:here] = self._buffer[self._start:self._start + here]
            view, at = memoryview(whole), here
            while at < size:
                at += self._received(view[at:])
            data = bytes(view)
        self._start += here
        while self._end - self._start < 2:
            self._more()
        if self._buffer[self._start:self._start + 2] != b"\r\n":
            raise Nonsense("a value that does not end where it should")
        self._start += 2
        return data
