"""Objects that are larger than a store takes, as several; a layer.

    KEY                        the head: which pieces, and the true size
    piece/<token>/<number>     the pieces: of one size, the last one shorter

`put` stores the pieces first, under a token of their own (32 random hex digits), and then the head at the key itself: so the object
is there whole or not at all (S1), and of several create-only puts one head wins (S4). What fits is stored as it is, except what
would be taken for a head. All heads have one size that nothing else of s3cfs has, so a listing need look only into objects of that size.
On a store without bound this layer still reads what it finds in pieces: a filesystem may have been copied there, object by object.

It stands above the layers that a store brings along, right below `Remote`: they then see nothing that is too large, can shard, lock
and check pieces like any other object, and may state a lower `largest_object_bytes` if they add something. That number goes up
unchanged: what makes objects still makes them fit where it can (`limits.fitted`), since pieces cost requests.

A put that failed goes on where it was when it is repeated with the same bytes, and so does a get within one call of `Remote`: on a
line that breaks now and then no attempt would ever get them all. Leftovers, under tokens that no head names, are possible:
after a death in the middle, after an object was overwritten, where a store may not delete. They cost room and nothing else.
A head that was read is remembered: keys are written once (invariant I6). Whoever reads an object while another deletes it gets NotFound.

    head: magic 16 | size u64 | piece size u32 | token 16 | BLAKE2b of all that 16 | zeros to HEAD_BYTES        (little endian)
"""
from __future__ import annotations

import hashlib
import struct
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from s3cfs.backends.crew import each
from s3cfs.backends.layer import Call, Layer
from s3cfs.backends.types import Body, Degraded, ObjectInfo
from s3cfs.errors import Corrupt, Exists, NotFound, StoreError, Temporary
from s3cfs.limits import GIB

FOLDER = "piece/"
MAGIC = b"s3cfs in pieces\n"
HEAD_BYTES = 313                   # below any record, no size that Padmé makes, and not that of a superblock
TOKEN_BYTES, CHECK_BYTES = 16, 16
PIECES_MAX = 100_000               # of one object
HEADS_KEPT, BEGUN_KEPT = 10_000, 64
LARGEST_MADE_BYTES = 4 * GIB       # no object of s3cfs is larger: places in a pack have 32 bits, and a record has 512 MiB at most

