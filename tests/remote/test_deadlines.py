"""Q1: whoever asks has an answer or an error at the end of the silence that was promised, whatever threads, slots and queues are at."""
from __future__ import annotations

import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import pytest
import trio
import trio.testing

from s3cfs.backends.base import Body, ObjectInfo
from s3cfs.backends.layer import Call, Lane
from s3cfs.backends.memory import MemoryBackend
from s3cfs.backends.progress import Progress
from s3cfs.backends.registry import open_backend
from s3cfs.backends.s3c import POOL_CONNECTIONS
from s3cfs.backends.types import Capabilities
from s3cfs.errors import StoreError, Temporary
from s3cfs.limits import DEFAULTS
from s3cfs.remote import Remote
from s3cfs.remote.lines import slots_of
from tests.remote.kit import AtOnce, Jitter, TrioClock, remote_to, run, virtual_time

T = TypeVar("T")
CALLERS = 200


class Hanging(MemoryBackend):
    """Says nothing until the gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.threads = 0

    def _hang(self) -> None:
        self.threads += 1
        self.gate.wait(60)

    def get(self, key: str, offset: int = 0, size: int | None = None) -> bytes:
        self._hang()
        return super().get(key, offset, size)

    def put(self, key: str, data: Body, only_if_absent: bool = False) -> None:
        self._hang()
        super().put(key, data, only_if_absent)

    def stat(self, key: str) -> ObjectInfo:
        self._hang()
        return super().stat(key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        self._hang()
        return super().list(prefix)

    def delete(self, key: str) -> None:
        self._hang()
        super().delete(key)


def call_of(remote: Remote, number: int) -> Awaitable[object]:
    """Reads, packs, records, looks: a bit of each."""
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: remote.get(f"pack/00/{number}"), lambda: remote.put(f"pack/00/{number}", b"pack"),
        lambda: remote.put(f"log/main/1-a/{number}", b"record", True), lambda: remote.stat(f"pack/00/{number}"),
        lambda: remote.list("log/"), lambda: remote.list("claim/"), lambda: remote.folders("log/"),
        lambda: remote.delete(f"claim/{number}")]
    return calls[number % len(calls)]()


async def all_at_once(remote: Remote, clock: Callable[[], float]) -> list[float]:
    """What each of the callers waited."""
    waited: list[float] = []

    async def caller(number: int) -> None:
        began = clock()
        with pytest.raises(StoreError):
            await call_of(remote, number)
        waited.append(clock() - began)

    async with trio.open_nursery() as nursery:
        for number in range(CALLERS):
            nursery.start_soon(caller, number)
    return waited


def test_two_hundred_callers_of_a_store_that_hangs() -> None:
    """In real threads, which keep their slots; beside them local fsyncs go on."""
    async def test() -> None:
        store = Hanging()
        store.assume_create_only(True)
        remote = remote_to(store, store_deadline_s=1.5)
        synced = 0

        async def sync() -> None:
            nonlocal synced
            while True:
                await remote.doors.threads.run(lambda: None)
                synced += 1
                await trio.sleep(0.01)

        async with trio.open_nursery() as beside:
            beside.start_soon(sync)
            waited = await all_at_once(remote, trio.current_time)
            assert synced > 3, "not one of them waited for the store"
            beside.cancel_scope.cancel()
        assert len(waited) == CALLERS and min(waited) >= 1.5 and max(waited) < 20
        busy = sum(slots.busy for slots in remote.stack.lines.slots.values())
        assert store.threads == busy == 8 + remote.slots(Lane.BULK) + 4, "no further thread is eaten"
        assert remote.away_since is None and "no answer within 1.5 s" in remote.snapshot()["last_error"]
        store.gate.set()
        with trio.fail_after(10):
            while any(slots.busy for slots in remote.stack.lines.slots.values()):
                await trio.lowlevel.checkpoint()
        await remote.put("log/1", b"x")
        assert await remote.get("log/1") == b"x"

    run(test)


def test_two_hundred_callers_of_a_socket_that_says_nothing() -> None:
    """It accepts, and that is all; the tcp-timeout is far away."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as server:
        url = f"s3c://127.0.0.1:{server.getsockname()[1]}/bucket/"
        store = open_backend(url, {"no-ssl": "", "tcp-timeout": "60"}, login="login", password="password")
        store.assume_create_only(True)

        async def test() -> list[float]:
            return await all_at_once(remote_to(store, store_deadline_s=1.0), trio.current_time)

        waited = run(test)
        assert len(waited) == CALLERS and min(waited) >= 1.0 and max(waited) < 20


# ---------------------------------------------------------------- on virtual time

class Away(MemoryBackend):
    """Fails at once while `away`."""

    away = True
    attempts = 0

    def get(self, key: str, offset: int = 0, size: int | None = None) -> bytes:
        self.attempts += 1
        if self.away and key.endswith("away"):
            raise Temporary("get", key, "away")
        return super().get(key, offset, size)


def test_sleeping_holds_no_slot() -> None:
    """One slot, a call in backoff: another goes through at once."""
    time = virtual_time()
    store = Away()
    store.put("pack/there", b"data")
    remote = remote_to(store, clock=TrioClock(time), random=Jitter(), threads=AtOnce(), downloads_at_once=1)

    async def test() -> None:
        async def patiently() -> None:
            with pytest.raises(Temporary):
                await remote.get("pack/away")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(patiently)
            await trio.sleep(10)
            assert store.attempts > 5
            began = trio.current_time()
            assert await remote.get("pack/there") == b"data" and trio.current_time() == began
            assert remote.away_since is None and remote.last_error is None

    trio.run(test, clock=time)


