"""A replica fed with changesets, the outbox, snapshots."""
from __future__ import annotations

import threading
from pathlib import Path

import apsw
import pytest

from s3cfs.errors import Damaged, Diverged
from s3cfs.ids import PackName
from s3cfs.meta import Meta, merge_changesets
from s3cfs.meta.changes import STREAM_BYTES
from s3cfs.meta.schema import REPLICATED

from .kit import Vfs, add_file, add_folder, open_meta, populate, run, sql


@pytest.fixture
def meta(tmp_path: Path) -> Meta:
    return open_meta(tmp_path)


@pytest.fixture
def replica(tmp_path: Path) -> Meta:
    return open_meta(tmp_path, None, "replica.db")


def drain(meta: Meta) -> bytes:
    part = meta.outbox_slice(1 << 30)
    assert part
    meta.drop_outbox(part.upto)
    return meta.beside.merged(part)


async def every_table(meta: Meta) -> None:
    await populate(meta, 20)
    folder = await add_folder(meta, b"d")
    await add_file(meta, b"x", parent=folder)
    await meta.move_name(folder, b"x", 1, b"moved")
    meta.fsmeta_set("label", b"home")
    gone = await add_file(meta, b"large", b"")
    meta._engine.run("INSERT INTO trash VALUES (?, 4096, 8192)", (gone,))
    meta.mark_bad(1)


def test_every_table_is_replicated(meta: Meta, replica: Meta) -> None:
    run(every_table(meta))
    meta.commit()
    changeset = drain(meta)
    assert {change.name for change in apsw.Changeset.iter(changeset)} == {table.name for table in REPLICATED}
    replica.apply(changeset)
    assert not replica.dirty and replica.counters == meta.counters
    assert replica.commit() is None and replica.outbox()[0] == 0
    assert replica.fingerprint() == meta.fingerprint() and replica.fsmeta_get("label") == b"home"
    assert list(replica.audit.problems()) == []
    mine = run(replica.new_inode(0o100644, 0, 0, 0, 0, nlink=0)).ino
    assert mine == meta.counters.next_ino                   # it goes on where the other stopped


def test_apply_is_kept_by_the_commit_that_follows_it(meta: Meta, replica: Meta, tmp_path: Path) -> None:
    run(add_file(meta, b"a"))
    meta.commit()
    changeset = drain(meta)
    replica.apply(changeset)
    replica.local_set("tip", b"1")
    replica.close()
    replica = open_meta(tmp_path, None, "replica.db")
    assert replica.local_get("tip") is None and run(replica.lookup(1, b"a")) is None
    replica.local_set("tip", b"1")
    replica.apply(changeset)
    replica.commit()
    replica.close()
    replica = open_meta(tmp_path, None, "replica.db")
    assert replica.local_get("tip") == b"1" and run(replica.lookup(1, b"a")) and replica.fingerprint() == meta.fingerprint()


def test_divergence_names_table_and_key_and_changes_nothing(meta: Meta, replica: Meta) -> None:
    run(add_file(meta, b"a"))
    meta.commit()
    first = drain(meta)
    run(add_file(meta, b"b"))
    run(meta.update_inode(2, mode=0o100600))
    run(meta.update_inode(1, mtime_ns=77))
    meta.commit()
    second = drain(meta)
    before = replica.fingerprint()
    with pytest.raises(Diverged, match="counter next_ino|UPDATE"):
        replica.apply(second)                               # the first is missing
    assert replica.fingerprint() == before and replica.failed is None
    replica.apply(first)
    with pytest.raises(Diverged):
        replica.apply(first)                                # twice
    replica.commit()
    before = replica.fingerprint()
    sql(replica, "UPDATE inode SET mode = 1 WHERE ino = 2")
    replica._engine.new_session()
    with pytest.raises(Diverged, match=r"UPDATE of inode 2: the row is different here"):
        replica.apply(second)
    sql(replica, "UPDATE inode SET mode = 33188 WHERE ino = 2")
    replica._engine.new_session()
    assert replica.fingerprint() == before and run(replica.lookup(1, b"b")) is None
    replica.apply(second)
    replica.commit()
    assert replica.fingerprint() == meta.fingerprint()
    run(meta.unlink_name(1, b"b"))
    meta.commit()
    sql(replica, "DELETE FROM dentry WHERE name = CAST('b' AS BLOB)")
    replica._engine.new_session()
    with pytest.raises(Diverged, match=r"DELETE of dentry 1, 62: the row is not here"):
        replica.apply(drain(meta))


