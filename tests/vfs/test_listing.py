"""Reading directories: complete, in step with concurrent changes, positions that stay, bounded memory."""
from __future__ import annotations

import random
import sys
from bisect import bisect_right

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3cfs.errors import InvalidArgument, NotADirectory
from s3cfs.meta.types import Inode
from s3cfs.vfs.core import SetAttr
from s3cfs.vfs.listing import BLOCK, KEPT_BLOCKS, Listing
from tests.vfs.test_tree import file, folder
from tests.vfs.world import ROOT, World, drive


class Names:
    """children() of one directory, from a set."""

    def __init__(self, names: set[bytes]) -> None:
        self.names = set(names)
        self.read = 0

    @property
    def names(self) -> set[bytes]:
        return self._names

    @names.setter
    def names(self, names: set[bytes]) -> None:
        self._names, self._sorted = names, sorted(names)

    async def children(self, ino: int, after: bytes, limit: int) -> list[tuple[bytes, Inode]]:
        start = bisect_right(self._sorted, after)
        rows = self._sorted[start:start + limit]
        self.read += len(rows)
        return [(name, Inode(hash(name), 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, None, None)) for name in rows]


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
@pytest.mark.parametrize("count", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5])
def test_everything_once_in_order(count: int, limit: int) -> None:
    names = Names(names_of(count))
    entries = read_all(listing_of(names), limit=limit)
    assert [name for name, _ in entries] == sorted(names.names)
    assert len({cookie for _, cookie in entries}) == count and 0 not in {cookie for _, cookie in entries}


@pytest.mark.parametrize("fits", [1, 5, 22, 100])
def test_little_is_read_beyond_what_a_reply_takes(fits: int) -> None:
    names, cookie = Names(names_of(2000)), 0
    seen: list[bytes] = []
    listing = listing_of(names)
    while batch := drive(listing.read(cookie, 500)):
        seen += [name for name, _, _ in batch[:fits]]
        cookie = batch[:fits][-1][2]
    assert seen == sorted(names.names)
    assert names.read < 2000 * (1.2 + 4 / fits) + 600


def test_removing_what_was_listed_loses_nothing() -> None:
    """rm -rf: also when a reply was only partly used, and when the removal comes many replies later."""
    for lag in (1, 10, 3000):
        names, cookie = Names(names_of(3 * BLOCK + 100)), 0
        seen: list[bytes] = []
        everything = set(names.names)
        listing = listing_of(names)
        while batch := drive(listing.read(cookie, 64)):
            used = batch[:random.Random(len(seen)).randint(1, len(batch))]
            seen += [name for name, _, _ in used]
            cookie = used[-1][2]
            names.names -= set(seen[:-lag] if lag < 3000 else [])
        names.names -= set(seen)
        assert sorted(seen) == sorted(everything) and not names.names


def test_seek_to_any_position_handed_out() -> None:
    names = Names(names_of(10 * BLOCK))
    listing = listing_of(names)
    entries = read_all(listing)
    for at in random.Random(1).sample(range(len(entries)), 60) + [0, BLOCK - 1, BLOCK, len(entries) - 1]:
        cookie = entries[at][1]
        batch = drive(listing.read(cookie, 40))
        assert [(name, after) for name, _, after in batch] == entries[at + 1:at + 1 + len(batch)]
        assert batch or at == len(entries) - 1
    assert read_all(listing, entries[BLOCK + 3][1]) == entries[BLOCK + 4:]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_positions_stay_whatever_happens(data: st.DataObject) -> None:
    """At any time: seek to any cookie, read to the end: every name after it that existed throughout is seen, in order, once, with the
    cookie it had; none at or before it is (what came later may or may not be)."""
    universe = sorted(names_of(BLOCK * 7))
    numbers = random.Random(data.draw(st.integers(0, 2**32)))
    names = Names(set(numbers.sample(universe, BLOCK * 6)))
    listing = listing_of(names)
    throughout = set(names.names)
    known = {cookie: name for name, cookie in read_all(listing, limit=data.draw(st.sampled_from([3, 64, 500])))}
    for _ in range(data.draw(st.integers(1, 4))):
        removed = set(numbers.sample(sorted(names.names), min(len(names.names), data.draw(st.sampled_from([0, 1, 50, 1000])))))
        added = set(numbers.sample(universe, data.draw(st.sampled_from([0, 1, 50, 600]))))
        names.names = names.names - removed | added
        throughout -= removed
        cookie, name = numbers.choice(sorted(known.items()))
        entries = read_all(listing, cookie, data.draw(st.sampled_from([3, 64, 500])))
        seen = [found for found, _ in entries]
        assert seen == sorted(set(seen)) and (not seen or seen[0] > name)
        assert {found for found in throughout if found > name} <= set(seen) <= names.names | throughout
        for found, after in entries:
            assert known.setdefault(after, found) == found


