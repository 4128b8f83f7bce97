"""Trouble that a disk makes: which calls fail, with what, from when on and how often."""
from __future__ import annotations

import errno
import math
import random
from dataclasses import dataclass, field

#: calls that may fail; those with db_ are SQLite's, by its VFS
READS = frozenset(("open", "read", "listdir", "size", "db_open", "db_read"))
WRITES = frozenset(("write", "truncate", "db_write", "db_truncate"))
SYNCS = frozenset(("fsync", "sync_dir", "db_fsync"))
NAMES = frozenset(("create", "rename", "unlink", "makedirs", "db_create", "db_delete"))
CALLS = tuple(sorted(READS | WRITES | SYNCS | NAMES))
NEVER = 1 << 40
MODES = ("once", "while", "lasting", "dying", "full", "handles", "syncs")


@dataclass
class Trouble:
    """Of the calls named, those from the `after`-th on fail, `lasts` of them."""

    calls: frozenset[str]
    code: int = errno.EIO
    after: int = 1
    lasts: float = 1
    seen: int = 0

    def fails(self, call: str) -> bool:
        if call not in self.calls:
            return False
        self.seen += 1
        return 0 <= self.seen - self.after < self.lasts

    def __str__(self) -> str:
        names = next((word for word, group in (("reads", READS), ("writes", WRITES), ("syncs", SYNCS)) if self.calls == group),
                     "+".join(sorted(self.calls)) if len(self.calls) < 4 else f"{len(self.calls)} calls")
        return f"{errno.errorcode[self.code]} of {names} from {self.after} for {self.lasts}"


@dataclass
class DiskFaults:
    """What a disk does in one life; `capacity_bytes` is where ENOSPC begins. `forgets`: what a failed fsync did not write is soon
    read as it was before (its pages are dropped), not only after a power cut."""

    troubles: list[Trouble] = field(default_factory=list)
    fsync_eio: float = 0.0                                    # the chance of each
    capacity_bytes: int = NEVER
    forgets: bool = False
    rng: random.Random = field(default_factory=lambda: random.Random(0))
    calm: int = 0                                             # somebody looks: no trouble for him
    fired: int = 0
    sync_failed: bool = False

    def check(self, call: str) -> int:
        """The errno this call fails with, or 0."""
        if self.calm:
            return 0
        for trouble in self.troubles:
            if trouble.fails(call):
                self.fired += 1
                self.sync_failed = self.sync_failed or call in SYNCS
                return trouble.code
        if self.fsync_eio and call in SYNCS and self.rng.random() < self.fsync_eio:
            self.fired += 1
            self.sync_failed = True
            return errno.EIO
        return 0

    @property
    def room_bytes(self) -> int:
        return NEVER if self.calm else self.capacity_bytes

    @property
    def any(self) -> bool:
        return bool(self.troubles or self.fsync_eio) or self.capacity_bytes < NEVER

    def __str__(self) -> str:
        full = [f"full at {self.capacity_bytes}"] if self.capacity_bytes < NEVER else []
        chance = [f"EIO of one sync in {1 / self.fsync_eio:.0f}"] if self.fsync_eio else []
        return ", ".join([*map(str, self.troubles), *chance, *full]) or "good disk"

    @classmethod
    def draw(cls, rng: random.Random, used_bytes: int, modes: tuple[str, ...] = MODES) -> DiskFaults:
        """Some of `modes`; near and far calls alike."""
        made = cls(rng=random.Random(rng.getrandbits(64)), forgets=rng.random() < 0.2)
        for mode in rng.choices(modes, weights=[3 if mode == "syncs" else 1 for mode in modes], k=rng.choice([1, 1, 2])):
            after = int(math.exp(rng.uniform(0.0, math.log(200))))
            match mode:
                case "full":
                    made.capacity_bytes = used_bytes + rng.randint(20_000, 2_000_000)
                case "handles":
                    made.troubles.append(Trouble(frozenset(("open", "create", "listdir", "db_open", "db_create")), errno.EMFILE,
                                                 after, rng.randint(1, 20)))
                case "syncs":
                    made.fsync_eio = rng.choice([0.02, 0.05, 0.2])
                case "dying":
                    made.troubles.append(Trouble(WRITES | SYNCS | NAMES, rng.choice([errno.EIO, errno.EROFS]), after * 3, math.inf))
                case _:
                    calls = frozenset((rng.choice(CALLS),)) if rng.random() < 0.7 else rng.choice([READS, WRITES, SYNCS])
                    code = rng.choice([errno.EIO, errno.EIO, errno.ENOSPC]) if not calls & READS else errno.EIO
                    lasts = {"once": 1, "while": rng.randint(2, 30), "lasting": math.inf}[mode]
                    made.troubles.append(Trouble(calls, code, after, lasts))
        return made
