"""What this machine notes for itself: never replicated, in the same database so that it commits with what it is about."""
from __future__ import annotations

from s3cfs.meta.engine import Engine
from s3cfs.meta.types import Riding


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

    def note_unsent(self, pack: int) -> None:
        """This pack is finished and has its name; until `forget_unsent` the file in the journal may be its only copy."""
        self._run("INSERT INTO unsent VALUES (?) ON CONFLICT DO NOTHING", (pack,))

    def unsent(self) -> list[int]:
        return [row[0] for row in self._all("SELECT pack FROM unsent ORDER BY pack")]

    def forget_unsent(self, pack: int) -> None:
        self._run("DELETE FROM unsent WHERE pack = ?", (pack,))

    def note_riding(self, pack: int, key: str, base: int) -> None:
        """The pack's bytes lie in the object `key`, a record's, from `base` on."""
        self._run("INSERT INTO riding VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET key = ?2, base = ?3", (pack, key, base))

    def riding(self) -> list[Riding]:
        """Every pack that rides in a record, oldest first."""
        return [Riding(*row) for row in self._all("SELECT pack, key, base FROM riding ORDER BY pack")]

    def riding_totals(self) -> tuple[int, int]:
        """How many they are, and their bytes."""
        row = self._one("SELECT count(*), coalesce(sum(size), 0) FROM riding CROSS JOIN pack ON pack = id")    # never the other way round
        assert row is not None
        return int(row[0]), int(row[1])

    def tidy_riding(self) -> None:
        """Forget those whose rows went: records were applied."""
        self._run("DELETE FROM riding WHERE pack NOT IN (SELECT id FROM pack)")
