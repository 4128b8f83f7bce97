"""The local database made anew from a checkpoint: beside what is there, never half used, and only where it is less to read."""
from __future__ import annotations

import random
from dataclasses import replace

import pytest

from s3cfs import ids
from s3cfs.app.node import NodeOptions
from s3cfs.app.opening import DATABASE, FRESH
from s3cfs.errors import Damaged, ObjectMissing
from s3cfs.history.localtip import LocalTip
from s3cfs.limits import Limits
from s3cfs.meta import Meta
from tests.sim.doors import Plan

from .kit import KEYRING, Life, Site, every, fill, filled, look, read_all, unsent

OFTEN = Limits(checkpoint_record_bytes=every(4), checkpoint_min_log_bytes=1 << 20, checkpoint_part_bytes=1024)
LETTERS = "abcdefghijklmnopqrst"


def grown(machine: str = "old") -> Site:
    """Fifteen records or more after what `machine` has seen, and checkpoints among them."""
    site = Site(limits=OFTEN)
    site.live(fill)
    site.live(look, machine)

    async def more(life: Life) -> None:
        await fill(life, LETTERS[5:])

    site.live(more)
    return site


def newest(site: Site) -> int:
    return max(ids.parse_checkpoint_key(key)[0] for key in site.bucket.objects if "/manifest-" in key)


def local_commit(site: Site, machine: str) -> int | None:
    """What meta.db of that machine holds; None: there is none."""
    async def read(life: Life) -> int | None:
        if not life.doors.disk.exists(DATABASE):
            return None
        meta = Meta.open(life.doors, DATABASE, KEYRING.database_key())
        try:
            return LocalTip.load(meta).n
        finally:
            meta.close()
    return site.live(read, machine)


async def read_records(life: Life) -> list[int]:
    """Numbers of the log records that a mount reads (and no file: what is in those may ride in a record)."""
    async with life.node(NodeOptions(read_only=True)) as node:
        assert not node.doors.disk.exists(FRESH)
    return sorted({ids.parse_log_key(call.key)[3] for call in life.taken() if call.operation == "get" and call.kind == "log"})


def test_old_local_state_begins_again_from_a_checkpoint() -> None:
    """Ten requests are worth more bytes than the checkpoint has; and then it is at the newest commit like any other."""
    site = grown()
    assert min(site.live(read_records, "old") or [0]) > newest(site)
    assert site.live(look, "old") == site.live(look, "new")


def test_it_follows_the_log_where_that_is_less() -> None:
    site = grown()
    before, there = local_commit(site, "old"), newest(site)
    site.limits = replace(OFTEN, checkpoint_min_log_bytes=1 << 30)
    read = site.live(read_records, "old") or []
    assert before is not None and before < there and read[0] == before + 1


def test_changes_of_its_own_are_never_left_behind() -> None:
    site = Site(limits=OFTEN)
    site.live(fill)
    site.live(unsent)

    async def goes_on(life: Life) -> dict[bytes, bytes]:
        async with life.node() as node:
            await node.flush()
            return await read_all(node)

    found = site.live(goes_on)
    assert found is not None and b"mine" in found


@pytest.mark.parametrize("what", ["part", "manifest", "log"])
def test_what_is_there_stays_when_the_checkpoint_is_damaged(what: str) -> None:
    """The one before, or the log; where the log is damaged too an error, and the old database is what it was."""
    site = grown()
    before = local_commit(site, "old")
    database = site.drive("old").names[DATABASE]
    objects = site.bucket.objects
    if what == "log":
        objects[next(key for key in objects if key.startswith("log/") and ids.parse_log_key(key)[3] == newest(site) + 1)] = b""
    else:
        for key in [key for key in objects if key.startswith("checkpoint/") and ("manifest-" in key) == (what == "manifest")]:
            objects[key] = objects[key][:-1] + b"?"
    if what == "log":
        for _ in range(2):
            with pytest.raises((Damaged, ObjectMissing)):
                site.live(look, "old")
        assert site.drive("old").names[DATABASE] is database
        assert FRESH not in site.drive("old").names
    else:
        assert (site.live(look, "old") or ({},))[0] == filled(LETTERS)
        assert site.drive("old").names[DATABASE] is database, "it followed the log"
    assert (local_commit(site, "old") or 0) >= (before or 0)


@pytest.mark.parametrize("machine", ["old", "new"])
@pytest.mark.parametrize("kind", ["write", "sync", "store", "hop"])
def test_a_half_loaded_database_is_never_used(kind: str, machine: str) -> None:
    """Killed anywhere on the way, with and without a power cut: meta.db is what it was, or at the newest commit."""
    site = grown("old")
    expected = site.live(look)
    assert expected is not None
    before = local_commit(site, "old")
    start = site.drives["old"].copy()
    for where in range(1, 900, 41 if kind == "write" else 13):
        site.drives.pop("new", None)
        site.drives["old"] = start.copy()
        finished = site.live(look, machine, plan=Plan(kind, where))
        if where % 2:
            site.drive(machine).power_cut(random.Random(where))
        assert local_commit(site, machine) in (None, 0, before if machine == "old" else 0, expected[2]), f"{kind}:{where}"
        if finished is not None:
            break
        assert site.live(look, machine) == expected, f"{kind}:{where}"
    else:
        raise AssertionError("it never came to its end")


def test_a_power_cut_while_the_new_one_takes_its_place() -> None:
    """SQLite's log of the old one is gone before the new one has its name: else it could come back, and be played into the new one."""
    site = grown("old")
    start = site.drives["old"].copy()

    async def changed(life: Life) -> None:
        """Something in the old one's log that its file does not have."""
        meta = Meta.open(life.doors, DATABASE, KEYRING.database_key())
        meta.local_set("something", bytes(50_000))
        meta.commit()
        meta.sync_wal()
        life.incarnation.kill()

    async def dies(life: Life) -> None:
        real = life.doors.disk.rename

        def rename(old: str, new: str) -> None:
            real(old, new)
            if (old, new) == (FRESH, DATABASE):
                life.incarnation.kill()
        life.doors.disk.rename = rename  # type: ignore[method-assign]
        await look(life)

    async def whole(life: Life) -> int:
        meta = Meta.open(life.doors, DATABASE, KEYRING.database_key())
        try:
            assert not meta.quick_check() and not list(meta.audit.problems())
            return LocalTip.load(meta).n
        finally:
            meta.close()

    before, expected = local_commit(site, "old"), site.live(look)
    assert expected is not None
    site.drives["old"] = start
    site.live(changed, "old")
    site.live(dies, "old")
    dead, seen = site.drives["old"], set()
    for seed in range(30):
        site.drives["old"] = dead.copy()
        site.drive("old").power_cut(random.Random(seed))
        seen.add(site.live(whole, "old"))
    assert seen == {before, expected[2]}