_HEAD = struct.Struct(f"<16sQI{TOKEN_BYTES}s")
_CHECK_AT = _HEAD.size

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Head:
    size: int                      # of the object
    piece: int                     # of each piece but the last
    token: str                     # hex

    def encode(self) -> bytes:
        said = _HEAD.pack(MAGIC, self.size, self.piece, bytes.fromhex(self.token))
        return (said + _check(said)).ljust(HEAD_BYTES, b"\0")

    @classmethod
    def decode(cls, data: Body) -> Head | None:
        """None: these bytes are no head, but an object of their own (a damaged head too: who reads it finds it damaged)."""
        said = bytes(data[:_CHECK_AT])
        if len(data) != HEAD_BYTES or not said.startswith(MAGIC) or data[_CHECK_AT:] != _check(said).ljust(HEAD_BYTES - _CHECK_AT, b"\0"):
            return None
        _, size, piece, token = _HEAD.unpack(said)
        head = cls(size, max(1, piece), token.hex())
        return head if size <= LARGEST_MADE_BYTES and head.count <= PIECES_MAX else None      # what nobody made takes no memory

    @property
    def count(self) -> int:
        return -(-self.size // self.piece)

    def key(self, number: int) -> str:
        return f"{FOLDER}{self.token}/{number}"

    def ranges(self, offset: int, size: int | None) -> list[tuple[int, int, int]]:
        """(number of a piece, offset in it, bytes of it) for that range of the object."""
        end = self.size if size is None else min(self.size, offset + size)
        found = []
        while offset < end:
            number, start = divmod(offset, self.piece)
            count = min(end - offset, self.piece - start)
            found.append((number, start, count))
            offset += count
        return found


def _check(said: bytes) -> bytes:
    return hashlib.blake2b(said, digest_size=CHECK_BYTES).digest()


@dataclass(slots=True)
class _Begun:
    """A put under way, or one that failed and may be repeated."""

    head: Head
    done: set[int] = field(default_factory=set)
    degraded: Degraded | None = None


class Pieces(Layer):
    """See the module's text."""

    name = "pieces"

    def __init__(self) -> None:
        self._heads: OrderedDict[str, Head] = OrderedDict()
        self._begun: OrderedDict[tuple[str, bytes], _Begun] = OrderedDict()
        self._stored = self._left = self._put_count = self._got_count = 0      # since mount

    def status(self) -> Mapping[str, Any]:
        told = {"stored": self._stored, "leftovers": self._left, "pieces_put": self._put_count, "pieces_got": self._got_count}
        return told if self._is_bounded else {}

    @property
    def _largest(self) -> int:
        largest = self.below.capabilities.largest_object_bytes
        return LARGEST_MADE_BYTES if largest is None else min(largest, LARGEST_MADE_BYTES)

    @property
    def _is_bounded(self) -> bool:
        return self._largest < LARGEST_MADE_BYTES

    # ------------------------------------------------------------ writing

    async def put(self, key: str, data: Body, only_if_absent: bool, call: Call) -> Degraded | None:
        if len(data) <= self._largest and not (len(data) == HEAD_BYTES and bytes(data[:len(MAGIC)]) == MAGIC):
            answer = await self.below.put(key, data, only_if_absent, call)
            self._heads.pop(key, None)
            return answer
        if only_if_absent and await self._is_there(key, call):
            raise Exists("put", key, "the key is taken")
        if len(data) > PIECES_MAX * self._largest:
            raise StoreError("put", key, f"{len(data)} bytes are too many for a store that takes {self._largest} at once")
        name = key, await self.doors.threads.run(_digest, data)
        begun = self._begun.setdefault(name, _Begun(Head(len(data), self._largest, self.doors.random.bytes(TOKEN_BYTES).hex())))
        self._begun.move_to_end(name)
        while len(self._begun) > BEGUN_KEPT:
            self._left += bool(self._begun.popitem(last=False)[1].done)
        await self._put_pieces(begun, memoryview(data), call)
        try:
            answer = await self.below.put(key, begun.head.encode(), only_if_absent, call)
        except Exists:
            if await self._head(key, call, known=False) != begun.head:       # else an earlier attempt of ours won
                self._begun.pop(name, None)
                await self._remove(begun.head, call)
            raise
        self._begun.pop(name, None)
        self._remember(key, begun.head)
        self._stored += 1
        return begun.degraded or answer

    async def _put_pieces(self, begun: _Begun, data: memoryview, call: Call) -> None:
        head = begun.head

        async def one(number: int) -> None:
            answer = await self.below.put(head.key(number), data[number * head.piece:(number + 1) * head.piece], False, call)
            begun.degraded = begun.degraded or answer
            begun.done.add(number)
            self._put_count += 1
            call.progress.moved()

        await each(one, [number for number in range(head.count) if number not in begun.done], self.capabilities.parallel_writes)

    async def _is_there(self, key: str, call: Call) -> bool:
        try:
            await self.below.stat(key, call)
        except NotFound:
            return False
        return True

    async def delete(self, keys: Sequence[str], call: Call) -> None:
        """Heads first: what has no head any more is gone, whatever happens to its pieces. Without bound only heads that were met are heads:
        a look at each object would cost too much."""
        heads: dict[str, Head] = {}

        async def look(key: str) -> None:
            with suppress(NotFound):
                if (head := await self._head(key, call)) is not None:
                    heads[key] = head

        await each(look, [key for key in keys if self._is_bounded or key in self._heads], self.capabilities.parallel_reads)
        await self.below.delete(keys, call)
        for key, head in heads.items():
            await self._delete_pieces(head, call)
            self._heads.pop(key, None)             # until now it is remembered: a repeated call still finds the pieces

    async def _delete_pieces(self, head: Head, call: Call) -> None:
        batch = self.capabilities.batch_delete
        for at in range(0, head.count, batch):
            await self.below.delete([head.key(number) for number in range(at, min(at + batch, head.count))], call)

    async def _remove(self, head: Head, call: Call) -> None:
        """Pieces that no head will ever name."""
        try:
            await self._delete_pieces(head, call)
        except StoreError:
            self._left += 1

    # ------------------------------------------------------------ reading

    async def get(self, key: str, offset: int, size: int | None, call: Call) -> bytes:
        if offset < 0 or (size is not None and size < 0):
            raise ValueError("negative offset or size")
        head = self._heads.get(key)
        if head is None:
            data = await self.below.get(key, offset, size, call)
            to_its_end, end = size is None or len(data) < size, offset + len(data)
            if size == 0 or (data and end > HEAD_BYTES) or (to_its_end and end < HEAD_BYTES):
                return data                                        # of an object of another size than a head's
            whole = to_its_end and not offset
            head = self._noted(key, data) if whole else await self._head(key, call, known=False)
            if head is None:
                return data
        try:
            return await self._get_pieces(key, head, offset, size, call)
        except NotFound as missing:
            now = await self._head(key, call, known=False)         # NotFound: it was deleted meanwhile
            if now == head:
                raise (Temporary("get", key, str(missing)) if self.capabilities.linearizable is False else missing) from None
        return await self.get(key, offset, size, call)             # another object, of the same key

    async def _get_pieces(self, key: str, head: Head, offset: int, size: int | None, call: Call) -> bytes:
        parts = head.ranges(offset, size)
        found: dict[int, bytes] = call.kept.setdefault(f"{self.name} {head.token} {offset} {size}", {})

        async def one(part: tuple[int, int, int]) -> None:
            number, start, count = part
            try:
                whole = (start, count) == (0, head.piece)
                data = await self.below.get(head.key(number), start, None if whole else count, call)
            except NotFound:
                raise NotFound("get", key, f"its piece {number} of {head.count} is missing") from None
            if len(data) != count:
                raise Corrupt("get", key, f"its piece {number} of {head.count} gave {len(data)} bytes, not {count}")
            found[number] = data
            self._got_count += 1
            call.progress.moved()

        await each(one, [part for part in parts if part[0] not in found], self.capabilities.parallel_reads)
        return b"".join(data for _, data in sorted(found.items()))

    async def stat(self, key: str, call: Call) -> ObjectInfo:
        info = await self.below.stat(key, call)
        head = await self._head(key, call) if info.size == HEAD_BYTES else None
        return info if head is None else ObjectInfo(key, head.size)

    async def examine(self, key: str, call: Call) -> str | None:
        trouble = await self.below.examine(key, call)
        head = await self._head(key, call) if trouble is None else None
        for number in range(head.count if head is not None else 0):
            if head is not None and (said := await self.below.examine(head.key(number), call)) is not None:
                return f"piece {number} of {head.count}: {said}"
            call.progress.moved()
        return trouble

    async def folders(self, prefix: str, call: Call) -> list[str]:
        if prefix.startswith(FOLDER):
            return []
        return [name for name in await self.below.folders(prefix, call) if f"{prefix}{name}/" != FOLDER]

    async def list(self, prefix: str, call: Call) -> list[ObjectInfo]:
        if prefix.startswith(FOLDER):
            return []
        infos = [info for info in await self.below.list(prefix, call) if not info.key.startswith(FOLDER)]
        sizes: dict[str, int | None] = {}

        async def look(key: str) -> None:
            try:
                head = await self._head(key, call)
                sizes[key] = HEAD_BYTES if head is None else head.size
            except NotFound:
                sizes[key] = None                  # it went while we looked

        await each(look, [info.key for info in infos if info.size == HEAD_BYTES], self.capabilities.parallel_reads)
        true = [(info.key, sizes.get(info.key, info.size)) for info in infos]
        return [ObjectInfo(key, size) for key, size in true if size is not None]

    # ------------------------------------------------------------ heads

    async def _head(self, key: str, call: Call, *, known: bool = True) -> Head | None:
        """NotFound. None: an object in one piece."""
        head = self._heads.get(key) if known else None
        return self._noted(key, await self.below.get(key, 0, HEAD_BYTES + 1, call)) if head is None else head

    def _noted(self, key: str, data: bytes) -> Head | None:
        head = Head.decode(data)
        self._heads.pop(key, None)
        if head is not None:
            self._remember(key, head)
        return head

    def _remember(self, key: str, head: Head) -> None:
        self._heads[key] = head
        self._heads.move_to_end(key)
        if len(self._heads) > HEADS_KEPT:
            self._heads.popitem(last=False)


def _digest(data: Body) -> bytes:
    return hashlib.blake2b(data, digest_size=32).digest()
