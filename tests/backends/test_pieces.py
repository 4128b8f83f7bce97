"""Objects larger than a store takes: the suite through the layer, faults in every place, and a store without the layer as the measure."""
from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s3cfs.backends.base import Backend, Capabilities, Degraded
from s3cfs.backends.faulty import Fault, FaultyBackend, Rates
from s3cfs.backends.local import LocalBackend
from s3cfs.backends.memory import MemoryBackend
from s3cfs.backends.pieces import FOLDER, HEAD_BYTES, MAGIC, Head, Pieces
from s3cfs.backends.wrapper import Wrapper
from s3cfs.errors import Corrupt, Exists, NotFound, StoreError, Temporary, Unsupported
from s3cfs.formats.envelope import padme
from tests.backends.face import Face, Layered, Small
from tests.backends.suite import BackendSuite, some_bytes

KIB, MIB = 1 << 10, 1 << 20


@pytest.fixture
def made() -> Iterator[Callable[..., Layered]]:
    faces: list[Layered] = []

    def make(inner: Backend | None = None, largest: int = 1000, **how: bool) -> Layered:
        faces.append(Layered(Small(inner or MemoryBackend(), largest, **how), [Pieces()]))
        return faces[-1]

    yield make
    for face in faces:
        face.close()


def pieces_in(backend: Backend) -> list[str]:
    return sorted(info.key for info in backend.list(FOLDER))


def store_of(face: Layered) -> MemoryBackend:
    small = face.inner
    assert isinstance(small, Small) and isinstance(small.inner, MemoryBackend)
    return small.inner


class TestInMemory(BackendSuite):
    create_only = True

    @pytest.fixture
    def backend(self) -> Iterator[Backend]:
        face = Layered(Small(MemoryBackend(), 64 * KIB), [Pieces()])
        yield face
        face.close()


class TestInAFolder(BackendSuite):
    """Pieces of a quarter of what is put in the race and the ranges: heads and pieces everywhere."""

    create_only = True
    many = 300

    @pytest.fixture
    def backend(self, tmp_path: Path) -> Iterator[Backend]:
        local = LocalBackend(str(tmp_path / "store"))
        local.create()
        face = Layered(Small(local, HEAD_BYTES), [Pieces()])
        yield face
        face.close()

    def test_a_large_object_and_its_ranges(self, backend: Backend) -> None:
        data = some_bytes(200 * KIB + 17)
        backend.put("pack/bb/large", data)
        for offset, size in ((0, None), (0, 16), (100 * KIB + 3, 4096), (200 * KIB, 17), (200 * KIB, MIB), (HEAD_BYTES, HEAD_BYTES)):
            assert backend.get("pack/bb/large", offset, size) == data[offset:][:size]

    @pytest.mark.parametrize("size", [0, 1, HEAD_BYTES - 1, HEAD_BYTES, HEAD_BYTES + 1, 2 * HEAD_BYTES, 20_000])
    def test_what_was_put_is_got(self, backend: Backend, size: int) -> None:
        backend.put("pack/aa/one", some_bytes(size))
        assert backend.get("pack/aa/one") == some_bytes(size) and backend.stat("pack/aa/one").size == size

    def test_every_kind_of_body(self, backend: Backend) -> None:           # type: ignore[override]
        for kind in (bytes, bytearray, memoryview):
            backend.put("log/body", kind(some_bytes(9000)))
            assert backend.get("log/body") == some_bytes(9000)

    def test_a_put_is_seen_whole_or_not_at_all(self, backend: Backend) -> None:
        data = some_bytes(20_000)
        done, seen = threading.Event(), list[bool]()

        def reader() -> None:
            while not done.is_set():
                try:
                    seen.append(backend.get("pack/ff/1") == data)
                except NotFound:
                    pass

        thread = threading.Thread(target=reader)
        thread.start()
        backend.put("pack/ff/1", data)
        seen.append(backend.get("pack/ff/1") == data)
        done.set()
        thread.join()
        assert all(seen)


def test_a_head_is_of_a_size_that_nothing_else_has() -> None:
    head = Head(2**32, 2**20, "0123456789abcdef" * 2)
    assert len(head.encode()) == HEAD_BYTES and Head.decode(head.encode()) == head
    assert padme(HEAD_BYTES) != HEAD_BYTES and HEAD_BYTES < 512, "nor a padded object nor a record"
    assert Head.decode(Head(2**40, 2**20, "ab" * 16).encode()) is None, "larger than anything that is made"
    assert Head.decode(Head(2**30, 1000, "ab" * 16).encode()) is None, "of more pieces than anything that is made"
    for at in range(HEAD_BYTES):
        damaged = bytearray(head.encode())
        damaged[at] ^= 1
        assert Head.decode(damaged) is None


