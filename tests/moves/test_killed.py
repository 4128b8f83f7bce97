"""The real commands on real servers, killed on the way: s3c -> storjs3 (a gateway like Storj's) -> a folder."""
from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest import mock

import pytest

from s3cfs import cli
from tests.e2e.kit import REPOSITORY
from tests.gateway import Gateway
from tests.moves import seeded
from tests.servers import BUCKET, Server, rclone_server

FEW = "consistency-lock=off,checker=off"       # nothing here is overwritten, and no test waits for a delay


@dataclass
class Commands:
    """`s3cfs` as a process, with sections for both stores."""

    base: Path
    sections: str

    def environment(self) -> dict[str, str]:
        authfile = self.base / "auth.ini"
        authfile.write_text(self.sections)
        authfile.chmod(0o600)
        return {**os.environ, "PYTHONPATH": str(REPOSITORY), "S3CFS_AUTHFILE": str(authfile), "S3CFS_CACHEDIR": str(self.base / "cache")}

    def begin(self, *args: str) -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, "-m", "s3cfs", *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True, env=self.environment(), cwd=self.base)

    def run(self, *args: str) -> str:
        """To its end, in this process, which has imported everything already."""
        out = io.StringIO()
        with mock.patch.dict(os.environ, self.environment()), contextlib.redirect_stdout(out):
            assert cli.main(args) == 0, out.getvalue()
        return out.getvalue()

    def killed(self, *args: str, when: Callable[[], bool]) -> None:
        """SIGKILL as soon as that is so."""
        process = self.begin(*args)
        try:
            look_s = 0.0
            while process.poll() is None:
                time.sleep(max(0.01, 20 * look_s))             # between two looks
                began = time.monotonic()
                if when():
                    break
                look_s = time.monotonic() - began
            assert process.poll() is None, f"it ended before it was killed: {process.communicate()}"
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()


def files(folder: Path) -> int:
    return sum(len(names) for _, _, names in os.walk(folder))


def enough(folder: Path, wanted: int) -> bool:
    return files(folder) >= wanted


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[tuple[Server, Gateway]]:
    with rclone_server(tmp_path / "rclone") as server:
        yield server, Gateway(server)


def journey(base: Path, server: Server, gateway: Gateway, count: int, size: int, kills: int) -> dict[str, object]:
    """What the two migrations said. Raises AssertionError where something did not come as it was."""
    root = base / "rclone" / BUCKET
    first, second, third = server.url("first"), gateway.url("second", scheme="storjs3"), f"local://{base}/third"
    secrets = f"backend-login: {server.login}\nbackend-password: {server.password}\nfs-passphrase: {seeded.PASSPHRASE}\n"
    commands = Commands(base, f"[a]\nstorage-url: {first}\n{secrets}backend-options: no-ssl\n"
                        f"[b]\nstorage-url: {second}\n{secrets}backend-options: no-ssl,{FEW}\n"
                        f"[c]\nstorage-url: {third}\nfs-passphrase: {seeded.PASSPHRASE}\n")
    total = files(root / "first")
    said = []
    for number, (source, target, folder) in enumerate(((first, second, root / "second"), (second, third, base / "third"))):
        began = time.monotonic()
        mine = kills - kills // 2 if number == 0 else kills // 2
        for kill in range(mine):
            before = files(folder)
            wanted = before + (total - before) // (mine - kill + 1)
            commands.killed("migrate", "--quiet", source, target, when=partial(enough, folder, wanted))
            assert not (folder / "super").exists(), "it could be mounted before it was whole"
            print(f"killed at {files(folder):,} of {total:,} objects after {time.monotonic() - began:.0f} s", flush=True)
        said.append(json.loads(commands.run("migrate", "--json", "--quiet", source, target)))
        print(f"{target}: {time.monotonic() - began:.0f} s: {said[-1]}", flush=True)
        assert said[-1]["state"] == "whole" and said[-1]["compared"] + said[-1]["copied"] < total
    seeded.check(Path(third.removeprefix("local://")), base / "reader", count, size)
    return {"objects": total, "first": said[0], "second": said[1]}


def test_some_hundred_objects_and_three_kills(tmp_path: Path, stores: tuple[Server, Gateway]):
    server, gateway = stores
    seeded.make(tmp_path / "rclone" / BUCKET / "first", tmp_path / "state", 2, 300 << 10)
    with gateway:
        journey(tmp_path, server, gateway, 2, 300 << 10, 3)


@pytest.mark.soak
def test_250000_objects_and_ten_kills(tmp_path: Path, stores: tuple[Server, Gateway]):
    server, gateway = stores
    seeded.make(tmp_path / "rclone" / BUCKET / "first", tmp_path / "state", 345)
    with gateway:
        journey(tmp_path, server, gateway, 345, seeded.FILE_BYTES, 10)
