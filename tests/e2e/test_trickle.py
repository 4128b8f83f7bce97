"""An hour's trickle, faster and an eighth as long, through the kernel and on a real server."""
from __future__ import annotations

import os
import time

import pytest

from tests.servers import Server, rclone_s3  # noqa: F401  (fixture)

from .conftest import Make

pytestmark = [pytest.mark.mount, pytest.mark.soak]
EVERY_S, COMMITS = 2.0, 90                       # of 720
REQUESTS, BYTES = 1500, 30 << 20                 # of the hour


@pytest.mark.parametrize("how", ["append", "files"])
def test_a_trickle_on_a_real_server(make: Make, rclone_s3: Server, how: str):  # noqa: F811
    """One that cannot refuse to overwrite: a listing follows each record."""
    mount = make(rclone_s3).mkfs().mount("-o", f"commit-interval={EVERY_S / 2}")
    (mount / "first").write_bytes(b"x")
    mount.flush()
    before, first = mount.stat()["store"], mount.stat()["commit"]["commits"]
    began, content = time.monotonic(), b""
    for number in range(COMMITS):
        piece = os.urandom(4096)
        content += piece
        with (mount / ("log" if how == "append" else str(number))).open("ab") as file:
            file.write(piece)
        time.sleep(max(0.0, began + (number + 1) * EVERY_S - time.monotonic()))          # the trickle
    mount.flush()
    after = mount.stat()
    requests = sum(after["store"]["requests"].values()) - sum(before["requests"].values())
    moved = sum(after["store"]["bytes"].values()) - sum(before["bytes"].values())
    commits = after["commit"]["commits"] - first
    print(f"{how}: {commits} commits, {requests} requests, {moved / 2**20:.1f} MiB; {after['data']['riding_packs']} packs ride", flush=True)
    assert commits > COMMITS // 2, "not a trickle"
    assert requests <= REQUESTS * commits / 720 and moved <= BYTES * commits / 720
    mount.umount()
    mount.fs.fsck()
    mount.fs.lose()
    again = mount.fs.mount()
    names = ["log"] if how == "append" else [str(number) for number in range(COMMITS)]
    assert b"".join((again / name).read_bytes() for name in names) == content
    again.umount()
