"""One pass: what the target has not got is copied, in the order of `Kind`, from folder to folder.

An object that is in the target already, with the right size, counts as copied when the ledger says that it was; else it is read and
compared, so that a lost ledger costs time and nothing else. Objects go whole through `Remote` on both sides: whatever a store makes of
them (pieces, shards) is its own matter.
"""
from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from s3cfs import ids
from s3cfs.backends.crew import each
from s3cfs.errors import Corrupt, Diverged, NotFound
from s3cfs.history.log import number_of
from s3cfs.moves.kinds import Kind, kind_of
from s3cfs.moves.ledger import DAMAGED, MISSING, Item, Ledger
from s3cfs.moves.places import Room, told_of
from s3cfs.moves.wholeness import looked_at, named_by_hash
from s3cfs.remote import Lane, Remote

GUESS_BYTES = 8 << 20              # of an object whose size nobody told
BEFORE_THE_END = (Kind.PACK, Kind.PART, Kind.MANIFEST, Kind.RECORD)
AT_THE_END = (Kind.CLAIM, Kind.SUPER)


@dataclass(slots=True)
class Tally:
    copied: int = 0                # objects
    copied_bytes: int = 0
    compared: int = 0              # objects that were there, and were read
    mended: int = 0                # objects that were there, and were not what they had to be
    read_back: int = 0


class _Todo(NamedTuple):
    item: Item
    there: int | None              # bytes of what the target has under its key; None: nothing, or not looked at


