"""SQLite's write-ahead log: syncing it, copying it into the database, beginning it anew. A thread does the work; the loop copies nothing.

synchronous=NORMAL syncs nothing at COMMIT; `sync` does, on a descriptor that was open before any write (a later one could miss an error
the kernel has already reported). `copy` is a PASSIVE checkpoint of a second connection; SQLite syncs the log before it and the database
after it there. It copies what is committed, and waits for nobody.

The log begins anew only with a BEGIN that finds every page copied, and a first write that finds no reader in the log. As another
transaction is always open, the thread is never there first by itself. So when the log is long, whoever ends transactions holds changes
back while a thread copies what the last one left (history/transactions.py), and then has the engine begin its transaction once more
(`Engine.restart_wal`), which costs nothing but that the next COMMIT syncs the new log's first page (else a power cut could have SQLite
play in the beginning of the old one). A reader delays it until a later attempt: those of beside.py are short; a snapshot is not, and
while one is open the log only grows.
"""
from __future__ import annotations

import threading

import apsw

from s3cfs.doors import DiskFile, Doors
from s3cfs.meta.database import connect


class Wal:
    """Errors are those of apsw and the disk; the engine says what they mean."""

    def __init__(self, doors: Doors, path: str, key: bytes | None, connection: apsw.Connection) -> None:
        """`connection` writes; it must have a transaction open, so that the file is there."""
        self._limits = doors.limits
        self._copying = threading.Lock()
        self.pages = 0                    # in it, committed
        self.copied = 0                   # of them, in the database and synced
        self._begun = 0                   # times it began anew
        self._tried = -1                  # pages when it was last made ready for that
        connection.set_wal_hook(self._committed)
        self._file: DiskFile = doors.disk.open(path + "-wal")
        self._copier = connect(doors, path, key)

    def _committed(self, _connection: apsw.Connection, _schema: str, pages: int) -> int:
        if pages < self.pages:
            self.copied, self._tried, self._begun = 0, -1, self._begun + 1
        self.pages = pages
        return apsw.SQLITE_OK

    @property
    def rest(self) -> int:
        """Pages that are not copied."""
        return self.pages - self.copied

    @property
    def is_long(self) -> bool:
        """Worth being begun anew; not again before something came."""
        return self.pages >= self._limits.wal_restart_pages and self.pages != self._tried

    def ready(self) -> bool:
        """Whether the next BEGIN can make it begin anew; asked right before that."""
        if not self.is_long or self.rest > 0:
            return False
        self._tried = self.pages
        return True

    def sync(self) -> None:
        """In a thread."""
        self._file.fsync()

    def copy(self) -> None:
        """In a thread: everything that is committed, when it is much or the log is long."""
        if self.rest < (1 if self.is_long else self._limits.wal_copy_pages) or not self._copying.acquire(blocking=False):
            return
        try:
            begun = self._begun
            copied = self._copier.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_PASSIVE)[1]
            if begun == self._begun:
                self.copied = copied
        finally:
            self._copying.release()

    def close(self, *, keep: bool) -> None:
        """Before the connection that writes is closed. `keep`: the next process is to find the log as it is."""
        self._file.close()
        with self._copying:
            if keep:
                self._copier.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            self._copier.close()
