"""Real mounts of a filesystem in memory, each by a daemon process of its own."""
from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from s3cfs import control
from s3cfs.fuse.mounttable import entry_at

REPOSITORY = Path(__file__).resolve().parents[2]
CAN_MOUNT = os.access("/dev/fuse", os.R_OK | os.W_OK)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "mount" in getattr(item, "fixturenames", ()) and not CAN_MOUNT:
            item.add_marker(pytest.mark.skip(reason="/dev/fuse cannot be opened"))


def until(condition: Callable[[], Any], what: str, seconds: float = 15) -> Any:
    """Wait for something that another process does; fails after `seconds`."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > end:
            pytest.fail(f"not within {seconds} s: {what}")
        time.sleep(0.005)
    return found


class Daemon:
    """A mount and its daemon. `path` is where it is mounted."""

    def __init__(self, base: Path, options: dict[str, Any], env: dict[str, str] | None = None) -> None:
        self.path, self.socket, self.log = base / "mnt", str(base / "control.sock"), base / "log"
        self.path.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "tests.fuse.memmount", str(self.path), self.socket, "--log", str(self.log), "--fg",
                   "--options", json.dumps(options)]
        self.process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                        env={**os.environ, **(env or {})})
        assert self.process.stdout is not None
        if self.process.stdout.readline() != "mounted\n":
            _, stderr = self.process.communicate()
            raise AssertionError(f"not mounted: {stderr}\n{self.log.read_text() if self.log.exists() else ''}")

    def ask(self, op: str, *, within_s: float = 30, **args: Any) -> Any:
        return control.call(self.socket, op, args, timeout_s=within_s)

    def asked(self, name: str) -> int:
        """How often the filesystem was asked for this."""
        return int(self.ask("asked").get(name, 0))

    def mounted(self) -> bool:
        return entry_at(str(self.path)) is not None

    def wait(self, seconds: float = 15) -> int:
        return self.process.wait(seconds)

    def said(self) -> str:
        """Its log, and what it left on stderr; once it has ended."""
        assert self.process.stderr is not None
        return self.log.read_text() + self.process.stderr.read()

    def close(self) -> None:
        """Whatever a test left: nothing of it stays."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.communicate()
        while self.mounted():
            subprocess.run(["umount" if os.geteuid() == 0 else "fusermount3", *([] if os.geteuid() == 0 else ["-u"]), "-l", self.path],
                           check=True)


Mount = Callable[..., Daemon]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """mount(**options of FuseOptions) -> Daemon"""
    with contextlib.ExitStack() as stack:
        number = 0

        def start(env: dict[str, str] | None = None, **options: Any) -> Daemon:
            nonlocal number
            number += 1
            base = tmp_path / f"daemon-{number}"
            base.mkdir()
            daemon = Daemon(base, options, env)
            stack.callback(daemon.close)
            return daemon

        yield start
