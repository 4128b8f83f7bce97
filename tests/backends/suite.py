"""The contract of backends/base.py as tests. Every backend and every wrapper passes it; so does a third party's.

To join, subclass it in a test file and say how to make one at an empty place:

    class TestMine(BackendSuite):
        create_only = True                      # what the probe must find

        @pytest.fixture
        def backend(self) -> Iterator[Backend]:
            mine = open_backend("mine://somewhere/empty/")
            yield mine
            mine.close()

What a store's `capabilities` exclude is tested for being excluded: where nothing may be deleted, `delete` raises Unsupported and the
object stays. A store that takes only small objects, or whose answers may be old, joins as what s3cfs sees of it: through the layers
that make up for that (`tests/backends/face.py`).
"""
from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from s3cfs import ids
from s3cfs.backends.base import Backend, Body
from s3cfs.backends.stale import stale_answers
from s3cfs.errors import Exists, NotFound, Temporary, Unsupported

THREADS = 8
ATTEMPTS = 3
MIB = 1 << 20


def some_bytes(count: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(count)


def put_patiently(backend: Backend, key: str, data: Body) -> None:
    """Put it as everything above a backend does, which asks again: any store may answer 5xx when many ask at once.

    `rclone serve s3` does when several make the same new folder at the same instant: one's rename fails (2 of 140).
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            backend.put(key, data)
            return
        except Temporary:
            if attempt == ATTEMPTS:
                raise


def keys_of_every_kind() -> list[str]:
    pack = ids.pack_name(7, bytes(range(32)))
    return [ids.super_key(0), ids.pack_key(pack), ids.log_key(7, "0123456789abcdef", 12), ids.claim_key(7, "0123456789abcdef"),
            ids.checkpoint_key(9, "manifest-0123456789abcdef"), ids.checkpoint_key(9, "0123456789abcdef-0")]


class BackendSuite:
    """See the module's text."""

    create_only: bool = False
    many: int = 1100               # more than one page of an S3 listing
    secret: str = ""               # must not be in `location`

    @pytest.fixture
    def probed(self, backend: Backend) -> Backend:
        assert backend.probe_create_only(rounds=1) is self.create_only
        return backend

    def deletes(self, backend: Backend, key: str) -> bool:
        """Delete it; False where the store deletes nothing, after a look that it says so."""
        if backend.capabilities.may_delete:
            backend.delete(key)
            return True
        with pytest.raises(Unsupported) as caught:
            backend.delete(key)
        assert (caught.value.operation, caught.value.key) == ("delete", key)
        return False

    # ------------------------------------------------------------ whole objects

    @pytest.mark.parametrize("size", [0, 1, 4096, MIB - 1, MIB, MIB + 1])
    def test_what_was_put_is_got(self, backend: Backend, size: int) -> None:
        data = some_bytes(size)
        backend.put("pack/aa/one", data)
        assert backend.get("pack/aa/one") == data
        assert backend.stat("pack/aa/one").size == size
        assert backend.stat("pack/aa/one").key == "pack/aa/one"

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda data: memoryview(b"xx" + data + b"yy")[2:-2]])
    def test_every_kind_of_body(self, backend: Backend, kind: Callable[[bytes], Body]) -> None:
        data = some_bytes(300_000)
        backend.put("log/body", kind(data))
        assert backend.get("log/body") == data

    def test_the_buffer_is_the_callers_again_after_put(self, backend: Backend) -> None:
        buffer = bytearray(b"before" * 1000)
        backend.put("log/buffer", buffer)
        buffer[:] = b"after!" * 1000
        assert backend.get("log/buffer") == b"before" * 1000

    def test_a_large_object_and_its_ranges(self, backend: Backend) -> None:
        data = some_bytes(20 * MIB + 17)
        backend.put("pack/bb/large", data)
        assert backend.get("pack/bb/large") == data
        for offset, size in ((0, 16), (5 * MIB + 3, 64 * 1024), (20 * MIB, 17), (20 * MIB, MIB), (20 * MIB + 16, 1)):
            assert backend.get("pack/bb/large", offset, size) == data[offset:offset + size]

    def test_putting_the_same_bytes_again_is_fine(self, backend: Backend) -> None:
        for _ in range(3):
            backend.put("log/main/1-a/1", b"the same")
        assert backend.get("log/main/1-a/1") == b"the same"

    @pytest.mark.parametrize("key", keys_of_every_kind())
    def test_keys_as_ids_makes_them(self, backend: Backend, key: str) -> None:
        backend.put(key, key.encode())
        assert backend.get(key) == key.encode()
        assert [info.key for info in backend.list(key.rpartition("/")[0] + "/")] == [key]

    # ------------------------------------------------------------ ranges

    @pytest.mark.parametrize(("offset", "size"), [(0, None), (0, 10), (0, 3), (3, 4), (3, None), (6, 100), (9, 1), (9, None), (10, 1),
                                                  (10, None), (11, 5), (500, None), (0, 0), (4, 0), (500, 0)])
    def test_ranges(self, backend: Backend, offset: int, size: int | None) -> None:
        backend.put("pack/cc/range", b"0123456789")
        expected = b"0123456789"[offset:] if size is None else b"0123456789"[offset:offset + size]
        assert backend.get("pack/cc/range", offset, size) == expected

    @pytest.mark.parametrize(("offset", "size"), [(0, None), (0, 5), (3, None), (0, 0)])
    def test_ranges_of_an_empty_object(self, backend: Backend, offset: int, size: int | None) -> None:
        backend.put("pack/cc/empty", b"")
        assert backend.get("pack/cc/empty", offset, size) == b""

    @pytest.mark.parametrize(("offset", "size"), [(-1, None), (0, -1)])
    def test_senseless_ranges_are_the_callers_fault(self, backend: Backend, offset: int, size: int | None) -> None:
        backend.put("pack/cc/range", b"0123456789")
        with pytest.raises(ValueError, match="negative"):
            backend.get("pack/cc/range", offset, size)

    # ------------------------------------------------------------ absence

    @pytest.mark.parametrize(("offset", "size"), [(0, None), (5, None), (0, 5), (0, 0)])
    def test_get_of_nothing(self, backend: Backend, offset: int, size: int | None) -> None:
        with pytest.raises(NotFound) as caught:
            backend.get("pack/dd/absent", offset, size)
        assert caught.value.key == "pack/dd/absent"
        assert caught.value.operation in ("get", "stat")
        assert not caught.value.retryable

    def test_stat_of_nothing(self, backend: Backend) -> None:
        with pytest.raises(NotFound) as caught:
            backend.stat("pack/dd/absent")
        assert (caught.value.operation, caught.value.key) == ("stat", "pack/dd/absent")

    def test_a_folder_of_keys_is_no_object(self, backend: Backend) -> None:
        backend.put("log/main/1-a/1", b"x")
        for key in ("log", "log/main", "log/main/1-a"):
            with pytest.raises(NotFound):
                backend.get(key)
            with pytest.raises(NotFound):
                backend.stat(key)
        assert backend.get("log/main/1-a/1") == b"x"

    def test_deleted_is_gone_and_may_come_back(self, backend: Backend) -> None:
        backend.put("pack/ee/1", b"one")
        if not self.deletes(backend, "pack/ee/1"):
            assert backend.get("pack/ee/1") == b"one" and [info.key for info in backend.list("pack/")] == ["pack/ee/1"]
            return
        with pytest.raises(NotFound):
            backend.get("pack/ee/1")
        with pytest.raises(NotFound):
            backend.stat("pack/ee/1")
        assert list(backend.list("pack/")) == []
        backend.put("pack/ee/1", b"two")
        assert backend.get("pack/ee/1") == b"two"

    def test_deleting_nothing_is_success(self, backend: Backend) -> None:
        backend.put("pack/ee/1", b"")
        for key in ("pack/ee/never", "pack/ee/1", "pack/ee/1"):
            self.deletes(backend, key)

    # ------------------------------------------------------------ listings

    def test_listings(self, backend: Backend) -> None:
        sizes = {"super/0": 3, "super/1": 4, "superb": 5, "log/main/1-a/1": 6, "log/main/1-a/2": 7, "log/main/1-ab/1": 8, "log/other/1": 9}
        for key, size in sizes.items():
            backend.put(key, bytes(size))
        for prefix in ("", "super/", "log/", "log/main/", "log/main/1-a/", "log/main/1-ab/", "log/none/", "none/", "super/0/"):
            expected = {key: size for key, size in sizes.items() if key.startswith(prefix)}
            found = [(info.key, info.size) for info in backend.list(prefix)]
            assert len(found) == len(expected), prefix
            assert dict(found) == expected, prefix

    @pytest.mark.parametrize("prefix", ["log", "log/main/1-", "/x"])
    def test_a_prefix_that_is_part_of_a_name_is_refused(self, backend: Backend, prefix: str) -> None:
        with pytest.raises(ValueError, match="prefix"):
            list(backend.list(prefix))

    def test_a_listing_of_several_pages(self, backend: Backend) -> None:
        names = {f"log/main/1-a/{n}" for n in range(self.many)}
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda key: put_patiently(backend, key, b"x"), names))
        found = [info.key for info in backend.list("log/main/")]
        assert len(found) == self.many
        assert set(found) == names

    # ------------------------------------------------------------ create-only

    def test_the_probe_says_the_truth_and_leaves_nothing(self, backend: Backend) -> None:
        assert backend.probe_create_only() is self.create_only
        assert backend.capabilities.create_only is self.create_only
        assert list(backend.list("probe/")) == [] or not backend.capabilities.may_delete
        assert backend.probe_create_only() is self.create_only, "a second probe finds the same"

    def test_no_answer_is_stale(self, backend: Backend) -> None:
        assert stale_answers(backend, "token", 3) == [] or backend.capabilities.linearizable is False
        assert backend.probe_linearizable(1) or backend.capabilities.linearizable is False
        assert list(backend.list("probe/")) == [] or not backend.capabilities.may_delete

    def test_create_only_on_a_taken_key(self, probed: Backend) -> None:
        probed.put("log/main/1-a/1", b"first")
        with pytest.raises(Exists if self.create_only else Unsupported) as caught:
            probed.put("log/main/1-a/1", b"second", only_if_absent=True)
        assert (caught.value.operation, caught.value.key) == ("put", "log/main/1-a/1")
        assert probed.get("log/main/1-a/1") == b"first"

    def test_create_only_on_a_free_key(self, probed: Backend) -> None:
        if self.create_only:
            probed.put("log/main/1-a/1", b"first", only_if_absent=True)
            assert probed.get("log/main/1-a/1") == b"first"
            return
        with pytest.raises(Unsupported):
            probed.put("log/main/1-a/1", b"first", only_if_absent=True)
        with pytest.raises(NotFound):
            probed.get("log/main/1-a/1")

    def test_of_a_race_one_wins(self, probed: Backend) -> None:
        if not self.create_only:
            assert probed.capabilities.create_only is False
            return
        for attempt in range(5):
            key, start = f"log/main/1-a/{attempt}", threading.Barrier(THREADS)

            def racer(number: int, key: str = key, start: threading.Barrier = start) -> bytes | None:
                mine = b"racer %d" % number
                start.wait()
                try:
                    probed.put(key, mine, only_if_absent=True)
                except Exists:
                    return None
                return mine

            with ThreadPoolExecutor(THREADS) as pool:
                winners = [mine for mine in pool.map(racer, range(THREADS)) if mine]
            assert len(winners) == 1
            assert probed.get(key) == winners[0]

    def test_folders(self, backend: Backend) -> None:
        for key in ("super/0", "log/main/0/1-a/0/0/1", "log/main/0/1-a/0/0/2", "log/main/0/2-b/0/0/3", "log/main/1/1000-c/0/0/4",
                    "log/other"):
            backend.put(key, b"x")
        for prefix, expected in {"": {"super", "log"}, "log/": {"main"}, "log/main/": {"0", "1"}, "log/main/0/": {"1-a", "2-b"},
                                 "log/main/0/1-a/0/0/": set(), "super/": set(), "none/": set()}.items():
            found = list(backend.folders(prefix))
            assert len(found) == len(expected), prefix
            assert set(found) == expected, prefix
        with pytest.raises(ValueError, match="ends in '/'"):
            list(backend.folders("log"))

    def test_a_folder_without_objects_is_none(self, backend: Backend) -> None:
        backend.put("log/main/7/8", b"x")
        backend.put("log/main/9", b"x")
        gone = self.deletes(backend, "log/main/7/8")
        assert list(backend.folders("log/main/")) == ([] if gone else ["7"])

    def test_several_are_deleted_at_once(self, backend: Backend) -> None:
        keys = [f"pack/aa/{number}" for number in range(min(20, max(2, backend.capabilities.batch_delete)))]
        for key in keys[1:]:
            backend.put(key, b"x")
        backend.put("pack/aa/stays", b"x")
        if not backend.capabilities.may_delete:
            with pytest.raises(Unsupported):
                backend.delete_many(keys[:backend.capabilities.batch_delete])
            assert len(list(backend.list("pack/"))) == len(keys)
            return
        for at in range(0, len(keys), backend.capabilities.batch_delete):
            backend.delete_many(keys[at:at + backend.capabilities.batch_delete])
        backend.delete_many([])
        assert [info.key for info in backend.list("pack/")] == ["pack/aa/stays"]

    def test_a_full_batch_is_deleted(self, backend: Backend) -> None:
        """Most of its keys were never there; the last and the first were."""
        batch = backend.capabilities.batch_delete
        if not backend.capabilities.may_delete or batch == 1:
            return
        keys = [f"pack/{number % 256:02x}/{number}" for number in range(batch)]
        for key in (keys[0], keys[-1]):
            backend.put(key, b"x")
        backend.put("pack/aa/stays", b"x")
        backend.delete_many(keys)
        assert [info.key for info in backend.list("pack/")] == ["pack/aa/stays"]

    # ------------------------------------------------------------ many at once

    def test_many_threads(self, backend: Backend) -> None:
        def work(number: int) -> None:
            for turn in range(5):
                key, data = f"pack/{number:02x}/{turn}", some_bytes(20_000 + number, number * 100 + turn)
                put_patiently(backend, key, data)
                assert backend.get(key) == data
                assert backend.get(key, 100, 1000) == data[100:1100]
                if turn % 2:
                    self.deletes(backend, key)

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(work, range(THREADS)))
        assert len(list(backend.list("pack/"))) == THREADS * (3 if backend.capabilities.may_delete else 5)

    def test_a_put_is_seen_whole_or_not_at_all(self, backend: Backend) -> None:
        data, done, seen = some_bytes(3 * MIB), threading.Event(), []

        def reader() -> None:
            while not done.is_set():
                for turn in range(4):
                    with contextlib.suppress(NotFound):
                        seen.append(backend.get(f"pack/ff/{turn}") == data)

        with ThreadPoolExecutor(2) as pool:
            readers = [pool.submit(reader) for _ in range(2)]
            try:
                for turn in range(4):
                    backend.put(f"pack/ff/{turn}", data)
                    assert backend.get(f"pack/ff/{turn}") == data
            finally:
                done.set()
            for one in readers:
                one.result()
        assert all(seen)

    # ------------------------------------------------------------ the rest

    def test_check_finds_nothing_wrong_here(self, backend: Backend) -> None:
        backend.create()
        backend.check()
        backend.put("super/0", b"x")
        backend.check()
        assert backend.get("super/0") == b"x"

    def test_the_location_names_the_place_and_no_secret(self, backend: Backend) -> None:
        assert "://" in backend.location
        assert not self.secret or self.secret not in backend.location
