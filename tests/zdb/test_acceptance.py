"""A filesystem on 0-dbs through the worst that it must outlive: servers die while a tree is copied, the machine is lost, shards rot.

With 4 + 2 on eight servers always; with 16 + 4 on twenty-four of them, and more files, under `-m soak`. Real 0-dbs: `make zdb-real`.
"""
from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from s3cfs.app.node import Node
from tests.check.kit import KIB, World
from tests.zdb.caring import Store
from tests.zdb.several import Servers

MIB = 1 << 20


@pytest.mark.parametrize("data, parity, files", [(4, 2, 3), pytest.param(16, 4, 40, marks=pytest.mark.soak)])
def test_a_filesystem_outlives_its_servers(zdb_servers: Callable[[int], Servers], tmp_path: Path, data: int, parity: int, files: int):
    count = data + parity
    servers = zdb_servers(count + parity)
    store = Store(servers, tmp_path, data=data, parity=parity, only=range(count))
    replicas = [store.number(server) for server in store.backend.cluster.roll.replicas]
    dead = [*replicas[:parity - 1], next(number for number in range(count) if number not in replicas[:parity - 1])]
    world = World.make(store.backend, tmp_path)

    async def copy(node: Node) -> None:
        for number in range(files):
            if number == files // 2:
                for server in dead:
                    servers.kill(server)
            name, size = f"file{number}", (number % 3 * 2 * MIB if files > 10 else 0) + 300 * KIB
            world.content[f"/{name}"] = random.Random(number).randbytes(size)
            await world.write(node, 1, name.encode(), world.content[f"/{name}"])
            await node.flush()

    def is_right() -> bool:
        """Read by a machine that has nothing but the list."""
        world.backend = store.another()
        right = world.read_everything() == world.content
        world.backend = store.another()
        return right

    world.on_node(copy)                            # and nobody has this folder any more: the machine is lost
    assert is_right()

    store.write_list([number for number in range(count + parity) if number not in dead])
    done = store.survey(mend=True)
    assert int(done.exit_code) == 0 and done.shards and done.replicas == len({*dead} & {*replicas})
    assert is_right()
    keys = world.keys("")
    for key in keys:
        where = store.where(key)
        store.content[key] = world.backend.get(key)
        assert where.parity == parity and where.data in (1, data) and store.whole(key) == where.data + parity
    assert world.fsck(full=True).code == 0

    chance = random.Random(3)
    for key in keys:
        store.flip(key, chance.randrange(len(store.where(key).servers)))
    assert is_right() and store.reads_right()
    checked = world.fsck(full=True)
    assert checked.code == 4 and {line.object for line in checked.lines if line.check == "storage"} == set(keys)
    assert all("weak" in text and "1 damaged" in text for text in checked.errors)

    done = store.survey(mend=True)
    assert int(done.exit_code) == 0 and done.shards == len(keys)
    assert is_right() and world.fsck(full=True).code == 0
    store.close()
