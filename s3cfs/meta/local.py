"""What this machine notes for itself: never replicated, in the same database so that it commits with what it is about."""
from __future__ import annotations

from s3cfs.meta.engine import Engine

PACK_STATES = ("journal", "uploaded")


class Local:
    def __init__(self, engine: Engine) -> None:
        self._one, self._all, self._run = engine.one, engine.all, engine.run

    def local_get(self, key: str) -> bytes | None:
        row = self._one("SELECT value FROM local WHERE key = ?", (key,))
        return row[0] if row else None

    def local_set(self, key: str, value: bytes) -> None:
        self._run("INSERT INTO local VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = ?2", (key, value))

    def local_delete(self, key: str) -> None:
        self._run("DELETE FROM local WHERE key = ?", (key,))

    def set_pack_file(self, pack: int, state: str) -> None:
        """Where the bytes of a pack are: only in `journal`, or also in the store (`uploaded`)."""
        if state not in PACK_STATES:
            raise ValueError(f"not a state of a pack's file: {state}")
        self._run("INSERT INTO pack_file VALUES (?1, ?2) ON CONFLICT DO UPDATE SET state = ?2 WHERE state <> ?2", (pack, state))

    def pack_files(self) -> dict[int, str]:
        return dict(self._all("SELECT pack, state FROM pack_file ORDER BY pack"))

    def drop_pack_file(self, pack: int) -> None:
        self._run("DELETE FROM pack_file WHERE pack = ?", (pack,))
