"""Extents against a plain model: a file is a dict of byte -> (chunk, offset in it)."""
from __future__ import annotations

import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from s3cfs.errors import Damaged, StaleInode
from s3cfs.ids import ChunkId, PackName
from s3cfs.limits import Limits
from s3cfs.meta import Chunk, ChunkGone, Extent, Meta

from .kit import FILE, add_file, open_meta, run, sql

SPACE, CHUNK = 64, 24


@pytest.fixture
def meta(tmp_path: Path) -> Meta:
    return open_meta(tmp_path, None)


@st.composite
def replacements(draw: st.DrawFn) -> tuple[int, int, list[tuple[int, int, int, int]]]:
    """A range and (off, len, which chunk, coff) inside it; now and then more rows than are handled one by one."""
    start = draw(st.integers(0, SPACE - 1))
    end = draw(st.integers(start + 1, SPACE))
    points = sorted(draw(st.sets(st.integers(start, end), max_size=draw(st.sampled_from([4, 30])))))
    new = []
    for off, stop in zip(points, points[1:], strict=False):
        if draw(st.integers(0, 4)):
            length = min(stop - off, CHUNK)
            new.append((off, length, draw(st.integers(0, 9)), draw(st.integers(0, CHUNK - length))))
    return start, end, new


class Files(RuleBasedStateMachine):
    """Three files over ten chunks, and a replica that is fed the outbox. A removal of more than four extents goes by way of the trash."""

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.meta = open_meta(self.folder.name, None, limits=Limits(sweep_rows=4))
        self.replica = open_meta(self.folder.name, None, "replica.db")
        pack = run(self.meta.new_pack(1))
        run(self.meta.close_pack(pack, PackName(f"1-{1:064x}"), 99))
        self.chunks = [run(self.meta.add_chunk(ChunkId(bytes([n]) * 32), pack, n, 1, CHUNK)) for n in range(10)]
        self.files: dict[int, dict[int, tuple[int, int]]] = {}
        for number in range(3):
            self._new(number)
        self.inline: dict[int, int] = {}

    def _new(self, number: int) -> None:
        inode = run(self.meta.new_inode(FILE, 0, 0, 0, 0, nlink=1))
        run(self.meta.link_name(1, b"%d" % inode.ino, inode.ino))
        run(self.meta.update_inode(inode.ino, size=SPACE))
        self.files[inode.ino] = {}

    @rule(which=st.integers(0, 2), what=replacements())
    def replace(self, which: int, what: tuple[int, int, list[tuple[int, int, int, int]]]) -> None:
        ino = sorted(self.files)[which]
        start, end, new = what
        extents = [Extent(off, length, self.chunks[chunk], coff) for off, length, chunk, coff in new]
        run(self.meta.replace(ino, start, end, extents))
        model = self.files[ino]
        for at in range(start, end):
            model.pop(at, None)
        for e in extents:
            model.update({e.off + n: (e.chunk, e.coff + n) for n in range(e.len)})

    @rule(which=st.integers(0, 2), size=st.integers(0, SPACE))
    def truncate(self, which: int, size: int) -> None:
        ino = sorted(self.files)[which]
        run(self.meta.truncate(ino, size))
        self.files[ino] = {at: value for at, value in self.files[ino].items() if at < size}

    @rule(which=st.integers(0, 2))
    def drop(self, which: int) -> None:
        ino = sorted(self.files)[which]
        run(self.meta.unlink_name(1, b"%d" % ino))
        run(self.meta.drop_inode(ino))
        del self.files[ino]
        self._new(0)

    @rule(which=st.integers(0, 2), start=st.integers(0, SPACE), length=st.integers(1, SPACE))
    def read(self, which: int, start: int, length: int) -> None:
        ino = sorted(self.files)[which]
        found: dict[int, tuple[int, int]] = {}
        for extent, chunk in run(self.meta.extents(ino, start, start + length)):
            assert chunk.id == extent.chunk and chunk.len == CHUNK
            assert extent.off < start + length and extent.off + extent.len > start
            found.update({extent.off + n: (extent.chunk, extent.coff + n) for n in range(extent.len)})
        assert {a: v for a, v in found.items() if start <= a < start + length} == {
            a: v for a, v in self.files[ino].items() if start <= a < start + length}

    @rule(steps=st.integers(1, 20))
    def sweep(self, steps: int) -> None:
        for _ in range(steps):
            if not self.meta.sweep():
                assert not self.meta.has_trash and not sql(self.meta, "SELECT 1 FROM trash")
                break

    @rule()
    def commit(self) -> None:
        self.meta.commit()
        assert list(self.meta.audit.problems()) == []

    @rule(limit=st.sampled_from([1, 500, 1 << 20]))
    def replicate(self, limit: int) -> None:
        self.meta.commit()
        while part := self.meta.outbox_slice(limit):
            self.replica.apply(self.meta.beside.merged(part))
            self.meta.drop_outbox(part.upto)
        assert self.replica.fingerprint() == self.meta.fingerprint()
        assert self.replica.counters == self.meta.counters and self.replica.has_trash == self.meta.has_trash

    @invariant()
    def as_the_model(self) -> None:
        if not hasattr(self, "meta"):
            return
        uses: Counter[int] = Counter()
        used = 0
        for ino, model in self.files.items():
            found = {}
            for extent, _ in run(self.meta.extents(ino, 0, SPACE)):
                found.update({extent.off + n: (extent.chunk, extent.coff + n) for n in range(extent.len)})
                uses[extent.chunk] += 1
            assert found == model
            inode = run(self.meta.get(ino))
            swept = not sql(self.meta, "SELECT 1 FROM trash WHERE ino = ?", ino)
            assert inode and (inode.alloc == len(model) if swept else inode.alloc >= len(model))
            used += inode.alloc
        assert self.meta.counters.used_bytes == used
        for chunk in self.chunks:
            row = run(self.meta.chunk(chunk))
            assert row and (row.refs >= uses[chunk] if self.meta.has_trash else row.refs == uses[chunk])

    def teardown(self) -> None:
        if hasattr(self, "meta"):
            self.meta.close()
            self.replica.close()
            self.folder.cleanup()


