"""Retry, faults, recording: what the suite does not say about them."""
from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

import pytest

from s3cfs.backends.base import Backend, Body, ObjectInfo
from s3cfs.backends.faulty import Fault, FaultyBackend, Rates
from s3cfs.backends.memory import MemoryBackend
from s3cfs.backends.recorder import Call, RecorderBackend
from s3cfs.backends.retry import BACKOFF_MAX_S, FIRST_BACKOFF_S, RetryBackend
from s3cfs.errors import BucketMissing, Corrupt, Denied, Exists, NotFound, StoreError, StoreFull, Temporary, Throttled


class FakeTime:
    """Clock and sleep of a test: sleeping is what makes time pass."""

    def __init__(self) -> None:
        self.now, self.pauses = 1000.0, list[float]()

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


class Failing(MemoryBackend):
    """Raises what it is told to, in turn, before doing anything."""

    def __init__(self, *failures: StoreError) -> None:
        super().__init__()
        self.failures = list(failures)
        self.attempts = 0

    def fail(self) -> None:
        self.attempts += 1
        if self.failures:
            raise self.failures.pop(0)

    def get(self, key: str, offset: int = 0, size: int | None = None) -> bytes:
        self.fail()
        return super().get(key, offset, size)

    def put(self, key: str, data: Body, only_if_absent: bool = False) -> None:
        self.fail()
        super().put(key, data, only_if_absent)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """A plain generator that breaks off after its first entry as long as there are failures."""
        for number, info in enumerate(list(super().list(prefix))):
            if number == 1:
                self.fail()
            yield info


def patient(inner: Backend, time: FakeTime, *, highest: bool = True, deadline_s: float = 120.0,
            on_retry: Callable[[StoreError, float], None] | None = None) -> RetryBackend:
    return RetryBackend(inner, deadline_s=deadline_s, clock=time.clock, sleep=time.sleep, on_retry=on_retry,
                        uniform=lambda low, high: high if highest else low)


def temporary() -> Temporary:
    return Temporary("get", "a/1", "broken")


def throttled(after: float | None, *, refused: bool = True) -> Throttled:
    return Throttled("get", "a/1", "slow down", after, refused=refused)


# ---------------------------------------------------------------- retry

def test_backoff_doubles_up_to_its_cap_and_is_fully_jittered() -> None:
    time, inner = FakeTime(), Failing(*(temporary() for _ in range(9)))
    patient(inner, time).put("a/1", b"x")
    assert time.pauses == [min(BACKOFF_MAX_S, FIRST_BACKOFF_S * 2**n) for n in range(9)]
    seen: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        seen.append((low, high))
        return 0.0

    RetryBackend(Failing(temporary(), temporary()), clock=time.clock, sleep=time.sleep, uniform=uniform).put("a/1", b"x")
    assert seen == [(0.0, FIRST_BACKOFF_S), (0.0, 2 * FIRST_BACKOFF_S)]


def test_the_deadline_ends_it_with_the_last_error() -> None:
    time, inner = FakeTime(), Failing(*(Temporary("get", "a/1", str(n)) for n in range(1000)))
    with pytest.raises(Temporary) as caught:
        patient(inner, time, deadline_s=60.0).get("a/1")
    assert time.now <= 1060.0
    assert caught.value.cause == str(inner.attempts - 1)
    assert sum(time.pauses) > 60.0 - BACKOFF_MAX_S


def test_an_attempt_during_which_the_process_was_stopped_does_not_count() -> None:
    time = FakeTime()

    class Stopped(Failing):
        def fail(self) -> None:
            if self.attempts == 0:
                time.now += 3600.0
            super().fail()

    store = Stopped(Temporary("get", "k", "broken pipe"), Temporary("get", "k", "once more"))
    MemoryBackend.put(store, "k", b"x")
    assert RetryBackend(store, deadline_s=120.0, clock=time.clock, sleep=time.sleep).get("k") == b"x" and store.attempts == 3