def test_only_what_is_too_large_is_in_pieces(made: Callable[..., Layered]) -> None:
    face = made()
    face.put("pack/aa/1", bytes(1000))
    assert pieces_in(store_of(face)) == []
    face.put("pack/aa/2", bytes(1001))
    assert [key.rpartition("/")[2] for key in pieces_in(store_of(face))] == ["0", "1"]
    assert face.top.status() == {"stored": 1, "leftovers": 0, "pieces_put": 2, "pieces_got": 0}      # type: ignore[attr-defined]
    assert store_of(face).stat("pack/aa/2").size == HEAD_BYTES
    assert {info.key: info.size for info in face.list("")} == {"pack/aa/1": 1000, "pack/aa/2": 1001}
    assert list(face.list(FOLDER)) == [] == list(face.folders(FOLDER)) and list(face.folders("")) == ["pack"]


def test_what_was_copied_to_a_larger_store_is_read_there(made: Callable[..., Layered]) -> None:
    face = made()
    face.put("pack/aa/1", some_bytes(5000))
    face.put("pack/aa/2", some_bytes(500))
    larger = Layered(store_of(face), [Pieces()])
    try:
        assert larger.get("pack/aa/1") == some_bytes(5000) and larger.get("pack/aa/1", 999, 2) == some_bytes(5000)[999:1001]
        assert {info.key: info.size for info in larger.list("")} == {"pack/aa/1": 5000, "pack/aa/2": 500}
        larger.put("pack/aa/3", some_bytes(5000))
        assert store_of(face).get("pack/aa/3") == some_bytes(5000) == face.get("pack/aa/3")
        larger.delete_many(["pack/aa/1", "pack/aa/2", "pack/aa/3"])
        assert list(store_of(face).list("")) == []
    finally:
        larger.close()


def test_what_looks_like_a_head_comes_back_as_it_was(made: Callable[..., Layered]) -> None:
    """Somebody's bytes that are a head, bit for bit; and a longer object that begins with one."""
    for bait in (Head(5000, 1000, "ab" * 16).encode(), MAGIC.ljust(HEAD_BYTES, b"x"), Head(5000, 1000, "ab" * 16).encode() + b"more",
                 Head(5000, 1000, "ab" * 16).encode()[:-1]):
        face = made()
        face.put("pack/aa/1", bait)
        for where in (face, made(store_of(face))):            # the one that wrote it, and one that knows nothing
            assert where.get("pack/aa/1") == bait and where.stat("pack/aa/1").size == len(bait)
            for offset, size in ((0, HEAD_BYTES), (0, 16), (5, 10), (HEAD_BYTES - 3, 3), (HEAD_BYTES, None), (HEAD_BYTES - 1, 5)):
                assert where.get("pack/aa/1", offset, size) == bait[offset:][:size], (offset, size)
            assert [info.size for info in where.list("pack/")] == [len(bait)]


def test_a_range_costs_its_pieces_and_no_more(made: Callable[..., Layered]) -> None:
    store = MemoryBackend()
    made(store).put("pack/aa/1", some_bytes(10_000))
    asked: list[str] = []

    class Watched(Wrapper):
        def get(self, key: str, offset: int = 0, size: int | None = None) -> bytes:
            asked.append(key.rpartition("/")[2] if key.startswith(FOLDER) else "head")
            return self.inner.get(key, offset, size)

    face = made(Watched(store))
    assert face.get("pack/aa/1", 2500, 1000) == some_bytes(10_000)[2500:3500]
    assert asked[:2] == ["head", "head"] and sorted(asked[2:]) == ["2", "3"], "what it is is not known at first"
    asked.clear()
    assert face.get("pack/aa/1", 9990, 100) == some_bytes(10_000)[9990:] and asked == ["9"]


