"""Makes golden filesystems: whole stores as several machines leave them (lives.py), and the tree that must come out of each.

    python -m tests.golden.filesystem FOLDER

Made once for each format version, into tests/golden/v<version>/: `filesystem/` is encrypted and its store has create-only puts,
`filesystem-plain/` is not and has not, and `filesystem-pieces/` is on a store that takes small objects only. Each has `store/` and
tree.json, and is never changed afterwards: test_filesystem.py asks every later s3cfs to mount it, test_second_reader.py another program
to read it.
"""
from __future__ import annotations

import json
import sys
from pathlib import Path

import trio

from s3cfs import ids
from s3cfs.doors import SystemRandomness
from s3cfs.formats import superblock
from tests.golden.lives import COSTS, LIVES, NOW_NS, PASSPHRASE, Small, going_back, live, new_superblock, rivals

SECOND = "another one, of a slot that came later"


def make(folder: Path, plain: bool, largest: int | None) -> None:
    block, keyring, recovery_key = new_superblock(plain)
    backend = Small(largest, create_only=not plain)
    second = block if plain else superblock.add_slot(block, keyring, SystemRandomness(), now_ns=NOW_NS, passphrase=SECOND, argon2=COSTS)[0]
    for one in {1: block, second.n: second}.values():
        for copy in (1, 2):
            backend.put(ids.super_key(one.n, copy), superblock.encode(one))
    for life in LIVES:
        trio.run(live, life, backend, keyring, block)
    trio.run(rivals, backend, keyring, block)
    expected = trio.run(going_back, backend, keyring, block)
    for info in backend.list(""):
        path = folder / "store" / info.key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(backend.get(info.key))
    secrets = dict.fromkeys(("passphrase", "second")) if plain else {"passphrase": PASSPHRASE, "second": SECOND}
    found = {**secrets, "recovery_key": recovery_key, "tree": expected}
    (folder / "tree.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    for name, without_keys, most in (("filesystem", False, None), ("filesystem-plain", True, None), ("filesystem-pieces", False, 20_000)):
        make(Path(sys.argv[1]) / name, without_keys, most)
