"""The async door: nothing starves, nothing is abandoned, everything is counted."""
from __future__ import annotations

import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterator

import pytest
import trio
import trio.testing

from s3cfs.backends.base import Body, ObjectInfo
from s3cfs.backends.faulty import Fault, FaultyBackend
from s3cfs.backends.memory import MemoryBackend
from s3cfs.errors import Exists, NotFound, StoreError, Temporary
from tests.remote.kit import Jitter, remote_to, run


class Gated(MemoryBackend):
    """Calls on keys below pack/ wait at the gate; how many wait at once is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.lock = threading.Event(), threading.Lock()
        self.waiting = self.most = 0
        self.arrived = threading.Semaphore(0)

    def hold(self, key: str) -> None:
        if not key.startswith("pack/"):
            return
        with self.lock:
            self.waiting += 1
            self.most = max(self.most, self.waiting)
        self.arrived.release()
        self.gate.wait(30)
        with self.lock:
            self.waiting -= 1

    def put(self, key: str, data: Body, only_if_absent: bool = False) -> None:
        self.hold(key)
        super().put(key, data, only_if_absent)

    def get(self, key: str, offset: int = 0, size: int | None = None) -> bytes:
        self.hold(key)
        return super().get(key, offset, size)


def test_everything_passes_through() -> None:
    async def test() -> None:
        remote = remote_to(MemoryBackend())
        assert await remote.probe_create_only()
        await remote.put("log/main/1-a/1", b"record", only_if_absent=True)
        with pytest.raises(Exists):
            await remote.put("log/main/1-a/1", b"record", only_if_absent=True)
        assert await remote.get("log/main/1-a/1", 2, 3) == b"cor"
        assert (await remote.stat("log/main/1-a/1")).size == 6
        assert [info.key for info in await remote.list("log/")] == ["log/main/1-a/1"]
        await remote.delete("log/main/1-a/1")
        with pytest.raises(NotFound):
            await remote.get("log/main/1-a/1")
        await remote.check()
        await remote.close()

    run(test)


def test_a_commit_never_queues_behind_packs() -> None:
    async def test() -> None:
        backend = Gated()
        remote = remote_to(backend, uploads_at_once=2, downloads_at_once=2)
        await remote.put("log/0", b"x")
        async with trio.open_nursery() as nursery:
            for n in range(8):
                nursery.start_soon(remote.put, f"pack/aa/{n}", b"data")
            for _ in range(2):
                await trio.to_thread.run_sync(backend.arrived.acquire)
            await remote.put("log/1", b"record")
            assert await remote.get("log/0") == b"x"
            await remote.put("super/1", b"x")
            assert backend.most == 2
            backend.gate.set()
        assert backend.most == 2, "never more uploads at once than allowed"
        assert len(await remote.list("pack/")) == 8

    run(test)


def test_uploads_do_not_hold_up_reads_nor_reads_uploads() -> None:
    async def test() -> None:
        backend = Gated()
        remote = remote_to(backend, uploads_at_once=1, downloads_at_once=3)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(remote.put, "pack/aa/1", b"data")
            await trio.to_thread.run_sync(backend.arrived.acquire)

            async def read() -> None:
                with pytest.raises(NotFound):
                    await remote.get("pack/aa/none")

            for _ in range(5):
                nursery.start_soon(read)
            for _ in range(3):
                await trio.to_thread.run_sync(backend.arrived.acquire)
            assert backend.waiting == 4
            backend.gate.set()
        assert backend.most == 4

    run(test)


def test_a_cancelled_call_is_abandoned_and_keeps_its_slot_until_its_thread_ends() -> None:
    async def test() -> None:
        backend = Gated()
        remote = remote_to(backend, uploads_at_once=1)
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                async def cancel() -> None:
                    await trio.to_thread.run_sync(backend.arrived.acquire)
                    scope.cancel()

                nursery.start_soon(cancel)
                await remote.put("pack/aa/1", b"given up")
            assert scope.cancelled_caught and backend.waiting == 1
            nursery.start_soon(remote.put, "pack/aa/2", b"next")
            await trio.testing.wait_all_tasks_blocked()
            assert backend.waiting == 1, "its slot is still taken"
            backend.gate.set()
        assert MemoryBackend.get(backend, "pack/aa/1") == b"given up", "it took effect all the same"
        assert MemoryBackend.get(backend, "pack/aa/2") == b"next" and backend.most == 1

    run(test)


def test_the_counters() -> None:
    async def test() -> None:
        faulty = FaultyBackend(MemoryBackend())
        remote = remote_to(faulty, random=Jitter(highest=False))
        assert remote.last_success is None
        assert remote.snapshot()["seconds_since_success"] is None
        await remote.put("pack/aa/1", bytes(1000))
        await remote.put("log/1", memoryview(bytes(10)))
        await remote.get("pack/aa/1", 0, 100)
        faulty.script("get", Fault.BEFORE)
        await remote.get("pack/aa/1")
        with pytest.raises(NotFound):
            await remote.stat("log/2")
        await remote.list("log/")
        faulty.script("put", Fault.AFTER)
        with pytest.raises(Temporary):
            await remote.put("log/2", b"x", only_if_absent=True)
        found = remote.snapshot()
        assert found["requests"] == {"get": {"pack": 2}, "put": {"log": 2, "pack": 1}, "stat": {"log": 1}, "examine": {}, "delete": {},
                                     "list": {"log": 1}, "probe": {}, "check": {}}
        assert found["bytes_up"] == {"log": 10, "pack": 1000}
        assert found["bytes_down"] == {"pack": 1100}
        assert found["errors"] == {"put": {"Temporary": 1}}
        assert found["retries"] == 1
        assert "injected" in found["last_error"]
        assert found["seconds_since_success"] >= 0
        assert remote.last_success is not None
        await remote.get("log/2")
        assert remote.snapshot()["last_error"] is None

    run(test)


class Strange(MemoryBackend):
    """A third party's, with a bug in every call."""

    def get(self, key: str, offset: int = 0, size: int | None = None) -> bytes:
        raise RuntimeError("a bug")

    def put(self, key: str, data: Body, only_if_absent: bool = False) -> None:
        raise KeyError("a bug")

    def stat(self, key: str) -> ObjectInfo:
        raise OSError("a bug")

    def delete(self, key: str) -> None:
        raise TypeError("a bug")

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        yield ObjectInfo("pack/x", 1)
        raise ValueError("a bug")

    def probe_create_only(self, rounds: int = 1) -> bool:
        raise AssertionError("a bug")

    def check(self) -> None:
        raise ZeroDivisionError("a bug")


