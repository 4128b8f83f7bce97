"""Real mounts in a bucket that a node uses, too, named by the node's own configuration; on servers of both tiers."""
from __future__ import annotations

from pathlib import Path

import pytest

from tests.backends.ipfs.kit import MIB, some_bytes
from tests.e2e.conftest import Make
from tests.moves.test_ipfs import Taken
from tests.servers import Server

pytestmark = [pytest.mark.mount, pytest.mark.soak]


@pytest.mark.parametrize("kind", ["moto_s3", "rclone_s3"])
def test_it_lives_beside_a_node(kind: str, request: pytest.FixtureRequest, make: Make, tmp_path: Path) -> None:
    server: Server = request.getfixturevalue(kind)
    taken = Taken(server, tmp_path, f"node-{tmp_path.name}")
    fs = make(server)
    fs.url = taken.url
    fs.write_authfile()
    fs.mkfs()
    wanted = {f"{number}.bin": some_bytes(number * MIB // 3 + 5, number) for number in range(8)}
    mount = fs.mount()
    for name, data in wanted.items():
        (mount / name).write_bytes(data)
    mount.umount()
    fs.lose()
    fs.write_authfile(backend_options="collect=0")
    fs.url = "ipfs+s3:///"
    mount = fs.mount("--datastore-spec", taken.spec, where="again")
    assert {path.name: path.read_bytes() for path in mount.path.iterdir()} == wanted
    (mount / "3.bin").unlink()
    mount.umount()
    for command in (("fsck", "--full", "--no-cache"), ("verify", "--data"), ("ipfs", "gc")):
        fs.s3cfs(*command, "--datastore-spec", taken.spec, fs.url)
    assert taken.untouched()
    taken.bucket.close()