def test_deleted_are_the_pieces_too(made: Callable[..., Layered]) -> None:
    face = made()
    for key in ("pack/aa/1", "pack/aa/2", "pack/aa/3"):
        face.put(key, some_bytes(3500, len(key)))
    fresh = made(store_of(face))
    fresh.delete_many(["pack/aa/1"])
    fresh.delete("pack/aa/2")
    fresh.delete("pack/aa/never")
    assert [info.key for info in fresh.list("")] == ["pack/aa/3"] and len(pieces_in(store_of(face))) == 4
    with pytest.raises(NotFound, match="pack/aa/1"):
        face.get("pack/aa/1", 0, 10)                          # which remembers the head


def test_where_nothing_can_be_deleted_all_stays(made: Callable[..., Layered]) -> None:
    face = made(may_delete=False)
    face.put("pack/aa/1", some_bytes(3500))
    with pytest.raises(Unsupported):
        face.delete("pack/aa/1")
    assert face.get("pack/aa/1") == some_bytes(3500)


def test_the_loser_of_a_race_takes_its_pieces_along(made: Callable[..., Layered]) -> None:
    face = made()
    barrier, outcome = threading.Barrier(6), list[object]()

    def racer(number: int) -> None:
        barrier.wait()
        try:
            face.put("log/1", some_bytes(4000, number), only_if_absent=True)
            outcome.append(number)
        except Exists as lost:
            outcome.append(lost)

    threads = [threading.Thread(target=racer, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winner, = [one for one in outcome if isinstance(one, int)]
    assert face.get("log/1") == some_bytes(4000, winner) and len(pieces_in(store_of(face))) == 4


def test_what_is_taken_costs_no_pieces(made: Callable[..., Layered]) -> None:
    face = made()
    face.put("log/1", b"first", only_if_absent=True)
    with pytest.raises(Exists):
        face.put("log/1", some_bytes(5000), only_if_absent=True)
    assert pieces_in(store_of(face)) == [] and face.get("log/1") == b"first"


def test_an_object_of_too_many_pieces_is_refused(made: Callable[..., Layered], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s3cfs.backends.pieces.PIECES_MAX", 3)
    face = made()
    face.put("pack/aa/1", bytes(3000))
    with pytest.raises(StoreError, match="3001 bytes are too many for a store that takes 1000"):
        face.put("pack/aa/2", bytes(3001))
    assert face.get("pack/aa/1") == bytes(3000)


def test_degraded_pieces_make_a_degraded_object(made: Callable[..., Layered]) -> None:
    face = made()
    assert isinstance(face.inner, Small)
    face.inner.degraded["/2"] = Degraded("one copy short")
    assert face.put("pack/aa/1", some_bytes(2000)) is None
    assert face.put("pack/aa/3", some_bytes(2500)) == Degraded("one copy short")


def test_a_repeated_put_goes_on_where_it_was(made: Callable[..., Layered]) -> None:
    """With a hundred pieces and a store that fails now and then no attempt would ever get through all of them."""
    store = MemoryBackend()
    face = made(FaultyBackend(store, 3, Rates(before=0.1, after=0.1, throttled=0.1), operations=("put",)))
    data, attempts = some_bytes(100_000), 0
    while True:
        attempts += 1
        try:
            face.put("pack/aa/1", data)
            break
        except StoreError as error:
            assert error.retryable and attempts < 60, "it gets nowhere"
            with pytest.raises(NotFound):
                store.get("pack/aa/1")
    assert attempts > 5 and face.get("pack/aa/1") == data and len(pieces_in(store)) == 100, "no leftovers"


def test_a_repeated_get_goes_on_where_it_was() -> None:
    """As above; within one call of `Remote`, which is what repeats it."""
    got: list[str] = []

    class Counting(Small):
        def get(self, key: str, offset: int = 0, size: int | None = None) -> bytes:
            got.append(key)
            return super().get(key, offset, size)

    face = Face(FaultyBackend(Counting(MemoryBackend(), 1000), 3, Rates(before=0.1, after=0.1, throttled=0.1), operations=("get",)))
    try:
        data = some_bytes(100_000)
        face.put("pack/aa/1", data)
        got.clear()
        assert face.get("pack/aa/1") == data
        assert 100 < len(got) < 150, "each piece once, but for answers that were lost"
        got.clear()
        assert face.get("pack/aa/1", 500, 40_000) == data[500:40_500]
        assert 41 <= len(got) < 70, "nothing is kept for another call"
    finally:
        face.close()


def test_a_lost_answer_of_the_head_is_a_race_that_was_won(made: Callable[..., Layered]) -> None:
    store = MemoryBackend()
    faulty = FaultyBackend(store)
    face = made(faulty)
    faulty.script("put", Fault.AFTER, "log/")
    with pytest.raises(Temporary):
        face.put("log/1", some_bytes(3000), only_if_absent=True)
    with pytest.raises(Exists):
        face.put("log/1", some_bytes(3000), only_if_absent=True)
    assert face.get("log/1") == some_bytes(3000), "its caller reads it back, and nothing of it was removed"


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_delete_that_broke_off_is_finished_by_the_next(made: Callable[..., Layered], place: int) -> None:
    store = MemoryBackend()
    faulty = FaultyBackend(store)
    face = made(faulty)
    face.put("pack/aa/1", some_bytes(3000))
    for _ in range(place):
        faulty.script("delete", Fault.AFTER, "pack/" if place == 1 else FOLDER)
    for _ in range(5):
        try:
            face.delete("pack/aa/1")
            break
        except Temporary:
            pass
    assert list(store.list("")) == []


def test_a_missing_piece_is_a_missing_object_unless_the_store_may_only_be_late(made: Callable[..., Layered]) -> None:
    for linearizable, expected in ((True, NotFound), (None, NotFound), (False, Temporary)):
        class Nature(Wrapper):
            @property
            def capabilities(self) -> Capabilities:
                return replace(self.inner.capabilities, linearizable=linearizable)   # noqa: B023 - used at once

        store = MemoryBackend()
        face = made(Nature(store))
        face.put("pack/aa/1", some_bytes(3000))
        store.delete(pieces_in(store)[1])
        with pytest.raises(expected, match="piece 1 of 3"):
            face.get("pack/aa/1")
        assert face.get("pack/aa/1", 0, 1000) == some_bytes(3000)[:1000]


def test_a_cut_piece_is_no_answer(made: Callable[..., Layered]) -> None:
    store = MemoryBackend()
    face = made(store)
    face.put("pack/aa/1", some_bytes(3000))
    store.put(pieces_in(store)[1], b"short")
    with pytest.raises(Corrupt, match="piece 1 of 3 gave 5 bytes, not 1000"):
        face.get("pack/aa/1")


SIZES = st.sampled_from([0, 1, HEAD_BYTES - 1, HEAD_BYTES, HEAD_BYTES + 1, 999, 1000, 1001, 2000, 2001]) | st.integers(0, 6000)
KEYS = st.sampled_from(["pack/a/1", "pack/a/2", "log/1", "piecemeal/1"])
RATES = Rates(before=0.1, after=0.1, throttled=0.05)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**20), st.lists(st.tuples(st.sampled_from(["put", "create", "get", "range", "stat", "list", "delete", "folders"]),
                                                 KEYS, SIZES, SIZES), max_size=25))
def test_as_a_store_without_bounds(made: Callable[..., Layered], seed: int, calls: list[tuple[str, str, int, int]]) -> None:
    """Every call through faults until it succeeds; the answers are those of a plain store. Each key has one content for ever (I6)."""
    plain, faulty = MemoryBackend(), FaultyBackend(MemoryBackend(), seed, RATES)
    face = made(faulty)

    def patiently(call: Callable[[], object], otherwise: object = None) -> object:
        """`otherwise`: what a lost race means after an attempt that may have won it."""
        failed = False
        for _ in range(500):
            try:
                return call()
            except Exists:
                return otherwise if failed else Exists
            except NotFound:
                return NotFound
            except StoreError as error:
                assert error.retryable
                failed = True
        raise AssertionError("it never succeeds")

    for what, key, one, two in calls:
        data = some_bytes(len(key) * 600 + ord(key[-1]))

        def call(backend: Backend, what: str = what, key: str = key, one: int = one, two: int = two, data: bytes = data) -> object:
            if what in ("put", "create"):
                return backend.put(key, data, only_if_absent=what == "create")
            if what == "get":
                return backend.get(key)
            if what == "range":
                return backend.get(key, one, two)
            if what == "stat":
                return backend.stat(key)
            if what == "delete":
                return backend.delete(key)
            prefix = key.rpartition("/")[0] + "/" if one % 2 else ""
            return set(backend.folders(prefix)) if what == "folders" else {(info.key, info.size) for info in backend.list(prefix)}

        expected = patiently(lambda: call(plain))
        found = patiently(lambda: call(face), expected)
        assert found == expected, (what, key)
