"""`migrate --re-encrypt`: the same tree under other keys."""
from __future__ import annotations

import json
import random

import pytest

from s3cfs import cli
from s3cfs.app.node import Node
from s3cfs.backends.local import LocalBackend
from s3cfs.doors import SystemRandomness
from s3cfs.errors import ExitCode, WrongPassphrase
from s3cfs.formats import superblock
from s3cfs.vfs.types import ROOT_CALLER, SetAttr
from tests.check.kit import World
from tests.moves.kit import KIB, Moving, moving  # noqa: F401 - a fixture
from tests.moves.trees import Tree, differences, tree_of


@pytest.fixture
def odd(moving: Moving, monkeypatch: pytest.MonkeyPatch) -> Moving:  # noqa: F811
    """More than two files: links, holes, attributes, times of their own, devices; and both passphrases."""
    async def work(node: Node) -> None:
        vfs = node.vfs
        sub = await vfs.lookup(1, b"sub")
        assert sub is not None
        await vfs.symlink(1, b"to \xff", b"../nowhere", ROOT_CALLER)
        await vfs.mknod(sub.ino, b"device", 0o020600, 0x103, ROOT_CALLER)
        holes = await vfs.create(1, b"holes", 0o600, ROOT_CALLER)
        for at in (100 * KIB, 900 * KIB):
            await vfs.write(holes.ino, at, random.Random(at).randbytes(50 * KIB))
        await vfs.setattr(holes.ino, SetAttr(size=1500 * KIB), ROOT_CALLER)
        await vfs.release(holes.ino)
        await vfs.setxattr(holes.ino, b"user.colour", b"\0red")
        await vfs.setattr(sub.ino, SetAttr(mode=0o2770, uid=7, gid=8, mtime_ns=12345), ROOT_CALLER)

    moving.source.on_node(work, moving.state)
    authfile = moving.root / "auth.ini"
    authfile.write_text(f"[a]\nstorage-url: {moving.source_url}\nfs-passphrase: secret\n"
                        f"[b]\nstorage-url: {moving.target_url}\nfs-passphrase: another\n")
    authfile.chmod(0o600)
    monkeypatch.setenv("S3CFS_AUTHFILE", str(authfile))
    monkeypatch.setenv("S3CFS_CACHEDIR", str(moving.root / "cache"))
    return moving


def tree(world: World) -> Tree:
    found: list[Tree] = []

    async def work(node: Node) -> None:
        found.append(await tree_of(node))

    world.on_node(work, read_only=True)
    return found[0]


def target(moving: Moving) -> World:  # noqa: F811
    backend = LocalBackend(str(moving.root / "target"))
    found = superblock.decode(backend.get("super/1"), 1)
    return World(backend, moving.root / "other", found, superblock.unlock(found, passphrase="another", random=SystemRandomness()))


def test_the_same_tree_and_nothing_else(odd: Moving, capsys: pytest.CaptureFixture[str]):
    pair = [odd.source_url, odd.target_url]
    before = odd.objects(odd.source_url)
    assert cli.main(["migrate", "--re-encrypt", "--dry-run", *pair]) == 0
    assert "would copy" in capsys.readouterr().out and not (odd.root / "target").exists()
    assert cli.main(["migrate", "--re-encrypt", "--json", *pair]) == 0
    made, result = map(json.loads, capsys.readouterr().out.splitlines())
    assert made["made"]["recovery_key"] and result["result"]["copied"]["files"] == 4 and not result["result"]["findings"]
    other = target(odd)
    assert not differences(tree(odd.source), tree(other)) and other.fsck(full=True).code == 0
    assert other.superblock.fs_id != odd.source.superblock.fs_id and odd.objects(odd.source_url) == before
    with pytest.raises(WrongPassphrase):
        superblock.unlock(other.superblock, passphrase="secret", random=SystemRandomness())
    assert not (other.keys("pack/") and set(other.keys("pack/")) & set(odd.source.keys("pack/")))
    assert not list((odd.root / "cache" / "moves").glob("re-encrypt*"))
    assert cli.main(["migrate", "--re-encrypt", *pair]) == ExitCode.USAGE         # it is not empty, and no such copy is under way
    assert "not empty" in capsys.readouterr().err


def test_what_is_lost_is_named_and_comes_later(odd: Moving, capsys: pytest.CaptureFixture[str]):
    pair = [odd.source_url, odd.target_url]
    lost = odd.source.pack_of("/sub/other")
    kept = (odd.root / "source" / lost).read_bytes()
    odd.remove(lost)
    assert cli.main(["migrate", "--re-encrypt", "--quiet", *pair]) == ExitCode.OBJECT_MISSING
    assert "missing: sub/other" in capsys.readouterr().out
    (odd.root / "source" / lost).write_bytes(kept)
    assert cli.main(["migrate", "--re-encrypt", "--quiet", *pair]) == 0
    assert not differences(tree(odd.source), tree(target(odd)))


def test_refusals(odd: Moving, capsys: pytest.CaptureFixture[str]):
    pair = [odd.source_url, odd.target_url]
    assert cli.main(["migrate", "--re-encrypt", "--follow", *pair]) == ExitCode.USAGE
    assert cli.main(["migrate", "--plain", *pair]) == ExitCode.USAGE
    assert cli.main(["migrate", *pair]) == 0
    (odd.root / "auth.ini").write_text((odd.root / "auth.ini").read_text().replace("another", "secret"))
    capsys.readouterr()
    assert cli.main(["migrate", "--re-encrypt", *pair]) == ExitCode.FILESYSTEM_EXISTS
    assert "as it is, with its keys" in capsys.readouterr().err
