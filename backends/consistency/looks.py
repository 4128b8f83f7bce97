"""The checker's own requests: within its budget, one at a time, in the lane of what nobody waits for, and with pauses when the store fails.

Nothing here decides what an answer means for the store: `Looks` says what it saw of one object, beside what had to be there.
"""
from __future__ import annotations

import enum
import hashlib
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeVar

import trio

from s3cfs.backends.consistency.budget import Budget
from s3cfs.backends.consistency.conditions import Changed, Conditions, Stale
from s3cfs.backends.consistency.watch import Watched
from s3cfs.backends.layer import Call, Lane, Originals, Store
from s3cfs.backends.types import Body, ObjectInfo
from s3cfs.doors import Doors
from s3cfs.errors import NotFound, StoreError, Temporary, Throttled
from s3cfs.limits import KIB, MIB

T = TypeVar("T")

ANSWER_S = 30.0                    # longer nobody waits for the answer to a look, its turn included
PUT_S = 900.0                      # nor for a repair
RANGE_BYTES = 8 * MIB              # of content at a time
INLINE_BYTES = 64 * KIB            # hashed on the event loop
PAUSES_S = (5.0, 300.0)            # after a failure, and at most after many
PAGE = 1000                        # keys of a listing that one request brings
FOLDER_MAX = 20_000                # keys of a folder that is never listed for a look
FOLDERS_KEPT = 1024
LEAST_S = 0.001                    # what rounding leaves is less than a clock moves


class Saw(enum.Enum):
    WELL = "what must be there"
    MISSING = "nothing"
    GHOST = "what was deleted"
    WRONG = "something else"


class Seen(NamedTuple):
    saw: Saw
    told: bool = False             # as evidence, by the layer below
    old: bool = False              # it says, too, that this may be what was there before


