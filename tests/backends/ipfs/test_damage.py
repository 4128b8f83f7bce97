"""A filesystem on IPFS blocks, of which some are rotten or lost: fsck names what that hits, and no more is lost than must be."""
from __future__ import annotations

from pathlib import Path

from s3cfs.app.node import Node
from s3cfs.backends.ipfs.cid import DAG_PB, Cid
from s3cfs.backends.ipfs.dag import blocks_of
from tests.backends.ipfs.kit import MIB, Bucket, block_names, opened, some_bytes
from tests.check.kit import World


def test_what_fsck_says_of_blocks(tmp_path: Path) -> None:
    bucket = Bucket()
    world = World.make(opened(bucket), tmp_path)

    async def work(node: Node) -> None:
        await World.write(node, 1, b"large", some_bytes(3 * MIB))

    world.on_node(work)
    pack = world.pack_of("/large")
    data, whole = opened(bucket).get(pack), dict(bucket.objects)
    blocks = block_names(opened(bucket), data)
    assert len(blocks) == 5

    def checked() -> list[str]:
        world.backend = opened(bucket)
        return world.fsck(full=True).errors

    assert checked() == []
    bucket.objects[blocks[1]] = whole[blocks[1]][:500_000] + b"?" + whole[blocks[1]][500_001:]
    named, hit = checked()
    assert pack in named and "damaged" in named and hit.startswith("damaged: /large bytes ")
    start, end = map(int, hit.split("bytes ")[1].split(" ")[0].split("-"))
    assert end - start < MIB // 2, "one chunk of the pack, not all of it"

    bucket.objects[blocks[1]] = whole[blocks[1]]
    del bucket.objects[blocks[-1]]
    weak, = checked()
    assert pack in weak and f"its node {Cid(1, DAG_PB, blocks_of(data)[0].digest)} is missing" in weak

    opened(bucket).put(pack, data)
    assert checked() == [], "a put mends it"
