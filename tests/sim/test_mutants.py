"""s3cfs made wrong on purpose, in ways that the simulator must find: each by a seed that is well without."""
from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from s3cfs.blocks.journal import Journal
from s3cfs.errors import StoreError
from s3cfs.formats.record import Record
from s3cfs.history import logbook
from s3cfs.history.commits import Commits
from s3cfs.history.office import Writer
from s3cfs.history.pipeline import Pipeline
from s3cfs.history.presence import Presence
from s3cfs.history.uploads import Uploads
from s3cfs.meta import database
from s3cfs.meta.engine import Engine
from s3cfs.meta.snapshot import Snapshot
from s3cfs.vfs.core import Vfs
from s3cfs.vfs.dirty import DirtyMap
from s3cfs.vfs.files import Files
from s3cfs.vfs.spool import Spool
from s3cfs.vfs.state import FileState
from s3cfs.vfs.xattrs import Xattrs

from .assembly import S3cfs, Settings
from .disk import SimDisk
from .nature import Families
from .story import tell

FIRST, SEEDS = 1000, 240
AWAY, DISK = Families.only("outage,resources"), Families.only("disk")
OFFICE = Families.only("two,office,endings")


def _nothing(*arguments: Any, **options: Any) -> None:
    return None


async def _nothing_soon(*arguments: Any, **options: Any) -> None:
    return None


async def _nobody_soon(*arguments: Any, **options: Any) -> list[Any]:
    return []


async def _zero_soon(*arguments: Any, **options: Any) -> int:
    return 0


def _take_all_back(state: FileState, data: DirtyMap) -> None:
    for at, piece in data.items():
        state.dirty.put_under(at, piece)
    state.dirty.cut(state.size, 1 << 62)


def _empty(spool: Spool, referred_bytes: int) -> None:
    if spool._file is not None:
        spool._file.truncate(0)
        spool._end = 0


_bring = Uploads._bring


async def _refused_is_done(uploads: Uploads, pack: Any) -> bool:
    try:
        return await _bring(uploads, pack)
    except StoreError:
        return True


async def _its_size_soon(uploads: Uploads, pack: Any) -> int:
    return int(pack.size)


async def _impatient(writer: Any, tip: Any, *arguments: Any) -> Any:
    return await _wait(writer, replace(tip, info={**tip.info, "every": 0}), *arguments)


_wait = Writer._wait_for_silence


async def _durable_for_ever(commits: Any) -> None:
    if commits._options.sync_remote:
        return await commits.flush(files=False)  # type: ignore[no-any-return]
    await _durable(commits)


_durable = Commits.durable


class Slow(S3cfs):
    """Commits are rare."""

    def settings(self, rng: random.Random) -> Settings:
        made = super().settings(rng)
        return replace(made, options=replace(made.options, commits=replace(made.options.commits, commit_interval_s=60.0, max_lag_s=None)))


class Synced(S3cfs):
    """fsync waits for the store."""

    def settings(self, rng: random.Random) -> Settings:
        made = super().settings(rng)
        return replace(made, options=replace(made.options, commits=replace(made.options.commits, sync_remote=True)))


@dataclass(frozen=True)
class Mutant:
    owner: Any                    # a class or a module
    name: str
    broken: Callable[..., Any]
    families: Families = Families().without("age")        # so that the seeds that found them stay
    assembly: type[S3cfs] = S3cfs
    first: int = FIRST            # near a seed that has found it


MUTANTS: dict[str, Mutant] = {
    "fsync of the disk does nothing": Mutant(SimDisk, "sync_node", _nothing),
    "the WAL is not synced": Mutant(Engine, "sync_wal", _nothing, first=1007),
    "the journal is not synced before COMMIT": Mutant(Journal, "sync", _nothing_soon),
    "a record does not wait for its packs": Mutant(Pipeline, "_wait_for_packs", _nobody_soon, first=1004),
    "flush returns at once": Mutant(Pipeline, "flush", _nothing_soon, first=1004),
    "fsync returns at once": Mutant(Files, "fsync", _nothing_soon, first=1010),
    "closed files are not staged for a transaction": Mutant(Files, "stage_ready", _nothing_soon, first=1013),
    "a rename over a file does not take its content along": Mutant(Files, "before_replace", _nothing_soon, first=1109),
    "what was cut off comes back": Mutant(FileState, "take_back", _take_all_back, first=1070),
    "the spool is emptied under a thread": Mutant(Spool, "settle", _empty, first=1039),
    "an attribute is not kept": Mutant(Xattrs, "set", _nothing_soon, first=1009),
    "where riders lie is not noted by who reads their record": Mutant(Record, "bases", lambda record: iter(())),
    "where riders lie is not noted by who writes their record": Mutant(logbook, "bases", lambda head_bytes, riders: iter(())),
    "a checkpoint does not say where riders lie": Mutant(Snapshot, "riding", lambda snapshot: []),
    "what is under a pack's name counts as all of it": Mutant(Uploads, "_size_there", _its_size_soon, first=3110),
    "a refused pack counts as put": Mutant(Uploads, "_bring", _refused_is_done, first=1077),
    "an earlier process's outbox is not committed": Mutant(Commits, "take_over", _nothing_soon, first=4362),
    "silence is not waited for as long as it was promised": Mutant(Writer, "_wait_for_silence", _impatient, OFFICE, Slow, first=1053),
    "a busy writer is silent": Mutant(Presence, "_look", _nothing_soon, first=1134),
    "an idle writer does not ask before it relies on its office": Mutant(Presence, "confirm", _nothing_soon, OFFICE, first=1062),
    "orphans of a crash stay": Mutant(Vfs, "recover_orphans", _zero_soon),
    "fsync waits for the store for ever": Mutant(Commits, "durable", _durable_for_ever, AWAY, Synced, first=1069),
    "the WAL of an earlier process is trusted": Mutant(database, "rewrite_wal", _nothing, DISK, first=3009),
    "a failed statement is nothing": Mutant(Engine, "blame", lambda self, error: error, first=1194),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutants_are_found(mutant, monkeypatch):
    chosen = MUTANTS[mutant]
    for seed in range(chosen.first, chosen.first + SEEDS):
        with monkeypatch.context() as patch:
            patch.setattr(chosen.owner, chosen.name, chosen.broken)
            found = tell(seed, chosen.assembly(), families=chosen.families).finding
        if found is not None and tell(seed, chosen.assembly(), families=chosen.families).finding is None:
            return
    pytest.fail("nobody noticed")
