"""Reading directories: complete, in step with concurrent changes, positions that stay, bounded memory."""
from __future__ import annotations

import random
from bisect import bisect_left

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3cfs.errors import InvalidArgument, NotADirectory
from s3cfs.meta.places import place
from s3cfs.meta.types import Inode
from s3cfs.vfs import listing as listing_module
from s3cfs.vfs.core import SetAttr
from s3cfs.vfs.listing import LAST_WINDOW, Listing
from tests.vfs.test_tree import file, folder
from tests.vfs.world import ROOT, World, drive


class Names:
    """children() of one directory, from a set."""

    def __init__(self, names: set[bytes]) -> None:
        self.names = names
        self.read = 0

    @property
    def names(self) -> set[bytes]:
        return self._names

    @names.setter
    def names(self, names: set[bytes]) -> None:
        self._names = set(names)
        self._sorted = sorted((vars(listing_module)["place"](name), name) for name in names)

    async def children(self, ino: int, after: int, limit: int) -> list[tuple[bytes, Inode]]:
        start = bisect_left(self._sorted, (after + 1, b""))
        rows = self._sorted[start:start + limit]
        self.read += len(rows)
        return [(name, Inode(2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, None, None)) for _, name in rows]


def listing_of(names: Names) -> Listing:
    return Listing(names, 1)            # type: ignore[arg-type]


def read_all(listing: Listing, cookie: int = 0, limit: int = 500) -> list[tuple[bytes, int]]:
    entries: list[tuple[bytes, int]] = []
    while batch := drive(listing.read(cookie, limit)):
        entries += [(name, after) for name, _, after in batch]
        cookie = batch[-1][2]
    return entries


def names_of(count: int) -> set[bytes]:
    return {b"file %06d" % number for number in range(count)}


@pytest.mark.parametrize("limit", [1, 7, 500, 5000])
@pytest.mark.parametrize("count", [0, 1, LAST_WINDOW, 3 * LAST_WINDOW + 5])
def test_everything_once_in_order(count: int, limit: int) -> None:
    names = Names(names_of(count))
    entries = read_all(listing_of(names), limit=limit)
    assert [name for name, _ in entries] == sorted(names.names, key=place)
    assert len({cookie for _, cookie in entries}) == count and 0 not in {cookie for _, cookie in entries}


@pytest.mark.parametrize("fits", [1, 5, 22, 100])
def test_little_is_read_beyond_what_a_reply_takes(fits: int) -> None:
    names, cookie = Names(names_of(2000)), 0
    seen: list[bytes] = []
    listing = listing_of(names)
    while batch := drive(listing.read(cookie, 500)):
        seen += [name for name, _, _ in batch[:fits]]
        cookie = batch[:fits][-1][2]
    assert seen == sorted(names.names, key=place)
    assert names.read < 2000 * (1.2 + 4 / fits) + 600


def test_removing_what_was_listed_loses_nothing() -> None:
    """rm -rf: also when a reply was only partly used, and when the removal comes many replies later."""
    for lag in (1, 10, 3000):
        names, cookie = Names(names_of(1600)), 0
        seen: list[bytes] = []
        everything = set(names.names)
        listing = listing_of(names)
        while batch := drive(listing.read(cookie, 64)):
            used = batch[:random.Random(len(seen)).randint(1, len(batch))]
            seen += [name for name, _, _ in used]
            cookie = used[-1][2]
            if lag < 3000:
                names.names = names.names - set(seen[:-lag])
        names.names -= set(seen)
        assert sorted(seen) == sorted(everything) and not names.names


