"""What a run leaves lying about, and who may take it away: each folder's name says until when somebody may be using it."""
from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial

from s3cfs.backends.base import Backend
from s3cfs.backends.measuring.asking import Asking
from s3cfs.errors import StoreError

FOLDER = "probe/"
_NAME = re.compile(r"long-(\d{1,12})-([0-9a-f]{16})-(\d+)")      # until (seconds since the epoch), run, number
ATTEMPTS = 5
PAUSE_S = 1.0


class Litter:
    def __init__(self, asking: Asking, writer: Backend) -> None:
        self._asking, self._writer = asking, writer
        self._run = asking.doors.random.bytes(8).hex()
        self._count = 0
        self._there: dict[str, None] = {}          # keys that may be: of a store that lists late, nobody else knows

    def key(self, life_s: float, name: str) -> str:
        """In a new folder, which is nobody else's."""
        self._count += 1
        key = f"{FOLDER}long-{int(self._asking.doors.clock.time_ns() / 1e9 + life_s)}-{self._run}-{self._count}/{name}"
        self._there[key] = None
        return key

    async def remove(self, keys: Sequence[str]) -> bool:
        """Whether the store said that they are."""
        for _ in range(ATTEMPTS):
            try:
                await self._asking.ask("", partial(self._writer.delete_many, keys), small=False)
                for key in keys:
                    self._there.pop(key, None)
                return True
            except StoreError as error:
                if not error.retryable:
                    return False
            await self._asking.doors.clock.sleep(PAUSE_S + self._asking.pace.held_s)
        return False

    async def sweep(self) -> None:
        """Remove what is surely nobody's any more."""
        await self._remove_listed(ours=False)

    async def tidy(self) -> None:
        """At the end. What does not go, or comes back, is swept up by a later run."""
        await self._remove_all([*self._there])
        for _ in range(ATTEMPTS):                  # deletes may not take
            if not await self._remove_listed(ours=True):
                return
            await self._asking.doors.clock.sleep(PAUSE_S)

    async def _remove_listed(self, *, ours: bool) -> bool:
        """Whether there were any."""
        try:
            found = (await self._asking.ask("", partial(self._listed, ours), small=False)).value
        except StoreError:
            return True
        await self._remove_all(found)
        return bool(found)

    async def _remove_all(self, keys: Sequence[str]) -> None:
        batch = max(1, self._writer.capabilities.batch_delete)
        for at in range(0, len(keys), batch):
            await self.remove(keys[at:at + batch])

    def _listed(self, ours: bool) -> list[str]:
        now_s = self._asking.doors.clock.time_ns() / 1e9
        keys = []
        for name in self._writer.folders(FOLDER):
            if (words := _NAME.fullmatch(name)) and (int(words[1]) < now_s or (ours and words[2] == self._run)):
                keys += [info.key for info in self._writer.list(f"{FOLDER}{name}/")]
        return keys