class Never(AtOnce):
    """Threads that hang and never end."""

    async def run(self, function: Callable[..., T], *args: Any, ended: Callable[[], None]) -> T:
        await trio.sleep_forever()
        raise AssertionError


class Slowly(AtOnce):
    """Threads of a slow line: a piece comes every 30 s, ten of them are an answer, and then it may break off."""

    def __init__(self, breaks: int) -> None:
        self.breaks = breaks
        self.attempts = 0

    async def run(self, function: Callable[..., T], *args: Any, ended: Callable[[], None]) -> T:
        call: Call = args[0]
        self.attempts += 1
        try:
            for _ in range(10):
                await trio.sleep(30)
                call.progress.moved()
            if self.attempts <= self.breaks:
                raise Temporary("get", "pack/x", "connection lost")
            return function(*args)
        finally:
            ended()


def test_the_deadline_counts_from_the_asking() -> None:
    """Ten calls, one slot, a store that hangs: nobody waits longer for having had to queue."""
    time = virtual_time()

    async def test() -> None:
        remote = remote_to(MemoryBackend(), clock=TrioClock(time), threads=Never(), downloads_at_once=1)
        waited: list[float] = []

        async def caller(after_s: float) -> None:
            await trio.sleep(after_s)
            began = trio.current_time()
            with pytest.raises(Temporary, match="no answer within 120 s"):
                await remote.stat("pack/x")
            waited.append(trio.current_time() - began)

        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(caller, 7.0 * number)
        assert waited == [pytest.approx(120.0)] * 10

    trio.run(test, clock=time)


def test_bytes_that_flow_are_no_silence() -> None:
    """Five minutes for an answer, which breaks off once at its very end: the reader gets it."""
    time = virtual_time()
    store = MemoryBackend()
    store.put("pack/x", b"data")
    threads = Slowly(breaks=1)
    remote = remote_to(store, clock=TrioClock(time), threads=threads)

    async def test() -> None:
        assert await remote.get("pack/x") == b"data"
        assert threads.attempts == 2 and trio.current_time() >= 600

    trio.run(test, clock=time)


def test_what_always_breaks_off_is_given_up_some_day() -> None:
    time = virtual_time()
    threads = Slowly(breaks=1000)
    remote = remote_to(MemoryBackend(), clock=TrioClock(time), random=Jitter(), threads=threads)

    async def test() -> None:
        with pytest.raises(Temporary, match="connection lost"):
            await remote.get("pack/x")
        assert 5 < threads.attempts < 20

    trio.run(test, clock=time)


def test_what_the_process_slept_through_does_not_count() -> None:
    """Stopped for an hour in the middle of a call: it has its two minutes all the same."""
    time = trio.testing.MockClock()

    async def test() -> None:
        remote = remote_to(MemoryBackend(), clock=TrioClock(time), threads=Never())
        outcome: list[str] = []

        async def caller() -> None:
            with pytest.raises(Temporary):
                await remote.get("pack/x")
            outcome.append("given up")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(caller)
            for seconds in (5, 3600, 5, 5, 3600, *(5,) * 18):
                await trio.testing.wait_all_tasks_blocked()
                time.jump(seconds)
            await trio.testing.wait_all_tasks_blocked()
            assert not outcome
            time.jump(5)

    trio.run(test, clock=time)


def test_answers_to_those_before_it_are_progress_of_who_queues() -> None:
    """Forty calls, one slot, ten seconds each: all are answered, the last one after more than six minutes."""
    time = virtual_time()

    class TenSeconds(AtOnce):
        async def run(self, function: Callable[..., T], *args: Any, ended: Callable[[], None]) -> T:
            await trio.sleep(10)
            return await super().run(function, *args, ended=ended)

    store = MemoryBackend()
    store.put("pack/x", b"data")
    remote = remote_to(store, clock=TrioClock(time), threads=TenSeconds(), downloads_at_once=1)

    async def test() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(40):
                nursery.start_soon(remote.get, "pack/x")
        assert trio.current_time() >= 400 and remote.snapshot()["errors"] == {}

    trio.run(test, clock=time)


def test_a_quiet_call_waits_until_nobody_else_does() -> None:
    time = virtual_time()
    order: list[str] = []

    class OneSecond(AtOnce):
        async def run(self, function: Callable[..., T], *args: Any, ended: Callable[[], None]) -> T:
            order.append(args[0].lane)
            await trio.sleep(1)
            return await super().run(function, *args, ended=ended)

    store = MemoryBackend()
    store.put("pack/x", b"data")
    remote = remote_to(store, clock=TrioClock(time), threads=OneSecond(), downloads_at_once=1)

    async def quiet() -> None:
        await trio.sleep(0.5)
        assert await remote.stack.top.stat("pack/x", Call(Lane.QUIET, 1e9, Progress(remote.doors.clock.monotonic)))

    async def test() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(quiet)
            for _ in range(3):
                nursery.start_soon(remote.get, "pack/x")
        assert order.count("read") == 3 and order.index("quiet") >= 2, "not before the last of them has its slot"
        assert trio.current_time() == pytest.approx(3.0)

    trio.run(test, clock=time)


def test_each_call_finds_a_connection() -> None:
    assert sum(slots_of(DEFAULTS, Capabilities()).values()) <= POOL_CONNECTIONS
