"""What a program does that overwrites and deletes the same keys again and again, as S3QL's metadata does, from many tasks at once."""
from __future__ import annotations

import random
from dataclasses import dataclass, field

import trio

from s3cfs.errors import Exists, NotFound, StoreError

from .judge import Judge, Write
from .kit import World

KEYS = [f"other/{name}" for name in ("a", "b", "c", "d/e", "d/f")]


@dataclass
class Load:
    world: World
    rng: random.Random
    patient: bool = True                   # nobody leaves before the answer
    judge: Judge = field(default_factory=Judge)
    last: dict[str, Write] = field(default_factory=dict)
    number: int = 0
    answers: int = 0
    errors: int = 0

    async def run(self, tasks: int, steps: int, pause_s: float = 10.0) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(tasks):
                nursery.start_soon(self._client, steps, pause_s)

    async def _client(self, steps: int, pause_s: float) -> None:
        for _ in range(steps):
            await trio.sleep(self.rng.uniform(0.0, pause_s))
            doing = self.rng.choice([self._put, self._put, self._create, self._get, self._get, self._range, self._stat, self._list,
                                     self._folders, self._delete, self._delete_many])
            with trio.move_on_after(float("inf") if self.patient or self.rng.random() < 0.6 else self.rng.uniform(0.0, 40.0)):
                await doing()
                self.answers += 1

    def _key(self) -> str:
        return self.rng.choice(KEYS)

    def _body(self) -> bytes:
        self.number += 1
        return f"{self.number:06d}".encode() + bytes(self.number)

    async def _write(self, keys: list[str], body: bytes | None, only_if_absent: bool = False) -> None:
        remote, now = self.world.remote, self.world.now
        writes = [self.judge.begins(key, None if body is None else len(body), now) for key in keys]
        try:
            if body is None:
                await remote.delete_many(keys)
            else:
                await remote.put(keys[0], body, only_if_absent)
        except Exists:
            for write in writes:
                write.refused = True
        except StoreError:
            self.errors += 1
            self._close_later(writes)
        except trio.Cancelled:
            self._close_later(writes)
            raise
        else:
            for write in writes:
                write.answered = write.closed = self.world.now

    def _close_later(self, writes: list[Write]) -> None:
        """When its threads have ended, nothing of it comes any more."""
        line = self.world.line

        async def close() -> None:
            await line.idle()
            for write in writes:
                write.closed = self.world.now
        trio.lowlevel.spawn_system_task(close)

    async def _put(self) -> None:
        await self._write([self._key()], self._body())

    async def _create(self) -> None:
        await self._write([self._key()], self._body(), only_if_absent=True)

    async def _delete(self) -> None:
        await self._write([self._key()], None)

    async def _delete_many(self) -> None:
        await self._write(self.rng.sample(KEYS, self.rng.randint(2, 4)), None)

    async def _read(self, what: str, key: str, offset: int = 0, size: int | None = None) -> None:
        remote, began = self.world.remote, self.world.now
        try:
            if what == "stat":
                found: int | None = (await remote.stat(key)).size
            else:
                data = await remote.get(key, offset, size)
                found = int(data[:6]) + 6 if not offset else len(data) + offset
                assert what == "range" or len(data) == found, "bytes of one version"
        except NotFound:
            found = None
        except StoreError:
            self.errors += 1
            return
        self.judge.read(what, key, found, began, self.world.now)

    async def _get(self) -> None:
        await self._read("get", self._key())

    async def _stat(self) -> None:
        await self._read("stat", self._key())

    async def _range(self) -> None:
        offset = self.rng.choice([0, 0, 6])
        await self._read("range", self._key(), offset, None if offset else self.rng.randint(6, 20))

    async def _list(self) -> None:
        prefix, began = self.rng.choice(["other/", "other/d/", ""]), self.world.now
        try:
            found = {info.key: info.size for info in await self.world.remote.list(prefix)}
        except StoreError:
            self.errors += 1
            return
        for key in KEYS:
            if key.startswith(prefix):
                self.judge.read("list", key, found.get(key), began, self.world.now)

    async def _folders(self) -> None:
        began = self.world.now
        try:
            found = await self.world.remote.folders("other/")
        except StoreError:
            self.errors += 1
            return
        if "d" not in found:                                       # one that is shown may have held something a moment ago
            for key in ("other/d/e", "other/d/f"):
                self.judge.read("folders", key, None, began, self.world.now)