def test_whatever_a_backend_raises_is_an_error_of_the_store() -> None:
    async def test() -> None:
        remote = remote_to(Strange())
        calls: dict[tuple[str, str], Callable[[], Awaitable[object]]] = {
            ("get", "pack/x"): lambda: remote.get("pack/x", 5, 10), ("put", "pack/x"): lambda: remote.put("pack/x", b"data"),
            ("stat", "pack/x"): lambda: remote.stat("pack/x"), ("delete", "pack/x"): lambda: remote.delete("pack/x"),
            ("list", "pack/"): lambda: remote.list("pack/"), ("probe", "probe/"): remote.probe_create_only, ("check", ""): remote.check}
        for (operation, key), call in calls.items():
            with pytest.raises(StoreError, match="unexpected .*Error: .*a bug") as caught:
                await call()
            assert (caught.value.operation, caught.value.key, caught.value.retryable) == (operation, key, False)
        assert remote.snapshot()["errors"] == {operation: {"StoreError": 1} for operation, _ in calls}

    run(test)


def test_reads_that_hang_keep_no_sign_of_life_waiting():
    """Tier T2 lists the claims after each record."""
    async def test() -> None:
        store = Gated()
        store.put("claim/main/1-a", b"")
        remote = remote_to(store, downloads_at_once=1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: _ignore(remote.get("pack/00/x")))
            await trio.to_thread.run_sync(store.arrived.acquire)
            assert [info.key for info in await remote.list("claim/main/")] == ["claim/main/1-a"]
            store.gate.set()

    run(test)


async def _ignore(call: Awaitable[object]) -> None:
    with contextlib.suppress(NotFound):
        await call
