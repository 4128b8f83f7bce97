"""A log that is not whole, checkpoints that are damaged or of another history, deaths while reading them."""
from __future__ import annotations

import pytest

from s3cfs import ids
from s3cfs.app.node import NodeOptions
from s3cfs.errors import Damaged, Diverged, ObjectMissing
from s3cfs.limits import Limits
from tests.sim.doors import Plan

from .kit import Life, Site, every, fill, filled, look, read_all, unsent

READ_ONLY = NodeOptions(read_only=True)


OFTEN = Limits(ride_max_bytes=0, checkpoint_record_bytes=every(4), checkpoint_part_bytes=1024)       # a checkpoint after every four records


def manifests(site: Site) -> list[str]:
    return sorted((key for key in site.bucket.objects if "/manifest-" in key), key=lambda key: ids.parse_checkpoint_key(key)[0])


def prune(site: Site, upto: int) -> None:
    """Remove log records up to that number."""
    for key in list(site.bucket.objects):
        if key.startswith("log/") and ids.parse_log_key(key)[3] <= upto:
            site.bucket.delete(key)


def many(site: Site) -> None:
    async def more(life: Life) -> None:
        await fill(life, "abcdefghijkl")
    site.live(more)
    assert len(manifests(site)) >= 2


def test_a_new_machine_starts_from_the_newest_checkpoint() -> None:
    site = Site(limits=OFTEN)
    many(site)
    newest = ids.parse_checkpoint_key(manifests(site)[-1])[0]

    async def starts(life: Life) -> None:
        async with life.node(READ_ONLY) as node:
            assert await read_all(node) == filled("abcdefghijkl")
        read = {int(call.key.rpartition("/")[2]) for call in life.taken() if call.operation == "get" and call.kind == "log"}
        assert min(read) > newest, "it read records that the checkpoint holds"

    site.live(starts, "new")


def test_checkpoint_log_and_writer_agree() -> None:
    site = Site(limits=OFTEN)
    many(site)
    here = site.live(look)
    by_checkpoint = site.live(look, "by checkpoint")
    for key in [key for key in site.bucket.objects if key.startswith("checkpoint/")]:
        site.bucket.delete(key)
    by_log = site.live(look, "by log")
    assert here == by_checkpoint == by_log


def test_behind_a_pruned_log() -> None:
    """A machine that is older than what is left of the log begins anew from a checkpoint."""
    site = Site(limits=OFTEN)
    site.live(fill)
    site.live(look, "old")

    async def more(life: Life) -> None:
        await fill(life, "fghijklm")

    site.live(more)
    newest = ids.parse_checkpoint_key(manifests(site)[-1])[0]
    prune(site, newest)
    expected = site.live(look)
    assert expected is not None and expected[0] == filled("abcdefghijklm")
    assert site.live(look, "old") == expected
    assert site.live(look, "new") == expected


def test_behind_a_pruned_log_with_changes_of_its_own() -> None:
    site = Site(limits=OFTEN)
    site.live(fill)
    site.live(unsent)

    async def more(life: Life) -> None:
        await fill(life, "fghijklm")

    site.live(more, "elsewhere")
    prune(site, ids.parse_checkpoint_key(manifests(site)[-1])[0])
    for _ in range(2):
        with pytest.raises(Diverged):
            site.live(look)


@pytest.mark.parametrize("what", ["manifest", "part", "part gone", "manifest of another commit", "all"])
@pytest.mark.parametrize("pruned", [False, True])
def test_a_damaged_newest_checkpoint(what: str, pruned: bool) -> None:
    """The one before it, or the log."""
    site = Site(limits=OFTEN)
    many(site)
    expected = site.live(look)
    found = manifests(site)
    if pruned:
        prune(site, ids.parse_checkpoint_key(found[0])[0])
    newest = found[-1].rpartition("/")[0] + "/"
    objects = site.bucket.objects
    for key in [key for key in list(objects) if key.startswith("checkpoint/" if what == "all" else newest)]:
        data = objects[key]
        flipped = data[:-1] + bytes([data[-1] ^ 1])
        if what == "all" or ("manifest-" in key) == (what == "manifest") and what in ("manifest", "part"):
            objects[key] = flipped
        elif what == "part gone" and "manifest-" not in key:
            del objects[key]
        elif what == "manifest of another commit" and "manifest-" in key:
            objects[key] = objects[found[0]]
    if what == "all" and pruned:
        with pytest.raises(ObjectMissing, match=r"log/main/\S+ is missing"):
            site.live(look, "new")
    else:
        assert site.live(look, "new") == expected