class Wake:
    """For one task: `set` ends its wait, also one that begins later."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def set(self) -> None:
        self._event.set()

    async def wait(self, at_most_s: float) -> None:
        with trio.move_on_after(max(at_most_s, LEAST_S)):
            await self._event.wait()
        self._event = trio.Event()


class Looks:
    def __init__(self, below: Store, doors: Doors, conditions: Conditions, budget: Budget, originals: Originals) -> None:
        self._below, self._doors, self._clock, self._conditions = below, doors, doors.clock, conditions
        self._budget, self._originals = budget, originals
        self.wake = Wake()                         # a bound has changed, or there is something to do
        self.folders = Folders()
        self.requests = self.bytes_read = 0
        self._failures, self._pause_until = 0, -math.inf

    # ------------------------------------------------------------ one object, one folder

    async def at(self, watched: Watched) -> Seen:
        """By a look at content or size. StoreError when there was no answer."""
        try:
            if watched.content and watched.there:
                return Seen(await self._content(watched))
            info = await self.ask("stat", watched.key, lambda call: self._below.stat(watched.key, call))
            return Seen(judged(watched, info.size))
        except NotFound:
            return Seen(judged(watched, None))
        except Stale as old:
            return Seen((Saw.MISSING if old.absent else Saw.WRONG) if watched.there else Saw.GHOST, told=True, old=True)
        except Changed:
            return Seen(Saw.WRONG, told=True)

    async def in_folder(self, folder: str) -> dict[str, int]:
        """Sizes by key. StoreError."""
        infos: list[ObjectInfo] = await self.ask("list", folder, lambda call: self._below.list(folder, call))
        self.folders.note(folder, len(infos))
        for _ in range(len(infos) // PAGE):
            self._spend()
        return {info.key: info.size for info in infos}

    async def _content(self, watched: Watched) -> Saw:
        wanted = watched.digest
        if wanted is None and (original := await self.original(watched)) is not None:
            wanted = await self.digest(original)
        if wanted is None or not self._affords(watched.size):
            watched.content = False
            info = await self.ask("stat", watched.key, lambda call: self._below.stat(watched.key, call))
            return judged(watched, info.size)
        hasher, offset = hashlib.blake2b(digest_size=32), 0
        while offset <= watched.size:
            want = min(RANGE_BYTES, watched.size + 1 - offset)         # one byte more, for what is longer than it should be
            part = await self._part(watched.key, offset, want)
            await self._hash(hasher.update, part)
            offset += len(part)
            if len(part) < want:
                break
        return Saw.WELL if offset == watched.size and hasher.digest() == wanted else Saw.WRONG

    async def _part(self, key: str, offset: int, size: int) -> bytes:
        part = await self.ask("get", key, lambda call: self._below.get(key, offset, size, call))
        self.bytes_read += len(part)
        self._budget.spend_bytes(len(part), self._clock.time_ns())
        return part

    def _affords(self, size: int) -> bool:
        able = self._below.capabilities
        in_parts = able.ranged_reads and (able.create_only is True or not self._conditions.locks)      # else a lock reads all for each part
        if size < 0 or (size > RANGE_BYTES and not in_parts):
            return False
        return self._budget.spent_bytes(self._clock.time_ns()) + size <= self._conditions.bounds.check_bytes_per_day

    # ------------------------------------------------------------ originals and digests

    async def original(self, watched: Watched) -> Body | None:
        """What was put, or as good: of the same size and content as far as that is known."""
        data = watched.body if watched.body is not None else await self._originals.of(watched.key)
        if data is None or (watched.size >= 0 and len(data) != watched.size):
            return None
        return data if watched.digest is None or await self.digest(data) == watched.digest else None

    async def vouched(self, watched: Watched) -> Body | None:
        """The same, only from who can tell that these bytes and no others belong to the key."""
        data = await self._originals.of(watched.key)
        return data if data is not None and (watched.size < 0 or len(data) == watched.size) else None

    async def digest(self, data: Body) -> bytes:
        return await self._hash(digest_of, data)

    async def _hash(self, function: Callable[[Body], T], data: Body) -> T:
        return function(data) if len(data) <= INLINE_BYTES else await self._doors.threads.run(function, data)

    # ------------------------------------------------------------ requests

    async def ask(self, operation: str, key: str, request: Callable[[Call], Awaitable[T]], within_s: float = ANSWER_S) -> T:
        """In its turn: when the budget allows it and no pause is kept. StoreError."""
        while (wait_s := self.wait_s()) > 0:
            await self.wake.wait(wait_s)
            await self._clock.sleep(0.0)           # by the door of time: a process that is stopped does not pass it
        self._spend()
        call = Call(Lane.QUIET, self._clock.monotonic() + within_s, caller="checker")
        answers: list[T] = []
        try:
            with trio.move_on_after(within_s):
                answers.append(await request(call))
            if not answers:
                raise Temporary(operation, key, f"no answer, or no turn, within {within_s:g} s")
        except (Stale, Changed):                   # the store has answered
            raise
        except StoreError as error:
            if error.retryable:
                self._failed(error)
            raise
        self._failures = 0
        return answers[0]

    def wait_s(self) -> float:
        """Seconds until a request may be made."""
        now = self._clock.monotonic()
        return max(self._pause_until - now, self._budget.wait_s(now, self._conditions.bounds.checks_per_minute))

    def _spend(self) -> None:
        self.requests += 1
        self._budget.spend_request(self._clock.monotonic())

    def _failed(self, error: StoreError) -> None:
        least, most = PAUSES_S
        pause_s = min(most, least * 2.0 ** min(self._failures, 10))
        if isinstance(error, Throttled) and error.retry_after is not None:
            pause_s = max(pause_s, error.retry_after)
        self._failures += 1
        self._pause_until = self._clock.monotonic() + pause_s


class Folders:
    """How many keys folders have, as far as listings have shown: whether to list one for a look, or to ask for each key."""

    def __init__(self) -> None:
        self._sizes: OrderedDict[str, int] = OrderedDict()

    def note(self, folder: str, count: int) -> None:
        self._sizes[folder] = count
        self._sizes.move_to_end(folder)
        if len(self._sizes) > FOLDERS_KEPT:
            self._sizes.popitem(last=False)

    def worth(self, folder: str, keys: int) -> bool:
        """Whether a listing takes no more requests than asking for each of so many keys. One that nobody has listed is taken to be as
        large as the largest beside it."""
        count = self._sizes.get(folder)
        if count is None:
            beside = folder[:folder.rstrip("/").rfind("/") + 1]
            count = max((size for other, size in self._sizes.items() if other[:other.rstrip("/").rfind("/") + 1] == beside), default=0)
        return bool(folder) and count <= FOLDER_MAX and 1 + count // PAGE <= keys


def judged(watched: Watched, size: int | None) -> Saw:
    """`size` of what was there; None: nothing."""
    if not watched.there:
        return Saw.WELL if size is None else Saw.GHOST
    if size is None:
        return Saw.MISSING
    return Saw.WELL if watched.size in (-1, size) else Saw.WRONG


def digest_of(data: Body) -> bytes:
    return hashlib.blake2b(data, digest_size=32).digest()