Files.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck))
TestFiles = Files.TestCase


@pytest.mark.parametrize("layout", [[(3, 40)], [(0, 8), (8, 8), (20, 4), (30, 20)], [(3 * n + 1, 2 + n % 2) for n in range(16)]])
def test_every_cut_of_some_layouts(meta: Meta, layout: list[tuple[int, int]]) -> None:
    """All (start, end): few rows and many, whole ones, cut on the left, on the right, on both sides."""
    pack = run(meta.new_pack(1))
    run(meta.close_pack(pack, PackName(f"1-{1:064x}"), 99))
    chunks = [run(meta.add_chunk(ChunkId(bytes([n]) * 32), pack, n, 1, 100)) for n in range(3)]
    ino = run(add_file(meta, b"a", b""))
    run(meta.update_inode(ino, size=60))
    run(meta.replace(ino, 0, 60, [Extent(off, length, chunks[n % 2], 7 + n) for n, (off, length) in enumerate(layout)]))
    whole = {off + at: (chunks[n % 2], 7 + n + at) for n, (off, length) in enumerate(layout) for at in range(length)}
    meta.commit()
    used = meta.counters.used_bytes
    for start in range(60):
        for end in range(start + 1, 61):
            sql(meta, "SAVEPOINT before")
            run(meta.replace(ino, start, end, [Extent(start, 1, chunks[2], 50)]))
            found: dict[int, tuple[int, int]] = {}
            uses: Counter[int] = Counter()
            for extent, _ in run(meta.extents(ino, 0, 100)):
                assert extent.len > 0
                for at in range(extent.len):
                    assert extent.off + at not in found
                    found[extent.off + at] = (extent.chunk, extent.coff + at)
                uses[extent.chunk] += 1
            wanted = {at: value for at, value in whole.items() if not start <= at < end} | {start: (chunks[2], 50)}
            assert found == wanted, (start, end)
            assert [row[0] for row in sql(meta, "SELECT refs FROM chunk ORDER BY id")] == [uses[chunk] for chunk in chunks], (start, end)
            assert sql(meta, "SELECT alloc FROM inode WHERE ino = ?", ino) == [(len(wanted),)]
            assert meta.counters.used_bytes == used + len(wanted) - len(whole)
            sql(meta, "ROLLBACK TO before")
            sql(meta, "RELEASE before")
            meta.counters.used_bytes = used