def test_a_position_means_the_same_to_everybody() -> None:
    """Another handle (an NFS server's, a seekdir after a reopen), the same one after a rewind, and one of a later mount."""
    names = Names(names_of(3000))
    listing = listing_of(names)
    entries = read_all(listing)
    assert read_all(listing) == entries
    for at in [*random.Random(1).sample(range(len(entries)), 60), 0, len(entries) - 1]:
        for reader in (listing, listing_of(names)):
            assert read_all(reader, entries[at][1]) == entries[at + 1:]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_positions_stay_whatever_happens(data: st.DataObject) -> None:
    """Any handle, at any time: from any cookie to the end every name behind it that existed throughout is seen, once, with the cookie it
    had; none at or before it."""
    numbers = random.Random(data.draw(st.integers(0, 2**32)))
    universe = sorted(names_of(1500))
    names = Names(set(numbers.sample(universe, 1200)))
    throughout = set(names.names)
    known = {cookie: name for name, cookie in read_all(listing_of(names), limit=data.draw(st.sampled_from([3, 64, 500])))}
    listing = listing_of(names)
    for _ in range(data.draw(st.integers(1, 4))):
        removed = set(numbers.sample(sorted(names.names), min(len(names.names), data.draw(st.sampled_from([0, 1, 50, 700])))))
        added = set(numbers.sample(universe, data.draw(st.sampled_from([0, 1, 50, 600]))))
        names.names = names.names - removed | added
        throughout -= removed
        cookie, name = numbers.choice(sorted(known.items()))
        entries = read_all(data.draw(st.sampled_from([listing, listing_of(names)])), cookie, data.draw(st.sampled_from([3, 64, 500])))
        seen = [found for found, _ in entries]
        assert len(seen) == len(set(seen)) and name not in seen
        assert {found for found in throughout if place(found) > cookie} <= set(seen) <= names.names
        for found, after in entries:
            assert known.setdefault(after, found) == found


def test_names_that_share_a_place_are_never_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads on between two of them sees the first again."""
    monkeypatch.setattr(listing_module, "place", lambda name: 1 + int(name[1:]) // 3)
    names = Names({b"a%d" % number for number in range(20)})
    for limit in (1, 2, 3, 7, 100):
        entries = read_all(listing_of(names), limit=limit)
        assert sorted(name for name, _ in entries) == sorted(names.names)
    for at, (_, cookie) in enumerate(entries):
        seen = [name for name, _ in read_all(listing_of(names), cookie)]
        assert set(seen) >= {name for name, _ in entries[at + 1:]} and len(seen) == len(set(seen)) <= 20 - at + 2


def test_replies_are_never_older_than_the_moment(world: World) -> None:
    """The kernel believes attributes and names of a reply for an hour."""
    d = folder(world, 1, b"d")
    names = sorted([b"%02d" % number for number in range(20)], key=place)
    inodes = {name: file(world, d, name) for name in names}
    handle = drive(world.vfs.opendir(d))
    first = drive(world.vfs.readdir(handle, 0, 500))
    assert sorted((name, inode.ino) for name, inode, _ in first) == sorted(inodes.items())
    drive(world.vfs.setattr(inodes[names[12]], SetAttr(mode=0o600), ROOT))
    drive(world.vfs.open(inodes[names[13]], 2))
    drive(world.vfs.write(inodes[names[13]], 0, b"12345"))
    drive(world.vfs.unlink(d, names[14]))
    drive(world.vfs.rename(d, names[0], d, names[14]))
    later = {name: inode for name, inode, _ in drive(world.vfs.readdir(handle, first[9][2], 500))}
    assert later[names[12]].mode & 0o777 == 0o600 and later[names[13]].size == 5 and later[names[14]].ino == inodes[names[0]]
    assert list(later) == names[10:]


def test_handles(world: World) -> None:
    with pytest.raises(NotADirectory):
        drive(world.vfs.opendir(file(world, 1, b"f")))
    one, two = drive(world.vfs.opendir(1)), drive(world.vfs.opendir(1))
    assert drive(world.vfs.readdir(one, 0, 5)) == drive(world.vfs.readdir(two, 0, 5)) != []
    drive(world.vfs.releasedir(one))
    with pytest.raises(InvalidArgument):
        drive(world.vfs.readdir(one, 0, 5))
    assert drive(world.vfs.readdir(two, 0, 5))
