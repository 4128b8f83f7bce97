"""Each check sees its damage and nothing else; one pass of repairs leaves nothing that can be repaired."""
from __future__ import annotations

from pathlib import Path

import pytest

from s3cfs.meta import Meta
from s3cfs.meta.audit import CHECKS

from .kit import add_file, add_folder, open_meta, run, sql

# (what to break; the checks that must fire; whether all of it can be mended)
BREAKAGE = {
    "entry of nothing": ("INSERT INTO dentry VALUES (1, x'61', 999)", {"dangling entry"}, True),
    "entry in a file": ("INSERT INTO dentry VALUES (4, x'61', 4)", {"entry outside a folder", "link count"}, True),
    "two names of a folder": ("INSERT INTO dentry VALUES (1, x'61', 2)", {"folder with several names", "link count"}, False),
    "orphan of nothing": ("INSERT INTO orphan VALUES (999)", {"dangling orphan"}, True),
    "orphan with a name": ("INSERT INTO orphan VALUES (4)", {"orphan with a name"}, True),
    "lost file": ("DELETE FROM dentry WHERE ino = 4", {"inode without a name", "link count"}, True),
    "lost folder": ("DELETE FROM dentry WHERE ino = 2", {"inode without a name", "unreachable folder", "link count"}, True),
    "ring": ("UPDATE dentry SET parent = 3 WHERE ino = 2", {"unreachable folder", "link count", "parent of a folder"}, True),
    "parent": ("UPDATE inode SET parent = 1 WHERE ino = 3", {"parent of a folder"}, True),
    "links of a file": ("UPDATE inode SET nlink = 5 WHERE ino = 4", {"link count"}, True),
    "links of a folder": ("UPDATE inode SET nlink = 5 WHERE ino = 2", {"link count"}, True),
    "attribute": ("INSERT INTO xattr VALUES (999, x'61', x'')", {"attribute of nothing"}, True),
    "extent of nothing": ("INSERT INTO extent VALUES (999, 0, 1, 1, 0)", {"extent of nothing", "references"}, True),
    "chunk missing": ("DELETE FROM chunk WHERE id = 1", {"missing chunk"}, False),
    "chunk too short": ("UPDATE chunk SET len = 5 WHERE id = 1", {"extent beyond its chunk"}, False),
    "overlap": ("INSERT INTO extent VALUES (4, 5, 10, 1, 0)", {"overlapping extents", "references", "allocated bytes"}, False),
    "overlap at one place": ("INSERT INTO extent VALUES (4, 0, 10, 2, 0)", {"overlapping extents", "references", "allocated bytes"}, False),
    "beyond the size": ("UPDATE inode SET size = 100 WHERE ino = 4", {"extent beyond the size"}, True),
    "all beyond the size": ("UPDATE inode SET size = 0 WHERE ino = 4", {"extent beyond the size"}, True),
    "inline and extents": ("UPDATE inode SET data = x'61' WHERE ino = 4", {"inline and extents", "allocated bytes"}, False),
    "trash": ("INSERT INTO trash VALUES (4, 100, 200)", {"range of trash"}, False),
    "trash twice": ("INSERT INTO trash VALUES (99, 0, 200), (99, 100, 300)", {"range of trash"}, False),
    "pack missing": ("DELETE FROM pack WHERE id = 1", {"missing pack"}, False),
    "references": ("UPDATE chunk SET refs = 9 WHERE id = 2", {"references"}, True),
    "mark of nothing": ("INSERT INTO bad_chunk VALUES (999)", {"mark of nothing"}, True),
    "allocated": ("UPDATE inode SET alloc = 9 WHERE ino = 4", {"allocated bytes", "counter"}, True),
    "next_ino": ("UPDATE counter SET value = 3 WHERE name = 'next_ino'", {"counter"}, True),
    "next_chunk": ("UPDATE counter SET value = 1 WHERE name = 'next_chunk'", {"counter"}, True),
    "next_pack": ("UPDATE counter SET value = 1 WHERE name = 'next_pack'", {"counter"}, True),
    "inodes": ("UPDATE counter SET value = 3 WHERE name = 'inodes'", {"counter"}, True),
    "used bytes": ("UPDATE counter SET value = 3 WHERE name = 'used_bytes'", {"counter"}, True),
}


async def tree(meta: Meta) -> None:
    folder = await add_folder(meta, b"d")
    inner = await add_folder(meta, b"e", folder)
    await add_file(meta, b"f", parent=inner)
    await add_file(meta, b"g")


@pytest.mark.parametrize("what", BREAKAGE)
def test_damage_is_found_and_mended(tmp_path: Path, what: str) -> None:
    statement, checks, mendable = BREAKAGE[what]
    meta = open_meta(tmp_path, None)
    run(tree(meta))
    meta.commit()
    assert list(meta.audit.problems()) == []
    sql(meta, statement)
    meta.commit()
    meta.close()
    meta = open_meta(tmp_path, None)                        # counters are read anew
    found = list(meta.audit.problems())
    assert {problem.check for problem in found} == checks
    assert all(problem.text for problem in found)
    list(meta.audit.repair())
    meta.commit()
    left = list(meta.audit.problems())
    assert not [problem for problem in left if problem.repairable]
    assert (left == []) == mendable
    assert run(meta.lookup(1, b"g"))
    meta.close()
    meta = open_meta(tmp_path, None)
    assert list(meta.audit.problems()) == left
    meta.close()


def test_what_was_lost_is_found_again(tmp_path: Path) -> None:
    meta = open_meta(tmp_path, None)
    run(tree(meta))
    sql(meta, "DELETE FROM dentry WHERE ino = 2")
    sql(meta, "DELETE FROM dentry WHERE ino = 5")
    meta.commit()
    list(meta.audit.repair())
    meta.commit()
    home = run(meta.lookup(1, b"lost+found"))
    assert home and {name for name, _ in run(meta.children(home.ino, 0, 9))} == {b"2", b"5"}
    inner = run(meta.lookup(2, b"e"))
    assert inner and run(meta.lookup(inner.ino, b"f"))      # what lay below came with it


def test_names_in_the_way_of_what_was_lost(tmp_path: Path) -> None:
    meta = open_meta(tmp_path, None)
    run(add_file(meta, b"lost+found"))
    beside = run(add_folder(meta, b"lost+found.1"))
    run(add_file(meta, b"4", parent=beside))
    run(tree(meta))
    lost = run(meta.lookup(1, b"g"))
    assert lost
    run(meta.unlink_name(1, b"g"))
    run(meta.link_name(beside, b"%d" % lost.ino, 2))
    run(meta.update_inode(2, nlink=2))
    sql(meta, "UPDATE counter SET value = 4 WHERE name = 'next_ino'")
    list(meta.audit.repair())
    meta.commit()
    assert list(meta.audit.problems()) == []
    found = run(meta.lookup(beside, b"%d.1" % lost.ino))
    assert found and found.ino == lost.ino


def test_every_check_is_tried() -> None:
    tried = set().union(*(checks for _, checks, _ in BREAKAGE.values()))
    assert tried == {check.name for check in CHECKS} - {"root"}


def test_a_missing_root(tmp_path: Path) -> None:
    meta = open_meta(tmp_path, None)
    sql(meta, "DELETE FROM inode WHERE ino = 1")
    assert "root" in {problem.check for problem in meta.audit.problems()}
