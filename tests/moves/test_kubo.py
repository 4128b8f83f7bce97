"""A filesystem moves into a Kubo, lives there, is checked, loses a block, and moves out again. The node is one of ours."""
from __future__ import annotations

from contextlib import closing
from pathlib import Path

from s3cfs.app.node import Node
from s3cfs.backends.ipfs import dag
from s3cfs.backends.local import LocalBackend
from s3cfs.backends.registry import open_backend
from s3cfs.moves.migrate import State
from tests.backends.ipfs.kubo import KuboServer
from tests.check.kit import World
from tests.moves.kit import KIB, Moving, moving  # noqa: F401 - a fixture


def test_in_there_and_out_again(moving: Moving, tmp_path: Path) -> None:  # noqa: F811
    with KuboServer() as node, closing(open_backend(node.url("fs"))) as backend:
        url, source = node.url("fs"), moving.objects(moving.source_url)
        result = moving.migrate(to=url, passphrase=None, unmounted=True)
        assert result.state is State.WHOLE, moving.lines
        assert {info.key: backend.get(info.key) for info in backend.list("")} == source
        assert set(node.node.pins.values()) <= {f"s3cfs/fs/{key}" for key in source}

        backend.assume_create_only(True)
        content = bytes(range(256)) * 4 * KIB

        async def work(mounted: Node) -> None:                 # a mount, without a kernel
            await World.write(mounted, 1, b"more", content)

        world = World(backend, tmp_path, moving.source.superblock, moving.source.keyring, {**moving.source.content, "/more": content})
        world.on_node(work, tmp_path / "state")
        assert world.read_everything() == world.content
        node.node.collect()                                    # everything is named and pinned: nothing goes that is needed
        checked = world.fsck(full=True)
        assert checked.code == 0, checked.lines
        assert moving.verify(url).exit_code == 0, moving.lines

        damaged = next(info.key for info in backend.list("pack/"))
        cid = dag.blocks_of(backend.get(damaged))[0].cid
        whole = node.node.blocks[cid.digest]
        node.node.blocks[cid.digest] = whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:]
        found = moving.verify(url, data=True)
        assert found.exit_code != 0 and any(damaged in line for line in moving.lines)
        checked = world.fsck(full=True)
        assert checked.code != 0 and any(damaged in str(line) for line in checked.lines)
        node.node.blocks[cid.digest] = whole

        back = f"local://{tmp_path}/back"
        moving.source_url = url
        moving.migrate(to=back, passphrase=None, unmounted=True)
        out = World(LocalBackend(f"{tmp_path}/back"), tmp_path, world.superblock, world.keyring, world.content)
        assert out.read_everything() == world.content
