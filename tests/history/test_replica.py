"""The store's history read into a local database: from anywhere, over anything, and never half."""
from __future__ import annotations

import random
from dataclasses import replace

import pytest

from s3cfs import ids
from s3cfs.app.node import NodeOptions
from s3cfs.errors import Damaged, Diverged, RolledBack
from s3cfs.formats import record
from s3cfs.formats.record import Kind
from s3cfs.history.office import Takeover
from s3cfs.meta import Meta
from tests.sim.doors import Bucket, Plan

from .kit import KEYRING, Life, Site, content, fill, filled, fingerprint, look, read_all, unsent, write_file
from .seal import claim_over_last

FILES = 5


def test_from_every_local_commit() -> None:
    """A machine that saw the history up to any n comes to the same state as one that saw nothing."""
    site = Site()
    site.live(fill)
    whole = site.bucket
    _, expected, tip = site.live(look, "new") or (None, b"", 0)
    for moment in range(len(whole.history) + 1):
        site.bucket = whole.at(moment)
        machine = f"at-{moment}"
        known = site.live(look, machine)
        assert known is not None
        site.bucket = whole.copy()
        found = site.live(look, machine)
        assert found == (filled(), expected, tip), f"from commit {known[2]}"


def test_a_reader_writes_nothing() -> None:
    site = Site()
    site.live(fill)
    before = dict(site.bucket.objects)
    site.live(look, "reader")
    site.live(look, "here")
    assert site.bucket.objects == before


# ---------------------------------------------------------------- one's own records

async def one_more(life: Life) -> None:
    async with life.node(NodeOptions(takeover=Takeover.YES)) as node:
        await write_file(node, b"more", content(99))
        await node.flush()


@pytest.mark.parametrize("create_only", [True, False])
@pytest.mark.parametrize(("kind", "where"), [*(("store", where) for where in range(1, 45)), *(("sync", where) for where in range(1, 40, 2)),
                                             *(("write", where) for where in range(2, 120, 9))])
def test_a_death_anywhere_in_a_mount(kind: str, where: int, create_only: bool) -> None:
    """Of the process, or of the machine: the next mount goes on, nothing is there twice, and a new machine sees the same."""
    site = Site(Bucket(create_only=create_only))
    site.live(fill)
    finished = site.live(_finished(one_more), plan=Plan(kind, where))
    if where % 4 < 2:
        site.drive().power_cut(random.Random(where))
    again = site.live(_after_death)
    assert again is not None
    files, found = again
    assert files | {b"more": content(99)} == filled() | {b"more": content(99)}
    if finished:
        assert b"more" in files
    assert site.live(look, "new") == (files, found, again_tip(site))


def again_tip(site: Site) -> int:
    async def tip(life: Life) -> int:
        return (await life.history())[-1].n
    return site.live(tip) or 0


def _finished(main):
    async def wrapped(life: Life) -> bool:
        await main(life)
        return True
    return wrapped


async def _after_death(life: Life) -> tuple[dict[bytes, bytes], bytes]:
    async with life.node() as node:
        await node.flush()
        assert node.meta.outbox()[0] == 0
        found = await read_all(node), await fingerprint(node)
        assert not list(node.meta.audit.problems())
        tip = node.writer.tip.n if node.writer else 0
    assert [name for name in life.doors.disk.listdir("journal") if name.startswith("segment")] in ([], [f"segment-{tip + 1}"])
    return found


def test_a_record_that_never_arrived_is_made_again() -> None:
    site = Site()
    site.live(fill)
    site.live(unsent)

    async def next_mount(life: Life) -> None:
        async with life.node() as node:
            assert node.meta.outbox()[0] >= 1
            await node.flush()
            assert (await read_all(node))[b"mine"] == content(7)

    site.live(next_mount)
    files, _, _ = site.live(look, "new") or ({}, b"", 0)
    assert files == filled() | {b"mine": content(7)}


def test_ones_own_release_is_recognised() -> None:
    """Killed after the RELEASE is in the store and before its note: it carries no outbox."""
    site = Site()
    site.live(fill)

    async def main(life: Life) -> None:
        real = life.store.put

        def put(key: str, data: bytes, only_if_absent: bool = False) -> None:
            real(key, data, only_if_absent)
            life.incarnation.kill()
            life.incarnation.point("store")

        async with life.node() as node:
            life.store.put = put  # type: ignore[method-assign, assignment]
            assert node.commits.writing is not None
            await node.commits.writing.logbook.sign_off(final=False)

    site.live(main)

    async def next_mount(life: Life) -> list[Kind]:
        assert not any(name.startswith("segment-") for name in life.doors.disk.listdir("journal")), "it carries nothing to be kept"
        async with life.node() as node:
            assert await read_all(node) == filled()
        return [entry.kind for entry in await life.history()]

    kinds = site.live(next_mount)
    assert kinds is not None and kinds[-4:] == [Kind.SEAL, Kind.RELEASE, Kind.SEAL, Kind.RELEASE]


# ---------------------------------------------------------------- contradictions

