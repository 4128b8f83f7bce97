"""Dirty data of one file: disjoint byte ranges, newest write wins. Pure arithmetic; nothing here waits.

A piece is (buffer, where in it, length). Buffers are kept as they came from the kernel; what is left of one is copied only when it is less
than half of it, so memory is at most twice what is counted. A buffer may be `Spooled`: its bytes are in the spool and not in memory.
"""
from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spooled:
    """Bytes that were moved to the spool file."""

    position: int        # of the sealed piece in the spool
    sealed_bytes: int
    size: int            # plain bytes


Buffer = bytes | bytearray | memoryview | Spooled
Piece = tuple[Buffer, int, int]      # buffer, offset in it, length

PIECE_BYTES = 200                    # what a piece costs beside its bytes


def compact(piece: Piece) -> Piece:
    """The same bytes, in a buffer of their own when they hold on to one more than twice as large."""
    buffer, inner, length = piece
    if isinstance(buffer, Spooled) or 2 * length >= len(buffer):
        return piece
    return bytes(memoryview(buffer)[inner:inner + length]), 0, length


@dataclass(slots=True)
class Account:
    """Sums over all maps of a mount that were made with it."""

    bytes: int = 0               # of files
    spooled_bytes: int = 0       # of them, in the spool
    ram_bytes: int = 0           # what the rest and all pieces cost in memory


class DirtyMap:
    """Pieces by file offset. `bytes` is the sum of their lengths, `ram_bytes` what they cost in memory.

    A map with an account must be emptied (`clear`) before it is let go.

    Invariant: starts is sorted, start[i] + length[i] <= start[i + 1], lengths > 0.
    """

    __slots__ = ("account", "bytes", "pieces", "ram_bytes", "starts")

    def __init__(self, account: Account | None = None) -> None:
        self.account = account
        self.starts: list[int] = []
        self.pieces: list[Piece] = []
        self.bytes = self.ram_bytes = 0

    def __bool__(self) -> bool:
        return bool(self.starts)

    @property
    def end(self) -> int:
        """Offset behind the last piece, 0 when empty."""
        return self.starts[-1] + self.pieces[-1][2] if self.starts else 0

    def write(self, offset: int, data: Buffer) -> None:
        """Put `data` at `offset` over whatever is there."""
        length = data.size if isinstance(data, Spooled) else len(data)
        if length:
            self.put(offset, (data, 0, length))

    def put(self, offset: int, piece: Piece) -> None:
        if self.starts and offset < self.end:
            self.cut(offset, offset + piece[2])
            at = bisect_left(self.starts, offset)
            self.starts.insert(at, offset)
            self.pieces.insert(at, piece)
        else:
            self.starts.append(offset)
            self.pieces.append(piece)
        self._count(piece, 1)

    def put_all(self, other: DirtyMap) -> None:
        for at, piece in other.items():
            self.put(at, piece)

    def put_under(self, offset: int, piece: Piece) -> None:
        """Put a piece only where nothing is: what is there is newer."""
        buffer, at, length = piece
        position, end = offset, offset + length
        for start, (_, _, size) in list(self.within(offset, end)):
            if start > position:
                self.put(position, compact((buffer, at + position - offset, start - position)))
            position = max(position, start + size)
        if position < end:
            self.put(position, compact((buffer, at + position - offset, end - position)))

    def cut(self, start: int, end: int) -> None:
        """Forget [start, end)."""
        if start >= end:
            return
        first = bisect_right(self.starts, start) - 1
        if first < 0 or self.starts[first] + self.pieces[first][2] <= start:
            first += 1
        last = bisect_left(self.starts, end, lo=first)
        if first >= last:
            return
        keep_starts: list[int] = []
        keep_pieces: list[Piece] = []
        for index in range(first, last):
            at, piece = self.starts[index], self.pieces[index]
            self._count(piece, -1)
            buffer, inner, length = piece
            if at < start:
                keep_starts.append(at)
                keep_pieces.append(compact((buffer, inner, start - at)))
            if at + length > end:
                keep_starts.append(end)
                keep_pieces.append(compact((buffer, inner + end - at, at + length - end)))
        self.starts[first:last] = keep_starts
        self.pieces[first:last] = keep_pieces
        for piece in keep_pieces:
            self._count(piece, 1)

    def clear(self) -> None:
        self.cut(0, self.end)

    def within(self, start: int, end: int) -> Iterator[tuple[int, Piece]]:
        """Pieces that overlap [start, end), whole, in order."""
        if start >= end:
            return
        index = bisect_right(self.starts, start) - 1
        if index < 0 or self.starts[index] + self.pieces[index][2] <= start:
            index += 1
        while index < len(self.starts) and self.starts[index] < end:
            yield self.starts[index], self.pieces[index]
            index += 1

    def items(self) -> Iterator[tuple[int, Piece]]:
        """All pieces with their offsets, in order."""
        return zip(self.starts, self.pieces, strict=True)

    def runs(self) -> list[tuple[int, int]]:
        """Contiguous ranges as (start, end)."""
        found: list[tuple[int, int]] = []
        for start, (_, _, length) in self.items():
            if found and found[-1][1] == start:
                found[-1] = (found[-1][0], start + length)
            else:
                found.append((start, start + length))
        return found

    def covers(self, start: int, end: int) -> bool:
        """Whether every byte of [start, end) is here."""
        position = start
        for at, (_, _, length) in self.within(start, end):
            if at > position:
                return False
            position = at + length
        return position >= end

    def part(self, start: int, end: int) -> DirtyMap:
        """[start, end) as a map of its own, without account, which shares the buffers."""
        found = DirtyMap()
        for at, (buffer, inner, length) in self.within(start, end):
            low, high = max(at, start), min(at + length, end)
            found.put(low, (buffer, inner + low - at, high - low))
        return found

    def move_to(self, other: DirtyMap, start: int, end: int) -> None:
        """[start, end) goes into another map."""
        other.put_all(self.part(start, end))
        self.cut(start, end)

    def replace_piece(self, start: int, old: Piece, new: Piece) -> bool:
        """Exchange a piece for the same bytes elsewhere (spooling); False when it is no longer there."""
        index = bisect_left(self.starts, start)
        if index >= len(self.starts) or self.starts[index] != start or self.pieces[index] is not old:
            return False
        self._count(old, -1)
        self.pieces[index] = new
        self._count(new, 1)
        return True

    def _count(self, piece: Piece, sign: int) -> None:
        spooled = isinstance(piece[0], Spooled)
        ram_bytes = sign * (PIECE_BYTES if spooled else PIECE_BYTES + piece[2])
        self.bytes += sign * piece[2]
        self.ram_bytes += ram_bytes
        if self.account is not None:
            self.account.bytes += sign * piece[2]
            self.account.ram_bytes += ram_bytes
            if spooled:
                self.account.spooled_bytes += sign * piece[2]
