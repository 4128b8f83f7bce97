"""Today's code mounts what every version left in a store, and finds the whole tree in it; fsck finds nothing wrong."""
from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from s3cfs.app.node import NodeOptions, open_node
from s3cfs.app.superblocks import read_superblock
from s3cfs.backends.registry import open_backend
from s3cfs.doors import SystemRandomness
from s3cfs.formats import superblock
from tests.golden.lives import doors, tree
from tests.remote.kit import ask

ROOT = Path(__file__).parent.parent.parent
FOLDERS = sorted(Path(__file__).parent.glob("v*/filesystem*"))


def test_there_are_those_of_the_first_version() -> None:
    names = {f"{folder.parent.name}/{folder.name}" for folder in FOLDERS}
    assert {f"v0/filesystem{kind}" for kind in ("", "-plain", "-pieces")} <= names


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: f"{folder.parent.name}-{folder.name}")
@pytest.mark.parametrize("secret", ["passphrase", "second", "recovery_key"])
@pytest.mark.parametrize("read_only", [True, False], ids=["read-only", "writable"])
def test_the_tree_comes_out(folder: Path, secret: str, read_only: bool, tmp_path: Path) -> None:
    expected = json.loads((folder / "tree.json").read_text())
    shutil.copytree(folder / "store", tmp_path / "store")
    backend = open_backend(f"local://{tmp_path}/store")
    found = ask(backend, read_superblock)
    keyring = superblock.unlock(found, random=SystemRandomness(), **{"passphrase" if secret == "second" else secret: expected[secret]})

    async def look() -> dict[str, Any]:
        async with open_node(doors(tmp_path / "local"), backend, keyring, found, NodeOptions(read_only=read_only)) as node:
            assert not list(node.meta.audit.problems())
            return await tree(node)

    assert trio.run(look) == expected["tree"]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: f"{folder.parent.name}-{folder.name}")
def test_fsck_says_what_these_lives_left(folder: Path, tmp_path: Path) -> None:
    """The mark of a chunk that is whole, and notes; every byte is read."""
    shutil.copytree(folder / "store", tmp_path / "store")
    expected = json.loads((folder / "tree.json").read_text())
    done = subprocess.run([sys.executable, "-m", "s3cfs", "fsck", "--full", "--no-cache", f"local://{tmp_path}/store"], cwd=ROOT, text=True,
                          env={**os.environ, "S3CFS_PASSPHRASE": expected["passphrase"] or ""}, capture_output=True)
    lines = (done.stdout + done.stderr).splitlines()
    assert [line for line in lines if "marked: 1 of its chunks are known as damaged, and are whole" in line] and "1 problems" in lines[-1]
    for note in ("in no history: a repair went back to before it", *["it came too late"][:expected["passphrase"] is None]):
        assert [line for line in lines if line.startswith("note:") and note in line], lines
