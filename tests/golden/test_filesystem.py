"""Today's code mounts what every version left in a store, and finds the whole tree in it; fsck finds nothing wrong."""
from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import trio

from s3cfs import ids
from s3cfs.app.node import NodeOptions, open_node
from s3cfs.backends.registry import open_backend
from s3cfs.doors import SystemRandomness
from s3cfs.formats import superblock
from tests.golden.lives import doors, tree

FOLDERS = sorted(Path(__file__).parent.glob("v*/filesystem*"))


def test_there_are_those_of_the_first_version() -> None:
    assert {f"v0/{name}" for name in ("filesystem", "filesystem-plain")} <= {f"{one.parent.name}/{one.name}" for one in FOLDERS}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: f"{folder.parent.name}-{folder.name}")
@pytest.mark.parametrize("secret", ["passphrase", "recovery_key"])
@pytest.mark.parametrize("read_only", [True, False], ids=["read-only", "writable"])
def test_the_tree_comes_out(folder: Path, secret: str, read_only: bool, tmp_path: Path) -> None:
    expected = json.loads((folder / "tree.json").read_text())
    shutil.copytree(folder / "store", tmp_path / "store")
    backend = open_backend(f"local://{tmp_path}/store")
    found = superblock.decode(backend.get(ids.super_key(1)), 1)
    random = SystemRandomness()
    keyring = superblock.unlock(found, random=random, **{secret: expected[secret]})

    async def look() -> dict[str, Any]:
        async with open_node(doors(tmp_path / "local"), backend, keyring, found, NodeOptions(read_only=read_only)) as node:
            assert not list(node.meta.audit.problems())
            return await tree(node)

    assert trio.run(look) == expected["tree"]
