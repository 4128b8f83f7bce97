"""Makes golden filesystems: whole stores as several machines leave them (lives.py), and the tree that must come out of each.

    python -m tests.golden.filesystem FOLDER

Made once for each format version, into tests/golden/v<version>/: `filesystem/` is encrypted and its store has create-only puts,
`filesystem-plain/` is not and has not. Each has `store/` and tree.json, and is never changed afterwards: test_filesystem.py asks every
later s3cfs to mount it, test_second_reader.py another program to read it.
"""
from __future__ import annotations

import json
import sys
from pathlib import Path

import trio

from s3cfs import ids
from s3cfs.backends.memory import MemoryBackend
from s3cfs.formats import superblock
from tests.golden.lives import LIVES, PASSPHRASE, going_back, live, new_superblock, rivals


def make(folder: Path, plain: bool) -> None:
    block, keyring, recovery_key = new_superblock(plain)
    backend = MemoryBackend(create_only=not plain)
    for copy in (1, 2):
        backend.put(ids.super_key(1, copy), superblock.encode(block))
    for life in LIVES:
        trio.run(live, life, backend, keyring, block)
    trio.run(rivals, backend, keyring, block)
    expected = trio.run(going_back, backend, keyring, block)
    for info in backend.list(""):
        path = folder / "store" / info.key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(backend.get(info.key))
    found = {"passphrase": None if plain else PASSPHRASE, "recovery_key": recovery_key, "tree": expected}
    (folder / "tree.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    for name, without_keys in (("filesystem", False), ("filesystem-plain", True)):
        make(Path(sys.argv[1]) / name, without_keys)