class Copying:
    def __init__(self, source: Remote, target: Remote, ledger: Ledger, *, read_back: bool, tell: Callable[[], None]) -> None:
        """`read_back`: what arrived is read from the target and compared; later, since a lock may hold reads of what was just put."""
        self._source, self._target, self._ledger, self._read_back, self._tell = source, target, ledger, read_back, tell
        self._room = Room()
        self._hands = source.slots(Lane.READ) + target.slots(Lane.BULK)
        self.tally = Tally()
        self.done_bytes = 0                        # of this pass, copied or found to be there
        self.is_filesystem = False                 # the target can be mounted: records come in their order, and what is there was verified

    async def copy(self, kinds: Iterable[Kind], *, compare: bool) -> int:
        """How many objects were copied. `compare`: look what the target has; else the ledger says what it lacks."""
        before = self.tally.copied
        for kind in kinds:
            if kind is Kind.SUPER or (kind is Kind.RECORD and self.is_filesystem):
                await self._in_order(kind)
            else:
                await self._at_once(kind, partial(self._folder, compare=compare))
            if self._read_back:
                await self._at_once(kind, self._read_folder)
        return self.tally.copied - before

    async def _in_order(self, kind: Kind) -> None:
        """Superblocks: the newest first, so that an older one never counts. Records, where the target can be mounted: each when the one
        before is there; they are few, it had them all once."""
        left = [todo for folder in self._ledger.folders(kind) for todo in await self._todo(kind, folder, kind is Kind.SUPER)]
        order = number_of if kind is Kind.RECORD else _newest_first
        for todo in sorted(left, key=lambda todo: order(todo.item.key)):
            await self._one(todo)

    async def _at_once(self, kind: Kind, work: Callable[[Kind, list[Exception], str], Awaitable[None]]) -> None:
        errors: list[Exception] = []
        await each(partial(work, kind, errors), self._ledger.folders(kind), self._target.slots(Lane.READ), errors)

    async def _folder(self, kind: Kind, errors: list[Exception], folder: str, compare: bool) -> None:
        await each(self._one, await self._todo(kind, folder, compare), self._hands, errors)

    async def _read_folder(self, kind: Kind, errors: list[Exception], folder: str) -> None:
        await each(self._read, self._ledger.items(kind, folder, unread=True), self._hands, errors)

    async def _read(self, item: Item) -> None:
        """Back from the target. Corrupt: it is not what the source has, and is not either when it was put once more."""
        async with self._room.of(2 * (GUESS_BYTES if item.size is None else item.size)):
            for last in (False, True):
                self.tally.read_back += 1
                held = await self._held(item.key)
                if held is not None and named_by_hash(item.key) and not await looked_at(self._target.doors, item, held, None):
                    break
                found = await self._fetch(item)
                if found is None or found[0] == held:
                    break
                if last:
                    raise Corrupt("get", item.key, f"{self._target.location} gives other bytes than it was given, twice")
                with told_of(self._target):
                    await self._target.put(item.key, found[0])
                self.tally.mended += 1
        self._ledger.read_back(item.key)

    async def _todo(self, kind: Kind, folder: str, compare: bool) -> list[_Todo]:
        """Of one folder, and how large what the target has of it is."""
        items = self._ledger.items(kind, folder, left=not compare)
        if not items or not (compare or self.is_filesystem):
            return [_Todo(item, None) for item in items]
        with told_of(self._target):
            there = {info.key: info.size for info in await self._target.list(folder)}
        known = self._ledger.done_of(kind, folder)
        todo = []
        for item in items:
            size = there.get(item.key)
            if size is not None and item.key in known and item.size in (None, size):
                self.done_bytes += size
            else:
                todo.append(_Todo(item, size))
        self._tell()
        return todo

    async def _one(self, todo: _Todo) -> None:
        item, there = todo
        if there is not None and self.is_filesystem and there == item.size and kind_of(item.key) is not Kind.SUPER:
            self._arrived(item, there)             # it was verified before there was a superblock
            return
        size = GUESS_BYTES if item.size is None else item.size
        async with self._room.of(size if there is None else 2 * size):
            held = await self._held(item.key) if there is not None and item.size in (None, there) else None
            if held is not None:
                self.tally.compared += 1
                if named_by_hash(item.key) and not await looked_at(self._target.doors, item, held, None):
                    self._arrived(item, len(held))
                    self._ledger.read_back(item.key)
                    return
            found = await self._fetch(item)
            if found is None:
                return
            data, wrong = found
            if data != held:
                if there is not None:
                    self._refuse_another(item.key)
                    self.tally.mended += 1
                with told_of(self._target):
                    await self._target.put(item.key, data)
                self.tally.copied += 1
                self.tally.copied_bytes += len(data)
            self._arrived(item, len(data), wrong)
            if data == held:
                self._ledger.read_back(item.key)

    async def _fetch(self, item: Item) -> tuple[bytes, str] | None:
        """From the source, and what is wrong with it; None: it has gone, or is missing, which is noted."""
        for _ in range(2):                         # is it the store, or the way?
            try:
                with told_of(self._source):
                    data = await self._source.get(item.key, named=True)
            except NotFound:
                if kind_of(item.key) is not Kind.CLAIM:            # which are withdrawn
                    self._ledger.trouble(item.key, MISSING, "it is not in the source")
                return None
            wrong = "" if item.size in (None, len(data)) else f"it has {len(data)} bytes, not {item.size}"
            wrong = wrong or await looked_at(self._source.doors, item, data, None)
            if not wrong:
                break
        return data, wrong

    async def _held(self, key: str) -> bytes | None:
        with told_of(self._target):
            try:
                return await self._target.get(key, named=True)
            except NotFound:
                return None

    def _refuse_another(self, key: str) -> None:
        """Keys of records and superblocks can be taken by another history of this filesystem, once it can be mounted there; others have a
        hash or a nonce in them."""
        if self.is_filesystem and kind_of(key) in (Kind.RECORD, Kind.SUPER):
            raise Diverged(f"{self._target.location} holds another {key} than {self._source.location}: both were written, or it is "
                           "damaged there; nothing was overwritten")

    def _arrived(self, item: Item, size: int, wrong: str = "") -> None:
        self.done_bytes += size
        if wrong:                                  # what is whole in it stays whole, so it is copied as it is
            self._ledger.trouble(item.key, DAMAGED, f"{wrong} (so it is in the source; it was copied as it is)", done=True)
        else:
            self._ledger.done(item.key)
        self._tell()


def _newest_first(key: str) -> int:
    return -ids.parse_super_key(key)[0]
