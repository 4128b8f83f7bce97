"""Faults, recording: what the suite does not say about them."""
from __future__ import annotations

import contextlib

import pytest

from s3cfs.backends.faulty import Fault, FaultyBackend, Rates
from s3cfs.backends.memory import MemoryBackend
from s3cfs.backends.recorder import Call, RecorderBackend
from s3cfs.errors import NotFound, StoreError, Temporary, Throttled

# ---------------------------------------------------------------- faulty

def run_of(seed: int) -> list[tuple[str, str, Fault]]:
    backend = FaultyBackend(MemoryBackend(), seed, Rates(0.1, 0.1, 0.1, 0.1, 0.1, 0.1))
    for n in range(200):
        for call in (lambda n=n: backend.put(f"a/{n}", b"data"), lambda n=n: backend.get(f"a/{n}"), lambda: list(backend.list("a/"))):
            with contextlib.suppress(StoreError):
                call()
    return backend.injected


def test_one_seed_is_one_run() -> None:
    assert run_of(7) == run_of(7)
    assert run_of(7) != run_of(8)
    assert {fault for _, _, fault in run_of(7)} == set(Fault)


def test_every_fault_does_what_it_says() -> None:
    inner = MemoryBackend()
    backend = FaultyBackend(inner, seed=3, retry_after_s=9.0)
    backend.script("put", Fault.BEFORE)
    with pytest.raises(Temporary):
        backend.put("a/1", b"data")
    assert list(inner.list("")) == []
    backend.script("put", Fault.AFTER)
    with pytest.raises(Temporary):
        backend.put("a/1", b"data")
    assert inner.get("a/1") == b"data"
    backend.script("get", Fault.THROTTLED)
    with pytest.raises(Throttled) as caught:
        backend.get("a/1")
    assert caught.value.retry_after == 9.0
    for operation, call in (("get", lambda: backend.get("a/1")), ("stat", lambda: backend.stat("a/1"))):
        backend.script(operation, Fault.STALE)
        with pytest.raises(NotFound):
            call()
    inner.put("a/old", b"")
    backend.script("list", Fault.STALE)
    assert [info.key for info in backend.list("a/")] == ["a/old"]
    backend.script("get", Fault.TRUNCATED)
    assert len(backend.get("a/1")) < 4
    backend.script("get", Fault.FLIPPED)
    flipped = backend.get("a/1")
    assert sum((a ^ b).bit_count() for a, b in zip(flipped, b"data", strict=True)) == 1
    backend.script("delete", Fault.AFTER, prefix="a/1")
    backend.delete("a/old")
    with pytest.raises(Temporary):
        backend.delete("a/1")
    assert list(inner.list("")) == []
    backend.put("a/1", b"again")
    assert backend.get("a/1") == b"again"


def test_staleness_passes() -> None:
    backend = FaultyBackend(MemoryBackend(), rates=Rates(stale=1.0), stale_calls=3)
    backend.put("a/1", b"data")
    answers = []
    for _ in range(5):
        try:
            answers.append(backend.get("a/1"))
        except NotFound:
            answers.append(b"")
    assert answers == [b"", b"", b"data", b"data", b"data"]


# ---------------------------------------------------------------- recorder

def test_calls_are_recorded_as_they_were_made() -> None:
    recorder = RecorderBackend(MemoryBackend())
    recorder.put("pack/aa/1", b"data")
    recorder.put("log/1", memoryview(b"data")[1:], only_if_absent=True)
    recorder.get("pack/aa/1", 1, 2)
    with pytest.raises(NotFound):
        recorder.stat("pack/aa/2")
    list(recorder.list("log/"))
    assert recorder.counts() == {("put", "pack"): 1, ("put", "log"): 1, ("get", "pack"): 1, ("stat", "pack"): 1, ("list", "log"): 1}
    assert recorder.take() == [
        Call("put", "pack/aa/1", size=4), Call("put", "log/1", size=3, only_if_absent=True), Call("get", "pack/aa/1", offset=1, size=2),
        Call("stat", "pack/aa/2", error="NotFound"), Call("list", "log/")]
    assert recorder.calls == []
    recorder.delete("log/1")
    assert [(call.operation, call.kind) for call in recorder.calls] == [("delete", "log")]