def test_a_missing_chunk_changes_nothing(meta: Meta) -> None:
    a = run(add_file(meta, b"a"))
    meta.commit()
    before = meta.fingerprint()
    with pytest.raises(ChunkGone) as caught:
        run(meta.replace(a, 0, 9000, [Extent(0, 10, 1, 0), Extent(10, 10, 1, 50), Extent(20, 5, 77, 0)]))
    assert caught.value.chunk == 77 and meta.fingerprint() == before
    with pytest.raises(ValueError, match="shorter"):
        run(meta.replace(a, 0, 9000, [Extent(0, 10, 1, 4090)]))
    for wrong in ([Extent(5, 10, 1, 0), Extent(0, 5, 1, 0)], [Extent(0, 0, 1, 0)], [Extent(0, 10, 1, 0), Extent(9, 10, 1, 0)],
                  [Extent(8995, 10, 1, 0)], [Extent(0, 1, 1, -1)]):
        with pytest.raises(ValueError):
            run(meta.replace(a, 0, 9000, wrong))
    with pytest.raises(StaleInode):
        run(meta.replace(555, 0, 10, []))
    with pytest.raises(StaleInode):
        run(meta.truncate(555, 10))
    assert meta.fingerprint() == before and meta.failed is None


def test_inline_data_counts(meta: Meta) -> None:
    ino = run(meta.new_inode(FILE, 0, 0, 0, 0, nlink=0)).ino
    run(meta.update_inode(ino, data=b"0123456789", size=10))
    inode = run(meta.get(ino))
    assert inode and inode.alloc == 10 and inode.data == b"0123456789" and meta.counters.used_bytes == 10
    run(meta.truncate(ino, 4))
    inode = run(meta.get(ino))
    assert inode and inode.alloc == 4 and inode.data == b"0123" and inode.size == 10     # the size is the caller's
    run(meta.update_inode(ino, data=None))
    inode = run(meta.get(ino))
    assert inode and inode.alloc == 0 and inode.data is None and meta.counters.used_bytes == 0
    with pytest.raises(StaleInode):
        run(meta.update_inode(99, data=b"x"))


def test_damage_that_is_met_stops_the_writing(meta: Meta) -> None:
    a = run(add_file(meta, b"a"))
    sql(meta, "DELETE FROM chunk")
    with pytest.raises(Damaged):
        run(meta.truncate(a, 0))
    assert meta.failed
    with pytest.raises(Damaged):
        meta.commit()


