"""Filling an empty database with everything there is.

Rows arrive in the order of their keys. All indexes but one get them in that order or nearly; hashes of chunks come at random, and past some
million rows each would be a page read and a page written. So that one index is left out and made at the end, from sorted rows: ten million
take half a minute instead of an hour. SQLite sorts in a file that has no name, in the folder for temporary files: all it holds is
keyed hashes and the numbers of rows, so it need not be sealed. (In memory ten million would be 700 MiB.)
"""
from __future__ import annotations

from s3cfs.meta.engine import Engine

AT_RANDOM = "chunk_by_hash"
TEMPORARY_FILES, TEMPORARY_MEMORY = 1, 2             # of PRAGMA temp_store


class Bulk:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def begin_bulk(self) -> None:
        """In a thread, on a database that is new."""
        self._engine.run(f"DROP INDEX {AT_RANDOM}")
        self._engine.commit()
        # apsw keeps the interpreter's lock while a changeset is applied, so SQLite must not wait for the disk in it: what a part changes
        # (some 20 MiB of pages) stays in memory until COMMIT, which lets go of the lock.
        self._engine.run("PRAGMA cache_spill = 0")

    def end_bulk(self) -> None:
        """In a thread; it takes a while."""
        engine = self._engine
        in_files = engine.doors.disk.sqlite_vfs is None             # another one may have no files without a name
        if in_files:
            engine.run(f"PRAGMA temp_store = {TEMPORARY_FILES}")
        engine.build_indexes()
        if in_files:
            engine.run(f"PRAGMA temp_store = {TEMPORARY_MEMORY}")
