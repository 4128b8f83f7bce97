from __future__ import annotations

from pathlib import Path

import pytest

from s3cfs.errors import EntryExists, NoSuchEntry, StaleInode
from s3cfs.meta import Meta
from s3cfs.meta.places import place

from .kit import FILE, FOLDER, add_file, open_meta, run, sql


@pytest.fixture
def meta(tmp_path: Path) -> Meta:
    return open_meta(tmp_path, None)


def test_the_root_of_a_new_database_is_a_constant(meta: Meta) -> None:
    root = run(meta.get(1))
    assert root and (root.mode, root.nlink, root.uid, root.mtime_ns, root.parent, root.alloc) == (FOLDER, 2, 0, 0, 1, 0)
    assert meta.counters.inodes == 1 and meta.counters.next_ino == 2 and run(meta.is_empty(1))


def test_inodes(meta: Meta) -> None:
    made = run(meta.new_inode(FILE, 1, 2, 3, 99, nlink=1, parent_dir=0))
    assert run(meta.get(made.ino)) == made and made.size == 0
    link = run(meta.new_inode(0o120777, 0, 0, 0, 5, nlink=1, target=b"some\xff where"))
    assert run(meta.get(link.ino)) == link and link.size == len(b"some\xff where")
    assert meta.counters.inodes == 3
    run(meta.update_inode(made.ino, mode=0o100600, mtime_ns=2**62, size=5))
    changed = run(meta.get(made.ino))
    assert changed and (changed.mode, changed.mtime_ns, changed.size, changed.ctime_ns) == (0o100600, 2**62, 5, 99)
    run(meta.drop_inode(made.ino))
    assert run(meta.get(made.ino)) is None and meta.counters.inodes == 2
    with pytest.raises(StaleInode):
        run(meta.update_inode(made.ino, mode=1))
    with pytest.raises(StaleInode):
        run(meta.drop_inode(made.ino))
    assert run(meta.new_inode(FILE, 0, 0, 0, 0, nlink=1)).ino > link.ino            # numbers are not used again
    with pytest.raises(TypeError):
        run(meta.update_inode(1, alloc=5))  # type: ignore[call-arg]


def test_update_writes_nothing_when_equal(meta: Meta) -> None:
    run(meta.update_inode(1, mode=0o040700, target=None))
    meta.commit()
    changes = sql(meta, "SELECT total_changes()")
    run(meta.update_inode(1, mode=0o040700, uid=0, data=None, target=None))
    run(meta.update_inode(1))
    assert sql(meta, "SELECT total_changes()") == changes and not meta.dirty


def test_names(meta: Meta) -> None:
    a = run(add_file(meta, b"a", b""))
    run(meta.link_name(1, b"b\xfe", a))
    found = run(meta.lookup(1, b"a"))
    assert found == run(meta.get(a)) and run(meta.lookup(1, b"A")) is None
    with pytest.raises(EntryExists):
        run(meta.link_name(1, b"a", a))
    with pytest.raises(EntryExists):
        run(meta.move_name(1, b"a", 1, b"b\xfe"))
    run(meta.move_name(1, b"a", 1, b"c"))
    assert sorted(run(meta.names(a))) == [(1, b"b\xfe"), (1, b"c")]
    with pytest.raises(NoSuchEntry):
        run(meta.unlink_name(1, b"a"))
    with pytest.raises(NoSuchEntry):
        run(meta.move_name(1, b"a", 1, b"d"))
    run(meta.unlink_name(1, b"c"))
    run(meta.unlink_name(1, b"b\xfe"))
    assert run(meta.is_empty(1)) and meta.failed is None


def test_children_in_order_and_in_pieces(meta: Meta) -> None:
    names = [b"%d" % n for n in range(50)] + [b"\x01", b"\xff\xff", b"z" * 255]
    for name in names:
        run(add_file(meta, name, b""))
    run(add_file(meta, b"below", b"", parent=7))
    seen: list[bytes] = []
    while part := run(meta.children(1, place(seen[-1]) if seen else 0, 7)):
        assert len(part) <= 7
        seen += [name for name, _ in part]
    assert seen == sorted(names, key=place)


def test_attributes_and_orphans(meta: Meta) -> None:
    a = run(add_file(meta, b"a"))
    run(meta.set_xattr(a, b"user.x", b"1"))
    run(meta.set_xattr(a, b"user.x", b""))
    run(meta.set_xattr(a, b"trusted.y", bytes(65536)))
    assert run(meta.get_xattr(a, b"user.x")) == b"" and run(meta.get_xattr(a, b"user.z")) is None
    assert run(meta.list_xattrs(a)) == [b"trusted.y", b"user.x"]
    assert run(meta.remove_xattr(a, b"user.x")) and not run(meta.remove_xattr(a, b"user.x"))
    run(meta.unlink_name(1, b"a"))
    run(meta.add_orphan(a))
    run(meta.add_orphan(a))
    assert run(meta.orphans()) == [a]
    run(meta.drop_inode(a))
    assert run(meta.orphans()) == [] and sql(meta, "SELECT count(*) FROM xattr") == [(0,)]
    assert meta.counters.used_bytes == 0
    b = run(add_file(meta, b"b"))
    run(meta.add_orphan(b))
    run(meta.drop_orphan(b))
    meta.commit()
    assert run(meta.get(b)) and run(meta.orphans()) == [] and list(meta.audit.problems()) == []
