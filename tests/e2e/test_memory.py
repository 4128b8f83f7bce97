"""What a mount keeps in memory after much work. The hour: S3CFS_TEST_STRESS_S=3600 make soak ARGS="tests/e2e/test_memory.py"."""
from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from s3cfs import control
from tests.servers import Server, rclone_s3  # noqa: F401  (fixture)

from .conftest import Make
from .kit import REPOSITORY, Mount, until

pytestmark = [pytest.mark.mount, pytest.mark.soak]
MOST_MIB, AT_REST_MIB = 400, 80
COMMITS = 5000
STRESS_S = float(os.environ.get("S3CFS_TEST_STRESS_S", "300"))


def anonymous_mib(mount: Mount) -> float:
    with open(f"/proc/{mount.pid}/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("RssAnon:"))


def test_five_thousand_small_commits(make: Make):
    """A leak of a few KiB a commit would show here, and so would work that grows with their number."""
    mount = make().mkfs().mount()
    socket = control.find(str(mount.path)).socket
    samples, took = [], []
    for number in range(COMMITS):
        (mount / f"file {number % 100}").write_bytes(b"%d" % number * 200)
        began = time.monotonic()
        control.call(socket, "flush")
        took.append(time.monotonic() - began)
        if number % 500 == 499:
            samples.append(anonymous_mib(mount))
            print(f"{number + 1} commits: {samples[-1]:.0f} MiB, {1000 * sum(took[-500:]) / 500:.1f} ms a commit", flush=True)
    assert mount.stat()["commit"]["number"] >= COMMITS
    assert max(samples) < MOST_MIB
    assert samples[-1] < samples[0] + 50, "it grows"
    mount.umount()


def test_what_a_burst_leaves_is_given_back(make: Make):
    mount = make().mkfs().mount()
    with (mount / "file").open("wb") as file:
        for _ in range(512):
            file.write(os.urandom(1 << 20))
    mount.flush()
    most = anonymous_mib(mount)
    until(lambda: anonymous_mib(mount) < AT_REST_MIB, "what is free goes back to the kernel", 30)
    print(f"{most:.0f} MiB, at rest {anonymous_mib(mount):.0f} MiB", flush=True)
    assert most > 1.3 * AT_REST_MIB, "there was nothing to give back"
    mount.umount()


def test_stress(make: Make, rclone_s3: Server, seed: int):  # noqa: F811
    """Random work by four processes beside a real server; at rest nothing is kept."""
    mount = make(rclone_s3).mkfs().mount()
    with subprocess.Popen([sys.executable, "-m", "tests.soak.stress", mount.path, "--seconds", str(STRESS_S), "--seed", str(seed)],
                          cwd=REPOSITORY) as work:
        samples = []
        while work.poll() is None:
            time.sleep(1)
            samples.append(anonymous_mib(mount))
            if len(samples) % 60 == 0:
                print(f"{len(samples)} s: now {samples[-1]:.0f}, most {max(samples):.0f} MiB", flush=True)
    assert work.returncode == 0
    mount.flush(within=600)
    until(lambda: mount.stat()["lag"]["bytes"] == 0, "everything is in the store", 120)
    print(f"{STRESS_S:.0f} s: most {max(samples):.0f} MiB, at rest {anonymous_mib(mount):.0f} MiB", flush=True)
    assert max(samples) < MOST_MIB and mount.stat()["state"] == "ok"
    assert "Traceback" not in mount.log()
    mount.umount(within=600)
    mount.fs.fsck()
