"""The life of layers: who stands on whom, when they work, what is told of them and to them."""
from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from s3cfs.backends.base import Backend, Body, Capabilities, Degraded
from s3cfs.backends.layer import Call, Layer
from s3cfs.backends.memory import MemoryBackend
from s3cfs.backends.pieces import HEAD_BYTES
from s3cfs.backends.settling import SETTLES_S
from s3cfs.backends.wrapper import Wrapper
from s3cfs.errors import ConfigError, NoFilesystem, NotFound
from s3cfs.limits import GIB, KIB
from s3cfs.remote import Remote
from s3cfs.remote.remote import WHOLE_AGAIN_S
from tests.backends.face import some_doors
from tests.remote.kit import AtOnce, TrioClock, run, virtual_time


class Told(Layer):
    """Writes down what happens to it."""

    def __init__(self, name: str, events: list[str], **how: Any) -> None:
        self.name, self.events, self.how = name, events, how
        self.value = "one"

    async def run(self) -> None:
        self.events.append(f"{self.name} begins")
        if "breaks" in self.how:
            raise RuntimeError(self.how["breaks"])
        try:
            await trio.sleep_forever()
        finally:
            self.events.append(f"{self.name} ends")

    async def put(self, key: str, data: Body, only_if_absent: bool, call: Call) -> Degraded | None:
        self.events.append(f"{self.name} puts {key}")
        return await self.below.put(key, data, only_if_absent, call)

    def status(self) -> Mapping[str, Any]:
        if "mute" in self.how:
            raise RuntimeError(self.how["mute"])
        return {"value": self.value}

    def settings(self) -> Mapping[str, str]:
        return {"value": self.value}

    def change(self, setting: str, value: str) -> None:
        if value == "bug":
            raise RuntimeError("oh")
        if value == "no":
            raise ConfigError("value is not no")
        self.value = value


class Store(Wrapper):
    """With layers, a folder and a nature of its own."""

    def __init__(self, events: list[str], layers: Sequence[Layer] = (), *, keeps: bool = False, **nature: Any) -> None:
        super().__init__(MemoryBackend())
        self.events, self._layers, self._keeps, self.nature = events, layers, keeps, nature
        self.answers: Iterator[Degraded | None] = iter(())

    @property
    def capabilities(self) -> Capabilities:
        return replace(self.inner.capabilities, **self.nature)

    @property
    def keeps_state(self) -> bool:
        return self._keeps

    def start(self, folder: str) -> None:
        mode = stat.S_IMODE(os.stat(folder).st_mode)
        self.events.append(f"start {Path(folder).name} {mode:o}")

    def layers(self) -> Sequence[Layer]:
        return self._layers

    def put(self, key: str, data: Body, only_if_absent: bool = False) -> Degraded | None:
        self.events.append(f"store puts {key}")
        self.inner.put(key, data, only_if_absent)
        return next(self.answers, None)

    def close(self) -> None:
        self.events.append("close")


def remote_on(backend: Backend, folder: Path | None = None) -> Remote:
    return Remote(backend, some_doors(str(folder) if folder else None))


def test_a_life(tmp_path: Path) -> None:
    """The folder first, then the layers' work, then requests, through the topmost first; and the other way round."""
    events: list[str] = []
    store = Store(events, [Told("upper", events), Told("lower", events)], keeps=True)

    async def test() -> None:
        async with remote_on(store, tmp_path / "state").running() as remote:
            assert sorted(events[1:]) == ["lower begins", "upper begins"], "before anything is asked"
            del events[1:]
            await remote.put("pack/aa/1", b"x")
            await remote.check()
        assert events == ["start backend 700", "upper puts pack/aa/1", "lower puts pack/aa/1", "store puts pack/aa/1",
                          *events[4:6], "close"]
        assert sorted(events[4:6]) == ["lower ends", "upper ends"]

    run(test)


def test_of_a_store_without_oddities_no_layer_has_anything_to_tell() -> None:
    for stack in (remote_on(Store([])).stack, remote_on(Store([], largest_object_bytes=5 * GIB)).stack):
        assert [layer.name for layer in stack.layers] == ["pieces"] and stack.status() == {} == stack.settings()


@pytest.mark.parametrize(("nature", "names"), [
    ({"largest_object_bytes": 64 * KIB}, ["pieces", "own"]), ({"linearizable": False}, ["pieces", "settling", "own"]),
    ({"linearizable": None, "largest_object_bytes": 64 * KIB}, ["pieces", "settling", "own"])])
def test_the_projects_layers_stand_above(nature: Mapping[str, Any], names: list[str]) -> None:
    remote = remote_on(Store([], [Told("own", [])], **nature))
    assert [layer.name for layer in remote.stack.layers] == names
    assert remote.capabilities.largest_object_bytes == nature.get("largest_object_bytes"), "what makes objects shall know"


def test_stacks_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="same name: pieces, one, one"):
        remote_on(Store([], [Told("one", []), Told("one", [])]))
    with pytest.raises(ConfigError, match="too little"):
        remote_on(Store([], largest_object_bytes=HEAD_BYTES - 1))


