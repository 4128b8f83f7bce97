"""A store whose answers are old for a while, and what this process wrote there."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import trio

from s3cfs.backends.base import Backend, Body, Capabilities, ObjectInfo
from s3cfs.backends.memory import MemoryBackend
from s3cfs.backends.settling import SETTLES_S, Settling
from s3cfs.backends.wrapper import Wrapper
from s3cfs.doors import SystemClock
from s3cfs.errors import Exists, NotFound, StoreError, Temporary, Unsupported
from s3cfs.remote.lines import Lines
from tests.backends.face import a_call, some_doors

CALL = a_call()


class Late(Wrapper):
    """Shows the world as it was when `now` was called last."""

    def __init__(self, inner: Backend, linearizable: bool | None = False) -> None:
        super().__init__(inner)
        self.linearizable, self._shown = linearizable, dict[str, bytes]()

    @property
    def capabilities(self) -> Capabilities:
        return replace(self.inner.capabilities, linearizable=self.linearizable)

    def now(self) -> None:
        self._shown = {info.key: self.inner.get(info.key) for info in self.inner.list("")}

    def get(self, key: str, offset: int = 0, size: int | None = None) -> bytes:
        if key not in self._shown:
            raise NotFound("get", key)
        return self._shown[key]

    def stat(self, key: str) -> ObjectInfo:
        return ObjectInfo(key, len(self.get(key)))

    def put(self, key: str, data: Body, only_if_absent: bool = False) -> None:
        self.inner.put(key, data, only_if_absent)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return iter([ObjectInfo(key, len(data)) for key, data in self._shown.items() if key.startswith(prefix)])


class LateClock(SystemClock):
    offset_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.offset_s


def made(late: Late, clock: LateClock) -> Settling:
    layer = Settling()
    doors = replace(some_doors(), clock=clock)
    layer.stand_on(Lines(late, doors), doors, "")
    return layer


def test_what_was_put_is_there_for_the_one_who_put_it() -> None:
    async def test() -> None:
        late, clock = Late(MemoryBackend()), LateClock()
        layer = made(late, clock)
        await layer.put("log/main/1", b"abc", False, CALL)
        with pytest.raises(Temporary, match="does not show yet"):
            await layer.get("log/main/1", 0, None, CALL)
        with pytest.raises(Temporary):
            await layer.stat("log/main/1", CALL)
        with pytest.raises(NotFound):
            await layer.get("log/main/2", 0, None, CALL)
        assert await layer.list("log/", CALL) == [ObjectInfo("log/main/1", 3)] and await layer.list("pack/", CALL) == []
        assert await layer.folders("log/", CALL) == ["main"] and await layer.folders("log/main/", CALL) == []
        assert layer.status() == {"remembered": 1, "late_answers": 3}
        late.now()
        assert await layer.get("log/main/1", 0, None, CALL) == b"abc"
        await layer.delete(["log/main/1"], CALL)
        assert await layer.list("log/", CALL) == []
        assert len(await late_list(layer)) == 1

    async def late_list(layer: Settling) -> list[ObjectInfo]:
        return await layer.below.list("log/", CALL)

    trio.run(test)


def test_after_a_while_the_store_is_believed() -> None:
    async def test() -> None:
        late, clock = Late(MemoryBackend()), LateClock()
        layer = made(late, clock)
        await layer.put("pack/1", b"abc", False, CALL)
        clock.offset_s = SETTLES_S + 1
        with pytest.raises(NotFound):
            await layer.get("pack/1", 0, None, CALL)
        assert await layer.list("pack/", CALL) == []
        await layer.put("pack/2", b"abc", False, CALL)
        assert layer.status()["remembered"] == 1

    trio.run(test)


@pytest.mark.parametrize("linearizable", [True, None])
def test_where_answers_are_not_old_it_does_nothing(linearizable: bool | None) -> None:
    async def test() -> None:
        layer = made(Late(MemoryBackend(), linearizable), LateClock())
        await layer.put("pack/1", b"abc", False, CALL)
        with pytest.raises(NotFound):
            await layer.get("pack/1", 0, None, CALL)
        assert await layer.list("pack/", CALL) == [] and layer.status() == {}

    trio.run(test)


@pytest.mark.parametrize("how", ["put", "delete"])
def test_of_what_was_not_answered_it_knows_nothing(how: str) -> None:
    """It may have been carried out: what was there before is no answer any more, and its absence is none."""
    async def test() -> None:
        late = Late(MemoryBackend())
        layer = made(late, LateClock())
        await layer.put("pack/1", b"abc", False, CALL)
        setattr(late, how, _no_answer)
        with pytest.raises(Temporary):
            await (layer.put("pack/1", b"abcd", False, CALL) if how == "put" else layer.delete(["pack/1"], CALL))
        with pytest.raises(NotFound):
            await layer.get("pack/1", 0, None, CALL)
        assert await layer.list("pack/", CALL) == []

    trio.run(test)


@pytest.mark.parametrize("error", [Exists, Unsupported, Temporary])
def test_a_create_only_put_takes_nothing_away(error: type[StoreError]) -> None:
    """A mount tries one with its own newest record, to see that the store refuses it."""
    def fails(*args: object) -> None:
        raise error("put", "log/1", "no")

    async def test() -> None:
        late = Late(MemoryBackend())
        layer = made(late, LateClock())
        await layer.put("log/1", b"abc", False, CALL)
        late.put = fails                         # type: ignore[method-assign, assignment]
        with pytest.raises(error):
            await layer.put("log/1", b"abc", True, CALL)
        with pytest.raises(Temporary, match="does not show yet"):
            await layer.get("log/1", 0, None, CALL)

    trio.run(test)


def _no_answer(*args: object) -> None:
    raise Temporary("put", "pack/1", "no answer")
