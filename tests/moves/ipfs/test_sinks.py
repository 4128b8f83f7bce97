"""Blocks on their way into a store: at once, again where the store hesitates, bounded, the root last."""
from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from s3cfs.backends.ipfs.cid import Cid, digest_of
from s3cfs.backends.ipfs.dag import Form
from s3cfs.backends.ipfs.exports import Exports
from s3cfs.backends.memory import MemoryBackend
from s3cfs.backends.types import Body
from s3cfs.backends.wrapper import Wrapper
from s3cfs.config import Settings
from s3cfs.errors import Denied, Interrupted, StoreError, SystemFailure, Temporary, Throttled
from s3cfs.moves.ipfs import export as module
from s3cfs.moves.ipfs import sinks
from s3cfs.moves.ipfs.export import ExportOptions, export
from s3cfs.moves.ipfs.sinks import Archive, Store
from tests.backends.ipfs.kubo import CLOSED, Fault, KuboServer
from tests.backends.ipfs.trees import ODD, SMALL, Blocks, on_disk, read


class Datastore(MemoryBackend):
    """`refuse` may raise instead of a block's being stored, or wait."""

    def __init__(self, refuse: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.refuse, self.lock, self.blocks, self.puts = refuse, threading.Lock(), Blocks(), 0
        self.roots: list[tuple[Cid, str]] = []

    def put_block(self, digest: bytes, data: Body) -> None:
        self.refuse()
        with self.lock:
            self.puts += 1
            assert digest_of(data) == digest
            self.blocks[digest] = bytes(data)

    def keep_root(self, cid: Cid, name: str) -> None:
        assert cid.digest in self.blocks
        self.roots.append((cid, name))


class Waits:
    """A clock that runs while somebody waits; at once."""

    def __init__(self) -> None:
        self.now, self.waited = 0.0, list[float]()

    def clock(self) -> float:
        return self.now

    def wait(self, event: threading.Event, seconds: float) -> bool:
        self.now += seconds
        self.waited.append(seconds)
        return event.is_set()


@contextmanager
def store(datastore: Datastore, at_once: int = 1) -> Iterator[tuple[Store, Waits]]:
    waits = Waits()
    made = Store(datastore, "photos", at_once, clock=waits.clock, wait=waits.wait)
    try:
        yield made, waits
    finally:
        made.close()


def block(i: int) -> tuple[Cid, bytes]:
    data = b"%d" % i
    return Cid(1, 0x55, digest_of(data)), data


def times(count: int, error: StoreError) -> Callable[[], None]:
    left = [count]

    def refuse() -> None:
        if left[0]:
            left[0] -= 1
            raise error
    return refuse


def test_a_store_that_hesitates() -> None:
    with store(Datastore(times(4, Temporary("put", "x")))) as (sink, waits):
        sink.put(*block(1))
        sink.finish(block(1)[0])
        assert waits.waited == [0.5, 1, 2, 4]
    with store(Datastore(times(1, Throttled("put", "x", "slow down", 17.0)))) as (sink, waits):
        sink.put(*block(1))
        sink.finish(block(1)[0])
        assert waits.waited == [17]


def test_a_store_that_is_away_for_long() -> None:
    with store(Datastore(times(1000, Temporary("put", "x", "no route")))) as (sink, waits):
        sink.put(*block(1))
        with pytest.raises(Temporary, match="no route"):
            sink.finish(block(1)[0])
        assert 90 < sum(waits.waited) <= 120


def test_a_store_that_refuses() -> None:
    """No second try; what comes after is told so, and the root is never named."""
    datastore = Datastore(times(1, Denied("put", "x", "not yours")))
    with store(datastore) as (sink, waits):
        with pytest.raises(Denied, match="not yours"):
            for i in range(1000):
                sink.put(*block(i))
        with pytest.raises(Denied, match="not yours"):
            sink.finish(block(0)[0])
    assert datastore.roots == [] and waits.waited == []


def test_what_waits_is_bounded() -> None:
    """Three at once, and three more that wait."""
    go, under_way = threading.Event(), threading.Semaphore(0)

    def refuse() -> None:
        under_way.release()
        assert go.wait(10)

    datastore = Datastore(refuse)
    with store(datastore, 3) as (sink, _):
        for i in range(6):
            sink.put(*block(i))
        for _ in range(3):
            assert under_way.acquire(timeout=10)
        more = threading.Thread(target=sink.put, args=block(6))
        more.start()
        assert datastore.puts == 0 and not under_way.acquire(blocking=False) and more.is_alive()
        go.set()
        more.join(10)
        sink.finish(block(0)[0])
    assert datastore.puts == 7 and datastore.roots == [(block(0)[0], "photos")]


def test_given_up_while_somebody_waits() -> None:
    """Who waits for room, and who waits for the store, are let go."""
    trying = threading.Event()

    def refuse() -> None:
        trying.set()
        raise Temporary("put", "x", "no route")

    sink = Store(Datastore(refuse), "photos", 1)
    sink.put(*block(0))
    assert trying.wait(10)
    sink.abandon()
    with pytest.raises((Interrupted, Temporary)):
        sink.put(*block(1))
    sink.close()


def test_the_same_block_goes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "REMEMBERED", 2)
    datastore = Datastore()
    with store(datastore) as (sink, _):
        for i in (0, 0, 1, 0, 2, 2, 0):                    # two are remembered: 0 is forgotten when 2 comes
            sink.put(*block(i))
        sink.finish(block(0)[0])
    assert datastore.puts == 4


