"""The second reader in stores that today's program makes: with a bit of everything, and as the simulator's deaths leave them."""
from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import trio

from s3cfs import ids
from s3cfs.app.node import Node, NodeOptions, open_node
from s3cfs.backends.memory import MemoryBackend
from s3cfs.backends.pieces import Head
from s3cfs.doors import SystemRandomness
from s3cfs.formats import record, superblock
from s3cfs.formats.record import Kind, Record
from s3cfs.vfs.types import ROOT_CALLER
from tests import test_format_doc as document
from tests.golden.lives import LIVES, PASSPHRASE, Small, doors, going_back, live, new_superblock, noise, rivals, tree, write
from tests.golden.reader.history import History
from tests.golden.reader.listing import extract, listing
from tests.golden.reader.store import Objects, Wrong
from tests.golden.reader.superblock import current, unlock
from tests.golden.reader.tree import Filesystem, open_filesystem
from tests.golden.soundness import sound
from tests.sim.assembly import S3cfs
from tests.sim.driver import Story, Teller
from tests.sim.nature import Families

GOLDEN = Path(__file__).parent / f"v{ids.FORMAT_VERSION}" / "filesystem/store"


def store_of(backend: MemoryBackend) -> Objects:
    return Objects({info.key: backend.get(info.key) for info in backend.list("")})


def read(backend: MemoryBackend, passphrase: str) -> Filesystem:
    """Sound, or it is an error."""
    sound(store_of(backend), passphrase=passphrase)
    return open_filesystem(store_of(backend), passphrase=passphrase)


async def large(node: Node) -> None:
    """A file of many chunks in several packs, and more names than one step of a checkpoint takes."""
    await write(node, 1, b"large", {0: noise(20, 3_000_000), 3_500_000: noise(20, 1_000_000)})
    folder = (await node.vfs.mkdir(1, b"three hundred", 0o755, ROOT_CALLER)).ino
    for number in range(300):
        await write(node, folder, b"%04d" % number, {0: b"%d" % number})


@pytest.mark.parametrize(("plain", "largest"), [(False, None), (True, 20_000)], ids=["sealed-T1", "plain-T2-pieces"])
def test_what_each_life_leaves(plain: bool, largest: int | None, tmp_path: Path):
    backend = Small(largest, create_only=not plain)
    block, keyring, recovery_key = new_superblock(plain)
    backend.put(ids.super_key(1), superblock.encode(block))
    passphrase = "" if plain else PASSPHRASE
    contents: dict[bytes, bytes] = {b"/noise": noise(7, 120_000), b"/empty": b"", b"/noise again": b"shifted" + noise(7, 120_000)}
    for life in (*LIVES, large):
        left = trio.run(live, life, backend, keyring, block)
        filesystem = open_filesystem(store_of(backend), passphrase=passphrase)
        if left:
            assert listing(filesystem) == left, life
        if contents:
            assert {node.path: filesystem.content(node.ino) for node in filesystem.walk() if node.path in contents} == contents
        contents = {}
    for both in (rivals, going_back):
        left = trio.run(both, backend, keyring, block)
        filesystem = open_filesystem(store_of(backend), passphrase=passphrase)
        assert listing(filesystem) == left
    assert not {"/too late", "/given up"} & left.keys() and {"/of the second", "/gone on"} <= left.keys()
    sound(store_of(backend), passphrase=passphrase)
    assert any(info.key.startswith("piece/") for info in backend.list("")) == (largest is not None)
    extract(filesystem, tmp_path / "out")
    assert (tmp_path / "out/large").read_bytes() == noise(20, 3_000_000) + bytes(500_000) + noise(20, 1_000_000)
    assert (tmp_path / "out/text").read_bytes()[40_959:40_971] == (b"gold does not tarnish. " * 2000)[40_959:40_960] + b"overlaid ov"
    assert (tmp_path / "out/renamed").read_bytes() == b"a file of A FILEtes lives in its row\n"
    assert (tmp_path / "out/Ordner für später/link").readlink() == Path("../text")
    if recovery_key:
        assert unlock(current(store_of(backend)), recovery_key=recovery_key).fs_id == block.fs_id