def test_a_layer_whose_work_breaks_does_not_end_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    events: list[str] = []

    async def test() -> None:
        async with remote_on(Store(events, [Told("good", events), Told("bad", events, breaks="no disk")])).running() as remote:
            await remote.put("pack/aa/1", b"x")
            assert remote.snapshot()["layers"] == {
                "good": {"value": "one"},
                "bad": {"value": "one", "degraded": "its background work has ended: RuntimeError: no disk"}}
        assert "good ends" in events and "bad" in caplog.text

    run(test)


def test_a_layer_that_cannot_have_its_folder(tmp_path: Path) -> None:
    """What it would keep there is a copy: the mount goes on."""
    layer = Told("keeper", [])
    layer.keeps_state = True
    (tmp_path / "layers").write_bytes(b"in the way")

    async def test() -> None:
        async with remote_on(Store([], [layer]), tmp_path).running() as remote:
            await remote.put("pack/aa/1", b"x")
            assert "its background work has ended" in remote.snapshot()["layers"]["keeper"]["degraded"]

    run(test)


@pytest.mark.parametrize("error", [NoFilesystem("nothing here"), KeyboardInterrupt(), RuntimeError("a bug")])
def test_what_its_user_raises_comes_out_as_it_was(error: BaseException) -> None:
    """Not in a group: commands make one line of it."""
    events: list[str] = []

    async def test() -> None:
        async with remote_on(Store(events, [Told("one", events)])).running():
            raise error

    with pytest.raises(type(error)) as caught:
        run(test)
    assert caught.value is error and events[-1] == "close"


def test_settings_are_shown_and_changed() -> None:
    stack = remote_on(Store([], [Told("one", []), Told("two", [])], linearizable=False)).stack
    assert stack.settings() == {"one": {"value": "one"}, "two": {"value": "one"}} and stack.settings("pieces") == {"pieces": {}}
    stack.change("two", {"value": "new"})
    assert stack.settings("two") == {"two": {"value": "new"}} and stack.settings("one") == {"one": {"value": "one"}}
    for name, changes, says in (("three", {}, "no layer 'three'; it has pieces, settling, one, two"),
                                ("one", {"speed": "1"}, "layer one has no setting 'speed'; it has value"),
                                ("settling", {"speed": "1"}, "layer settling has no setting 'speed'$"),
                                ("one", {"value": "no"}, "value is not no"), ("one", {"value": "bug"}, "could not be changed")):
        with pytest.raises(ConfigError, match=says):
            stack.change(name, changes)
    with pytest.raises(ConfigError):
        stack.change("one", {"value": "new", "speed": "1"})
    assert stack.settings("one") == {"one": {"value": "one"}}, "all or nothing, where a name is wrong"


def test_a_layer_that_cannot_tell_its_status() -> None:
    told = remote_on(Store([], [Told("one", [], mute="oh")])).stack.status()
    assert told == {"one": {"degraded": "its status cannot be told: RuntimeError: oh"}}


@pytest.mark.parametrize("linearizable", [True, False])
def test_what_is_named_is_there_though_the_store_does_not_show_it_yet(linearizable: bool) -> None:
    """An earlier process wrote it; nothing may be called missing for a store that is late."""
    class Late(Store):
        looks = 0

        def get(self, key: str, offset: int = 0, size: int | None = None) -> bytes:
            self.looks += 1
            if self.looks == self.shows_at:
                return b"x"
            raise NotFound("get", key)

        shows_at = 3

    async def test() -> None:
        store = Late([], linearizable=linearizable)
        async with Remote(store, replace(some_doors(), clock=TrioClock(mock), store_threads=AtOnce())).running() as remote:
            if linearizable:
                with pytest.raises(NotFound):
                    await remote.get("pack/aa/1", named=True)
                assert store.looks == 1
                return
            assert await remote.get("pack/aa/1", named=True) == b"x" and store.looks == 3
            with pytest.raises(NotFound):
                await remote.get("claim/main/1")
            await trio.sleep(SETTLES_S)
            with pytest.raises(NotFound):
                await remote.get("pack/aa/1", named=True)

    mock = virtual_time()
    trio.run(test, clock=mock)


def test_degraded_until_puts_are_whole_again_for_a_while() -> None:
    store = Store([])

    async def test() -> None:
        clock = TrioClock(mock)
        remote = Remote(store, replace(some_doors(), clock=clock, store_threads=AtOnce()))
        assert remote.degraded_now is None
        store.answers = iter([None, Degraded("one copy short"), Degraded("two copies short"), None, None])
        told: list[str | None] = []
        for _ in range(4):
            await remote.put("pack/aa/1", b"x")
            told.append(remote.degraded_now)
        assert told == [None, "one copy short", "two copies short", "two copies short"]
        assert remote.snapshot()["degraded"] == {"puts": {"pack": 2}, "reason": "two copies short"}
        await trio.sleep(WHOLE_AGAIN_S + 1)
        assert remote.degraded_now is None and remote.snapshot()["degraded"] == {"puts": {"pack": 2}, "reason": None}
        store.answers = iter([Degraded("again")])
        await remote.put("pack/aa/1", b"x")
        await trio.sleep(WHOLE_AGAIN_S + 1)
        assert remote.degraded_now == "again", "nothing was put whole since: nobody knows better"

    mock = virtual_time()
    mock.rate = 0.0
    trio.run(test, clock=mock)
