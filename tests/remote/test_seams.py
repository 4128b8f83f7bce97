"""What a layer is given beside its calls: threads that go on are counted, time held back is no silence, the true bytes, who asked."""
from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

import pytest
import trio

from s3cfs.backends.base import Body, Degraded
from s3cfs.backends.layer import Call, Layer, Originals, Running
from s3cfs.backends.memory import MemoryBackend
from s3cfs.backends.wrapper import Wrapper
from s3cfs.errors import ObjectMissing, Temporary
from tests.remote.kit import AtOnce, TrioClock, remote_to, run, virtual_time


class With(Wrapper):
    """A store in memory with one layer."""

    def __init__(self, layer: Layer) -> None:
        super().__init__(MemoryBackend())
        self._layer = layer

    def layers(self) -> Sequence[Layer]:
        return (self._layer,)


class Counting(Layer):
    """Hands down who counts, and remembers when nothing was under way any more."""

    name = "counting"

    def __init__(self) -> None:
        self.running = Running()
        self.over = trio.Event()
        self.callers: list[str] = []

    async def put(self, key: str, data: Body, only_if_absent: bool, call: Call) -> Degraded | None:
        self.callers.append(call.caller)
        try:
            return await self.below.put(key, data, only_if_absent, replace(call, running=self.running))
        finally:
            self.running.when_none(self.over.set)


def test_a_layer_knows_when_an_abandoned_put_has_ended() -> None:
    layer = Counting()
    store = With(layer)
    begun, gate = threading.Event(), threading.Event()

    def put(key: str, data: Body, only_if_absent: bool = False) -> None:
        begun.set()
        gate.wait(20)

    store.put = put                        # type: ignore[method-assign]

    async def test() -> None:
        remote = remote_to(store, store_deadline_s=0.2)
        with pytest.raises(Temporary):
            await remote.put("pack/x", b"x")
        assert begun.is_set() and layer.running.count == 1 and not layer.over.is_set()
        gate.set()
        await layer.over.wait()
        assert not layer.running.count and layer.callers == [trio.lowlevel.current_task().name] != [""]

    run(test)


def test_nothing_under_way_is_known_at_once() -> None:
    said: list[str] = []
    running = Running()
    running.when_none(lambda: said.append("at once"))
    running.began()
    running.began()
    running.ended()
    running.when_none(lambda: said.append("later"))
    assert said == ["at once"]
    running.ended()
    assert said == ["at once", "later"]


@pytest.mark.parametrize("held", [True, False])
def test_time_that_a_layer_holds_a_call_back_is_no_silence(held: bool) -> None:
    time = virtual_time()

    class Holding(Layer):
        name = "holding"

        async def stat(self, key: str, call: Call) -> object:      # type: ignore[override]
            if held:
                with call.progress.held():
                    await trio.sleep(500)
            else:
                await trio.sleep(500)
            return await self.below.stat(key, call)

    store = With(Holding())
    store.put("pack/x", b"data")
    remote = remote_to(store, clock=TrioClock(time), threads=AtOnce())

    async def test() -> None:
        if held:
            assert (await remote.stat("pack/x")).size == 4 and trio.current_time() >= 500
        else:
            with pytest.raises(Temporary, match="no answer within 120 s"):
                await remote.stat("pack/x")

    trio.run(test, clock=time)


def test_true_bytes_come_from_whoever_knows_that_kind() -> None:
    originals = Originals()

    async def packs(key: str) -> bytes | None:
        if key == "pack/broken":
            raise ObjectMissing("not here any more")
        if key == "pack/unreadable":
            raise OSError(5, "the disk is ill")
        return key.encode() if key == "pack/x" else None

    originals.add("pack", packs)

    async def test() -> None:
        assert await originals.of("pack/x") == b"pack/x"
        for key in ("pack/y", "pack/broken", "pack/unreadable", "log/x"):
            assert await originals.of(key) is None

    trio.run(test)


def test_remote_and_its_layers_have_the_same_ones() -> None:
    layer = Counting()
    remote = remote_to(With(layer))
    assert layer.originals is remote.originals