def test_rewind_shows_what_is_there_now_and_old_positions_lose_nothing() -> None:
    names = Names(names_of(1000))
    listing = listing_of(names)
    old = read_all(listing)
    names.names |= {b"a new one"}
    names.names -= {b"file %06d" % number for number in range(500)}
    assert [name for name, _ in read_all(listing)] == sorted(names.names)
    assert [name for name, _ in read_all(listing, old[700][1])] == sorted(names.names), "of an earlier pass: all again"


def test_memory_of_a_large_directory() -> None:
    class Many(Names):
        def __init__(self) -> None: ...

        async def children(self, ino: int, after: bytes, limit: int) -> list[tuple[bytes, Inode]]:
            start = int(after[5:] or b"-1") + 1
            return [(b"file %09d" % number, inode) for number in range(start, min(start + limit, 200_000))]

    inode = Inode(1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, None, None)
    listing = listing_of(Many())
    count = sum(1 for _ in read_all(listing))
    assert count == 200_000
    sums = sum(sys.getsizeof(block.sums) for block in listing._blocks if block.sums is not None)
    assert sum(block.names is not None for block in listing._blocks) <= KEPT_BLOCKS + 1
    assert sums + len(listing._blocks) * 200 < 6 * count


def test_replies_are_never_older_than_the_moment(world: World) -> None:
    """The kernel believes attributes and names of a reply for an hour."""
    d = folder(world, 1, b"d")
    inodes = {b"%02d" % number: file(world, d, b"%02d" % number) for number in range(20)}
    handle = drive(world.vfs.opendir(d))
    first = drive(world.vfs.readdir(handle, 0, 500))
    assert [(name, inode.ino) for name, inode, _ in first] == sorted(inodes.items())
    drive(world.vfs.setattr(inodes[b"12"], SetAttr(mode=0o600), ROOT))
    drive(world.vfs.open(inodes[b"13"], 2))
    drive(world.vfs.write(inodes[b"13"], 0, b"12345"))
    drive(world.vfs.unlink(d, b"14"))
    drive(world.vfs.rename(d, b"00", d, b"14"))
    later = {name: inode for name, inode, _ in drive(world.vfs.readdir(handle, first[9][2], 500))}
    assert later[b"12"].mode & 0o777 == 0o600 and later[b"13"].size == 5 and later[b"14"].ino == inodes[b"00"]
    assert sorted(later) == [b"%02d" % number for number in range(10, 20)]


def test_handles(world: World) -> None:
    with pytest.raises(NotADirectory):
        drive(world.vfs.opendir(file(world, 1, b"f")))
    one, two = drive(world.vfs.opendir(1)), drive(world.vfs.opendir(1))
    assert drive(world.vfs.readdir(one, 0, 5)) == drive(world.vfs.readdir(two, 0, 5)) != []
    drive(world.vfs.releasedir(one))
    with pytest.raises(InvalidArgument):
        drive(world.vfs.readdir(one, 0, 5))
    assert drive(world.vfs.readdir(two, 0, 5))
