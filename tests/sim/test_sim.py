"""Stories of s3cfs: many seeds that must go well, the same seed twice, and s3cfs made wrong in ways that must be found."""
from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from s3cfs.blocks.journal import Journal
from s3cfs.history.pipeline import Pipeline
from s3cfs.meta.engine import Engine
from s3cfs.vfs.dirty import DirtyMap
from s3cfs.vfs.files import Files
from s3cfs.vfs.spool import Spool
from s3cfs.vfs.state import FileState
from s3cfs.vfs.xattrs import Xattrs

from .assembly import S3cfs
from .disk import SimDisk
from .story import tell

BATCH = 50
FIRST_SEED = int(os.environ.get("S3CFS_SIM_SEED", "1"))


@pytest.mark.parametrize("batch", range(10))
def test_stories(batch):
    first = FIRST_SEED + batch * BATCH
    for seed in range(first, first + BATCH):
        story = tell(seed, S3cfs())
        if story.finding is not None:
            pytest.fail(f"{story.text}\nagain: python -m tests.sim --seed {seed} --count 1", pytrace=False)


def test_time_that_was_not_mounted_is_not_the_systems_lag():
    """Of this seed the second life does not come to mount for 200 s; what the first one did has no claim to be in the store by then."""
    assert tell(101990, S3cfs()).finding is None


def told(seed: int) -> str:
    story = tell(seed, S3cfs())
    return "\n".join([*story.lines, *story.last_trace, str(story.lives), str(story.operations)])


def test_one_seed_is_one_story():
    for seed in (3, 8, 12):
        assert told(seed) == told(seed)


def test_the_order_of_sets_does_not_matter():
    """Another hash seed, another process, the same story."""
    script = "from tests.sim.test_sim import told; print(told(5), told(9))"
    outputs = {subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60,
                              env={**os.environ, "PYTHONHASHSEED": number}).stdout for number in ("1", "77")}
    assert len(outputs) == 1


def _nothing(*arguments: Any, **options: Any) -> None:
    return None


async def _nothing_soon(*arguments: Any, **options: Any) -> None:
    return None


def _take_all_back(state: FileState, data: DirtyMap) -> None:
    for at, piece in data.items():
        state.dirty.put_under(at, piece)
    state.dirty.cut(state.size, 1 << 62)


def _empty(spool: Spool, referred_bytes: int) -> None:
    if spool._file is not None:
        spool._file.truncate(0)
        spool._end = 0


#: what is broken, and how
MUTANTS: dict[str, tuple[type, str, Callable[..., Any]]] = {
    "fsync of the disk does nothing": (SimDisk, "sync_node", _nothing),
    "the WAL is not synced": (Engine, "sync_wal", _nothing),
    "the journal is not synced before COMMIT": (Journal, "sync", _nothing_soon),
    "a record does not wait for its packs": (Pipeline, "_wait_for_packs", _nothing_soon),
    "flush returns at once": (Pipeline, "flush", _nothing_soon),
    "fsync returns at once": (Files, "fsync", _nothing_soon),
    "closed files are not staged for a transaction": (Files, "stage_ready", _nothing_soon),
    "a rename over a file does not take its content along": (Files, "before_replace", _nothing_soon),
    "what was cut off comes back": (FileState, "take_back", _take_all_back),
    "the spool is emptied under a thread": (Spool, "settle", _empty),
    "an attribute is not kept": (Xattrs, "set", _nothing_soon),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutants_are_found(mutant, monkeypatch):
    owner, name, broken = MUTANTS[mutant]
    for seed in range(1000, 1240):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, broken)
            found = tell(seed, S3cfs()).finding
        if found is not None and tell(seed, S3cfs()).finding is None:
            return
    pytest.fail("nobody noticed")