def test_retry_after_is_a_lower_bound() -> None:
    time = FakeTime()
    patient(Failing(throttled(7.0)), time, highest=False).put("a/1", b"x")
    assert time.pauses == [7.0]


def test_retry_after_beyond_the_deadline_ends_it_at_once() -> None:
    time, inner = FakeTime(), Failing(throttled(500.0))
    with pytest.raises(Throttled):
        patient(inner, time).put("a/1", b"x")
    assert (inner.attempts, time.pauses) == (1, [])


@pytest.mark.parametrize("error", [NotFound, Denied, BucketMissing, StoreFull, Exists])
def test_what_will_not_change_is_not_tried_again(error: type[StoreError]) -> None:
    time, inner = FakeTime(), Failing(error("get", "a/1"))
    with pytest.raises(error):
        patient(inner, time).get("a/1")
    assert (inner.attempts, time.pauses) == (1, [])


@pytest.mark.parametrize(("error", "attempts"), [(temporary(), 1), (throttled(None, refused=False), 1), (throttled(None), 2),
                                                 (Corrupt("put", "a/1", "damaged"), 2)])
def test_a_create_only_put_is_repeated_only_when_it_surely_did_not_happen(error: StoreError, attempts: int) -> None:
    time, inner = FakeTime(), Failing(error)
    backend = patient(inner, time)
    if attempts == 1:
        with pytest.raises(type(error)):
            backend.put("a/1", b"x", only_if_absent=True)
    else:
        backend.put("a/1", b"x", only_if_absent=True)
        assert backend.get("a/1") == b"x"
    assert inner.attempts - (attempts == 2) == attempts


def test_a_won_race_with_a_lost_reply_is_not_reported_as_lost() -> None:
    faulty = FaultyBackend(MemoryBackend())
    backend = patient(faulty, FakeTime())
    faulty.script("put", Fault.AFTER)
    with pytest.raises(Temporary):
        backend.put("log/1", b"mine", only_if_absent=True)
    assert backend.get("log/1") == b"mine", "the caller settles it by reading"


def test_the_end_of_the_mount_ends_the_waiting() -> None:
    stop, inner = threading.Event(), Failing(*(temporary() for _ in range(100)))
    stop.set()
    backend = RetryBackend(inner, sleep=stop.wait)
    with pytest.raises(Temporary):
        backend.get("a/1")
    assert inner.attempts == 1


def test_retries_are_counted_and_told() -> None:
    told: list[tuple[str, float]] = []
    backend = patient(Failing(temporary(), temporary()), FakeTime(), on_retry=lambda error, pause: told.append((error.key, pause)))
    backend.put("a/1", b"x")
    assert backend.retries == 2
    assert told == [("a/1", FIRST_BACKOFF_S), ("a/1", 2 * FIRST_BACKOFF_S)]


@pytest.mark.parametrize("resumable", [True, False])
def test_a_listing_that_breaks_off_is_complete_and_without_doubles(resumable: bool) -> None:
    names = {f"a/{n}" for n in range(20)}
    broken = Failing(temporary(), temporary(), temporary())
    inner: Backend = broken
    if resumable:
        inner = FaultyBackend(MemoryBackend())
        inner.script("list", Fault.AFTER)
    for name in names:
        MemoryBackend.put(broken, name, b"") if not resumable else inner.put(name, b"")
    found = [info.key for info in patient(inner, FakeTime()).list("a/")]
    assert len(found) == 20
    assert set(found) == names
    assert resumable or broken.attempts == 4


def test_a_listing_that_stays_broken_is_an_error_not_a_short_listing() -> None:
    inner = Failing(*(temporary() for _ in range(1000)))
    for n in range(5):
        MemoryBackend.put(inner, f"a/{n}", b"")
    with pytest.raises(Temporary):
        list(patient(inner, FakeTime()).list("a/"))


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


def test_below_the_retry_wrapper_every_attempt_is_seen() -> None:
    recorder = RecorderBackend(Failing(temporary(), temporary()))
    patient(recorder, FakeTime()).put("a/1", b"x")
    assert [call.error for call in recorder.calls] == ["Temporary", "Temporary", ""]