async def real_tree(backend: MemoryBackend, folder: Path, passphrase: str = "pass") -> dict[str, Any]:
    """What today's program reads there."""
    found = superblock.decode(backend.get(ids.super_key(1)), 1)
    keyring = superblock.unlock(found, passphrase=passphrase, random=SystemRandomness())
    async with open_node(doors(folder), backend, keyring, found, NodeOptions(read_only=True)) as node:
        return await tree(node)


def test_objects_in_pieces():
    """As a store has them whose largest object is small."""
    whole = {path.relative_to(GOLDEN).as_posix(): path.read_bytes() for path in GOLDEN.rglob("*") if path.is_file()}
    torn: dict[str, bytes] = {}
    for number, (key, data) in enumerate(whole.items()):
        made = Head(len(data), 700, f"{number:032x}")
        torn |= {made.key(at): data[at * 700:(at + 1) * 700] for at in range(made.count)} if len(data) > 700 else {}
        torn[key] = made.encode() if len(data) > 700 else data
    assert listing(open_filesystem(Objects(torn), passphrase=PASSPHRASE)) == listing(open_filesystem(Objects(whole), passphrase=PASSPHRASE))
    pack = next(key for key in whole if key.startswith("pack/") and len(whole[key]) > 100_000)
    head = Head.decode(torn[pack])
    assert head is not None
    for wrong in (None, torn[head.key(3)][:-1], bytes(700)):
        damaged = {key: data for key, data in torn.items() if key != head.key(3)} | ({head.key(3): wrong} if wrong else {})
        with pytest.raises(Wrong, match=re.escape(pack)):
            listing(open_filesystem(Objects(damaged), passphrase=PASSPHRASE))


def test_numbers_beyond_a_range(tmp_path: Path):
    """Epochs beyond a thousand, records beyond a million, a late one beside them; what came before was left out by a repair."""
    backend, changes = MemoryBackend(create_only=False), [document.example(), b"", b"", b""]
    block, keyring, _ = new_superblock(False)
    backend.put(ids.super_key(1), superblock.encode(block))
    before, prev, run = "", ids.ZERO_HASH, (0, "")

    def put(kind: Kind, epoch: int, n: int, changeset: bytes = b"", **info: Any) -> None:
        nonlocal before, prev, run
        writer = f"{epoch:016x}"
        key = ids.log_key(epoch, writer, n)
        run = (n, before) if kind is Kind.CLAIM else run
        made = Record(kind, n, epoch, writer, prev, 7, {"prev_key": before, "tier": "T2", "run": list(run), **info}, changeset)
        backend.put(key, record.encode(made, keyring.sealer("record", epoch)))
        before, prev = key, record.record_hash(backend.get(key))

    put(Kind.CLAIM, 999, 999_998, skips=999_997)
    for n, changeset in enumerate(changes, 999_999):
        put(Kind.COMMIT, 999, n, changeset)
    after = before, prev, run
    put(Kind.COMMIT, 999, 1_000_003)                            # late: the next writer never saw it
    before, prev, run = after
    put(Kind.CLAIM, 1007, 1_000_003)
    put(Kind.RELEASE, 1007, 1_000_004, final=True)
    found = History(store_of(backend), unlock(current(store_of(backend)), passphrase=PASSPHRASE))
    assert [one.n for one in found.back()] == list(range(1_000_004, 999_997, -1))
    seen = listing(read(backend, PASSPHRASE))
    assert "/a" in seen and seen == trio.run(real_tree, backend, tmp_path, PASSPHRASE)


@pytest.mark.soak
def test_what_many_stories_leave(tmp_path: Path):
    for seed in range(100, 400):
        test_what_the_simulator_leaves(seed, tmp_path / str(seed))


@pytest.mark.parametrize("seed", range(1, 9))
def test_what_the_simulator_leaves(seed: int, tmp_path: Path):
    """At the end of a story, and at moments in it: each is a store that somebody may have to read (I4)."""
    teller = Teller(Story(seed, S3cfs(), None, Families()))
    teller.tell()
    changes = len(teller.bucket.history)
    for number, moment in enumerate((changes, changes // 2, changes // 3)):
        backend = MemoryBackend()
        for key, data in teller.bucket.at(moment).objects.items():
            backend.put(key, data)
        assert listing(read(backend, "pass")) == trio.run(real_tree, backend, tmp_path / str(number))
