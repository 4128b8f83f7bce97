"""An fsync of a small file beside those who write as fast as they can: seconds, not the length of their work."""
from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .kit import Filesystem, Mount, until

STREAM = """
import os, sys, time
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT, 0o644)
buffer = bytearray(os.urandom(1 << 20))
left, end, count = 300 << 20, time.monotonic() + float(sys.argv[2]), 0
while time.monotonic() < end:
    began = time.monotonic()
    for offset in range(0, len(buffer), 4096):
        buffer[offset:offset + 8] = count.to_bytes(8, "little")
        count += 1
    os.write(fd, buffer)
    time.sleep(max(0, len(buffer) / left - (time.monotonic() - began)))       # 300 MiB/s at most
"""
CLOSES = """
import os, sys, time
end = time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:
    os.close(os.open(sys.argv[1], os.O_RDONLY | os.O_CREAT))
    time.sleep(0.1)
"""
FILES = """
import os, sys, time
end, count = time.monotonic() + float(sys.argv[2]), 0
while time.monotonic() < end:
    with open(f"{sys.argv[1]}-{count % 50}", "wb") as file:
        file.write(os.urandom(400_000))
    count += 1
"""
BESIDE = {"a stream": [(STREAM, "stream")], "a stream in a file that others open and close": [(STREAM, "stream"), (CLOSES, "stream")],
          "six writers of small files": [(FILES, f"w{number}") for number in range(6)]}


@contextlib.contextmanager
def running(mount: Mount, beside: str, seconds: float) -> Iterator[None]:
    started = [subprocess.Popen([sys.executable, "-c", code, str(mount / name), str(seconds)]) for code, name in BESIDE[beside]]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def fsyncs(path: Path, seconds: float) -> list[float]:
    """How long each took."""
    took, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
        os.write(fd, b"%f" % time.monotonic())
        began = time.monotonic()
        os.fsync(fd)
        took.append(time.monotonic() - began)
        os.close(fd)
        time.sleep(0.2)
    return took


@pytest.mark.parametrize(("beside", "seconds", "bound_s"), [
    ("a stream in a file that others open and close", 3.0, 10.0),
    *[pytest.param(beside, 25.0, 2.0, marks=pytest.mark.soak) for beside in BESIDE]])
def test_an_fsync_of_another_file(local_fs: Filesystem, beside: str, seconds: float, bound_s: float) -> None:
    """The short one's bound is for a machine that does other things, too: it was the length of the stream, 20 s and more."""
    mount = local_fs.mount()
    with running(mount, beside, seconds + 30):
        time.sleep(1)
        took = fsyncs(mount / "small", seconds)
        before = mount.stat()["commit"]["transactions"]
        until(lambda: mount.stat()["commit"]["transactions"] > before, "a transaction that ends", 15)
    assert max(took) < bound_s, sorted(took)
