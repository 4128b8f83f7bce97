"""Figures of a real mount, scraped."""
from __future__ import annotations

import contextlib
import socket
import urllib.error
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families as parsed

from s3cfs.errors import ExitCode
from tests.servers import free_port

from .conftest import Make
from .kit import mounted_at
from .test_refusals import no_mount

pytestmark = pytest.mark.mount


def scraped(port: int, host: str = "127.0.0.1") -> dict[str, float]:
    """Sums over labels."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    found: dict[str, float] = {}
    with opener.open(f"http://{host}:{port}/metrics", timeout=10) as answer:
        for family in parsed(answer.read().decode()):
            for sample in family.samples:
                found[sample.name] = found.get(sample.name, 0) + sample.value
    return found


def test_a_mount_is_watched(make: Make) -> None:
    port = free_port()
    fs = make(name="fs", passphrase=None).mkfs()
    fs.write_authfile(metrics_address=str(port))
    mount = fs.mount()
    with contextlib.ExitStack() as stack:
        for _ in range(100):                               # who say nothing
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
        before = scraped(port)
        assert before["s3cfs_state"] == before["s3cfs_inodes"] == 1
        assert (mount.path / "file").write_bytes(b"x" * 300_000) and not fs.s3cfs("ctl", "flush", mount.path).strip().startswith("x")
    while (after := scraped(port))["s3cfs_inodes"] == 1:   # for a second all get the same page
        pass
    assert after["s3cfs_inodes"] == 2 and after["s3cfs_logical_bytes"] >= 300_000 and after["s3cfs_lag_bytes"] == 0
    for name in ("s3cfs_commits_total", "s3cfs_store_requests_total", "s3cfs_store_bytes_total", "s3cfs_commit_number"):
        assert after[name] > before[name], name
    stat = mount.stat()
    assert after["s3cfs_commit_number"] == stat["commit"]["number"] and after["s3cfs_pack_bytes"] == stat["data"]["pack_bytes"]

    other = make(name="other", passphrase=None).mkfs()                      # the port is taken: refused before anything is done
    line = no_mount(other, ExitCode.SYSTEM, f"metrics cannot be served at 127.0.0.1:{port}: Address already in use",
                    "--metrics-address", str(port))
    assert "internal" not in line and not (other.base / "cache").exists()
    assert not mounted_at(other.base / "refused")

    with pytest.raises(OSError):
        scraped(port, "127.0.0.2")                         # another address of this machine: it is not served to everybody

    fs.s3cfs("umount", mount.path)
    with pytest.raises(urllib.error.URLError):
        scraped(port)
    done = other.run("mount", "--metrics-address", f"0.0.0.0:{port}", f"local://{other.base}/none", other.base / "refused")
    assert done.returncode == ExitCode.BUCKET_MISSING and f"metrics are served to all who reach 0.0.0.0:{port}" in done.stderr
