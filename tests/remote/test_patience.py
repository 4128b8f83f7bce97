"""What is tried again, how often, and for how long."""
from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import pytest
import trio

from s3cfs.backends.base import Backend, Body, Listing, ObjectInfo
from s3cfs.backends.faulty import Fault, FaultyBackend, Rates
from s3cfs.backends.memory import MemoryBackend
from s3cfs.errors import BucketMissing, Corrupt, Denied, Exists, NotFound, StoreError, StoreFull, Temporary, Throttled
from s3cfs.remote import Remote
from s3cfs.remote.patience import BACKOFF_MAX_S, FIRST_BACKOFF_S
from tests.remote.kit import AtOnce, Jitter, TrioClock, remote_to, virtual_time

T = TypeVar("T")


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


class Patient:
    """A Remote on virtual time, whose pauses are kept."""

    def __init__(self, inner: Backend, *, highest: bool = True, deadline_s: float = 120.0) -> None:
        self._time = virtual_time()
        self.clock, self.jitter = TrioClock(self._time), Jitter(highest)
        self.remote: Remote = remote_to(inner, clock=self.clock, random=self.jitter, threads=AtOnce(), store_deadline_s=deadline_s)
        self.took = 0.0

    def get(self, key: str) -> bytes:
        return self.run(lambda: self.remote.get(key))

    def put(self, key: str, data: bytes, only_if_absent: bool = False) -> None:
        self.run(lambda: self.remote.put(key, data, only_if_absent))

    def list(self, prefix: str) -> list[ObjectInfo]:
        return self.run(lambda: self.remote.list(prefix))

    def run(self, call: Callable[[], Awaitable[T]]) -> T:
        async def main() -> T:
            began = trio.current_time()
            try:
                return await call()
            finally:
                self.took = trio.current_time() - began
        return trio.run(main, clock=self._time)


def temporary() -> Temporary:
    return Temporary("get", "a/1", "broken")


def throttled(after: float | None, *, refused: bool = True) -> Throttled:
    return Throttled("get", "a/1", "slow down", after, refused=refused)


def test_backoff_doubles_up_to_its_cap_and_is_fully_jittered() -> None:
    patient = Patient(Failing(*(temporary() for _ in range(9))))
    patient.put("a/1", b"x")
    assert patient.clock.pauses == [min(BACKOFF_MAX_S, FIRST_BACKOFF_S * 2**n) for n in range(9)]
    assert patient.jitter.asked[:2] == [(0.0, FIRST_BACKOFF_S), (0.0, 2 * FIRST_BACKOFF_S)]
    assert patient.remote.snapshot()["retries"] == 9


def test_the_deadline_ends_it_with_the_last_error() -> None:
    inner = Failing(*(Temporary("get", "a/1", str(n)) for n in range(1000)))
    patient = Patient(inner, deadline_s=60.0)
    with pytest.raises(Temporary) as caught:
        patient.get("a/1")
    assert patient.took <= 60.0
    assert caught.value.cause == str(inner.attempts - 1)
    assert sum(patient.clock.pauses) > 60.0 - BACKOFF_MAX_S


def test_retry_after_is_a_lower_bound() -> None:
    patient = Patient(Failing(throttled(7.0)), highest=False)
    patient.put("a/1", b"x")
    assert patient.clock.pauses == [7.0]


def test_retry_after_beyond_the_deadline_ends_it_at_once() -> None:
    inner = Failing(throttled(500.0))
    patient = Patient(inner)
    with pytest.raises(Throttled):
        patient.put("a/1", b"x")
    assert (inner.attempts, patient.clock.pauses) == (1, [])


@pytest.mark.parametrize("error", [NotFound, Denied, BucketMissing, StoreFull, Exists])
def test_what_will_not_change_is_not_tried_again(error: type[StoreError]) -> None:
    inner = Failing(error("get", "a/1"))
    patient = Patient(inner)
    with pytest.raises(error):
        patient.get("a/1")
    assert (inner.attempts, patient.clock.pauses) == (1, [])


@pytest.mark.parametrize(("error", "attempts"), [(temporary(), 1), (throttled(None, refused=False), 1), (throttled(None), 2),
                                                 (Corrupt("put", "a/1", "damaged"), 2)])
def test_a_create_only_put_is_repeated_only_when_it_surely_did_not_happen(error: StoreError, attempts: int) -> None:
    inner = Failing(error)
    patient = Patient(inner)
    if attempts == 1:
        with pytest.raises(type(error)):
            patient.put("a/1", b"x", only_if_absent=True)
    else:
        patient.put("a/1", b"x", only_if_absent=True)
        assert patient.get("a/1") == b"x"
    assert inner.attempts - (attempts == 2) == attempts


def test_a_won_race_with_a_lost_reply_is_not_reported_as_lost() -> None:
    faulty = FaultyBackend(MemoryBackend())
    patient = Patient(faulty)
    faulty.script("put", Fault.AFTER)
    with pytest.raises(Temporary):
        patient.put("log/1", b"mine", only_if_absent=True)
    assert patient.get("log/1") == b"mine", "the caller settles it by reading"


class Paged(MemoryBackend):
    """A listing that can be gone on with, and breaks off before each tenth entry."""

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        class Pages(Listing):
            def __init__(self, found: list[ObjectInfo]) -> None:
                self.found, self.at, self.failed = found, 0, -1

            def __next__(self) -> ObjectInfo:
                if self.at % 10 == 0 and self.failed < self.at:
                    self.failed = self.at
                    raise temporary()
                if self.at == len(self.found):
                    raise StopIteration
                self.at += 1
                return self.found[self.at - 1]
        return Pages(list(super().list(prefix)))


@pytest.mark.parametrize("resumable", [True, False])
def test_a_listing_that_breaks_off_is_complete_and_without_doubles(resumable: bool) -> None:
    names = {f"a/{n}" for n in range(25)}
    inner = Paged() if resumable else Failing(temporary(), temporary(), temporary())
    for name in names:
        MemoryBackend.put(inner, name, b"")
    found = [info.key for info in Patient(inner).list("a/")]
    assert len(found) == 25
    assert set(found) == names


def test_a_listing_that_stays_broken_is_an_error_not_a_short_listing() -> None:
    inner = Failing(*(temporary() for _ in range(1000)))
    for n in range(5):
        MemoryBackend.put(inner, f"a/{n}", b"")
    with pytest.raises(Temporary):
        Patient(inner).list("a/")


def test_transient_faults_of_everything_but_puts_are_hidden() -> None:
    faulty = FaultyBackend(MemoryBackend(), 7, Rates(before=0.1, after=0.1, throttled=0.1), operations=("get", "stat", "delete", "list"))
    patient = Patient(faulty)
    remote = patient.remote
    for n in range(40):
        faulty.put(f"a/{n}", b"data")

    async def everything() -> None:
        for n in range(40):
            assert await remote.get(f"a/{n}") == b"data" and (await remote.stat(f"a/{n}")).size == 4
        assert len(await remote.list("a/")) == 40 and await remote.folders("") == ["a"]
        for n in range(40):
            await remote.delete(f"a/{n}")
        assert await remote.list("a/") == []

    patient.run(everything)
    assert remote.retries > 20
