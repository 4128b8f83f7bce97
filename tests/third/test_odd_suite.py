"""The backend suite on the odd backend, as s3cfs sees it; and how it joins."""
from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3cfs.backends.base import Backend
from s3cfs.backends.consistency.guard import guarded
from s3cfs.backends.url import StoreUrl
from s3cfs.errors import NotFound, StoreError, Unsupported
from tests.backends.face import Face
from tests.backends.suite import BackendSuite, some_bytes
from tests.third.install import install
from tests.third.odd_backend import LARGEST_BYTES, OddBackend

ROOT = Path(__file__).parent.parent.parent


class TestOdd(BackendSuite):
    """Late answers, shards, a lock, pieces; puts that are short of a copy now and then."""

    many = 40

    @pytest.fixture
    def backend(self, tmp_path: Path) -> Iterator[Backend]:
        odd = OddBackend(str(tmp_path / "store"), late=2, short_every=7)
        odd.create()
        face = Face(odd, str(tmp_path / "state"))
        yield face
        face.close()

    def test_what_is_short_of_a_copy_is_stored_and_counted(self, backend: Backend) -> None:
        assert isinstance(backend, Face)
        for number in range(20):
            backend.put(f"log/main/{number}", b"x")
        assert backend.remote.degraded == {"log": 2} and backend.remote.degraded_now == "one copy of three is missing"


def test_it_is_as_odd_as_it_says(tmp_path: Path) -> None:
    """What the layers make up for is really there."""
    odd = OddBackend(str(tmp_path), late=2)
    odd.create()
    odd.put("a/1", b"x")
    for look in (lambda: odd.get("a/1"), lambda: odd.stat("a/1")):
        with pytest.raises(NotFound):
            look()
    assert odd.get("a/1") == b"x"
    odd.put("a/2", b"x")
    assert [info.key for info in odd.list("a/")] == ["a/1"]
    with pytest.raises(Unsupported):
        odd.delete("a/1")
    with pytest.raises(Unsupported):
        odd.put("a/3", b"x", only_if_absent=True)
    with pytest.raises(StoreError):
        odd.put("a/3", bytes(LARGEST_BYTES + 1))


def test_another_process_finds_everything_and_its_map_again(tmp_path: Path) -> None:
    odd = OddBackend(str(tmp_path / "store"), late=0)
    odd.create()
    for folder in ("one", "two"):
        face = Face(odd, str(tmp_path / folder))
        try:
            if folder == "one":
                face.put("pack/aa/1", some_bytes(3 * LARGEST_BYTES + 5))
            assert face.get("pack/aa/1") == some_bytes(3 * LARGEST_BYTES + 5)
            assert [(info.key, info.size) for info in face.list("")] == [("pack/aa/1", 3 * LARGEST_BYTES + 5)]
            assert (tmp_path / folder / "backend" / "shards.json").exists()
        finally:
            face.close()


def test_it_joins_by_one_file_and_one_line(tmp_path: Path) -> None:
    """In a process of its own: nothing of it is imported or named by s3cfs."""
    code = ("from s3cfs.backends.registry import open_backend, schemes; assert 'odd' in schemes(); "
            f"print(type(open_backend('odd://{tmp_path}/store', {{'late': '1'}})).__module__); "
            f"open_backend('odd://{tmp_path}/store', {{'lat': '1'}})")
    path = f"{ROOT}:{install(tmp_path / 'plugin')}"
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": path}, capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == "s3cfs_odd\n" and "'lat'" in done.stderr.splitlines()[-1], done.stderr


def test_the_lock_and_the_checker_stand_above_its_own(tmp_path: Path) -> None:
    """Of a store that has a lock of its own choosing, too; and its shards and pieces are none of their business."""
    odd = OddBackend(str(tmp_path / "store"), late=2)
    odd.create()
    options = {"consistency-lock": "on", "checker": "on", "lock-delay": "0"}
    face = Face(guarded(odd, StoreUrl.parse(odd.location), options, default=False), str(tmp_path / "state"))
    try:
        assert [layer.name for layer in face.remote.stack.layers] == ["pieces", "settling", "checker", "consistency", "hold", "shards"]
        data = some_bytes(2 * LARGEST_BYTES + 5)
        face.put("pack/aa/1", data)
        assert face.get("pack/aa/1") == data and {info.key for info in face.list("pack/")} == {"pack/aa/1"}
        assert face.remote.stack.status()["consistency"]["known"] == 4, "the pieces and their head"
    finally:
        face.close()
