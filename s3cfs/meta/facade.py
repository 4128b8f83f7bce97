"""Meta: the one door to the metadata. Its methods are those of its parts; nothing outside this folder speaks SQL.

Methods about files are `async`, since another engine may have to wait; this one never suspends. Everything is called on the
event-loop thread, but for `sync_wal`, `checkpoint_wal`, `build_indexes`, `beside` and `Snapshot.changesets`, which are for a thread.
While a database is being loaded nobody but the loader uses it, and all it calls is called in threads (history/restore.py, replica.py).
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from s3cfs.doors import Doors
from s3cfs.errors import S3cfsError
from s3cfs.meta.audit import Audit
from s3cfs.meta.beside import Beside
from s3cfs.meta.bulk import Bulk
from s3cfs.meta.changes import Changes
from s3cfs.meta.content import Content
from s3cfs.meta.engine import Engine
from s3cfs.meta.local import Local
from s3cfs.meta.reverse import Reverse
from s3cfs.meta.snapshot import Snapshot, fingerprint, totals
from s3cfs.meta.tree import Tree
from s3cfs.meta.types import Counters, Totals, Transaction
from s3cfs.meta.warmth import Warmth


class Meta:
    """Composed, not inherited: __init__ lists the whole interface."""

    @classmethod
    def open(cls, doors: Doors, path: str, key: bytes | None) -> Meta:
        """`path` is relative to doors.disk. Made when absent. Damaged, CacheUnusable, CacheFull, NewerFormat."""
        return cls(Engine(doors, path, key))

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._content = content = Content(engine)
        tree = Tree(engine, content)
        changes = Changes(engine, content.reload)
        local = Local(engine)
        reverse = Reverse(engine.ask)
        bulk = Bulk(engine)
        self.audit = Audit(engine)
        self.beside = Beside(engine)
        self.warmth = Warmth(engine, self.beside)
        self.reverse_beside = Reverse(self.beside.ask)

        self.get, self.new_inode, self.update_inode, self.drop_inode = tree.get, tree.new_inode, tree.update_inode, tree.drop_inode
        self.add_orphan, self.drop_orphan, self.orphans = tree.add_orphan, tree.drop_orphan, tree.orphans
        self.lookup, self.children, self.is_empty, self.names = tree.lookup, tree.children, tree.is_empty, tree.names
        self.link_name, self.unlink_name, self.move_name = tree.link_name, tree.unlink_name, tree.move_name
        self.get_xattr, self.set_xattr = tree.get_xattr, tree.set_xattr
        self.list_xattrs, self.remove_xattr = tree.list_xattrs, tree.remove_xattr

        self.extents, self.replace, self.truncate = content.extents, content.replace, content.truncate
        self.find_chunk, self.add_chunk = content.find_chunk, content.add_chunk
        self.chunk, self.move_chunk, self.forget_chunk = content.chunk, content.move_chunk, content.forget_chunk
        self.chunks_of, self.users_of = content.chunks_of, content.users_of
        self.mark_bad, self.unmark_bad = content.mark_bad, content.unmark_bad
        self.bad_chunks, self.bad_in_use = content.bad_chunks, content.bad_in_use
        self.new_pack, self.close_pack, self.drop_pack = content.new_pack, content.close_pack, content.drop_pack
        self.pack, self.pack_of, self.open_packs, self.packs = content.pack, content.pack_of, content.open_packs, content.packs

        self.users_of_many, self.names_of_many = reverse.users_of_many, reverse.names_of_many
        self.chunks_of_many, self.drop_chunk = reverse.chunks_of_many, content.drop_chunk

        self.sweep = content.sweep

        self.apply, self.outbox = changes.apply, changes.outbox
        self.begin_bulk, self.end_bulk = bulk.begin_bulk, bulk.end_bulk
        self.outbox_slice, self.void_cuts = changes.outbox_slice, changes.void_cuts
        self.unsent_changes, self.drop_outbox, self.last_outbox_id = changes.unsent_changes, changes.drop_outbox, changes.last_outbox_id

        self.local_get, self.local_set, self.local_delete = local.local_get, local.local_set, local.local_delete
        self.note_unsent, self.unsent, self.forget_unsent = local.note_unsent, local.unsent, local.forget_unsent
        self.note_riding, self.riding = local.note_riding, local.riding
        self.riding_totals, self.tidy_riding = local.riding_totals, local.tidy_riding

        self.missing_indexes, self.build_indexes = engine.missing_indexes, engine.build_indexes
        self.sync_wal, self.checkpoint_wal, self.restart_wal = engine.sync_wal, engine.checkpoint_wal, engine.restart_wal

    @property
    def dirty(self) -> bool:
        """Replicated changes since the last commit()."""
        return self._engine.dirty

    @property
    def open_bytes(self) -> int:
        """Upper bound of the changeset that commit() would make now; cheap."""
        return self._engine.open_bytes

    @property
    def open_share(self) -> float:
        """How large the open transaction is: 1 is as large as it should become, in bytes or in rows. Cheap."""
        limits = self._engine.doors.limits
        return max(self._engine.open_bytes / limits.transaction_max_bytes, self._engine.open_rows / self._engine.rows_bound)

    @property
    def wal_pages(self) -> int:
        """Length of SQLite's log, in pages of 4 KiB."""
        return self._engine.wal.pages

    @property
    def wal_rest(self) -> int:
        """Of them, those that are not copied into the database."""
        return self._engine.wal.rest

    @property
    def wal_is_long(self) -> bool:
        """Whether the log should begin anew, and could: restart_wal()."""
        return self._engine.wal.is_long and not self._engine.snapshots

    @property
    def has_trash(self) -> bool:
        """Whether sweep() has something to do."""
        return self._content.has_trash

    def when_trash_comes(self, tell: Callable[[], None]) -> None:
        """`tell` is called whenever a removal leaves something to sweep."""
        self._content.on_trash = tell

    @property
    def failed(self) -> S3cfsError | None:
        """Why every call raises from now on, or None."""
        return self._engine.failed

    @property
    def counters(self) -> Counters:
        """As of this moment, uncommitted changes included. Not to be changed."""
        return self._engine.counters

    def commit(self) -> Transaction | None:
        """End the transaction and begin the next; what it left in the outbox, or None when nothing replicated changed.

        Durable against a crash of this process; against one of the machine after sync_wal().
        """
        return self._engine.commit()

    def snapshot(self) -> Snapshot:
        """The replicated state at the last commit(). Close it."""
        if self._engine.failed:
            raise self._engine.again()
        return Snapshot(self._engine)

    def totals(self) -> Totals:
        """A pass over all chunks, on the event loop: for few of them. Else `beside.totals`."""
        return totals(self._engine)

    def close(self) -> None:
        """Undo what was not committed; after a failure leave the WAL as it is, for the next process to recover."""
        self.beside.close()
        self._engine.close()

    # ------------------------------------------------------------ parameters of the file system (replicated)

    def fsmeta_get(self, key: str) -> bytes | None:
        row = self._engine.one("SELECT value FROM fsmeta WHERE key = ?", (key,))
        return row[0] if row else None

    def fsmeta_set(self, key: str, value: bytes) -> None:
        self._engine.run("INSERT INTO fsmeta VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = ?2 WHERE value <> ?2", (key, value))

    # ------------------------------------------------------------ checks

    def fingerprint(self) -> bytes:
        """32 bytes that are equal exactly when all replicated rows are. Counters are rows only after commit()."""
        def rows(sql: str) -> Iterator[tuple[Any, ...]]:
            return iter(self._engine.connection.execute(sql))
        if self._engine.failed:
            raise self._engine.again()
        return fingerprint(rows)

    def quick_check(self) -> list[str]:
        """What SQLite itself finds wrong with the file; empty is well. Reads all of it."""
        return [str(row[0]) for row in self._engine.all("PRAGMA quick_check") if row[0] != "ok"]
