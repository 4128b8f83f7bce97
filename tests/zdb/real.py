"""Real 0-dbs on loopback, each with its own folders, ended by pid. The binary is somebody else's: `make release` of its sources.

With a small --datasize: a namespace takes that much of the disk as soon as it exists.
"""
from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.servers import READY_WITHIN_S, START_ATTEMPTS, _die_with_parent, free_port
from tests.zdb.space import DATA_HEADER

DATASIZE = 4 << 20
RECORD = struct.Struct("<BIIIBI")      # of a data file: key's length, value's length, previous, CRC, flags, time; then key and value
DELETED = 1
STARTER = ThreadPoolExecutor(1, "starts 0-dbs")        # "dies with its parent" means the thread that started it


class RealZdb:
    """`file_max`: no file grows beyond so many bytes, which to the server is a full disk."""

    def __init__(self, binary: Path, folder: Path, *, admin: str = "", protect: bool = False, mode: str = "", datasize: int = DATASIZE,
                 file_max: int = 0) -> None:
        self.port, self._folder, self._file_max = 0, folder, file_max
        self._command = [str(binary), "--listen", "127.0.0.1", "--data", str(folder / "data"), "--index", str(folder / "index"),
                         "--datasize", str(datasize), *(("--admin", admin) if admin else ()), *(("--mode", mode) if mode else ()),
                         *(("--protect",) if protect else ())]
        self._process: subprocess.Popen[bytes] | None = None
        for name in ("data", "index"):
            (folder / name).mkdir(parents=True)

    def start(self) -> None:
        if self._process is not None:
            return
        for attempt in range(START_ATTEMPTS):
            port = self.port or free_port()
            with (self._folder / "log").open("ab") as log:
                self._process = STARTER.submit(subprocess.Popen, [*self._command, "--port", str(port)], stdin=subprocess.DEVNULL,
                                               stdout=log, stderr=log, preexec_fn=self._in_child).result()
            if self._answers(port):
                self.port = port
                return
            self.kill()                            # somebody took the port between our look and its bind
            if attempt == START_ATTEMPTS - 1:
                raise RuntimeError(f"it did not start: {(self._folder / 'log').read_text(errors='replace')[-2000:]}")

    def _in_child(self) -> None:
        _die_with_parent()
        if self._file_max:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (self._file_max, self._file_max))

    def _answers(self, port: int) -> bool:
        assert self._process is not None
        until = time.monotonic() + READY_WITHIN_S
        while self._process.poll() is None and time.monotonic() < until:
            with contextlib.suppress(OSError):
                if _listens(self._process.pid, port):
                    return True
            time.sleep(0.01)       # between two looks at the socket; readiness itself is what is waited for
        return False

    def kill(self) -> None:
        """With SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def hang(self, silent: bool) -> None:
        """As silent as a process can be: SIGSTOP, SIGCONT. What was asked meanwhile it answers afterwards."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP if silent else signal.SIGCONT)

    def wipe(self) -> None:
        """The values and keys of all namespaces are gone, while it is down for a moment; the namespaces are there."""
        was_running = self._process is not None
        self.kill()
        for path in [*(self._folder / "data").glob("*/d*"), *(self._folder / "index").glob("*/i*")]:
            path.unlink()
        if was_running:
            self.start()

    def flip(self, namespace: str, key: bytes, at: int = -1) -> None:
        """One bit of the newest value of that key, in the data file."""
        path, start, size = self._values(namespace)[key]
        with path.open("r+b") as file:
            place = start + (at % size)
            file.seek(place)
            byte = file.read(1)[0]
            file.seek(place)
            file.write(bytes([byte ^ 1]))

    def cut(self, namespace: str, key: bytes) -> None:
        """The data file ends in the middle of its newest value, and all that came after is lost too."""
        path, start, size = self._values(namespace)[key]
        with path.open("r+b") as file:
            file.truncate(start + size // 2)

    def keys(self, namespace: str) -> list[bytes]:
        return list(self._values(namespace))

    def _values(self, namespace: str) -> dict[bytes, tuple[Path, int, int]]:
        """Where each value that can be read lies: file, offset, bytes."""
        found: dict[bytes, tuple[Path, int, int]] = {}
        for path in sorted((self._folder / "data" / namespace).glob("d*"), key=lambda path: int(path.name[1:])):
            with path.open("rb") as file:
                at, end = DATA_HEADER, path.stat().st_size
                while at + RECORD.size <= end:
                    file.seek(at)
                    key_size, size, _, _, flags, _ = RECORD.unpack(file.read(RECORD.size))
                    key = file.read(key_size)
                    at += RECORD.size + key_size + size
                    found.pop(key, None)
                    if not flags & DELETED:
                        found[key] = path, at - size, size
        return found


def _listens(pid: int, port: int) -> bool:
    """Whether that process does: somebody else may have got the port, and answer there."""
    wanted = f"0100007F:{port:04X}"
    inodes = {fields[9] for line in Path("/proc/net/tcp").read_text().splitlines()[1:] if (fields := line.split())[1] == wanted}
    return any(os.readlink(path) in {f"socket:[{inode}]" for inode in inodes} for path in Path(f"/proc/{pid}/fd").iterdir())


@contextlib.contextmanager
def running(binary: Path, count: int, folder: Path, **options: Any) -> Iterator[list[RealZdb]]:
    """`options`: of RealZdb."""
    made: list[RealZdb] = []
    try:
        for number in range(count):
            made.append(RealZdb(binary, folder / f"zdb-{number}", **options))
            made[-1].start()
        yield made
    finally:
        for zdb in made:
            zdb.kill()
        for number in range(count):                # their files take all their room at once
            shutil.rmtree(folder / f"zdb-{number}", ignore_errors=True)
