"""The local folder: what is on disk, in which order it got there, and what a disk answers."""
from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from s3cfs.backends.local import LEFTOVER_AGE_S, TEMPORARY, LocalBackend
from s3cfs.errors import BucketMissing, Exists, StoreFull, Unsupported


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def backend(root: Path) -> LocalBackend:
    made = LocalBackend(str(root))
    made.create()
    return made


def test_an_object_is_a_file_by_its_key(backend: LocalBackend, root: Path) -> None:
    backend.put("pack/aa/1-00", b"data")
    assert (root / "pack/aa/1-00").read_bytes() == b"data"
    assert os.listdir(root / TEMPORARY) == []
    assert (root / "pack/aa/1-00").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("operation", ["get", "put", "stat", "delete", "list", "check"])
def test_a_missing_root_is_a_missing_store(root: Path, operation: str) -> None:
    missing = LocalBackend(str(root))
    calls = {"get": lambda: missing.get("a/1"), "put": lambda: missing.put("a/1", b"x"), "stat": lambda: missing.stat("a/1"),
             "delete": lambda: missing.delete("a/1"), "list": lambda: list(missing.list("a/")), "check": missing.check}
    with pytest.raises(BucketMissing, match="is its disk mounted"):
        calls[operation]()
    assert not root.exists(), "a mount must never make an empty store"


def test_create_twice(backend: LocalBackend) -> None:
    backend.put("a/1", b"x")
    backend.create()
    assert backend.get("a/1") == b"x"


@pytest.mark.parametrize("only_if_absent", [False, True])
def test_bytes_then_name_then_folder(backend: LocalBackend, root: Path, monkeypatch: pytest.MonkeyPatch, only_if_absent: bool) -> None:
    """Bytes are synced before they get their name, every new folder in its parent, the name last of all; a crash keeps that order."""
    log: list[str] = []
    fsync = os.fsync

    def where(path: str) -> str:
        return os.path.relpath(path, root)

    def logged_fsync(fd: int) -> None:
        path = where(os.readlink(f"/proc/self/fd/{fd}"))
        log.append(f"fsync {'bytes' if path.startswith(TEMPORARY) else path}")
        fsync(fd)

    def logged(call: Callable[[str, str], None]) -> Callable[[str, str], None]:
        def named(old: str, new: str) -> None:
            log.append(f"name {where(new)}")
            call(old, new)

        return named

    monkeypatch.setattr(os, "fsync", logged_fsync)
    monkeypatch.setattr(os, "rename", logged(os.rename))
    monkeypatch.setattr(os, "link", logged(os.link))
    backend.put("log/main/1", b"data", only_if_absent=only_if_absent)
    assert log == ["fsync bytes", "fsync .", "fsync log", "name log/main/1", "fsync log/main"]


def test_leftovers_are_swept_when_they_are_old(backend: LocalBackend, root: Path) -> None:
    backend.put("a/1", b"x")
    old, young = root / TEMPORARY / "1-old", root / TEMPORARY / "1-young"
    for path in (old, young):
        path.write_bytes(b"half")
    past = young.stat().st_mtime - LEFTOVER_AGE_S - 60
    os.utime(old, (past, past))
    assert [info.key for info in backend.list("")] == ["a/1"]
    backend.check()
    assert os.listdir(root / TEMPORARY) == ["1-young"]


@pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "../a", "a/../../b", "./a", ".tmp/x", "a\0b"])
def test_keys_cannot_leave_the_folder(backend: LocalBackend, key: str) -> None:
    for call in (lambda: backend.put(key, b"x"), lambda: backend.get(key), lambda: backend.delete(key), lambda: backend.stat(key)):
        with pytest.raises(ValueError, match="not a key"):
            call()


def test_a_key_below_an_object(backend: LocalBackend) -> None:
    backend.put("a/1", b"x")
    with pytest.raises(Unsupported, match="folder of others"):
        backend.put("a/1/2", b"x")
    assert backend.get("a/1") == b"x"


@pytest.fixture
def small_files_only() -> Iterator[int]:
    """The system refuses to let any file grow beyond this: the nearest to a full disk that needs no rights."""
    limit, before = 1 << 20, resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_disk_that_takes_no_more(backend: LocalBackend, root: Path, small_files_only: int) -> None:
    with pytest.raises(StoreFull, match="takes no more"):
        backend.put("pack/aa/1", bytes(small_files_only + 1))
    assert os.listdir(root / TEMPORARY) == [], "what was written of it is removed"
    assert list(backend.list("")) == []
    backend.put("pack/aa/2", bytes(1000))


def test_no_permission() -> None:
    """As another user where we are root, for whom nothing is forbidden."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)                    # pytest's own folders are private, that user could not enter
        root = Path(folder) / "store"
        backend = LocalBackend(str(root))
        backend.create()
        backend.put("a/1", b"x")
        closed = (root, root / TEMPORARY, root / "a")
        for one in closed:
            one.chmod(0o555)
        program = (f"import os\nfrom s3cfs.backends.local import LocalBackend\nfrom s3cfs.errors import Denied\n"
                   f"os.getuid() or os.setresuid(65534, 65534, 65534)\n"
                   f"try: LocalBackend({str(root)!r}).put('a/2', b'y')\n"
                   f"except Denied as error: print(error)\n")
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        for one in closed:
            one.chmod(0o755)
    assert "read and write permission" in done.stdout


def test_create_only_is_a_link(backend: LocalBackend) -> None:
    backend.put("a/1", b"one", only_if_absent=True)
    with pytest.raises(Exists):
        backend.put("a/1", b"two", only_if_absent=True)
    assert backend.get("a/1") == b"one"


def test_objects_outlive_the_process_that_put_them(backend: LocalBackend, root: Path) -> None:
    """Killed right after `put` returned: the object is there; nothing half-written has a name."""
    program = (f"import os, signal\nfrom s3cfs.backends.local import LocalBackend\nb = LocalBackend({str(root)!r})\n"
               f"for n in range(5): b.put(f'pack/aa/{{n}}', bytes(100000))\nos.kill(os.getpid(), signal.SIGKILL)\n")
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL
    assert sorted((info.key, info.size) for info in backend.list("")) == [(f"pack/aa/{n}", 100000) for n in range(5)]
