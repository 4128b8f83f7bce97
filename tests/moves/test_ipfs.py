"""A bucket that holds a node's blocks is taken over: a filesystem moves in, lives there, is checked, and moves out; nothing that the node
has is touched. By the real commands, on servers of both tiers."""
from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from s3cfs.app.node import Node
from s3cfs.backends.base import Backend
from s3cfs.backends.ipfs.cid import RAW, Cid, block_key
from s3cfs.backends.ipfs.dag import decode_node
from s3cfs.backends.ipfs.datastore import Datastore
from s3cfs.backends.local import LocalBackend
from s3cfs.backends.registry import open_backend
from tests.backends.ipfs.kit import MIB, list_of, some_bytes
from tests.check.kit import World
from tests.moves.kit import Moving, moving  # noqa: F401 - a fixture
from tests.moves.test_killed import Commands
from tests.servers import Server, moto_s3, rclone_s3

__all__ = ["moto_s3", "rclone_s3"]

THEIRS = some_bytes(3 * MIB + 5, 7)
SERVERS = ["moto_s3", pytest.param("rclone_s3", marks=pytest.mark.soak)]


class Taken:
    """A bucket with a node's blocks at `root`; `url` is the same place for s3cfs."""

    def __init__(self, server: Server, base: Path, root: str) -> None:
        self.server, self.base = server, base
        self.bucket: Backend = server.open(server.url())
        self.datastore = Datastore(self.bucket, root)
        self.url = f"ipfs+s3://{server.host}/{server.bucket}/{root}"
        for block in list_of(THEIRS):
            self.bucket.put(f"{root}/{block_key(block.digest)}", block.data)
        self.bucket.put(f"{root}/{block_key(bytes(32))}", b"rotten, but theirs")
        self.bucket.put(f"{root}/pins/index/x", b"of a node that is mounted at the top, too")
        self.theirs = self.seen()
        self.spec = base / "config"
        self.spec.write_text(json.dumps({"Datastore": {"Spec": {"type": "mount", "mounts": [{
            "type": "measure", "prefix": "s3.datastore", "mountpoint": "/blocks",
            "child": {"type": "s3ds", "region": "us-east-1", "bucket": server.bucket, "rootDirectory": f"/{root}/", "accessKey": "",
                      "secretKey": "", "regionEndpoint": f"http://{server.host}"}}]}}}))

    def seen(self) -> dict[str, tuple[bytes, float | None]]:
        """Bytes and times of what is there beside ours."""
        names = [info.key for info in self.bucket.list(f"{self.datastore.root}/")]
        return {name: (self.bucket.get(name), self.bucket.stat(name).modified) for name in names}

    def untouched(self) -> bool:
        now = self.seen()
        return all(now.get(key) == value for key, value in self.theirs.items())

    def opened(self) -> Any:
        backend = open_backend(self.url, self.server.options, login=self.server.login, password=self.server.password)
        if self.server.create_only:
            backend.assume_create_only(True)
        return backend

    def read(self, cid: Cid) -> bytes:
        """As a node reads a file: from the root down."""
        data = self.datastore.get(self.datastore.block(cid.digest))
        return data if cid.codec == RAW else b"".join(self.read(link.cid) for link in decode_node(data).links)


@pytest.fixture(params=SERVERS)
def taken(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Taken]:
    server: Server = request.getfixturevalue(request.param)
    made = Taken(server, tmp_path, f"node-{tmp_path.name}")
    yield made
    made.bucket.close()


def sections(taken: Taken) -> str:
    server = taken.server
    return (f"[server]\nstorage-url: ipfs+s3://{server.host}/{server.bucket}\nbackend-login: {server.login}\n"
            f"backend-password: {server.password}\n[source]\nstorage-url: local://\nfs-passphrase: secret\n"
            f"[target]\nstorage-url: {taken.url}\nfs-passphrase: secret\n")


def test_in_there_and_out_again(taken: Taken, moving: Moving, tmp_path: Path) -> None:  # noqa: F811
    commands = Commands(tmp_path, sections(taken))
    by_spec = ("--datastore-spec", str(taken.spec))
    commands.run("migrate", "--unmounted", *by_spec, moving.source_url, "ipfs+s3:///")
    backend, source = taken.opened(), moving.objects(moving.source_url)
    assert {info.key: backend.get(info.key) for info in backend.list("")} == source
    roots = dict(line.split("\t")[::2][::-1] for line in commands.run("ipfs", "roots", *by_spec, "ipfs+s3:///").splitlines())
    assert {key: taken.read(Cid.parse(cid)) for key, cid in roots.items()} == source, "every object is a file of IPFS"

    if not taken.server.create_only:                       # the source can refuse to overwrite
        commands.run("probe", *by_spec, "ipfs+s3:///")
    content = some_bytes(3 * MIB, 3)

    async def work(node: Node) -> None:                    # a mount, without a kernel
        await World.write(node, 1, b"more", content)

    world = World(backend, tmp_path, moving.source.superblock, moving.source.keyring, {**moving.source.content, "/more": content})
    world.on_node(work, tmp_path / "state")
    assert world.read_everything() == world.content
    for command in (("verify", "--data"), ("fsck", "--full")):
        commands.run(*command, taken.url, "--backend-options", "no-ssl")
    pack = next(info.key for info in backend.list("pack/"))
    for data in (some_bytes(MIB + 1), backend.get(pack)):
        backend.put("pack/aa/deleted", data)
        backend.delete("pack/aa/deleted")
    commands.run("ipfs", "gc", "--grace", "0", *by_spec, "ipfs+s3:///")
    seen = {name: data for name, (data, _) in taken.seen().items() if name not in taken.theirs}
    needed = [taken.datastore.object_of(taken.datastore.block(digest)) for _, entry in taken.opened().listed("") for digest in entry.blocks]
    assert {name for name, data in seen.items() if len(data) >= 64} == {name for name in needed if len(seen[name]) >= 64}
    assert taken.untouched(), "not by the collector either"

    commands.run("migrate", "--unmounted", *by_spec, "ipfs+s3:///", f"local://{tmp_path}/back")
    assert moving.objects(f"local://{tmp_path}/back") == {info.key: backend.get(info.key) for info in backend.list("")}
    back = World(LocalBackend(f"{tmp_path}/back"), tmp_path, world.superblock, world.keyring, world.content)
    assert back.read_everything() == world.content and taken.untouched()
    backend.close()
