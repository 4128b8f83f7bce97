"""The real command, killed with SIGKILL again and again, each time later: it goes on, and ends equal."""
from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from s3cfs.app.node import NodeOptions, open_node
from s3cfs.app.superblocks import read_superblock
from s3cfs.backends.registry import open_backend
from s3cfs.doors import SystemRandomness
from s3cfs.formats.superblock import unlock
from tests.check.kit import doors
from tests.moves.s3ql.kit import Sample
from tests.moves.trees import Tree, differences, tree_of
from tests.remote.kit import ask

STEP_S = 0.15


@pytest.mark.soak
def test_killed_again_and_again(tmp_path: Path):
    sample, url = Sample.at(tmp_path / "s3ql", "none"), f"local://{tmp_path}/target"
    authfile = tmp_path / "authinfo2"
    authfile.write_text(f"[one]\nstorage-url: local://\nfs-passphrase: {sample.passphrase}\n")
    authfile.chmod(0o600)
    command = [sys.executable, "-m", "s3cfs", "import", "s3ql", "--plain", "--s3ql-authfile", str(authfile), "--cachedir",
               str(tmp_path / "cache"), "--commit-interval", "100ms", sample.url, url]
    killed, code = 0, -signal.SIGKILL
    while code == -signal.SIGKILL:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "HOME": str(tmp_path)})
        try:
            code = process.wait(STEP_S * (killed + 1))
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
            killed += 1
    # one that was killed when all had come is over: another run finds a folder that is not empty
    assert killed > 3 and code in (0, 1)
    superblock = ask(open_backend(url, {}), read_superblock)
    trees: list[Tree] = []

    async def main() -> None:
        keyring = unlock(superblock, random=SystemRandomness())
        async with open_node(doors(tmp_path / "look"), open_backend(url, {}), keyring, superblock, NodeOptions(read_only=True)) as node:
            trees.append(await tree_of(node))
    trio.run(main)
    assert not differences(sample.expected, trees[0])
