"""Questions that are asked in threads, and those on the loop that must not grow with the filesystem."""
from __future__ import annotations

import threading
from pathlib import Path

import apsw
import pytest
import trio

from s3cfs.errors import CacheUnusable
from s3cfs.meta import Meta
from tests.loopmeter import SqlMeter

from .kit import Vfs, VfsFile, add_file, open_meta, populate, run, sql


@pytest.fixture
def meta(tmp_path: Path):
    meta = open_meta(tmp_path)
    run(populate(meta, 600))
    meta.commit()
    yield meta
    meta.close()


def test_it_sees_the_last_commit(meta: Meta) -> None:
    before = meta.totals()
    assert meta.beside.totals() == before and meta.beside.outbox() == meta.outbox()
    run(add_file(meta, b"open"))
    after = meta.totals()
    assert after.chunks == before.chunks + 1 and meta.beside.totals().chunks == before.chunks
    meta.commit()
    assert meta.beside.totals() == after and meta.beside.outbox() == meta.outbox()


def test_slices_are_all_of_it(meta: Meta, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s3cfs.meta.beside.SLICE_IDS", 7)
    assert meta.beside.totals() == meta.totals()


def test_several_threads_have_a_connection_each_and_few_stay_open(meta: Meta, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s3cfs.meta.beside.IDLE_MAX", 2)
    inside, leave = threading.Barrier(5), threading.Event()

    def hold() -> None:
        with meta.beside.connection():
            inside.wait()
            leave.wait()

    threads = [threading.Thread(target=hold) for _ in range(4)]
    for thread in threads:
        thread.start()
    inside.wait()
    assert meta.commit() is None and run(meta.lookup(1, b"f-folder"))       # nobody is in the way
    leave.set()
    for thread in threads:
        thread.join()
    assert len(meta.beside._idle) == 2


def test_an_error_of_a_reader_is_no_error_of_the_transaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vfs = Vfs(f"beside-{tmp_path.name}")
    meta = open_meta(tmp_path, vfs=vfs.name)
    run(populate(meta, 50))
    meta.commit()
    assert meta.beside.outbox()[0] == 1
    meta.checkpoint_wal()
    real = VfsFile.xRead

    def broken(self: VfsFile, amount: int, offset: int) -> bytes:
        if threading.current_thread() is not threading.main_thread():
            raise apsw.IOError("the disk")
        return bytes(real(self, amount, offset))
    monkeypatch.setattr(VfsFile, "xRead", broken)
    errors: list[Exception] = []

    def ask() -> None:
        try:
            meta.beside.all("SELECT count(*) FROM inode, dentry")
        except Exception as error:
            errors.append(error)
    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert len(errors) == 1 and isinstance(errors[0], CacheUnusable) and meta.failed is None and not meta.beside._idle
    assert run(meta.lookup(1, b"f-folder"))
    meta.close()


def test_the_outbox_goes_though_no_connection_can_be_opened(meta: Meta, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody removed the folder beside the mount: what is unsent is brought to the store by the files that are open."""
    part = meta.outbox_slice(1 << 20)
    assert part
    changeset = meta.beside.merged(part)
    meta.beside.close()

    def gone(*args: object) -> None:
        raise apsw.CantOpenError("no such file")
    monkeypatch.setattr("s3cfs.meta.beside.connect", gone)
    assert trio.run(meta.beside.merge, part) == changeset


def test_what_a_mount_asks_again_and_again_does_not_grow_with_the_filesystem(meta: Meta) -> None:
    chunk = sql(meta, "SELECT max(id) FROM chunk")[0][0]
    meta.mark_bad(chunk)
    meta.commit()
    with SqlMeter(meta) as steps:
        assert meta.bad_in_use() == 1
        assert len(run(meta.chunks_of(5))) == 1
        assert len(run(meta.chunks_of_many([5, 6]))) == 2
        assert run(meta.open_packs()) == []
        assert meta.last_outbox_id() and meta.outbox_slice(1 << 20)
        assert steps.most_steps < 250 and steps.scanned <= 3, steps.worst


def test_a_record_that_is_applied_does_not_read_marks_and_trash(tmp_path: Path, meta: Meta) -> None:
    there = open_meta(tmp_path / "there")
    for id in range(300):
        sql(meta, "INSERT INTO bad_chunk VALUES (?)", 100_000 + id)
        sql(meta, "INSERT INTO trash VALUES (?, 0, 1)", 100_000 + id)
    meta.commit()
    changesets = list(meta.unsent_changes())
    for changeset in changesets:
        there.apply(changeset)
    run(meta.new_inode(0o100644, 0, 0, 0, 1, nlink=0))
    meta.commit()
    with SqlMeter(there) as steps:
        there.apply(list(meta.unsent_changes())[-1])
        assert steps.most_steps < 200, steps.worst
        assert len(there.bad_chunks()) == 300 and there.has_trash
        assert steps.most_steps > 300
    there.close()


def test_a_long_outbox_is_not_read_to_its_end(meta: Meta, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s3cfs.meta.changes.SLICE_ROWS", 20)
    meta.drop_outbox(meta.last_outbox_id())
    for number in range(200):
        run(meta.update_inode(1, mtime_ns=number))
        meta.commit()
    with SqlMeter(meta) as steps:
        part = meta.outbox_slice(1 << 20)
        assert part and len(part.rows) == 20
        assert steps.steps < 1000