def test_apply_needs_a_clean_start(replica: Meta) -> None:
    run(add_file(replica, b"mine"))
    with pytest.raises(RuntimeError):
        replica.apply(b"")


def test_what_is_no_changeset_is_damage_not_divergence(meta: Meta, replica: Meta) -> None:
    run(every_table(meta))
    meta.commit()
    changeset = drain(meta)
    before = replica.fingerprint()
    for wrong in (b"nonsense", changeset[:len(changeset) // 2], changeset[:-1], b"\0" + changeset):
        with pytest.raises(Damaged):
            replica.apply(wrong)
        assert replica.fingerprint() == before and replica.failed is None
    other = apsw.Connection(":memory:")
    other.execute("CREATE TABLE inode (ino INTEGER NOT NULL PRIMARY KEY, more); CREATE TABLE what (a INTEGER NOT NULL PRIMARY KEY)")
    for table in ("inode", "what"):
        session = apsw.Session(other, "main")
        session.attach(table)
        other.execute(f"INSERT INTO {table} (rowid) VALUES (5)")
        with pytest.raises(Damaged, match=table):           # SQLite itself would skip it without a word
            replica.apply(session.changeset())
    replica.apply(b"")
    replica.apply(changeset)
    assert replica.fingerprint() == meta.fingerprint()


def test_merging_the_outbox(meta: Meta, replica: Meta) -> None:
    assert meta.outbox_slice(1000) is None and meta.last_outbox_id() == 0
    sizes = []
    for number in range(10):
        run(add_file(meta, b"%d" % number))
        made = meta.commit()
        assert made and meta.last_outbox_id() == made.id
        sizes.append(made.changeset_bytes)
    rows, total, oldest = meta.outbox()
    assert (rows, total) == (10, sum(sizes)) and oldest
    first = meta.outbox_slice(1)
    assert first and len(first.rows) == 1             # at least one
    some = meta.outbox_slice(sum(sizes[:4]))
    assert some and len(some.rows) == 4 and len(meta.beside.merged(some)) < some.bytes == sum(sizes[:4])
    replica.apply(meta.beside.merged(some))
    meta.drop_outbox(some.upto)
    assert meta.outbox()[0] == 6
    replica.apply(drain(meta))
    assert replica.fingerprint() == meta.fingerprint() and meta.outbox() == (0, 0, None)
    run(meta.update_inode(1, mode=0o040700))
    meta.commit()
    run(meta.update_inode(1, mode=0o040755))
    meta.commit()
    assert drain(meta) == b""                               # they undo each other


def test_a_record_ends_with_a_complete_transaction(meta: Meta, replica: Meta) -> None:
    """Where a pack is open its name is not known: no record may end there."""
    assert meta.outbox_slice(1 << 30) is None
    sizes: list[int] = []
    complete: list[bool] = []
    pack = 0
    for number in range(12):
        if number % 4 == 1:
            pack = run(meta.new_pack(1))
        if number % 4 == 3:
            run(meta.close_pack(pack, PackName(f"1-{pack:064x}"), 100))
        run(add_file(meta, b"%d" % number))
        made = meta.commit()
        assert made
        sizes.append(made.changeset_bytes)
        complete.append(made.complete)
    assert complete == [True, False, False, True] * 3
    first = meta.outbox_slice(1)
    assert first and (first.upto, len(first.rows), first.bytes) == (1, 1, sizes[0])      # at least one
    assert (found := meta.outbox_slice(sum(sizes[:4]) - 1)) and found.upto == 1
    assert (found := meta.outbox_slice(sum(sizes[:6]))) and (found.upto, found.packs) == (5, 6)
    assert (found := meta.outbox_slice(sum(sizes))) and found.upto == 12 and found.bytes == sum(sizes)
    meta.drop_outbox(1)
    assert (found := meta.outbox_slice(1)) and (found.upto, found.packs) == (4, 5)   # more than 1: the least there is
    meta.void_cuts()
    assert meta.outbox_slice(1 << 30) is None
    meta.drop_outbox(12)
    run(meta.new_pack(1))
    meta.commit()
    assert meta.outbox()[0] == 1 and meta.outbox_slice(1 << 30) is None


def test_merging_in_pieces_is_merging(meta: Meta) -> None:
    run(populate(meta, 900))
    meta.commit()
    for round in range(30):
        run(meta.update_inode(1, mtime_ns=round))
        run(add_file(meta, b"again-%d" % round))
        meta.commit()
    part = meta.outbox_slice(1 << 30)
    assert part and part.bytes > 3 * STREAM_BYTES and len(part.rows) == len(changesets := list(meta.unsent_changes()))
    builder = apsw.ChangesetBuilder()
    for changeset in changesets:
        builder.add(changeset)
    assert meta.beside.merged(part) == builder.output()
    run(meta.update_inode(1, mode=0o040700))
    meta.commit()
    run(meta.update_inode(1, mode=0o040755))
    meta.commit()
    assert merge_changesets(list(meta.unsent_changes())[-2:]) == b""


def test_the_size_of_the_open_transaction_is_known(meta: Meta) -> None:
    assert meta.open_bytes == 0
    last = 0
    for number in range(50):
        run(add_file(meta, b"%d" % number))
        for _ in range(3):
            run(meta.update_inode(1, mtime_ns=number))                         # one row, however often
        assert last < meta.open_bytes < last + 600
        last = meta.open_bytes
    made = meta.commit()
    assert made and made.changeset_bytes - 200 <= last <= 1.5 * made.changeset_bytes and meta.open_bytes == 0


@pytest.mark.parametrize("max_bytes", [1, 3000, 1 << 20])
def test_snapshot_applied_to_a_new_database_is_the_same(meta: Meta, replica: Meta, max_bytes: int) -> None:
    run(populate(meta, 700))
    run(every_table_again(meta))
    meta.commit()
    before, counters = meta.fingerprint(), meta.snapshot().counters
    run(add_file(meta, b"not committed"))
    snapshot = meta.snapshot()
    parts = list(snapshot.changesets(max_bytes))
    assert snapshot.counters == counters
    snapshot.close()
    if max_bytes > 1:
        assert max(map(len, parts)) < max_bytes + 256 * 3000
    assert (len(parts) > 10) == (max_bytes < 1 << 20)
    for part in parts:
        replica.apply(part)
    replica.commit()
    assert replica.fingerprint() == before and replica.counters == counters and list(replica.audit.problems()) == []
    meta.commit()
    replica.apply(records_after(meta, 1))                   # and the log goes on from there
    assert replica.fingerprint() == meta.fingerprint()


async def every_table_again(meta: Meta) -> None:
    meta.fsmeta_set("label", b"home")
    await meta.update_inode(1, mode=0o040700, mtime_ns=5)   # the root is no longer the initial one
    await meta.set_xattr(1, b"user.large", bytes(65536))


def records_after(meta: Meta, id: int) -> bytes:
    meta.drop_outbox(id)
    return drain(meta)


def test_snapshot_in_the_smallest_steps(meta: Meta, replica: Meta, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of the initial state stay changes of that state in whatever part they travel."""
    monkeypatch.setattr("s3cfs.meta.snapshot._STEP_ROWS", 1)
    run(every_table(meta))
    run(every_table_again(meta))
    meta.fsmeta_set("a", b"sorts before the first key")
    meta.commit()
    snapshot = meta.snapshot()
    for part in snapshot.changesets(1):
        replica.apply(part)
    snapshot.close()
    assert replica.fingerprint() == meta.fingerprint()


def test_snapshot_of_a_new_database_is_nothing(meta: Meta) -> None:
    snapshot = meta.snapshot()
    assert list(snapshot.changesets(1000)) == []
    snapshot.close()


def test_snapshot_in_a_thread_while_the_writer_goes_on(meta: Meta, replica: Meta) -> None:
    run(populate(meta, 1500))
    meta.commit()
    before = meta.fingerprint()
    snapshot = meta.snapshot()
    parts: list[bytes] = []
    thread = threading.Thread(target=lambda: parts.extend(snapshot.changesets(20000)))
    thread.start()
    round = 0
    while thread.is_alive() or round < 3:
        run(populate(meta, 50, b"r%d" % round))
        run(meta.unlink_name(1, b"r%d-folder" % round))
        meta.commit()
        meta.checkpoint_wal()
        round += 1
    thread.join()
    snapshot.close()
    for part in parts:
        replica.apply(part)
    assert replica.fingerprint() == before != meta.fingerprint()


def test_snapshot_on_the_only_connection(tmp_path: Path, replica: Meta) -> None:
    vfs = Vfs(f"only-{tmp_path.name}")
    meta = open_meta(tmp_path, vfs=vfs.name)
    run(populate(meta, 60))
    meta.commit()
    before = meta.fingerprint()
    run(populate(meta, 20, b"uncommitted"))
    run(meta.update_inode(1, mode=0o040700))
    run(meta.truncate(3, 0))
    dirty = meta.fingerprint()
    snapshot = meta.snapshot()
    run(populate(meta, 20, b"later"))
    for part in snapshot.changesets(4000):
        replica.apply(part)
    snapshot.close()
    assert replica.fingerprint() == before != dirty
    meta.close()
