"""Reed-Solomon over GF(2^8): k data shards, m parity shards, any k of the k + m rebuild the others.

Field and generator matrix are zstor's (those of the Rust crate reed-solomon-erasure 6): polynomial 0x11D, generator 2, V * inverse(top k
rows of V) with V[row][column] = row ** column. So the data shards are the data itself, and k = 1 is plain replication.

The work is a table look-up for each two bytes of a shard: the entry holds what these contribute to up to four shards at once, side by
side in 64 bits. A block of a shard is looked up, and XORed to the block's sum, in numpy, which lets other threads run meanwhile. Blocks
stay in the CPU's caches, and nothing of an object's size is copied. `python -m contrib.bench.coder` measures it.
"""
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from s3cfs.backends.types import Body

Bytes = NDArray[np.uint8]

SHARDS_MAX = 255
BLOCK_BYTES = 128 << 10            # of each shard at a time: what is worked on then is 1.5 MiB (measured: less is slower, more no faster)
TABLES = 64                        # kept, of at most 512 KiB each
SHORT_BYTES = 128 << 10            # of a shard; below it tables of single bytes are quicker, since they are made in no time

_LANES = 4                         # shards worked out at once
_PACKED = {(1, 1): "<u1", (1, 2): "<u2", (1, 4): "<u4", (2, 1): "<u2", (2, 2): "<u4", (2, 4): "<u8"}    # (bytes a look-up, lanes)


def _products() -> Bytes:
    """256 x 256: the product of each two elements."""
    power, logarithm = np.zeros(512, np.uint8), np.zeros(256, np.intp)
    element = 1
    for exponent in range(255):
        power[exponent] = power[exponent + 255] = element
        logarithm[element] = exponent
        element = element << 1 ^ (0x11D if element & 0x80 else 0)
    product: Bytes = power[logarithm[:, None] + logarithm[None, :]]
    product[0] = product[:, 0] = 0
    return product


PRODUCT = _products()


def _times(left: Bytes, right: Bytes) -> Bytes:
    """The product of two matrices."""
    found: Bytes = np.bitwise_xor.reduce(PRODUCT[left[:, :, None], right[None, :, :]], axis=1)
    return found


def _inverse(square: Bytes) -> Bytes:
    """Gauss and Jordan. What is inverted here always has an inverse, as any k rows of a Vandermonde matrix have."""
    size = len(square)
    both = np.concatenate([square, np.eye(size, dtype=np.uint8)], axis=1)
    for column in range(size):
        pivot = column + int(np.flatnonzero(both[column:, column])[0])
        both[[column, pivot]] = both[[pivot, column]]
        both[column] = PRODUCT[both[column], int(np.flatnonzero(PRODUCT[both[column, column]] == 1)[0])]
        others = both[:, column].copy()
        others[column] = 0
        both ^= PRODUCT[others[:, None], both[column][None, :]]
    return both[:, size:]


@lru_cache(maxsize=32)
def generator(k: int, m: int) -> Bytes:
    """(k + m) x k; its first k rows are the identity."""
    vandermonde = np.ones((k + m, k), np.uint8)
    for column in range(1, k):
        vandermonde[:, column] = PRODUCT[vandermonde[:, column - 1], np.arange(k + m)]
    return _times(vandermonde, _inverse(vandermonde[:k]))


@lru_cache(maxsize=128)
def _recipe(k: int, m: int, given: tuple[int, ...], wanted: tuple[int, ...]) -> Bytes:
    """wanted x k: what each of the k shards given (in order) contributes to those wanted."""
    matrix = generator(k, m)
    there, parity = [index for index in given if index < k], [index for index in given if index >= k]
    lost = [index for index in range(k) if index not in there]
    inverse = _inverse(matrix[np.ix_(parity, lost)])        # parity + what is there of it = this matrix * lost
    data = np.zeros((k, k), np.uint8)                       # each data shard, of those given
    data[there, range(len(there))] = 1
    data[lost] = np.concatenate([_times(inverse, matrix[np.ix_(parity, there)]), inverse], axis=1)
    return _times(matrix[list(wanted)], data)


@lru_cache(maxsize=TABLES)
def _table(factors: bytes, width: int) -> NDArray[np.unsignedinteger]:
    """For each value of `width` (1 or 2) bytes its product with each of the factors (1, 2 or 4), side by side in one number."""
    single = np.zeros(256, np.dtype(_PACKED[width, len(factors)]))
    for lane, factor in enumerate(factors):
        single |= PRODUCT[factor].astype(single.dtype) << (8 * width * lane)
    return single if width == 1 else np.bitwise_xor.outer(single << 8, single).reshape(-1)