@pytest.mark.parametrize("wrap", [lambda backend: backend, Wrapper])
def test_a_tree_goes_into_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrap: Callable[[Datastore], Datastore]) -> None:
    datastore = Datastore(times(3, Temporary("put", "x")))
    monkeypatch.setattr(sinks, "FIRST_WAIT_S", 0.0)
    assert isinstance(datastore, Exports) and not isinstance(MemoryBackend(), Exports)
    monkeypatch.setattr(module, "open_store", lambda settings: wrap(datastore))
    top = on_disk(SMALL, tmp_path / "photos")
    result = export(f"{top}/", Settings("ipfs+s3://x", ""), ExportOptions(car=str(tmp_path / "x.car")), lambda path, text: None,
                    lambda event: None)
    ((root, name),) = datastore.roots
    assert str(root) == result.cid and name == "photos" and read(root, datastore.blocks) == SMALL and (tmp_path / "x.car").exists()


def test_a_tree_goes_into_a_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that closes connections now and then; pinned in the end, under a name that is text."""
    monkeypatch.setattr(sinks, "FIRST_WAIT_S", 0.0)
    top = on_disk(ODD, tmp_path / "odd\udcff\n")
    with KuboServer() as server:
        server.faults += [Fault("block/put", CLOSED), Fault("pin/add", CLOSED), Fault("block/put", CLOSED, first=True)]
        result = export(str(top), Settings(server.url("x"), "", backend_options={"no-ssl": ""}), ExportOptions(), lambda path, text: None,
                        lambda event: None)
        assert server.node.pins == {result.cid: "s3cfs-export/odd\ufffd "} and not server.faults
        blocks = Blocks(server.node.blocks)
    assert read(Cid.parse(result.cid), blocks) == ODD


def test_an_end_while_the_store_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for another try, nor for room."""
    top = on_disk({"a": bytes(range(100)), "b": b"x"}, tmp_path / "top")
    real, broken, full = os.pread, (top / "b").stat().st_ino, threading.Event()

    def pread(fd: int, size: int, at: int) -> bytes:
        if os.fstat(fd).st_ino == broken:
            assert full.wait(10)
            raise OSError(5, "Input/output error")
        return real(fd, size, at)

    def progress(event: Mapping[str, Any]) -> None:
        if event["done"] == 2 * at_once:
            full.set()

    datastore = Datastore(times(1000, Temporary("put", "x", "no route")))
    at_once = datastore.capabilities.parallel_writes
    monkeypatch.setattr(sinks, "FIRST_WAIT_S", 600.0)
    monkeypatch.setattr(sinks, "PATIENCE_S", 6000.0)
    monkeypatch.setattr(os, "pread", pread)
    monkeypatch.setattr(module, "open_store", lambda settings: datastore)
    with pytest.raises(SystemFailure, match="top/b: Input/output error"):
        export(str(top), Settings("ipfs+s3://x", ""), ExportOptions(Form(leaf_bytes=1)), lambda path, text: None, progress)
    assert datastore.puts == 0 and datastore.roots == []


def test_sections_of_an_archive_are_whole() -> None:
    """However many write at once."""
    class File(BytesIO):
        def write(self, data: Any) -> int:
            assert not sections or sections[0]._lock.locked()
            return super().write(data)

    sections: list[Archive] = []
    sections.append(Archive(File(), block(1)[0]))
    sections[0].put(*block(1))