def test_many_scattered_pages(meta: Meta) -> None:
    """Statements over the range: no loop over rows, none over holes, and no pile-up in the session's hash table."""
    count, span = 60000, 1 << 40
    ino = run(add_file(meta, b"big", b""))
    pack = run(meta.new_pack(1))
    chunks = [run(meta.add_chunk(ChunkId(n.to_bytes(32, "big")), pack, n, 1, 1 << 21)) for n in range(count // 500)]
    step = (span // count) & ~0xFFFF                        # multiples of 64 KiB, holes between them
    run(meta.replace(ino, 0, span, [Extent(n * step, 4096, chunks[n % len(chunks)], 0) for n in range(count)]))
    run(meta.update_inode(ino, size=span))
    meta.commit()
    assert list(meta.audit.problems()) == []
    statements: list[str] = []
    meta._engine.connection.trace_v2(1, lambda event: statements.append(event["sql"]))
    began = time.process_time()
    run(meta.replace(ino, step // 2, 100 * step + 100, []))
    run(meta.truncate(ino, step * 500 + 50))
    run(meta.truncate(ino, 0))
    run(meta.replace(ino, 0, span, []))
    spent = time.process_time() - began
    meta._engine.connection.trace_v2(0, None)
    assert len(statements) < 50
    assert spent < 5                                        # 0.1 s; two minutes when the table piles up
    inode = run(meta.get(ino))
    assert inode and inode.alloc == 0
    run(meta.update_inode(ino, size=0))
    run(meta.close_pack(pack, PackName(f"1-{9:064x}"), 5))
    meta.commit()
    assert list(meta.audit.problems()) == []


def test_chunks_and_packs(meta: Meta) -> None:
    pack = run(meta.new_pack(3))
    hash = ChunkId(b"h" * 32)
    assert run(meta.find_chunk(hash)) is None
    id = run(meta.add_chunk(hash, pack, 16, 90, 100))
    assert run(meta.find_chunk(hash)) == Chunk(id, hash, pack, 16, 90, 100, 0) == run(meta.chunk(id))
    meta.mark_bad(id)
    assert run(meta.find_chunk(hash)) is None
    again = run(meta.add_chunk(hash, pack, 200, 90, 100))   # stored once more, under the same hash
    found = run(meta.find_chunk(hash))
    assert found and found.id == again
    assert [c.id for c in run(meta.chunks_of(pack))] == [id, again]
    meta.unmark_bad(id)
    opened = run(meta.pack(pack))
    assert (opened.name, opened.state, opened.epoch) == (None, "open", 3) and run(meta.open_packs()) == [opened]
    name = PackName(f"3-{5:064x}")
    run(meta.close_pack(pack, name, 4321))
    assert meta.pack_of(pack).name == name and meta.pack_of(pack).size == 4321 and run(meta.open_packs()) == []
    with pytest.raises(ValueError):
        run(meta.close_pack(pack, name, 1))
    with pytest.raises(ValueError):
        run(meta.drop_pack(pack))
    other = run(meta.new_pack(3))
    run(meta.move_chunk(id, other, 7))
    moved = run(meta.chunk(id))
    assert moved and (moved.pack, moved.off) == (other, 7)
    with pytest.raises(ChunkGone):
        run(meta.move_chunk(99, other, 7))
    empty = run(meta.new_pack(3))
    run(meta.drop_pack(empty))
    assert run(meta.new_pack(3)) == empty + 1
    assert [p.id for p in run(meta.packs(after=pack))] == [other, empty + 1]
    with pytest.raises(Damaged):
        run(meta.pack(empty))
    a = run(add_file(meta, b"a", b"abc"))
    extent, chunk = run(meta.extents(a, 0, 1))[0]
    assert run(meta.users_of(chunk.id)) == [(a, extent)]
    totals = meta.totals()
    assert (totals.inodes, totals.file_bytes, totals.chunks, totals.chunk_bytes, totals.sealed_bytes) == (2, 3, 1, 3, 90)


def test_what_is_known_of_unsent_packs_stays_local(tmp_path: Path) -> None:
    meta = open_meta(tmp_path, None)
    meta.note_unsent(1)
    meta.note_unsent(2)
    meta.note_unsent(1)
    meta.forget_unsent(2)
    assert not meta.dirty and meta.commit() is None
    meta.close()
    meta = open_meta(tmp_path, None)
    assert meta.unsent() == [1]
    meta.local_set("k", b"1")
    meta.local_delete("k")
    assert meta.local_get("k") is None


async def large_file(meta: Meta, rows: int, name: bytes = b"large") -> int:
    """A file of `rows` extents of 10 bytes, each of a chunk of its own."""
    pack = await meta.new_pack(1)
    await meta.close_pack(pack, PackName(f"1-{pack:064x}"), 99)
    ino = await add_file(meta, name, b"")
    for first in range(0, rows, 1000):
        many = range(first, min(first + 1000, rows))
        chunks = [await meta.add_chunk(ChunkId(b"%032d" % n), pack, n, 1, 10) for n in many]
        await meta.replace(ino, 10 * first, 10 * (first + len(many)), [Extent(10 * n, 10, chunk, 0)
                                                                      for n, chunk in zip(many, chunks, strict=True)])
    await meta.update_inode(ino, size=10 * rows)
    return ino


@pytest.mark.parametrize("way", ["removed", "emptied", "shortened"])
def test_a_large_removal_goes_in_bounded_transactions(tmp_path: Path, way: str) -> None:
    """Whatever goes, no changeset has more than sweep_rows of its rows; and it goes on after a crash."""
    limits = Limits(sweep_rows=1000)
    meta, replica = open_meta(tmp_path, None, limits=limits), open_meta(tmp_path, None, "replica.db")
    rows = 5 * limits.sweep_rows // 2
    ino = run(large_file(meta, rows))
    made = meta.commit()
    assert made and made.changeset_bytes > 250_000
    told: list[int] = []
    meta.when_trash_comes(lambda: told.append(1))
    left = 0
    if way == "removed":
        run(meta.unlink_name(1, b"large"))
        run(meta.drop_inode(ino))
    else:
        left = 0 if way == "emptied" else 15
        run(meta.truncate(ino, left))
        run(meta.update_inode(ino, size=left))
        run(meta.replace(ino, 1000, 1010, [Extent(1000, 10, 1, 0)]))     # it goes on being written
        run(meta.update_inode(ino, size=1010))
    made = meta.commit()
    assert told and made and made.changeset_bytes < 2000 and list(meta.audit.problems()) == []
    meta.close()
    meta = open_meta(tmp_path, None, limits=limits)
    steps = 0
    while meta.sweep():
        made = meta.commit()
        assert made and made.changeset_bytes < 200 * limits.sweep_rows
        steps += 1
    assert 3 <= steps <= 4 and list(meta.audit.problems()) == []
    wanted = {"removed": [], "emptied": [(1000, 10)], "shortened": [(0, 10), (10, 5), (1000, 10)]}[way]
    assert [(extent.off, extent.len) for extent, _ in run(meta.extents(ino, 0, 1 << 40))] == wanted
    assert meta.counters.used_bytes == sum(length for _, length in wanted)
    while part := meta.outbox_slice(1 << 20):
        replica.apply(meta.beside.merged(part))
        meta.drop_outbox(part.upto)
    assert replica.fingerprint() == meta.fingerprint()
    meta.close()
    replica.close()


def test_marks_of_bad_chunks_reach_every_machine(tmp_path: Path) -> None:
    here, there = open_meta(tmp_path, None, "here"), open_meta(tmp_path, None, "there")
    run(add_file(here, b"a"))
    hash = ChunkId(b"a".ljust(32, b"."))

    def send() -> None:
        here.commit()
        found = here.outbox_slice(1 << 20)
        assert found is not None
        there.apply(here.beside.merged(found))
        there.commit()
        here.drop_outbox(found.upto)
        here.commit()

    send()
    assert run(there.find_chunk(hash)) is not None
    here.mark_bad(1)
    here.mark_bad(1)
    assert here.dirty
    send()
    assert run(there.find_chunk(hash)) is None and there.bad_chunks() == {1} == here.bad_chunks()
    assert list(there.audit.problems()) == []
    there.close()
    there = open_meta(tmp_path, None, "there")
    assert there.bad_chunks() == {1}
    here.unmark_bad(1)
    here.unmark_bad(1)
    send()
    assert run(there.find_chunk(hash)) is not None and there.bad_chunks() == frozenset()
    here.mark_bad(1)
    run(here.truncate(2, 0))
    assert run(here.drop_chunk(1)) and here.bad_chunks() == frozenset()
    send()
    assert there.bad_chunks() == frozenset() and list(there.audit.problems()) == []
    here.close()
    there.close()