def _combine(factors: Bytes, sources: Sequence[memoryview], outs: Sequence[bytearray]) -> None:
    """outs[i] = the sum of factors[i][j] * sources[j], for at most four outs of one length. A source that is shorter goes on as zeros."""
    size = len(outs[0])
    width = 1 if size < SHORT_BYTES else 2
    _look_up(factors, sources, outs, 0, size - size % width, width)
    _look_up(factors, sources, outs, size - size % width, size, 1)


def _look_up(factors: Bytes, sources: Sequence[memoryview], outs: Sequence[bytearray], begin: int, end: int, width: int) -> None:
    lanes = next(lanes for lanes in (1, 2, _LANES) if lanes >= len(outs))
    columns = [bytes(column) + bytes(lanes - len(outs)) for column in factors.T]
    taking = [(source, _table(column, width)) for source, column in zip(sources, columns, strict=True) if any(column)]
    packed, unit = np.dtype(_PACKED[width, lanes]), np.dtype(f"<u{width}")
    most = min(BLOCK_BYTES, end - begin) // width
    index, sums, found = np.empty(most, np.intp), np.empty(most, packed), np.empty(most, packed)
    for start in range(begin, end, BLOCK_BYTES):
        count = min(BLOCK_BYTES, end - start) // width
        sums[:count] = 0
        for source, table in taking:
            there = min(max(len(source) - start, 0), count * width)
            whole, odd = divmod(there, width)
            if whole:
                np.copyto(index[:whole], np.frombuffer(source, unit, whole, start))
                np.take(table, index[:whole], out=found[:whole], mode="clip")        # ("raise" would make a copy of `out`)
                np.bitwise_xor(sums[:whole], found[:whole], out=sums[:whole])
            if odd:
                sums[whole] ^= table[source[start + there - 1]]
        parts = sums[:count].view(unit).reshape(count, lanes)
        for lane, out in enumerate(outs):
            np.frombuffer(out, unit, count, start)[:] = parts[:, lane]


class Coder:
    """k data shards and m parity shards. ValueError where 1 <= k, 0 <= m, k + m <= 255 does not hold. Threads may share one."""

    def __init__(self, k: int, m: int) -> None:
        if k < 1 or m < 0 or k + m > SHARDS_MAX:
            raise ValueError(f"{k} data shards and {m} parity shards: it takes at least one data shard, and at most {SHARDS_MAX} in all")
        self.k, self.m = k, m

    def shard_bytes(self, size: int) -> int:
        """The length of each shard of an object of so many bytes."""
        return -(-size // self.k)

    def slices(self, data: Body) -> list[memoryview]:
        """The k data shards, which are views of the data. The last ones may be short, or empty: they count as if zeros followed."""
        whole, length = memoryview(data).cast("B"), self.shard_bytes(len(data))
        return [whole[index * length:(index + 1) * length] for index in range(self.k)]

    def encode(self, data: Body) -> list[Body]:
        """The m parity shards, of `shard_bytes(len(data))` bytes each."""
        if self.k == 1:
            return [data] * self.m
        return list(self._made(generator(self.k, self.m)[self.k:], self.slices(data), self.shard_bytes(len(data))))

    def rebuild(self, shards: Mapping[int, Body], wanted: Sequence[int], shard_bytes: int) -> dict[int, Body]:
        """The shards of the indices wanted (0 ... k + m - 1, data first), from any k of `shards`; each of `shard_bytes` bytes.

        Data shards may be given as short as `slices` has them; those that come back are filled up with zeros. The same range cut out of
        all shards gives that range of those wanted. ValueError: fewer than k shards, no such index, or a shard that is too long.
        """
        given = tuple(sorted(shards)[:self.k])       # data shards first: they take the least work
        if len(given) < self.k:
            raise ValueError(f"{len(given)} shards of the {self.k} that it takes")
        if not all(0 <= index < self.k + self.m for index in (*shards, *wanted)):
            raise ValueError(f"a shard's number is not below {self.k + self.m}")
        sources = [memoryview(shards[index]).cast("B") for index in given]
        if any(len(source) > shard_bytes for source in sources):
            raise ValueError(f"a shard is longer than {shard_bytes} bytes")
        factors = _recipe(self.k, self.m, given, tuple(wanted))
        return dict(zip(wanted, self._made(factors, sources, shard_bytes), strict=True))

    def _made(self, factors: Bytes, sources: Sequence[memoryview], shard_bytes: int) -> Iterable[Body]:
        outs = [bytearray(shard_bytes) for _ in factors]
        for first in range(0, len(outs) if shard_bytes else 0, _LANES):
            _combine(factors[first:first + _LANES], sources, outs[first:first + _LANES])
        return outs