def test_the_changes_of_another_over_ones_own_are_refused() -> None:
    """Diverged; what this machine holds stays, also after the third attempt, and nothing is written to the store."""
    site = Site()
    site.live(fill)
    site.live(unsent)
    site.live(one_more, "elsewhere")
    before = dict(site.bucket.objects)

    async def refused(life: Life) -> None:
        async with life.node():
            pass

    for _ in range(3):
        with pytest.raises(Diverged, match="kept"):
            site.live(refused)
    assert site.bucket.objects == before
    site.bucket = site.bucket.at(0)

    async def kept(life: Life) -> tuple[int, list[str]]:
        meta = Meta.open(life.doors, "meta.db", KEYRING.database_key())
        try:
            return meta.outbox()[0], life.doors.disk.listdir("journal")
        finally:
            meta.close()

    rows, journal = site.live(kept) or (0, [])
    assert rows >= 1 and any(name.endswith(".pack") for name in journal)


def test_a_store_that_went_back_is_noticed() -> None:
    site = Site()
    site.live(fill)
    whole = site.bucket
    for moment in range(len(whole.history)):
        site.bucket = whole.at(moment)
        with pytest.raises(RolledBack):
            site.live(look)


def test_another_history_is_noticed() -> None:
    """The store was put back and went on differently, past what this machine has seen."""
    site = Site()
    site.live(fill)
    whole = site.bucket
    early = next(moment for moment in range(len(whole.history)) if whole.at(moment).history[-1:] and
                 whole.history[moment - 1].key.startswith("log/"))
    site.bucket = whole.at(early)

    async def others(life: Life) -> None:
        await fill(life, "fghijklm")

    site.live(others, "elsewhere")
    with pytest.raises(Diverged, match="another copy"):
        site.live(look)


@pytest.mark.parametrize("moment", ["between", "before the claim", "after the claim"])
def test_the_late_record_of_the_process_before(moment: str) -> None:
    """Its put arrives between two mounts of this machine, or while the second takes office: it is recognised and counted once."""
    site = Site()
    site.live(fill)
    site.live(_late)
    assert len(site.bucket.flights) == 1
    flight = site.bucket.flights.pop()

    def arrive() -> None:
        site.bucket.put(flight.key, flight.data, True)

    if moment == "between":
        arrive()

    async def again(life: Life) -> list[Kind]:
        real = life.store.put

        def put(key: str, data: bytes, only_if_absent: bool = False) -> None:
            if key.startswith("log/") and moment == "before the claim":
                arrive()
            real(key, data, only_if_absent)
            if key.startswith("log/") and moment == "after the claim":
                arrive()

        life.store.put = put  # type: ignore[method-assign, assignment]
        async with life.node() as node:
            assert bool(node.meta.outbox()[0]) == (moment == "after the claim")
            await node.flush()
            assert (await read_all(node))[b"mine"] == content(7)
        return [entry.kind for entry in await life.history()]

    kinds = site.live(again)
    assert kinds is not None and kinds.count(Kind.COMMIT) == FILES + 1, kinds
    assert (site.live(look, "new") or ({},))[0] == filled() | {b"mine": content(7)}


async def _late(life: Life) -> None:
    async with life.node() as node:
        await write_file(node, b"mine", content(7))
        await node.commits.durable()
        real = life.store.put

        def put(key: str, data: bytes, only_if_absent: bool = False) -> None:
            if key.startswith("log/"):
                life.store.faults.late = 1.0
            try:
                real(key, data, only_if_absent)
            finally:
                if key.startswith("log/"):
                    life.incarnation.kill()

        life.store.put = put  # type: ignore[method-assign, assignment]
        await node.flush()


@pytest.mark.parametrize("later", [0, 3])
def test_a_record_that_was_read_and_never_acknowledged(later: int) -> None:
    """T2: read as the tip while its writer was being deposed; the history goes on without it, and so does this machine."""
    site = Site(Bucket(create_only=False))

    async def main(life: Life) -> None:
        async with life.node() as node:
            for name in "abc":
                await write_file(node, name.encode(), content(ord(name)))
                await node.flush()
            life.incarnation.kill()

    site.live(main)
    assert (site.live(look, "reader") or ({},))[0] == filled("abc")
    claim_over_last(site.bucket)
    if later:
        async def more(life: Life) -> None:
            await fill(life, "xyz"[:later])
        site.live(more, "elsewhere")
    for machine in ("reader", "new"):
        assert (site.live(look, machine) or ({},))[0] == filled("ab" + "xyz"[:later])


# ---------------------------------------------------------------- a log that somebody rearranged, sealed with the right key

def keys_of_log(site: Site) -> list[str]:
    """Oldest first."""
    return sorted((key for key in site.bucket.objects if key.startswith("log/")), key=lambda key: ids.parse_log_key(key)[3])


def test_a_record_that_the_next_one_does_not_name() -> None:
    """Whole, of the right place and number, and not the one that was there: the chain of hashes does not hold."""
    site = Site()
    site.live(fill)
    key = keys_of_log(site)[2]
    n = ids.parse_log_key(key)[3]
    sealer = KEYRING.sealer("record", 0)
    other = replace(record.decode(site.bucket.objects[key], n, sealer), changeset=b"")
    site.bucket.objects[key] = record.encode(other, KEYRING.sealer("record", other.epoch))
    with pytest.raises(Damaged, match=r"its hash is not the one"):
        site.live(look, "new")


def test_a_record_in_another_writers_folder() -> None:
    """Copied there it would be the newest; it says whose it is."""
    site = Site()
    site.live(fill)
    newest = keys_of_log(site)[-1]
    site.bucket.objects[ids.log_key(99, "f" * 16, ids.parse_log_key(newest)[3])] = site.bucket.objects[newest]
    with pytest.raises(Damaged, match="written for another place"):
        site.live(look, "new")