def test_a_checkpoint_of_another_history_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    site = Site(limits=OFTEN)
    many(site)
    other = Site(limits=OFTEN)

    async def others(life: Life) -> None:
        await fill(life, "zyxwvutsr")

    other.live(others, "elsewhere")
    expected = site.live(look)
    tip = expected[2] if expected else 0
    newest = ids.parse_checkpoint_key(manifests(site)[-1])[0]
    foreign = {key: data for key, data in other.bucket.objects.items()
               if key.startswith("checkpoint/") and newest < ids.parse_checkpoint_key(key)[0] <= tip}
    if not foreign:
        foreign = {key: data for key, data in other.bucket.objects.items() if key.startswith("checkpoint/")}
        for key in manifests(site):
            for part in [part for part in site.bucket.objects if part.startswith(key.rpartition("/")[0])]:
                site.bucket.delete(part)
    site.bucket.objects |= foreign
    caplog.clear()
    assert site.live(look, "new") == expected
    assert "another history" in caplog.text


@pytest.mark.parametrize("n", range(1, 7))
def test_a_missing_record_is_named(n: int) -> None:
    site = Site()
    site.live(fill)
    key = next(key for key in site.bucket.objects if key.startswith("log/") and key.endswith(f"/{n}"))
    site.bucket.delete(key)
    for _ in range(2):
        with pytest.raises(ObjectMissing, match=f"{key} is missing"):
            site.live(look, "new")


@pytest.mark.parametrize("n", range(1, 7))
def test_a_damaged_record_is_named(n: int) -> None:
    site = Site()
    site.live(fill)
    key = next(key for key in site.bucket.objects if key.startswith("log/") and key.endswith(f"/{n}"))
    site.bucket.objects[key] = site.bucket.objects[key][:-3] + b"..."
    with pytest.raises(Damaged, match=f"{key} is damaged"):
        site.live(look, "new")


def test_an_older_record_in_the_place_of_another() -> None:
    """A store that gives bytes of this filesystem, but not those."""
    site = Site()
    site.live(fill)
    keys = sorted((key for key in site.bucket.objects if key.startswith("log/")), key=lambda key: ids.parse_log_key(key)[3])
    site.bucket.objects[keys[4]] = site.bucket.objects[keys[3]]
    with pytest.raises(Damaged, match=keys[4]):
        site.live(look, "new")


# ---------------------------------------------------------------- never half

@pytest.mark.parametrize("kind", ["write", "sync", "store", "hop"])
def test_a_death_while_catching_up(kind: str) -> None:
    """Killed at points all over the catching up, and again, and again: in the end the state is right."""
    site = Site(limits=OFTEN)
    site.live(fill)
    site.live(look, "old")

    async def more(life: Life) -> None:
        await fill(life, "fghijkl")

    site.live(more)
    expected = site.live(look)
    start = site.drives["old"].copy()
    for pruned in (False, True):
        if pruned:
            prune(site, ids.parse_checkpoint_key(manifests(site)[-1])[0])
        for where in range(1, 60, 2 if kind != "write" else 5):
            site.drives["old"] = start.copy()
            finished = site.live(look, "old", plan=Plan(kind, where))
            if finished is not None and where > 3:
                break
            if where % 3 == 0:
                site.live(look, "old", plan=Plan(kind, 1 + where // 2))
            assert site.live(look, "old") == expected, f"{kind}:{where}"


@pytest.mark.parametrize("damage", ["checkpoint", "log after it"])
def test_the_last_whole_copy_is_not_thrown_away(damage: str) -> None:
    """Behind a pruned log, with nothing in the store to start over from: an error, and the local state stays for who can help."""
    site = Site(limits=OFTEN)
    site.live(fill)
    site.live(look, "old")

    async def more(life: Life) -> None:
        await fill(life, "fghijklm")

    site.live(more)
    site.limits = Limits(ride_max_bytes=0)                           # no checkpoint any more, and records after the last one
    site.live(lambda life: fill(life, "no"))
    newest = ids.parse_checkpoint_key(manifests(site)[-1])[0]
    objects = dict(site.bucket.objects)
    prune(site, newest + (damage == "log after it"))
    if damage == "checkpoint":
        for key in [key for key in site.bucket.objects if key.startswith("checkpoint/")]:
            site.bucket.objects[key] = site.bucket.objects[key][:-1]
    database = site.drive("old").names["meta.db"]
    for _ in range(3):
        with pytest.raises(ObjectMissing, match=r"log/main/\S+ is missing"):
            site.live(look, "old")
    assert site.drive("old").names["meta.db"] is database, "it was made anew"
    site.bucket.objects = objects
    assert (site.live(look, "old") or ({},))[0] == filled("abcdefghijklmno")
