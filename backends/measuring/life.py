"""The life of one key: put, overwritten, deleted; and how long after each of these everybody sees it.

After a change each view looks at once, and again after growing pauses, until it shows what is true now. Then some of them look on: an old
answer after a new one has "come back". Readers take turns at random, so a store of several faces shows more than one.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

import trio

from s3cfs.backends.base import Backend
from s3cfs.backends.measuring.asking import Asking
from s3cfs.backends.measuring.plan import CHANGES, FIRST_PAUSE_S, GROWTH, LATER_VIEWS, VIEWS, Plan
from s3cfs.errors import Denied, Exists, NotFound, StoreError, Unsupported

T = TypeVar("T")

BODY_BYTES = 200
UNSURE_S, UNSURE_PART = 1.0, 0.5   # no answer for so long, and so much of the age, before the first new one: how long it took nobody knows
NEW, OLD, NONE = "new", "old", ""  # what a look saw

Seen = bytes | int | bool | None   # by `get`; by `stat` and `list` (sizes); by `folders`; nothing


class Life:
    NAME = "here/key"

    def __init__(self, asking: Asking, writer: Backend, readers: Sequence[Backend], plan: Plan, key: str) -> None:
        """`key` is `NAME` in a folder of its own."""
        self._asking, self._writer, self._readers, self._plan = asking, writer, readers, plan
        self.key, self._folder = key, key.removesuffix(self.NAME)
        self._truths: list[bytes | None] = [None]              # what was true, one after the other; the last one is
        self._settled: dict[str, float] = {}                   # by view that has shown this change: its age when the old was over

    async def run(self) -> None:
        """To its end, or until a change failed: then nothing more can be said of this key."""
        for change in CHANGES:
            since = await self._change(change)
            if since is None:
                return
            if since < 0:
                continue
            self._settled = {}
            views = [view for view in VIEWS if self._expected(view, -1) != self._expected(view, -2)]
            try:
                async with trio.open_nursery() as nursery:
                    for view in views:
                        nursery.start_soon(self._until_shown, change, view, since)
                await self._look_on(change, since)
            finally:
                for view, settled_s in self._settled.items():
                    self._asking.tally.of(change, view).settled.add(settled_s)

    async def _change(self, change: str) -> float | None:
        """When it was acknowledged. None: it failed; below 0: this store does not overwrite."""
        await self._asking.pace.patience()
        body = None if change == "delete" else f"{self.key} {change}".encode().ljust(BODY_BYTES + len(self._truths))
        try:
            if body is None:
                await self._asking.ask("delete", partial(self._writer.delete, self.key))
            else:
                await self._asking.ask("put", partial(self._writer.put, self.key, body))
        except (Exists, Denied, Unsupported):
            return -1.0 if change == "overwrite" else None
        except StoreError:
            return None
        self._truths.append(body)
        self._asking.hour().counts["changes"] += 1
        return self._asking.now()

    # ------------------------------------------------------------ looking

    async def _until_shown(self, change: str, view: str, since: float) -> None:
        asking, shown = self._asking, self._asking.tally.of(change, view)
        hour = asking.hour()
        last_old: float | None = None
        failed = False                                         # since the last old answer, or the change
        while True:
            asked, saw = await self._look(view)
            if saw == NEW:
                break
            if saw == OLD:
                last_old, failed = asked, False
            else:
                failed = True
            age = asking.now() - since
            if age >= self._plan.look_max_s:
                if last_old is not None:
                    shown.never += 1
                    shown.delays.add(age)
                    hour.delays.add(age)
                    if (change, view) == ("delete", "get"):
                        asking.tally.did_not_take += 1
                        hour.counts["ghosts"] += 1
                return
            failed |= await self._pause(age)
        gap = asked - (since if last_old is None else last_old)
        if failed and gap > max(UNSURE_S, UNSURE_PART * (asked - since)):
            return
        delay = 0.0 if last_old is None else asked - since
        shown.delays.add(delay)
        hour.delays.add(delay)
        self._settled[view] = delay

    async def _look_on(self, change: str, since: float) -> None:
        """Of the views that have shown it. The same one counts once a change."""
        asking, began, back = self._asking, self._asking.now(), set[str]()
        seen = [view for view in VIEWS if view in self._settled]

        async def once_more(view: str) -> None:
            asked, saw = await self._look(view)
            if saw != OLD:
                return
            if view not in back:
                back.add(view)
                asking.tally.of(change, view).came_back += 1
                asking.hour().counts["ghosts"] += change == "delete"
            returned = asked
            while saw != NEW and asked - returned < self._plan.look_max_s:
                await self._pause(asked - returned)
                asked, saw = await self._look(view)
            self._settled[view] = asked - since

        for later in self._plan.later_s(change):
            await asking.doors.clock.sleep(max(0.0, began + later - asking.now()))
            await asking.pace.patience()
            async with trio.open_nursery() as nursery:
                for view in self._some(seen, LATER_VIEWS[change]):
                    nursery.start_soon(once_more, view)

    async def _pause(self, age: float) -> bool:
        """Before the next look; whether the store asked for more than that."""
        pause = max(FIRST_PAUSE_S, GROWTH * age) * self._asking.doors.random.uniform(0.7, 1.0)
        held_s = self._asking.pace.held_s
        await self._asking.doors.clock.sleep(max(pause, held_s))
        return held_s > pause

    async def _look(self, view: str) -> tuple[float, str]:
        """When it was asked, and what it saw."""
        reader, = self._some(self._readers, 1)
        ways: Mapping[str, Callable[[], Seen]] = {
            "get": lambda: _or_nothing(lambda: reader.get(self.key)), "stat": lambda: _or_nothing(lambda: reader.stat(self.key).size),
            "list": lambda: next((info.size for info in reader.list(self._folder) if info.key == self.key), None),
            "folders": lambda: "here" in set(reader.folders(self._folder))}
        try:
            answer = await self._asking.ask(view, ways[view])
        except StoreError:
            return self._asking.now(), NONE
        asked, seen = answer.asked, answer.value
        if seen == self._expected(view, -1):
            return asked, NEW
        if seen in [self._expected(view, number) for number in range(len(self._truths) - 1)]:
            return asked, OLD
        what = f"{len(seen)} bytes" if isinstance(seen, bytes) else seen
        self._asking.tally.note_wrong(f"`{view}` saw {what}, which was true at no time")
        return asked, NONE

    def _expected(self, view: str, number: int) -> Seen:
        truth = self._truths[number]
        if view == "folders":
            return truth is not None
        return truth if view == "get" or truth is None else len(truth)

    def _some(self, of: Sequence[T], count: int) -> list[T]:
        """Any `count` of them, or all."""
        left, found = list(of), list[T]()
        while left and len(found) < count:
            found.append(left.pop(min(int(self._asking.doors.random.uniform(0, len(left))), len(left) - 1)))
        return found


def _or_nothing(look: Callable[[], T]) -> T | None:
    try:
        return look()
    except NotFound:
        return None
