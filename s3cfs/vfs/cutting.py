"""Cutting: what of a file's dirty data becomes which chunk. Pure computing on buffers; it runs in threads.

  - contiguous data by content (FastCDC). Where more may follow, the piece whose end is not decided yet is given back, so a
    stream that was staged in many slices has the very chunks that it would have in one;
  - several short runs inside existing data (a database's pages) share one overlay chunk: one chunk a slice, not one a page;
  - long runs of zeros are holes, exactly where they are: so the data beside them is cut the same wherever it lies.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from s3cfs import limits
from s3cfs.formats.chunker import Chunker
from s3cfs.formats.keys import KeyRing
from s3cfs.ids import ChunkId

from .dirty import DirtyMap, Spooled
from .spool import Spool
from .state import FileState

ZERO_RUN_BYTES = 64 * limits.KIB         # so many zeros, or more, are a hole
_ZEROS = bytes(ZERO_RUN_BYTES // 2)


@dataclass(slots=True, eq=False)
class Slice:
    """A part of what is away of one file. Nothing changes in it while threads work on it."""

    state: FileState
    data: DirtyMap
    final: bool                  # nothing follows: size and times are set
    open_ends: frozenset[int]    # ends of runs that go on behind the slice: the last piece of such a run is not decided
    valid_to: int
    size: int
    tail: tuple[int, bytes] | None = None      # (offset, bytes) of a short last chunk to be cut again


@dataclass(slots=True, eq=False)
class Piece:
    """A chunk to be, and where it belongs: (slice, file offset, offset in the chunk, length)."""

    id: ChunkId
    data: memoryview
    targets: list[tuple[Slice, int, int, int]]
    row: int = 0                 # of the chunk table, once known
    sealed: bytes = b""


@dataclass(slots=True)
class Cut:
    """What cutting found; ranges are of the file."""

    pieces: list[Piece] = field(default_factory=list)
    holes: list[tuple[Slice, int, int]] = field(default_factory=list)
    undecided: list[tuple[Slice, int, memoryview]] = field(default_factory=list)


class Cutter:
    def __init__(self, keyring: KeyRing, chunker: Chunker, spool: Spool, bounds: limits.Limits = limits.DEFAULTS) -> None:
        self._keyring, self.chunker, self._spool, self._limits = keyring, chunker, spool, bounds

    def cut(self, slices: Sequence[Slice]) -> Cut:
        """Cut and hash."""
        cut = Cut()
        for part in slices:
            runs = part.data.runs()
            short = [run for run in runs if run[1] - run[0] < self._limits.overlay_run_max_bytes]
            if len(short) > 1 or (short and not self._is_whole(part, short[0])):
                self._cut_overlays(part, short, cut)
                runs = [run for run in runs if run[1] - run[0] >= self._limits.overlay_run_max_bytes]
            for start, end in runs:
                data = self._joined(part, start, end)
                if part.tail and part.tail[0] + len(part.tail[1]) == start:
                    start, data = part.tail[0], memoryview(part.tail[1] + bytes(data))
                self._cut_run(part, start, data, cut)
        return cut

    @staticmethod
    def _is_whole(part: Slice, run: tuple[int, int]) -> bool:
        """A run that is cut by content though it is short: all of a file, or the end of one."""
        return run[1] >= part.size

    def _cut_overlays(self, part: Slice, runs: Sequence[tuple[int, int]], cut: Cut) -> None:
        group: list[tuple[int, memoryview]] = []
        size = 0

        def close() -> None:
            data = memoryview(b"".join([piece for _, piece in group]))
            targets, at = [], 0
            for start, piece in group:
                targets.append((part, start, at, len(piece)))
                at += len(piece)
            cut.pieces.append(Piece(self._keyring.chunk_id(data), data, targets))

        for start, end in runs:
            data = self._joined(part, start, end)
            if not any(data[:64]) and bytes(data) == bytes(len(data)) and part.final:
                cut.holes.append((part, start, end))
                continue
            if group and size + len(data) > self.chunker.avg_bytes:
                close()
                group, size = [], 0
            group.append((start, data))
            size += len(data)
        if group:
            close()

    def _cut_run(self, part: Slice, start: int, data: memoryview, cut: Cut) -> None:
        end = start + len(data)
        for low, high, zero in zero_parts(data, start):
            if zero:
                if high == end and end in part.open_ends:    # where it ends is not known
                    high -= ZERO_RUN_BYTES
                    cut.undecided.append((part, high, data[high - start:]))
                if low < high:
                    cut.holes.append((part, low, high))
                continue
            view = data[low - start:high - start]
            final = high < end or end not in part.open_ends
            at = 0
            for length in self.chunker.cut(view, final):
                piece = view[at:at + length]
                cut.pieces.append(Piece(self._keyring.chunk_id(piece), piece, [(part, low + at, 0, length)]))
                at += length
            if at < len(view):
                cut.undecided.append((part, low + at, view[at:]))

    def _joined(self, part: Slice, start: int, end: int) -> memoryview:
        parts: list[memoryview] = []
        for _, (buffer, inner, length) in part.data.within(start, end):
            plain = self._spool.read(buffer) if isinstance(buffer, Spooled) else buffer
            parts.append(memoryview(plain)[inner:inner + length])
        return parts[0] if len(parts) == 1 else memoryview(b"".join(parts))

    def whole(self, part: Slice) -> bytes:
        out = bytearray(part.size)
        for at, (buffer, inner, length) in part.data.within(0, part.size):
            plain = self._spool.read(buffer) if isinstance(buffer, Spooled) else buffer
            out[at:at + length] = memoryview(plain)[inner:inner + length]
        return bytes(out[:part.size])


def zero_parts(data: memoryview, start: int) -> list[tuple[int, int, bool]]:
    """Split into parts that are zero and not: (start, end, is zero). Where a run of zeros begins and ends is exact, and any
    that is long enough is found: so the parts beside it are the same wherever they lie in a file.
    """
    parts: list[tuple[int, int, bool]] = []
    step, position, at = ZERO_RUN_BYTES // 2, 0, 0           # a run of that length holds a whole block of half of it
    while at + step <= len(data):
        if data[at] or data[at + step - 1] or bytes(data[at:at + step]) != _ZEROS:
            at += step
            continue
        low = position + len(bytes(data[position:at]).rstrip(b"\0")) if at - position <= step else \
            at - step + len(bytes(data[at - step:at]).rstrip(b"\0"))
        high = at + step
        while bytes(data[high:high + step]) == _ZEROS:
            high += step
        rest = bytes(data[high:high + step])
        high += len(rest) - len(rest.lstrip(b"\0"))
        if high - low >= ZERO_RUN_BYTES:
            if low > position:
                parts.append((start + position, start + low, False))
            parts.append((start + low, start + high, True))
            position = high
        at = max(at + step, high)
    if position < len(data):
        parts.append((start + position, start + len(data), False))
    return parts
